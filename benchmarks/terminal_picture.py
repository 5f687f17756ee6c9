"""A terminal's window as a picture."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import pyte
from PIL import Image, ImageDraw, ImageFont
from pyte.screens import Char

CELL = (9, 19)  # pixels of one character
MARGIN = 12
INK, PAPER = "d8dee9", "14171c"
NAMED = {
    "black": "3b4252", "red": "e06c75", "green": "98c379", "brown": "e5c07b", "blue": "61afef",
    "magenta": "c678dd", "cyan": "56b6c2", "white": "d8dee9", "default": INK,
}  # fmt: skip


def draw_window(window: pyte.Screen) -> Image.Image:
    """`window` as a dark terminal of its size shows it."""
    fonts = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    plain, bold = (
        ImageFont.truetype(str(fonts / f"DejaVuSansMono{kind}.ttf"), 15) for kind in ("", "-Bold")
    )
    width, height = window.columns * CELL[0] + 2 * MARGIN, window.lines * CELL[1] + 2 * MARGIN
    picture = Image.new("RGB", (width, height), f"#{PAPER}")
    draw = ImageDraw.Draw(picture)
    for y in range(window.lines):
        for x in range(window.columns):
            char = window.buffer[y][x]
            if char.data.strip():
                at = (MARGIN + x * CELL[0], MARGIN + y * CELL[1])
                draw_char(draw, at, char, bold if char.bold else plain)
    # A third of the size; this method keeps colours that only a few pixels have.
    return picture.quantize(256, Image.Quantize.MAXCOVERAGE)


def draw_char(
    draw: ImageDraw.ImageDraw, at: tuple[int, int], char: Char, font: ImageFont.FreeTypeFont
) -> None:
    """Blocks are drawn as blocks: a font leaves gaps between them."""
    ink, eighths = f"#{NAMED.get(char.fg, char.fg)}", " ▁▂▃▄▅▆▇█".find(char.data)
    left, top = at
    right, bottom = left + CELL[0] - 1, top + CELL[1] - 1
    if eighths > 0:
        draw.rectangle((left, bottom + 1 - CELL[1] * eighths // 8, right - 1, bottom), fill=ink)
    elif char.data == "▌":
        draw.rectangle((left, top + 2, left + CELL[0] // 2, bottom - 2), fill=ink)
    elif char.data in "━╸╺─":
        middle, thick = top + CELL[1] // 2, 0 if char.data == "─" else 1
        start = left + CELL[0] // 2 if char.data == "╺" else left
        end = left + CELL[0] // 2 - 1 if char.data == "╸" else right
        draw.rectangle((start, middle - thick, end, middle + thick), fill=ink)
    else:
        draw.text(at, char.data, font=font, fill=ink)
