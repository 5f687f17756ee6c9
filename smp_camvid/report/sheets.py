"""A sheet of frames with truth and prediction in the colours of the classes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from smp_camvid.data.classes import VOID, ClassTable

Triple = tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8], npt.NDArray[np.uint8]]

INK, SOFT = "#1f2933", "#52606d"
_TILE_WIDTH, _GAP, _MARGIN = 480, 8, 16


def prediction_sheet(frames: Sequence[Triple], table: ClassTable, title: str = "") -> Image.Image:
    """Rows of frame, truth and prediction, below them the colours of the classes that occur.

    Each item is (frame uint8 `[H, W, 3]`, truth and prediction uint8 `[H, W]` with void 255).
    """
    rows = [_sheet_row(*frame, table) for frame in frames]
    width = 3 * _TILE_WIDTH + 2 * _GAP + 2 * _MARGIN
    seen = {int(label) for frame in frames for part in frame[1:] for label in np.unique(part)}
    colors = legend(sorted(seen), table, width)
    head = 64 if title else 36
    height = head + sum(row.height + _GAP for row in rows) + colors.height + _MARGIN
    sheet = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(sheet)
    if title:
        draw.text((_MARGIN, 10), title, INK, sheet_font(19))
    for column, name in enumerate(("frame", "truth", "prediction")):
        x = _MARGIN + column * (_TILE_WIDTH + _GAP)
        draw.text((x, head - 26), name, SOFT, sheet_font(16))
    y = head
    for row in rows:
        sheet.paste(row, (_MARGIN, y))
        y += row.height + _GAP
    sheet.paste(colors, (0, y))
    return sheet


def _sheet_row(
    frame: npt.NDArray[np.uint8],
    truth: npt.NDArray[np.uint8],
    prediction: npt.NDArray[np.uint8],
    table: ClassTable,
) -> Image.Image:
    height = max(1, round(_TILE_WIDTH * frame.shape[0] / frame.shape[1]))
    row = Image.new("RGB", (3 * _TILE_WIDTH + 2 * _GAP, height), "white")
    pictures = (frame, table.colorize(truth), table.colorize(prediction))
    for column, picture in enumerate(pictures):
        how = Image.Resampling.BICUBIC if column == 0 else Image.Resampling.NEAREST
        tile = Image.fromarray(picture).resize((_TILE_WIDTH, height), how)
        row.paste(tile, (column * (_TILE_WIDTH + _GAP), 0))
    return row


def legend(seen: Sequence[int], table: ClassTable, width: int) -> Image.Image:
    """Swatch and name of each label in `seen`, in lines of `width` px."""
    names = [(i, table.names[i]) for i in seen if i < len(table)]
    names += [(VOID, "void")] if VOID in seen else []
    font, line, x, y = sheet_font(16), 28, _MARGIN, 4
    places: list[tuple[int, int, int, str]] = []
    for label, name in names:
        step = 22 + round(font.getlength(name)) + 22
        if x + step > width and x > _MARGIN:
            x, y = _MARGIN, y + line
        places.append((x, y, label, name))
        x += step
    picture = Image.new("RGB", (width, y + line), "white")
    draw = ImageDraw.Draw(picture)
    for x, y, label, name in places:
        color = tuple(int(v) for v in table.palette[label])
        draw.rectangle((x, y + 3, x + 15, y + 18), fill=color, outline=SOFT)
        draw.text((x + 22, y), name, INK, font)
    return picture


def sheet_font(size: int) -> ImageFont.FreeTypeFont:
    """Matplotlib's own DejaVu Sans: on every machine, and with more letters than Pillow's."""
    import matplotlib

    path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
    return ImageFont.truetype(str(path), size)
