"""A gallery of judged frames: frame, truth, prediction, and where it is wrong."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from smp_camvid.data.classes import VOID, ClassTable
from smp_camvid.report.frame_pictures import FramePicture, error_map
from smp_camvid.report.sheets import GAP, MARGIN, Entry, legend, legend_entries, tile
from smp_camvid.report.style import INK, SOFT, sheet_font
from smp_camvid.report.tables import number

COLUMNS = ("frame", "truth", "prediction", "errors")
TILE_WIDTH, _CAPTION = 480, 30

_LOOKS = (("right", 0, 0), ("wrong", 0, 1), ("void, not counted", VOID, 0))


def gallery(
    pictures: Sequence[FramePicture],
    table: ClassTable,
    title: str,
    columns: Sequence[str] = COLUMNS,
) -> Image.Image:
    """A row for each frame under its name, drive and mIoU; below, the colours that occur.

    `columns` are some of COLUMNS: frames that may not be passed on can be left out.
    """
    rows = [_row(picture, table, columns) for picture in pictures]
    width = len(columns) * (TILE_WIDTH + GAP) - GAP + 2 * MARGIN
    seen = {int(v) for p in pictures for part in (p.truth, p.prediction) for v in np.unique(part)}
    colors = legend([*legend_entries(sorted(seen), table), *_error_entries()], width)
    head = 68
    height = head + sum(row.height + GAP for row in rows) + colors.height + MARGIN
    sheet = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(sheet)
    draw.text((MARGIN, 10), title, INK, sheet_font(20))
    for column, name in enumerate(columns):
        draw.text((MARGIN + column * (TILE_WIDTH + GAP), head - 24), name, SOFT, sheet_font(16))
    y = head
    for row in rows:
        sheet.paste(row, (MARGIN, y))
        y += row.height + GAP
    sheet.paste(colors, (0, y))
    return sheet


def _row(picture: FramePicture, table: ClassTable, columns: Sequence[str]) -> Image.Image:
    looks = {
        "frame": picture.frame,
        "truth": table.colorize(picture.truth),
        "prediction": table.colorize(picture.prediction),
        "errors": error_map(picture.truth, picture.prediction),
    }
    tiles = [tile(looks[name], TILE_WIDTH, photo=name == "frame") for name in columns]
    width = len(tiles) * (TILE_WIDTH + GAP) - GAP
    row = Image.new("RGB", (width, tiles[0].height + _CAPTION), "white")
    words = f"{picture.name}   drive {picture.drive}   mIoU {number(picture.miou)}"
    ImageDraw.Draw(row).text((0, 4), words, INK, sheet_font(16))
    for column, one in enumerate(tiles):
        row.paste(one, (column * (TILE_WIDTH + GAP), _CAPTION))
    return row


def _error_entries() -> list[Entry]:
    """Each look of the error map as a swatch, cut from one."""
    return [(name, _look(truth, prediction)) for name, truth, prediction in _LOOKS]


def _look(truth: int, prediction: int) -> npt.NDArray[np.uint8]:
    plain = np.zeros((16, 16), np.uint8)
    return error_map(plain + np.uint8(truth), plain + np.uint8(prediction))
