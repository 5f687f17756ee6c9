"""What stands in a drawn street: houses, trees, poles, signs, fences, cars, people.

Each maker returns a Thing whose painter knows its own size in metres; `lay_out` puts a drive's
worth of them along the road.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from smp_camvid.data.scene import (
    NEAR,
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
    canvas.darken([canvas.camera.project(cx, 0, cz) for cx, cz in corners], 0.6)


def house(rng: Rng, side: int, z: float, length: float, distance: float) -> Thing:
    """A facade along the road with a window grid, and the gable that faces the camera."""
    height, depth = rng.uniform(5, 13), rng.uniform(6, 10)
    facade = _facade(rng, length, height)
    gable = facade[:, : max(8, facade.shape[1] // 3)] * np.float32(rng.uniform(0.7, 0.95))
    x = side * distance

    pitch = rng.uniform(1.5, 4) if rng.random() < 0.6 else 0.0
    tiles = paint(rng) * np.float32(0.6)
    lit = np.float32(rng.uniform(0.75, 1.1))

    def draw(canvas: Canvas, ahead: float) -> None:
        middle, near, far = x + side * depth / 2, max(ahead, NEAR), ahead + length
        at = canvas.camera.project
        if pitch:
            roof = [at(x, height, near), at(x, height, far)]
            roof += [at(middle, height + pitch, far), at(middle, height + pitch, near)]
            canvas.polygon(roof, "Building", tiles, 0.15)
        if ahead > NEAR:
            ends = (x, middle, x + side * depth)
            top = [at(ex, height + pitch * (ex == middle), ahead) for ex in ends]
            canvas.polygon(top, "Building", gable[0, 0], 0.1)
            canvas.texture(box(canvas, middle, ahead, depth, 0, height), gable, "Building")
        _along(canvas, x, ahead, length, (0, height), facade * lit, "Building")

    return Thing(z, draw, length)


def _along(
    canvas: Canvas, x: float, ahead: float, length: float, rise: Point, texture: Floats, name: str,
    holes: bool = False,
) -> None:  # fmt: skip
    """Lays a texture along the road; of what the camera has passed only the rest is laid."""
    near = max(ahead, NEAR)
    passed = int((near - ahead) / length * texture.shape[1])
    rest = texture[:, min(passed, texture.shape[1] - 1) :]
    canvas.texture(wall(canvas, x, near, ahead + length, *rise), rest, name, holes)


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


_LEAVES = np.array(
    [(0.27, 0.34, 0.2), (0.33, 0.34, 0.24), (0.42, 0.34, 0.26), (0.36, 0.35, 0.34)], np.float32
)


def tree(rng: Rng, x: float, z: float) -> Thing:
    """A trunk and a crown of leafy balls."""
    height, radius = rng.uniform(4, 8), rng.uniform(1.2, 2.4)
    bark = rgb(0.3, 0.25, 0.2) * np.float32(rng.uniform(0.7, 1.2))
    # from green over olive and rust to the grey of bare twigs
    leaf = _LEAVES[rng.integers(len(_LEAVES))] * np.float32(rng.uniform(0.6, 1.5))
    leaf = (leaf * rng.uniform(0.85, 1.15, 3)).astype(np.float32)
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
    board, width = varied(paint(rng), rng, 0.08), rng.uniform(0.7, 1.3)

    def draw(canvas: Canvas, ahead: float) -> None:
        top = height if kind == "lamp" else 3.4
        canvas.polygon(box(canvas, x, ahead, 0.22, 0, top), "Column_Pole", color, 0.1)
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
        _along(canvas, side * distance, ahead, length, (0, high), texture, "Fence", holes=True)

    return Thing(z, draw, length)


_CARS = (  # class, width, length, body height, roof height; metres
    ("Car", 1.75, 4.2, 0.85, 1.45),
    ("SUVPickupTruck", 1.9, 4.7, 1.05, 1.85),
    ("Truck_Bus", 2.4, 8.0, 2.9, 3.1),
)


def car(rng: Rng, x: float, z: float) -> Thing:
    """A body, a cabin with windows, wheels and lights; any colour, the sky's too."""
    name, width, length, body, roof = _CARS[int(rng.choice(3, p=[0.74, 0.18, 0.08]))]
    color = paint(rng)
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
        canvas.polygon(box(canvas, x, ahead + 0.2, width * 0.88, 0.6, roof), name, color)
        canvas.polygon(box(canvas, x, ahead, width, 0.2, body), name, color, 0.05)
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
    coat, trousers = (varied(paint(rng), rng, 0.04) for _ in range(2))
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
    coat = varied(paint(rng), rng, 0.04)
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


def light(rng: Rng, weather: str) -> Light:
    """The light of one street: "changing", "clear", "dusk" or "low" (sun, in haze)."""
    tint = np.clip(rng.normal(1, 0.03, 3), 0.9, 1.1).astype(np.float32)
    sun = float(rng.choice([-1, 1]) * rng.uniform(0.5, 1))
    if weather == "dusk":
        sky = (rgb(0.42, 0.42, 0.48), rgb(0.72, 0.6, 0.54))
        return Light(sky, tint * rgb(1.05, 0.95, 0.92), rng.uniform(0.55, 0.7), 0.5, 0.0)
    if weather == "low":
        sky = (rgb(0.62, 0.66, 0.7), rgb(0.9, 0.84, 0.72))
        return Light(sky, tint * rgb(1.08, 1.0, 0.86), rng.uniform(0.8, 0.95), 0.5, 1.6 * sun)
    grey = rng.uniform(0.45, 0.85)
    clear = rng.random() < (0.85 if weather == "clear" else 0.35)
    top = rgb(0.5, 0.62, 0.78) if clear else rgb(grey, grey, 1.04 * grey)
    low = rgb(0.84, 0.87, 0.88) if clear else rgb(grey, grey, grey) + np.float32(0.08)
    exposure, haze = rng.uniform(0.85, 1.1), rng.uniform(0.15, 0.4)
    return Light((top, low), tint, exposure, haze, sun if clear else 0.0, rng.uniform(0.08, 0.2))


def lay_out(rng: Rng, length: float, weather: str) -> Street:
    """A street of `length` metres with everything in it."""
    half_road = rng.uniform(3.2, 4.4)
    half_walk = half_road + rng.uniform(1.8, 3.0)
    street = Street(light(rng, weather), float(half_road), float(half_walk))
    grey = rng.uniform(0.25, 0.58)
    street.paints = {
        "Road": (grey + rng.normal(0, 0.012, 3)).astype(np.float32),
        "Sidewalk": (grey + rng.uniform(-0.1, 0.14) + rng.normal(0, 0.02, 3)).astype(np.float32),
        "VegetationMisc": _LEAVES[rng.integers(2)] * np.float32(rng.uniform(0.8, 1.3)),
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
    (car, 1 / 17, "road"),
    (person, 1 / 6, "walk"),
    (cyclist, 1 / 22, "edge"),
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
        places = np.arange(4, length, 1 / density)  # jittered, so that no two cars collide
        for z in places + rng.uniform(0, 0.5 / density, len(places)):
            side = int(rng.choice([-1, 1]))
            x = side * rng.uniform(*strips[strip])
            extra = (side,) if maker is pole else ()
            street.things.append(maker(rng, x, z, *extra))
