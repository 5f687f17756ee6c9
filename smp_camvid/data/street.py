"""What stands in a drawn street: houses, trees, poles, signs, fences, cars, people.

Each maker returns a Thing whose painter knows its own size in metres; `lay_out` puts a drive's
worth of them along the road.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from smp_camvid.data.scene import (
    Canvas,
    Floats,
    Light,
    Rng,
    Street,
    Thing,
    noise_tile,
    paint,
    rgb,
    varied,
)

Point = tuple[float, float]


def box(canvas: Canvas, x: float, z: float, width: float, low: float, high: float) -> list[Point]:
    """An upright rectangle facing the camera: top left, top right, bottom right, bottom left."""
    left, right = x - width / 2, x + width / 2
    corners = ((left, high), (right, high), (right, low), (left, low))
    return [canvas.camera.project(cx, cy, z) for cx, cy in corners]


def wall(canvas: Canvas, x: float, near: float, far: float, low: float, high: float) -> list[Point]:
    """An upright rectangle along the road, from distance `near` to `far`."""
    corners = ((near, high), (far, high), (far, low), (near, low))
    return [canvas.camera.project(x, cy, cz) for cz, cy in corners]


def shadow(canvas: Canvas, x: float, z: float, width: float, length: float) -> None:
    """Darkens the ground beside a thing where the sun shines; labels stay."""
    sun = canvas.street.light.sun
    if not sun:
        return
    reach = length * sun
    corners = (
        (x - width / 2, z),
        (x + width / 2, z),
        (x + width / 2 + reach, z + 0.6),
        (x - width / 2 + reach, z + 0.6),
    )
    mask, window = canvas._mask([canvas.camera.project(cx, 0, cz) for cx, cz in corners])
    if mask is not None:
        canvas.image[window][mask] *= 0.6


def house(rng: Rng, side: int, z: float, length: float, distance: float) -> Thing:
    """A facade along the road with a window grid, and the gable that faces the camera."""
    height, depth = rng.uniform(5, 13), rng.uniform(6, 10)
    facade = _facade(rng, length, height)
    gable = facade[:, : max(8, facade.shape[1] // 3)] * np.float32(rng.uniform(0.7, 0.95))
    x = side * distance

    def draw(canvas: Canvas, ahead: float) -> None:
        middle = x + side * depth / 2
        canvas.texture(box(canvas, middle, ahead, depth, 0, height), gable, "Building")
        near = max(ahead, 1.5)
        canvas.texture(wall(canvas, x, near, ahead + length, 0, height), facade, "Building")

    return Thing(z, draw)


def _facade(rng: Rng, length: float, height: float) -> Floats:
    """A flat drawing, 16 pixels a metre: courses of brick, rows of windows, a door."""
    rows, columns = int(height * 16), int(length * 16)
    texture = np.ones((rows, columns, 3), np.float32) * paint(rng)
    noise = np.tile(noise_tile(2), (rows // 256 + 1, columns // 256 + 1))[:rows, :columns]
    texture *= 1 + 0.12 * noise[..., None]
    texture[::6] *= 0.88
    glass, frame = paint(rng) * 0.45, np.clip(paint(rng) * 1.3, 0, 1)
    storey, bay = int(rng.uniform(2.6, 3.4) * 16), int(rng.uniform(1.8, 3.2) * 16)
    for top in range(8, rows - storey // 2, storey):
        for left in range(bay // 4, columns - bay // 2, bay):
            bottom, right = top + storey * 5 // 9, left + bay // 2
            texture[top:bottom, left:right] = frame
            texture[top + 3 : bottom - 3, left + 3 : right - 3] = glass * rng.uniform(0.7, 1.4)
    clipped: Floats = np.clip(texture, 0, 1)
    return clipped


def tree(rng: Rng, x: float, z: float) -> Thing:
    """A trunk and a crown of leafy balls."""
    height, radius = rng.uniform(4, 8), rng.uniform(1.2, 2.4)
    bark = rgb(0.3, 0.25, 0.2) * np.float32(rng.uniform(0.7, 1.2))
    leaf = rgb(0.26, 0.34, 0.2) * np.float32(rng.uniform(0.6, 1.5))
    leaf = (leaf * rng.uniform(0.75, 1.25, 3)).astype(np.float32)
    balls = rng.normal(0, 0.55, (9, 2))

    def draw(canvas: Canvas, ahead: float) -> None:
        shadow(canvas, x, ahead, radius, radius * 2)
        canvas.polygon(box(canvas, x, ahead, 0.3, 0, height - radius), "Tree", bark, 0.3)
        scale = canvas.camera.focal / ahead
        for dx, dy in balls:
            center = canvas.camera.project(x + dx * radius, height + dy * radius * 0.8, ahead)
            size = radius * 0.62 * scale
            shade = np.float32(1 + 0.35 * dy)
            canvas.ellipse(center, (size, size * 0.9), "Tree", leaf * shade, 0.55)

    return Thing(z, draw)


def pole(rng: Rng, x: float, z: float, side: int) -> Thing:
    """A lamp post, sometimes with a sign or a traffic light on it."""
    height, color = rng.uniform(4.5, 7), paint(rng) * np.float32(0.7)
    kind = rng.choice(["lamp", "sign", "light"], p=[0.35, 0.45, 0.2])
    board, width = varied(paint(rng), rng, 0.15), rng.uniform(0.7, 1.3)

    def draw(canvas: Canvas, ahead: float) -> None:
        top = height if kind == "lamp" else 3.4
        canvas.polygon(box(canvas, x, ahead, 0.17, 0, top), "Column_Pole", color, 0.1)
        if kind == "lamp":
            arm = box(canvas, x - side * 0.6, ahead, 1.3, top - 0.15, top)
            canvas.polygon(arm, "Column_Pole", color)
        elif kind == "sign":
            _sign(canvas, x, ahead, width, board)
        else:
            _traffic_light(canvas, x, ahead)

    return Thing(z, draw)


def _sign(canvas: Canvas, x: float, ahead: float, width: float, board: Floats) -> None:
    low, high = 2.5, 2.5 + width
    center = canvas.camera.project(x, (low + high) / 2, ahead)
    size = width / 2 * canvas.camera.focal / ahead
    canvas.ellipse(center, (size, size), "SignSymbol", board)
    canvas.ellipse(center, (size * 0.72, size * 0.72), None, rgb(0.92, 0.92, 0.9))
    canvas.polygon(
        box(canvas, x, ahead, width * 0.5, low + width * 0.42, low + width * 0.58),
        None,
        board * 0.5,
    )


def _traffic_light(canvas: Canvas, x: float, ahead: float) -> None:
    canvas.polygon(box(canvas, x, ahead, 0.5, 2.2, 3.6), "TrafficLight", rgb(0.1, 0.1, 0.1))
    lamp = int(canvas.rng.integers(3))
    for i, color in enumerate(((0.9, 0.15, 0.1), (0.95, 0.7, 0.1), (0.15, 0.85, 0.4))):
        center = canvas.camera.project(x, 3.35 - 0.45 * i, ahead)
        size = 0.17 * canvas.camera.focal / ahead
        canvas.ellipse(center, (size, size), None, rgb(*color) * (1.0 if i == lamp else 0.35))


def fence(rng: Rng, side: int, z: float, length: float, distance: float) -> Thing:
    """Bars along the pavement; what is behind shows through, the label is the whole fence."""
    high = rng.uniform(0.9, 1.6)
    rows, columns = 48, int(length * 24)
    texture = np.full((rows, columns, 3), -1, np.float32)
    color = paint(rng)
    step = int(rng.integers(8, 13))
    for left in range(0, columns, step):
        texture[:, left : left + max(3, step // 3)] = color
    texture[2:7], texture[-9:-4] = color * 0.9, color * 0.8

    def draw(canvas: Canvas, ahead: float) -> None:
        corners = wall(canvas, side * distance, max(ahead, 1.5), ahead + length, 0, high)
        canvas.texture(corners, texture, "Fence", holes=True)

    return Thing(z, draw)


_CARS = (  # class, width, length, body height, roof height; metres
    ("Car", 1.75, 4.2, 0.85, 1.45),
    ("SUVPickupTruck", 1.9, 4.7, 1.05, 1.85),
    ("Truck_Bus", 2.4, 8.0, 2.9, 3.1),
)


def car(rng: Rng, x: float, z: float) -> Thing:
    """A body, a cabin with windows, wheels and lights; any colour, the sky's too."""
    name, width, length, body, roof = _CARS[int(rng.choice(3, p=[0.7, 0.18, 0.12]))]
    color = varied(paint(rng), rng, 0.2)
    lamp = rgb(0.8, 0.1, 0.1) if x > 0 else rgb(0.95, 0.95, 0.8)
    glass, black = rgb(0.12, 0.14, 0.16), rgb(0.06, 0.06, 0.06)

    def draw(canvas: Canvas, ahead: float) -> None:
        ahead = max(ahead, 3.0)
        shadow(canvas, x, ahead, width, 1.5)
        inner = x - np.sign(x) * width / 2  # the flank that the camera sees
        far = ahead + length
        canvas.polygon(wall(canvas, inner, ahead, far, 0.25, body), name, color * np.float32(0.8))
        cabin = wall(canvas, inner, ahead + 0.15 * length, far - 0.1 * length, body, roof)
        canvas.polygon(cabin, name, color * np.float32(0.75))
        canvas.polygon(_shrunk(cabin, 0.75), None, glass)
        for part in (0.2, 0.8):
            _wheel(canvas, inner, ahead + part * length, name)
        canvas.polygon(box(canvas, x, ahead, width, 0.2, body), name, color, 0.05)
        canvas.polygon(box(canvas, x, ahead + 0.2, width * 0.88, body, roof), name, color)
        pane = box(canvas, x, ahead + 0.2, width * 0.74, body + 0.06, roof - 0.12)
        canvas.polygon(pane, None, glass)
        for side in (-1, 1):
            light = box(canvas, x + side * width * 0.38, ahead, width * 0.16, 0.6, 0.78)
            canvas.polygon(light, None, lamp)
            canvas.polygon(box(canvas, x + side * width * 0.38, ahead, 0.22, 0, 0.3), name, black)

    return Thing(z, draw)


