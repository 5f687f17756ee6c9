"""A contact sheet: frames beside the same frames with their labels laid over, and a legend."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from smp_camvid.data.classes import ClassTable
from smp_camvid.report.sheets import MARGIN, legend, legend_entries, tile
from smp_camvid.report.style import INK, SOFT, sheet_font

Labelled = tuple[str, npt.NDArray[np.uint8], npt.NDArray[np.uint8]]

OPACITY = 0.6
_COLUMNS, _TILE_WIDTH, _JOINT, _GAP, _CAPTION = 2, 360, 2, 14, 24


def contact_sheet(frames: Sequence[Labelled], table: ClassTable, title: str) -> Image.Image:
    """Two pairs a row: the frame, and beside it the frame under the colours of its label.

    Each item is (caption, frame uint8 `[H, W, 3]`, label uint8 `[H, W]` with void 255).
    """
    pairs = [_pair(*frame, table) for frame in frames]
    columns = min(_COLUMNS, len(pairs))
    rows = [pairs[start : start + columns] for start in range(0, len(pairs), columns)]
    width = 2 * MARGIN + columns * (2 * _TILE_WIDTH + _JOINT) + (columns - 1) * _GAP
    seen = sorted({int(value) for _, _, label in frames for value in np.unique(label)})
    colors = legend(legend_entries(seen, table), width)
    head = 44
    height = head + sum(max(p.height for p in row) + _GAP for row in rows) + colors.height
    sheet = Image.new("RGB", (width, height + MARGIN), "white")
    ImageDraw.Draw(sheet).text((MARGIN, 12), title, INK, sheet_font(18))
    y = head
    for row in rows:
        for column, pair in enumerate(row):
            sheet.paste(pair, (MARGIN + column * (pair.width + _GAP), y))
        y += max(p.height for p in row) + _GAP
    sheet.paste(colors, (0, y))
    return sheet


def _pair(
    caption: str, image: npt.NDArray[np.uint8], label: npt.NDArray[np.uint8], table: ClassTable
) -> Image.Image:
    height = max(1, round(_TILE_WIDTH * image.shape[0] / image.shape[1]))
    frame = tile(image, _TILE_WIDTH, height, photo=True)
    # Colours are laid over at the label's own size first, so that no colour is made up between
    # two classes; void is black there, which darkens the frame.
    colors = tile(table.colorize(label), _TILE_WIDTH, height, photo=False)
    pair = Image.new("RGB", (2 * _TILE_WIDTH + _JOINT, height + _CAPTION), "white")
    pair.paste(frame, (0, _CAPTION))
    pair.paste(Image.blend(frame, colors, OPACITY), (_TILE_WIDTH + _JOINT, _CAPTION))
    ImageDraw.Draw(pair).text((0, 2), caption, SOFT, sheet_font(14))
    return pair
