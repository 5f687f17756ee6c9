"""Procedurally drawn road scenes: a street in metres, a camera, and painters for what stands there.

Colour says little about class here, on purpose: walls, asphalt, slabs, cars and clothes draw
their paint from one range, and light differs by drive.  What tells them apart is texture, shape
and where things stand, which is what a convolutional net can learn and a per-pixel classifier
cannot.  Labels are drawn with the same polygons as the picture, to the pixel.
"""

from __future__ import annotations

from collections.abc import Callable
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


@dataclass
class Thing:
    """Something that stands in the street at distance `z` from the start of the drive."""

    z: float
    paint: Callable[[Canvas, float], None]


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
    return (tile / (3 * tile.std())).astype(np.float32)


def rgb(red: float, green: float, blue: float) -> Floats:
    """A colour, 0-1."""
    return np.array((red, green, blue), np.float32)


def paint(rng: Rng) -> Floats:
    """The one range of colours that everything made by people is painted from."""
    grey = rng.uniform(0.2, 0.75)
    return varied(np.full(3, grey, np.float32), rng, 0.06)


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

    def polygon(
        self, points: list[tuple[float, float]], name: str | None, color: Floats, rough: float = 0.0
    ) -> None:
        """Fills a polygon; `name` None leaves the label (detail of what is there already)."""
        mask, window = self._mask(points)
        if mask is None:
            return
        self.fill(mask, window, name, color, rough)

    def ellipse(
        self, center: tuple[float, float], radii: tuple[float, float], name: str | None,
        color: Floats, rough: float = 0.0,
    ) -> None:  # fmt: skip
        angles = np.linspace(0, 2 * np.pi, 20, endpoint=False)
        points = [
            (center[0] + radii[0] * np.cos(a), center[1] + radii[1] * np.sin(a)) for a in angles
        ]
        self.polygon(points, name, color, rough)

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
        self.image[window][painted] = np.maximum(warped[painted], 0)
        self.label[window][mask] = CLASS[name]
        self.depth[window][mask] = self.ahead

    def fill(
        self, mask: npt.NDArray[np.bool_], window: tuple[slice, slice], name: str | None,
        color: Floats, rough: float,
    ) -> None:  # fmt: skip
        shade = np.ones(mask.shape, np.float32)
        if rough:
            dy, dx = self.rng.integers(0, TILE, 2)
            tile = np.roll(noise_tile(4), (dy, dx), (0, 1))
            rows = np.arange(mask.shape[0]) % TILE
            columns = np.arange(mask.shape[1]) % TILE
            shade += rough * tile[rows[:, None], columns]
        self.image[window][mask] = (color * shade[..., None])[mask]
        self.depth[window][mask] = self.ahead
        if name is not None:
            self.label[window][mask] = CLASS[name]

    def _mask(
        self, points: list[tuple[float, float]]
    ) -> tuple[npt.NDArray[np.bool_] | None, tuple[slice, slice]]:
        """The polygon's pixels inside its window of the picture; None when it is outside."""
        height, width = self.camera.size
        array = np.clip(np.array(points), -4 * width, 5 * width)
        low, high = np.floor(array.min(0)), np.ceil(array.max(0))
        left, top = max(int(low[0]), 0), max(int(low[1]), 0)
        right, bottom = min(int(high[0]) + 1, width), min(int(high[1]) + 1, height)
        window = (slice(top, bottom), slice(left, right))
        if right <= left or bottom <= top:
            return None, window
        mask = np.zeros((bottom - top, right - left), np.uint8)
        shifted = np.round((array - (left, top)) * 16).astype(np.int32)
        cv2.fillPoly(mask, [shifted], 1, shift=4)
        return mask.astype(bool), window


def draw(street: Street, camera: Camera, position: float, rng: Rng) -> tuple[Picture, Picture]:
    """The view from `position` metres down the street: RGB `[H, W, 3]` and 32-class labels."""
    canvas = Canvas(camera, street, rng)
    _sky(canvas)
    _ground(canvas, position)
    ahead = [thing for thing in street.things if NEAR < thing.z - position < FAR]
    for thing in sorted(ahead, key=lambda thing: -thing.z):
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
    canvas.image[:] = sky + 0.12 * np.maximum(clouds, 0)[..., None]
    canvas.label[:] = CLASS["Sky"]


def _ground(canvas: Canvas, position: float) -> None:
    street, camera = canvas.street, canvas.camera
    x, z = camera.ground()
    along = z + position
    rows = np.arange(camera.size[0])[:, None] > camera.horizon
    rows = np.broadcast_to(rows, camera.size)
    far = np.clip(1.5 - z / 40, 0, 1)  # fine texture melts into the distance
    grain = noise_tile(1)[_wrap(along * 40), _wrap(x * 40)] * far
    stains = noise_tile(32)[_wrap(along * 12), _wrap(x * 12)]
    slabs = ((np.mod(x, 0.75) < 0.06) | (np.mod(along, 0.75) < 0.06 + z / 300)) * far
    grass = noise_tile(4)[_wrap(along * 30), _wrap(x * 30)]
    walk = np.abs(x) > street.half_road
    verge = np.abs(x) > street.half_walk
    kerb = np.abs(np.abs(x) - street.half_road) < 0.12
    for mask, name, shade in (
        (rows & ~walk, "Road", 1 + 0.16 * grain + 0.10 * stains),
        (rows & walk, "Sidewalk", 1 + 0.06 * grain - 0.3 * slabs + 0.25 * kerb),
        (rows & verge, "VegetationMisc", 1 + 0.45 * grass),
    ):
        canvas.image[mask] = (street.paints[name] * shade[..., None])[mask]
        canvas.label[mask] = CLASS[name]
    dashes = (np.abs(x) < 0.09) & (np.mod(along, 6) < 3)
    edges = np.abs(np.abs(x) - street.half_road + 0.4) < 0.06
    lines = rows & (dashes | edges) & (z < 45)
    canvas.image[lines] = 0.85
    canvas.label[lines] = CLASS["LaneMkgsDriv"]


def _wrap(values: Floats) -> npt.NDArray[np.int64]:
    return np.floor(values).astype(np.int64) % TILE  # float32 mod can round up to TILE


def _develop(canvas: Canvas) -> Picture:
    """Haze, light, a lens that is not perfect, and the noise of a sensor."""
    light, rng = canvas.street.light, canvas.rng
    far = np.clip(canvas.depth / FAR, 0, 1) * (canvas.label != CLASS["Sky"])
    image = canvas.image + light.haze * far[..., None] * (light.sky[1] - canvas.image)
    image = image * light.tint * light.exposure
    image = cv2.GaussianBlur(image, (0, 0), 0.7)
    image += rng.normal(0, 0.018, image.shape).astype(np.float32)
    picture: Picture = (np.clip(image, 0, 1) * 255).astype(np.uint8)
    return picture
