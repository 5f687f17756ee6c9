"""IoU of the classes as bars, each with its change; as many side by side as there is room for."""

from __future__ import annotations

import math
from collections.abc import Mapping

from rich.table import Table
from rich.text import Text

from smp_camvid.data.classes import ClassTable
from smp_camvid.report.tables import iou_bar, number, shortened, worst_first

CELL_WIDTH = 38
"""Narrowest cell that is set beside another: two fit 80 columns, three 120, four 160."""
READABLE_WIDTH = 56
"""A cell twice as wide makes room for another."""

_NAME_WIDTH = 12
_NUMBERS_WIDTH = 1 + 5 + 1 + 5  # the value and its change, each with the gap before it


def most_columns(width: int) -> int:
    """How many classes fit side by side."""
    return max(1, (width + 2) // CELL_WIDTH)


def class_bars(
    per_class: Mapping[str, float | None],
    previous: Mapping[str, float | None] | None = None,
    *,
    width: int,
    rows: int | None = None,
    swatches: ClassTable | None = None,
) -> Table:
    """IoU of each class as a bar with its change, column by column in the order given.

    They are set in as few columns as `rows` lines allow, unless the bars would get longer than the
    eye follows; where there are more classes than places the worst are shown.  `swatches` puts the
    colour that a class has in masks before its name.
    """
    previous, places = previous or {}, len(per_class)
    columns = most_columns(width)
    if rows is not None:
        places = min(places, rows * columns)
        needed = math.ceil(places / max(1, rows))
        columns = min(columns, max(needed, width // READABLE_WIDTH))
    worst = {name for name, _ in worst_first(per_class)[:places]}
    shown = [item for item in per_class.items() if item[0] in worst]
    height = math.ceil(len(shown) / columns)
    cell_width = (width - 2 * (columns - 1)) // columns
    grid = Table.grid(padding=(0, 2, 0, 0), pad_edge=False)
    for _ in range(columns):
        grid.add_column(width=cell_width, no_wrap=True, overflow="crop")
    colors = dict(zip(swatches.names, swatches.colors, strict=False)) if swatches else {}
    for row in range(height):
        cells = shown[row::height]
        grid.add_row(
            *(
                _cell(_label(name, colors), value, previous.get(name), cell_width)
                for name, value in cells
            )
        )
    return grid


def _label(name: str, colors: Mapping[str, tuple[int, int, int]]) -> Text:
    label = Text()
    if name in colors:
        red, green, blue = colors[name]
        label.append("▌", f"rgb({red},{green},{blue})")
    return label.append(shortened(name, _NAME_WIDTH))


def _cell(label: Text, value: float | None, before: float | None, width: int) -> Table:
    label_width = _NAME_WIDTH + (label.plain[:1] == "▌")
    bar_width = max(4, width - label_width - 1 - _NUMBERS_WIDTH)
    cell = Table.grid(padding=(0, 1, 0, 0), pad_edge=False)
    cell.add_column(width=label_width, no_wrap=True)
    cell.add_column(width=bar_width)
    cell.add_column(width=5, justify="right")
    cell.add_column(width=5, justify="right")
    cell.add_row(label, iou_bar(value, bar_width), Text(number(value)), _change(value, before))
    return cell


def _change(value: float | None, before: float | None) -> Text:
    if value is None or before is None:
        return Text("")
    change = value - before
    if abs(change) < 0.0005:
        return Text("=", style="dim")
    return Text(f"{change:+.3f}".replace("0.", ".", 1), style="green" if change > 0 else "red")
