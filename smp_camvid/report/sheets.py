"""A sheet of frames with truth and prediction in the colours of the classes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from smp_camvid.data.classes import VOID, ClassTable
from smp_camvid.report.style import INK, SOFT, sheet_font

Picture = npt.NDArray[np.uint8]
Triple = tuple[Picture, Picture, Picture]
Entry = tuple[str, Picture]
"""Of a legend: a name and its swatch, 16x16 RGB."""

GAP, MARGIN = 8, 16
_TILE_WIDTH = 480
_SWATCH, _LINE = 16, 28


def prediction_sheet(frames: Sequence[Triple], table: ClassTable, title: str = "") -> Image.Image:
    """Rows of frame, truth and prediction, below them the colours of the classes that occur.

    Each item is (frame uint8 `[H, W, 3]`, truth and prediction uint8 `[H, W]` with void 255).
    """
    rows = [_sheet_row(*frame, table) for frame in frames]
    width = 3 * _TILE_WIDTH + 2 * GAP + 2 * MARGIN
    seen = {int(label) for frame in frames for part in frame[1:] for label in np.unique(part)}
    colors = legend(legend_entries(sorted(seen), table), width)
    head = 64 if title else 36
    height = head + sum(row.height + GAP for row in rows) + colors.height + MARGIN
    sheet = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(sheet)
    if title:
        draw.text((MARGIN, 10), title, INK, sheet_font(19))
    for column, name in enumerate(("frame", "truth", "prediction")):
        x = MARGIN + column * (_TILE_WIDTH + GAP)
        draw.text((x, head - 26), name, SOFT, sheet_font(16))
    y = head
    for row in rows:
        sheet.paste(row, (MARGIN, y))
        y += row.height + GAP
    sheet.paste(colors, (0, y))
    return sheet


def _sheet_row(
    frame: Picture, truth: Picture, prediction: Picture, table: ClassTable
) -> Image.Image:
    height = max(1, round(_TILE_WIDTH * frame.shape[0] / frame.shape[1]))
    row = Image.new("RGB", (3 * _TILE_WIDTH + 2 * GAP, height), "white")
    pictures = (frame, table.colorize(truth), table.colorize(prediction))
    for column, picture in enumerate(pictures):
        one = tile(picture, _TILE_WIDTH, height, photo=column == 0)
        row.paste(one, (column * (_TILE_WIDTH + GAP), 0))
    return row


def tile(picture: Picture, width: int, height: int | None = None, *, photo: bool) -> Image.Image:
    """RGB `[H, W, 3]` at `width`, aspect kept unless `height` says otherwise.

    Only in a photo may there be a colour between two others.
    """
    height = height or max(1, round(width * picture.shape[0] / picture.shape[1]))
    how = Image.Resampling.BICUBIC if photo else Image.Resampling.NEAREST
    return Image.fromarray(picture).resize((width, height), how)


def legend_entries(seen: Sequence[int], table: ClassTable) -> list[Entry]:
    """Each label in `seen` with its name and colour; void last."""
    names = [(i, table.names[i]) for i in seen if i < len(table)]
    names += [(VOID, "void")] if VOID in seen else []
    plain = np.zeros((_SWATCH, _SWATCH), np.uint8)
    return [(name, table.colorize(plain + np.uint8(label))) for label, name in names]


def legend(entries: Sequence[Entry], width: int) -> Image.Image:
    """Swatches and names, in lines of `width` px."""
    font, x, y = sheet_font(16), MARGIN, 4
    places: list[tuple[int, int, Entry]] = []
    for entry in entries:
        step = 22 + round(font.getlength(entry[0])) + 22
        if x + step > width and x > MARGIN:
            x, y = MARGIN, y + _LINE
        places.append((x, y, entry))
        x += step
    picture = Image.new("RGB", (width, y + _LINE), "white")
    draw = ImageDraw.Draw(picture)
    for x, y, (name, swatch) in places:
        picture.paste(Image.fromarray(swatch), (x, y + 3))
        draw.rectangle((x, y + 3, x + _SWATCH - 1, y + _SWATCH + 2), outline=SOFT)
        draw.text((x + 22, y), name, INK, font)
    return picture