def _wheel(canvas: Canvas, x: float, z: float, name: str) -> None:
    center = canvas.camera.project(x, 0.32, z)
    size = 0.33 * canvas.camera.focal / z
    canvas.ellipse(center, (size * 0.5, size), name, rgb(0.05, 0.05, 0.05))


def _shrunk(points: list[Point], factor: float) -> list[Point]:
    middle = np.mean(points, axis=0)
    return [tuple(middle + factor * (np.array(p) - middle)) for p in points]


def person(rng: Rng, x: float, z: float) -> Thing:
    """Legs, coat and head; some are children."""
    child = rng.random() < 0.2
    name, tall = (
        ("Child", rng.uniform(1.0, 1.35)) if child else ("Pedestrian", rng.uniform(1.55, 1.9))
    )
    coat, trousers = (varied(paint(rng), rng, 0.15) for _ in range(2))
    skin = rgb(0.75, 0.58, 0.48) * np.float32(rng.uniform(0.5, 1.1))
    stride = rng.uniform(0.1, 0.3)

    def draw(canvas: Canvas, ahead: float) -> None:
        shadow(canvas, x, ahead, 0.4, tall)
        at = canvas.camera.project
        for foot in (-stride, stride):
            leg = [
                at(x - 0.12, 0.5 * tall, ahead),
                at(x + 0.12, 0.5 * tall, ahead),
                at(x + foot + 0.08, 0, ahead),
                at(x + foot - 0.08, 0, ahead),
            ]
            canvas.polygon(leg, name, trousers)
        canvas.polygon(box(canvas, x, ahead, 0.46, 0.45 * tall, 0.85 * tall), name, coat, 0.1)
        size = 0.075 * tall * canvas.camera.focal / ahead
        canvas.ellipse(at(x, 0.92 * tall, ahead), (size * 0.85, size * 1.1), name, skin)

    return Thing(z, draw)


