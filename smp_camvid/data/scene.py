"""Procedurally drawn road scenes: a street in metres, a camera, and painters for what stands there.

Colour says little about class here, on purpose: walls, asphalt, slabs, cars and clothes draw
their paint from one range, and light differs by drive.  What tells them apart is texture, shape
and where things stand, which is what a convolutional net can learn and a per-pixel classifier
cannot.  Labels are drawn with the same polygons as the picture, to the pixel.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt

from smp_camvid.data.classes import CAMVID32

Picture = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Rng = np.random.Generator

CLASS = {name: i for i, name in enumerate(CAMVID32.names)}
NEAR, FAR = 1.2, 90.0  # metres
TILE = 256  # pixels of the noise tile, repeated
Outline = Sequence[tuple[float, float]] | npt.NDArray[np.floating]
_SHIFT = 4  # fractional bits of a vertex in cv2.fillPoly
_ANGLES = np.linspace(0, 2 * np.pi, 20, endpoint=False)
_CIRCLE = np.stack([np.cos(_ANGLES), np.sin(_ANGLES)], axis=1)


@dataclass(frozen=True)
class Camera:
    """A pinhole camera: metres (x right, y up, z ahead) -> pixels."""

    size: tuple[int, int]
    horizon: float  # row, in pixels
    center: float  # column the road vanishes at, in pixels
    height: float = 1.4  # metres above the road
    offset: float = 0.0  # metres right of the middle of the road

    @property
    def focal(self) -> float:
        return 0.9 * self.size[1]

    def project(self, x: float, y: float, z: float) -> tuple[float, float]:
        z = max(z, NEAR)
        u = self.center + self.focal * (x - self.offset) / z
        return u, self.horizon + self.focal * (self.height - y) / z

    def ground(self) -> tuple[Floats, Floats]:
        """(x, z) in metres of every pixel below the horizon; z is beyond FAR above it."""
        rows = np.arange(self.size[0], dtype=np.float32)[:, None]
        columns = np.arange(self.size[1], dtype=np.float32)[None]
        below = np.maximum(rows - self.horizon, self.focal * self.height / (4 * FAR))
        z = np.broadcast_to(self.focal * self.height / below, self.size).astype(np.float32)
        return ((columns - self.center) * z / self.focal + self.offset).astype(np.float32), z


@dataclass(frozen=True)
class Light:
    """The weather of a drive."""

    sky: tuple[Floats, Floats]  # colours at the top and at the horizon, 0-1 RGB
    tint: Floats
    exposure: float
    haze: float
    sun: float  # direction of shadows, -1 to 1; 0 is overcast
    clouds: float = 0.1  # contrast of the sky


@dataclass
class Thing:
    """Something in the street, from `z` to `z + length` metres from its start.

    `paint(canvas, ahead)` gets the distance of `z`, negative once the camera is beside it.
    """

    z: float
    paint: Callable[[Canvas, float], None]
    length: float = 0.0

    def in_view(self, position: float) -> bool:
        """Ahead of a camera at `position`, not too far; single things also not in its face."""
        nearest = NEAR if self.length else 2 * NEAR
        return self.z + self.length - position > nearest and self.z - position < FAR


@dataclass
class Street:
    """A drive's world, in metres."""

    light: Light
    half_road: float
    half_walk: float
    things: list[Thing] = field(default_factory=list)
    paints: dict[str, Floats] = field(default_factory=dict)


