"""Draws docs/pictures/overlap-tile.svg: figure 2 of the paper, on a scene drawn by the package.

    python docs/figures/overlap_tile.py

Tiles, margin and mirrored border come from the functions that `predict` uses; the picture inside
the file is a JPEG of the mirrored scene.
"""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from drawing import Drawing
from PIL import Image

from smp_camvid.data import synthetic
from smp_camvid.data.classes import CAMVID32
from smp_camvid.inference.tiling import Tile, mirror_pad, plan_tiles
from smp_camvid.models.vanilla import margin, valid_input_size

Picture = npt.NDArray[np.uint8]

DEPTH = 4
SIZE = (720, 960)
TILE_IN = valid_input_size(572, DEPTH)
MARGIN = margin(DEPTH)
TILE_OUT = TILE_IN - 2 * MARGIN
SHOWN = 1  # the tile that is drawn whole, counted from 0
IN, OUT, RIM = "#1d4ed8", "#f5b700", "#ffffff"


@dataclass(frozen=True)
class Scene:
    """A drawn road scene, its mirrored surroundings and its classes in colours."""

    surrounded: Picture
    """`[H + 2 MARGIN, W + 2 MARGIN, 3]`"""
    classes: Picture
    """`[H, W, 3]`"""


def scene() -> Scene:
    shot = synthetic.plan(synthetic.SPLITS)[3]
    image, label = synthetic.render(shot, SIZE, seed=0)
    around = mirror_pad(image, MARGIN, MARGIN, MARGIN, MARGIN)
    return Scene(around, CAMVID32.palette[label])


def tiles() -> list[Tile]:
    return plan_tiles(SIZE, (TILE_IN, TILE_IN), (TILE_OUT, TILE_OUT), 2**DEPTH)


SCALE = 0.52
TOP, SIDE, BETWEEN, SMALL = 84, 20, 60, 21


def draw() -> Drawing:
    height, width = ((extent + 2 * MARGIN) * SCALE for extent in SIZE)
    total = (2 * SIDE + width + BETWEEN + SIZE[1] * SCALE, TOP + height + 116)
    tile = tiles()[SHOWN]
    words = (
        f"Left: a {SIZE[0]}x{SIZE[1]} scene with {MARGIN} mirrored pixels around it; a tile of "
        f"{TILE_IN}x{TILE_IN} goes into the network. Right: the {TILE_OUT}x{TILE_OUT} pixels of "
        f"classes that come out, and the {len(tiles())} tiles that cover the scene."
    )
    drawing = Drawing(*total, "The overlap-tile strategy", words)
    made = scene()
    left, right = SIDE + MARGIN * SCALE, SIDE + width + BETWEEN
    top = TOP + MARGIN * SCALE  # of the scene itself, on both sides
    picture(drawing, made.surrounded, SIDE, TOP)
    picture(drawing, made.classes, right, top)
    drawing.box(left, top, SIZE[1] * SCALE, SIZE[0] * SCALE, stroke=RIM, stroke_width=2.5)
    for one in tiles():
        grid(drawing, one, right, top)
    square(drawing, left, top, tile.top - MARGIN, tile.left - MARGIN, TILE_IN, IN)
    for x in (left, right):
        square(drawing, x, top, tile.top, tile.left, TILE_OUT, OUT)
    captions(drawing, (left, right), height)
    return drawing


def picture(drawing: Drawing, array: Picture, x: float, y: float) -> None:
    height, width = (round(extent * SCALE * 1.5) for extent in array.shape[:2])
    file = io.BytesIO()
    shrunk = Image.fromarray(array).resize((width, height), Image.Resampling.LANCZOS)
    shrunk.save(file, "JPEG", quality=86, optimize=True)
    data = base64.b64encode(file.getvalue()).decode("ascii")
    drawing.add(
        "image", x=round(x, 2), y=round(y, 2), href=f"data:image/jpeg;base64,{data}",
        width=round(array.shape[1] * SCALE, 2), height=round(array.shape[0] * SCALE, 2),
    )  # fmt: skip


def square(
    drawing: Drawing, x: float, y: float, top: int, left: int, side: int, color: str
) -> None:
    drawing.box(
        x + left * SCALE, y + top * SCALE, side * SCALE, side * SCALE, stroke=color, stroke_width=4
    )


def grid(drawing: Drawing, one: Tile, x: float, y: float) -> None:
    drawing.box(
        x + one.left * SCALE, y + one.top * SCALE, (one.right - one.left) * SCALE,
        (one.bottom - one.top) * SCALE, stroke=RIM, stroke_width=1.5, stroke_dasharray="5 4",
    )  # fmt: skip


def captions(drawing: Drawing, sides: tuple[float, float], height: float) -> None:
    left, right = sides
    middle, out = (x + SIZE[1] * SCALE / 2 for x in (left, right))
    steps = sorted({one.left for one in tiles()})
    columns = ", ".join(map(str, steps))
    for x, title, words in (
        (middle, "what goes in", f"{SIZE[0]}x{SIZE[1]} pixels (white line), mirrored around it"),
        (out, "what comes out", f"true classes; {len(tiles())} tiles, from columns {columns}"),
    ):
        drawing.text(x, 30, title, font_size=26, font_weight="bold")
        drawing.text(x, 62, words, font_size=SMALL)
    y = TOP + height + 34
    for x, color, words in (
        (SIDE, IN, f"input tile: {TILE_IN}x{TILE_IN}"),
        (SIDE + 330, OUT, f"what comes out of it: {TILE_OUT}x{TILE_OUT}"),
    ):
        drawing.box(x, y - 15, 18, 18, stroke=color, stroke_width=4)
        drawing.text(x + 30, y + 2, words, text_anchor="start", font_size=SMALL)
    for number, words in enumerate((
        f"Between them lies the margin of {MARGIN} pixels, which unpadded convolutions eat.",
        f"The next tile begins {steps[1] - steps[0]} pixels further, a multiple of {2**DEPTH}; "
        f"not {TILE_OUT}.",
    )):  # fmt: skip
        line = y + 36 + 30 * number
        drawing.text(SIDE, line, words, text_anchor="start", font_size=SMALL)


if __name__ == "__main__":
    print(draw().save("overlap-tile.svg"))