def cyclist(rng: Rng, x: float, z: float) -> Thing:
    """A bicycle seen from the side, and who rides it; the label is their outline, as annotated."""
    coat = varied(paint(rng), rng, 0.2)
    frame, skin = paint(rng), rgb(0.72, 0.56, 0.46)
    rubber = rgb(0.07, 0.07, 0.07)

    def draw(canvas: Canvas, ahead: float) -> None:
        shadow(canvas, x, ahead, 1.2, 1.0)
        at, scale = canvas.camera.project, canvas.camera.focal / ahead
        for dx in (-0.52, 0.52):
            canvas.ellipse(
                at(x + dx, 0.35, ahead), (0.35 * scale, 0.35 * scale), "Bicyclist", rubber
            )
            canvas.ellipse(
                at(x + dx, 0.35, ahead),
                (0.24 * scale, 0.24 * scale),
                None,
                rgb(0.5, 0.5, 0.5),
            )
        diamond = [
            at(x - 0.5, 0.38, ahead),
            at(x - 0.15, 0.95, ahead),
            at(x + 0.45, 0.95, ahead),
            at(x + 0.1, 0.3, ahead),
        ]
        canvas.polygon(diamond, "Bicyclist", frame)
        torso = [
            at(x - 0.3, 0.9, ahead),
            at(x + 0.05, 0.9, ahead),
            at(x + 0.4, 1.5, ahead),
            at(x, 1.6, ahead),
        ]
        canvas.polygon(torso, "Bicyclist", coat, 0.1)
        canvas.ellipse(at(x + 0.28, 1.72, ahead), (0.13 * scale, 0.15 * scale), "Bicyclist", skin)

    return Thing(z, draw)