@lru_cache
def noise_tile(scale: int) -> Floats:
    """Periodic noise of zero mean, about -1 to 1, with spots of `scale` pixels."""
    rng = np.random.default_rng(scale)
    small = rng.standard_normal((TILE // scale, TILE // scale)).astype(np.float32)
    wrapped = np.pad(small, 2, mode="wrap")
    size = wrapped.shape[0] * scale
    large = cv2.resize(wrapped, (size, size), interpolation=cv2.INTER_CUBIC)
    tile = np.asarray(large[2 * scale : 2 * scale + TILE, 2 * scale : 2 * scale + TILE])
    even: Floats = (tile / (3 * tile.std())).astype(np.float32)
    return even


def rgb(red: float, green: float, blue: float) -> Floats:
    """A colour, 0-1."""
    return np.array((red, green, blue), np.float32)


_PIGMENTS = np.array(
    [(0.95, 0.62, 0.5), (1.0, 0.88, 0.68), (0.66, 0.8, 1.0), (0.72, 0.92, 0.74), (1, 0.5, 0.45)],
    np.float32,
)  # brick, sand, slate, moss, red


def paint(rng: Rng) -> Floats:
    """The one range of colours that everything made by people is painted from: mostly greys."""
    bright, strength = rng.uniform(0.15, 0.85), rng.beta(1.0, 2.2)
    pigment = _PIGMENTS[rng.integers(len(_PIGMENTS))]
    return varied(bright * (1 - strength + strength * pigment), rng, 0.015)


def varied(color: Floats, rng: Rng, spread: float) -> Floats:
    """`color` with some of another mixed in."""
    mixed: Floats = np.clip(color + rng.normal(0, spread, 3), 0.04, 1).astype(np.float32)
    return mixed


class Canvas:
    """A picture and its label, painted back to front."""

    def __init__(self, camera: Camera, street: Street, rng: Rng) -> None:
        self.camera, self.street, self.rng = camera, street, rng
        self.image = np.zeros((*camera.size, 3), np.float32)
        self.label = np.zeros(camera.size, np.uint8)
        self.depth = camera.ground()[1].copy()  # metres, for the haze
        self.ahead = FAR  # of what is painted now

    def polygon(self, points: Outline, name: str | None, color: Floats, rough: float = 0.0) -> None:
        """Fills a polygon; `name` None leaves the label (detail of what is there already)."""
        if rough and self.ahead < 45:  # farther off, nobody sees the texture
            self._fill_rough(points, name, color, rough)
            return
        # the same outline through the same rasteriser: picture and label cannot differ
        vertices = [self._vertices(points)]
        cv2.fillPoly(self.image, vertices, color.tolist(), shift=_SHIFT)
        cv2.fillPoly(self.depth, vertices, self.ahead, shift=_SHIFT)
        if name is not None:
            cv2.fillPoly(self.label, vertices, CLASS[name], shift=_SHIFT)

    def ellipse(
        self, center: tuple[float, float], radii: tuple[float, float], name: str | None,
        color: Floats, rough: float = 0.0,
    ) -> None:  # fmt: skip
        self.polygon(_CIRCLE * radii + center, name, color, rough)

    def texture(
        self, corners: list[tuple[float, float]], texture: Floats, name: str, holes: bool = False
    ) -> None:
        """Lays `texture` `[h, w, 3]` over a quad (top left, top right, bottom right, bottom left).

        With `holes` pixels of negative value let what is behind shine through; the label is
        the whole quad all the same, as annotators draw fences.
        """
        mask, window = self._mask(corners)
        if mask is None:
            return
        rows, columns = window
        height, width = texture.shape[:2]
        source = np.array([(0, 0), (width, 0), (width, height), (0, height)], np.float32)
        target = np.array(corners, np.float32) - np.array((columns.start, rows.start), np.float32)
        matrix = cv2.getPerspectiveTransform(source, target)
        size = (columns.stop - columns.start, rows.stop - rows.start)
        warped = cv2.warpPerspective(texture, matrix, size, flags=cv2.INTER_LINEAR)
        painted = mask & (warped[..., 0] >= 0) if holes else mask
        self.image[window][painted] = warped[painted]
        self.label[window][mask] = CLASS[name]
        self.depth[window][mask] = self.ahead

    def _fill_rough(self, points: Outline, name: str | None, color: Floats, rough: float) -> None:
        mask, window = self._mask(points)
        if mask is None:
            return
        rows, columns = np.nonzero(mask)
        dy, dx = self.rng.integers(0, TILE, 2)
        shade = 1 + rough * noise_tile(4)[(rows + dy) % TILE, (columns + dx) % TILE]
        self.image[window][rows, columns] = color * shade[:, None]
        self.depth[window][mask] = self.ahead
        if name is not None:
            self.label[window][mask] = CLASS[name]

    def _vertices(self, points: Outline) -> npt.NDArray[np.int32]:
        width = self.camera.size[1]
        near = np.clip(np.asarray(points), -4 * width, 5 * width)
        vertices: npt.NDArray[np.int32] = np.round(near * 2**_SHIFT).astype(np.int32)
        return vertices

    def darken(self, points: Outline, factor: float) -> None:
        """Multiplies what is painted there; labels stay."""
        mask, window = self._mask(points)
        if mask is not None:
            self.image[window][mask] *= factor

    def _mask(self, points: Outline) -> tuple[npt.NDArray[np.bool_] | None, tuple[slice, slice]]:
        """The polygon's pixels inside its window of the picture; None when it is outside."""
        height, width = self.camera.size
        vertices = self._vertices(points)
        low, high = vertices.min(0) >> _SHIFT, -(-vertices.max(0) >> _SHIFT)
        left, top = max(int(low[0]), 0), max(int(low[1]), 0)
        right, bottom = min(int(high[0]) + 1, width), min(int(high[1]) + 1, height)
        window = (slice(top, bottom), slice(left, right))
        if right <= left or bottom <= top:
            return None, window
        mask = np.zeros((bottom - top, right - left), np.uint8)
        corner = np.array((left << _SHIFT, top << _SHIFT), np.int32)
        cv2.fillPoly(mask, [vertices - corner], 1, shift=_SHIFT)
        return mask.astype(bool), window


def draw(street: Street, camera: Camera, position: float, rng: Rng) -> tuple[Picture, Picture]:
    """The view from `position` metres down the street: RGB `[H, W, 3]` and 32-class labels."""
    canvas = Canvas(camera, street, rng)
    _sky(canvas)
    _ground(canvas, position)
    ahead = [t for t in street.things if t.in_view(position)]
    # Far ends first: what stands before a long facade is nearer than the facade's far end.
    for thing in sorted(ahead, key=lambda thing: -thing.z - thing.length):
        canvas.ahead = thing.z - position
        thing.paint(canvas, canvas.ahead)
    return _develop(canvas), canvas.label


def _sky(canvas: Canvas) -> None:
    height, width = canvas.camera.size
    top, low = canvas.street.light.sky
    down = np.clip(np.linspace(0, height / max(canvas.camera.horizon, 1), height), 0, 1)
    sky = top + (low - top) * down[:, None, None].astype(np.float32)
    dy, dx = canvas.rng.integers(0, TILE, 2)
    clouds = cv2.resize(np.roll(noise_tile(64), (dy, dx), (0, 1)), (width, height))
    canvas.image[:] = sky + canvas.street.light.clouds * clouds[..., None]
    canvas.label[:] = CLASS["Sky"]


def _ground(canvas: Canvas, position: float) -> None:
    street, camera = canvas.street, canvas.camera
    below = slice(max(int(camera.horizon) + 1, 0), None)
    x, z = (plane[below] for plane in camera.ground())
    image, label = canvas.image[below], canvas.label[below]
    along = z + np.float32(position)
    far = np.clip(1.5 - z / 40, 0, 1)  # fine texture melts into the distance
    stains = noise_tile(32)[_wrap(along * 12), _wrap(x * 12)]
    side = np.abs(x)
    strips = {
        "Road": side <= street.half_road,
        "Sidewalk": (side > street.half_road) & (side <= street.half_walk),
        "VegetationMisc": side > street.half_walk,
    }
    for name, strip in strips.items():
        sx, sz, fade = x[strip], along[strip], far[strip]
        shade = 1 + 0.10 * stains[strip]
        if name == "VegetationMisc":
            shade += 0.45 * noise_tile(4)[_wrap(sz * 30), _wrap(sx * 30)]
        else:
            grain = noise_tile(1)[_wrap(sz * 40), _wrap(sx * 40)] * fade
            shade += (0.16 if name == "Road" else 0.08) * grain
        if name == "Sidewalk":
            joint = 0.06 + z[strip] / 300
            slabs = (np.mod(sx, 0.75) < 0.06) | (np.mod(sz, 0.75) < joint)
            kerb = np.abs(sx) < street.half_road + 0.14
            shade += 0.25 * kerb - 0.3 * slabs * fade
        image[strip] = street.paints[name] * shade[:, None]
        label[strip] = CLASS[name]
    dashes = (side < 0.09) & (np.mod(along, 6) < 3)
    edges = np.abs(side - street.half_road + 0.4) < 0.06
    lines = (dashes | edges) & (z < 45)
    image[lines] = 0.85 * (1 + 0.3 * stains[lines, None])
    label[lines] = CLASS["LaneMkgsDriv"]


def _wrap(values: Floats) -> npt.NDArray[np.int64]:
    return np.floor(values).astype(np.int64) % TILE  # float32 mod can round up to TILE


def _develop(canvas: Canvas) -> Picture:
    """Haze, light, a lens that is not perfect, and the noise of a sensor."""
    light, rng = canvas.street.light, canvas.rng
    image = canvas.image
    veil = np.float32(light.haze) * np.clip(canvas.depth / FAR, 0, 1)
    veil[canvas.label == CLASS["Sky"]] = 0
    image *= (1 - veil)[..., None]
    image += veil[..., None] * light.sky[1]
    # a camera's own exposure and white balance wander from frame to frame
    gain = light.tint * light.exposure * rng.uniform(0.8, 1.2) * rng.normal(1, 0.02, 3)
    image *= gain.astype(np.float32)
    image = cv2.GaussianBlur(image, (0, 0), 0.7)
    image += np.float32(0.018) * rng.standard_normal(image.shape, np.float32)
    picture: Picture = (np.clip(image, 0, 1) * 255).astype(np.uint8)
    return picture