def bin_(rng: Rng, x: float, z: float) -> Thing:
    """Something nobody annotated: void."""
    color, high = paint(rng), rng.uniform(0.7, 1.2)

    def draw(canvas: Canvas, ahead: float) -> None:
        canvas.polygon(box(canvas, x, ahead, 0.6, 0, high), "Void", color, 0.2)

    return Thing(z, draw)


def light(rng: Rng, dusk: bool) -> Light:
    """A drive's weather: clear, overcast or dusk."""
    if dusk:
        top, low = rgb(0.35, 0.38, 0.5), rgb(0.75, 0.6, 0.5)
        tint = rgb(1.05, 0.95, 0.9)
        return Light((top, low), tint, float(rng.uniform(0.6, 0.75)), 0.5, 0.0)
    clear = rng.random() < 0.6
    top = rgb(0.45, 0.6, 0.8) if clear else rgb(0.72, 0.74, 0.78)
    tint = np.clip(rng.normal(1, 0.05, 3), 0.85, 1.15).astype(np.float32)
    sun = float(rng.choice([-1, 1]) * rng.uniform(0.5, 1)) if clear else 0.0
    haze = float(rng.uniform(0.15, 0.4))
    return Light((top, rgb(0.85, 0.87, 0.88)), tint, float(rng.uniform(0.85, 1.1)), haze, sun)


def lay_out(rng: Rng, length: float, dusk: bool = False) -> Street:
    """A street of `length` metres with everything in it."""
    half_road = rng.uniform(3.2, 4.4)
    half_walk = half_road + rng.uniform(1.8, 3.0)
    street = Street(light(rng, dusk), float(half_road), float(half_walk))
    grey = rng.uniform(0.32, 0.5)
    street.paints = {
        "Road": (grey + rng.normal(0, 0.012, 3)).astype(np.float32),
        "Sidewalk": (grey + rng.uniform(-0.02, 0.14) + rng.normal(0, 0.015, 3)).astype(np.float32),
        "VegetationMisc": rgb(0.33, 0.37, 0.26) * np.float32(rng.uniform(0.8, 1.2)),
    }
    for side in (-1, 1):
        _line_side(street, rng, side, length)
    _populate(street, rng, length)
    return street


def _line_side(street: Street, rng: Rng, side: int, length: float) -> None:
    """Houses with gaps; trees and fences in the gaps and along the pavement."""
    z = 0.0
    while z < length:
        extent = rng.uniform(8, 18)
        if rng.random() < 0.72:
            setback = street.half_walk + rng.uniform(0.2, 2.5)
            street.things.append(house(rng, side, z, extent, setback))
        else:
            for _ in range(3):
                where = side * (street.half_walk + rng.uniform(0.5, 6))
                street.things.append(tree(rng, where, z + rng.uniform(0, extent)))
        if rng.random() < 0.35:
            at = street.half_walk - (
                0.1 if rng.random() < 0.7 else street.half_walk - street.half_road - 0.2
            )
            street.things.append(fence(rng, side, z, extent * 0.8, at))
        z += extent + rng.uniform(0, 2)


# maker, things a metre, and the strip they stand in: on the road, or on the pavement
_CROWD: tuple[tuple[Callable[..., Thing], float, str], ...] = (
    (car, 1 / 13, "road"),
    (person, 1 / 7, "walk"),
    (cyclist, 1 / 18, "edge"),
    (pole, 1 / 9, "kerb"),
    (tree, 1 / 22, "walk"),
    (bin_, 1 / 40, "walk"),
)


def _populate(street: Street, rng: Rng, length: float) -> None:
    road, walk = street.half_road, street.half_walk
    strips = {
        "road": (road - 2.3, road - 1.0),
        "walk": (road + 0.5, walk - 0.3),
        "edge": (road - 1.4, road + 0.8),
        "kerb": (road + 0.25, road + 0.5),
    }
    for maker, density, strip in _CROWD:
        for z in rng.uniform(4, length, int(length * density)):
            side = int(rng.choice([-1, 1]))
            x = side * rng.uniform(*strips[strip])
            extra = (side,) if maker is pole else ()
            street.things.append(maker(rng, x, z, *extra))
