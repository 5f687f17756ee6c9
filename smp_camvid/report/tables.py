"""Tables and bars for people: scores by class, the parts of a model, the sizes of its parameters.

Everything from outside (class names, paths, layer names) goes in as `rich.text.Text`, never as
markup, so a `[` in it stays a `[`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from smp_camvid.training.events import ModelPart

CELL_WIDTH = 38
"""Narrowest cell of `class_bars`: two fit 80 columns, three 120, four 160."""

_NAME_WIDTH = 12
_BAR_STYLE = "cyan"
_TRACK_STYLE = "grey30"


def number(value: float | None, digits: int = 3) -> str:
    """`0.675`; `-` for None and NaN; `1e+04` where the fixed form would be long."""
    if value is None or math.isnan(value):
        return "-"
    return f"{value:.{digits}f}" if abs(value) < 1000 else f"{value:.0e}"


def duration(seconds: float | None) -> str:
    """Seconds in at most six characters: `0:07`, `59:59`, `3h07m`, `2d05h`; `-` when unknown."""
    if seconds is None or not math.isfinite(seconds):
        return "-"
    whole = max(0, round(seconds))
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02d}"
    if whole < 86400:
        return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
    return f"{whole // 86400}d{whole % 86400 // 3600:02d}h"


def shortened(name: str, width: int) -> str:
    """`name` in at most `width` characters, and without the line breaks a file may put in it."""
    name = " ".join(name.split())
    return name if len(name) <= width else name[: width - 2] + ".."


def iou_bar(value: float | None, width: int | None = None) -> ProgressBar:
    """A bar of 0..1; an absent class gets an empty one."""
    known = value if value is not None and math.isfinite(value) else 0.0
    return ProgressBar(
        total=1.0,
        completed=known,
        width=width,
        style=_TRACK_STYLE,
        complete_style=_BAR_STYLE,
        finished_style=_BAR_STYLE,
    )


def worst_first(per_class: Mapping[str, float | None]) -> list[tuple[str, float | None]]:
    """Lowest IoU first; classes that occur nowhere (None) last, in their own order."""
    return sorted(per_class.items(), key=lambda item: (item[1] is None, item[1] or 0.0))


def _change(value: float | None, before: float | None) -> Text:
    if value is None or before is None:
        return Text("")
    change = value - before
    if abs(change) < 0.0005:
        return Text("=", style="dim")
    return Text(f"{change:+.3f}".replace("0.", ".", 1), style="green" if change > 0 else "red")


def bar_columns(width: int) -> int:
    """How many classes `class_bars` sets side by side."""
    return max(1, width // CELL_WIDTH)


def class_bars(
    per_class: Mapping[str, float | None],
    previous: Mapping[str, float | None] | None = None,
    *,
    width: int,
    rows: int | None = None,
) -> Table:
    """IoU of each class as a bar with its change, column by column in the table's own order.

    With fewer places than classes (`rows` lines high) the worst ones are shown.
    """
    previous = previous or {}
    columns = bar_columns(width)
    places = len(per_class) if rows is None else rows * columns
    worst = {name for name, _ in worst_first(per_class)[:places]}
    shown = [item for item in per_class.items() if item[0] in worst]
    height = math.ceil(len(shown) / columns)
    cell_width = (width - 2 * (columns - 1)) // columns
    bar_width = max(4, cell_width - _NAME_WIDTH - 2 - 5 - 1 - 5 - 1)
    grid = Table.grid(padding=(0, 2, 0, 0), pad_edge=False)
    for _ in range(columns):
        grid.add_column(width=cell_width, no_wrap=True, overflow="crop")
    for row in range(height):
        cells = shown[row::height]
        grid.add_row(*(_bar_cell(*cell, previous.get(cell[0]), bar_width) for cell in cells))
    return grid


def _bar_cell(name: str, value: float | None, before: float | None, bar_width: int) -> Table:
    cell = Table.grid(padding=(0, 1, 0, 0), pad_edge=False)
    cell.add_column(width=_NAME_WIDTH, no_wrap=True)
    cell.add_column(width=bar_width)
    cell.add_column(width=5, justify="right")
    cell.add_column(width=5, justify="right")
    cell.add_row(
        Text(shortened(name, _NAME_WIDTH)),
        iou_bar(value, bar_width),
        Text(number(value)),
        _change(value, before),
    )
    return cell


def architecture_table(parts: Sequence[ModelPart], total: int) -> Table:
    """The parts of the model: name, class, output shape of one batch, parameters."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("part", overflow="fold")
    table.add_column("module", style="cyan", overflow="fold")
    table.add_column("output, one frame", overflow="fold")
    table.add_column("parameters", justify="right", no_wrap=True)
    for part in parts:
        table.add_row(
            Text(part.name), Text(part.kind), Text(part.output or "-"), Text(f"{part.parameters:,}")
        )
    table.add_row(Text("total", style="bold"), "", "", Text(f"{total:,}", style="bold"))
    return table


def parameter_table(sizes: Iterable[tuple[str, tuple[int, ...], int]]) -> Table:
    """Every parameter tensor: name, shape, count."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("parameter", overflow="fold")
    table.add_column("shape", style="cyan", no_wrap=True)
    table.add_column("count", justify="right", no_wrap=True)
    for name, shape, count in sizes:
        table.add_row(
            Text(name), Text("x".join(str(side) for side in shape) or "scalar"), Text(f"{count:,}")
        )
    return table


def score_table(
    per_class: Mapping[str, float | None],
    *,
    miou: float,
    accuracy: float | None = None,
    mean_class_accuracy: float | None = None,
) -> Table:
    """IoU of each class, worst first, with a bar; below it the mean and the accuracies.

    None stands for a class that occurs neither in truth nor in prediction and is not counted.
    """
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("class", overflow="fold")
    table.add_column("IoU", justify="right", no_wrap=True)
    table.add_column("", width=32)
    for name, value in worst_first(per_class):
        absent = Text("does not occur, not counted", style="dim")
        table.add_row(
            Text(name), Text(number(value)), absent if value is None else iou_bar(value, 32)
        )
    table.add_row()
    table.add_row(Text("mean IoU", style="bold"), Text(number(miou), style="bold"), iou_bar(miou))
    for label, value in (
        ("pixel accuracy", accuracy),
        ("mean class accuracy", mean_class_accuracy),
    ):
        if value is not None:
            table.add_row(label, Text(number(value)), iou_bar(value))
    return table


def evaluation_table(result: Mapping[str, Any]) -> RenderableType:
    """What `evaluate` prints; `result` has the keys of `evaluate --json`."""
    head = Table.grid(padding=(0, 2, 0, 0), pad_edge=False)
    head.add_column(style="dim", no_wrap=True)
    head.add_column(overflow="fold")
    counted, known = result["classes_counted"], len(result["per_class"])
    for label, value in (
        ("model", result["model"]),
        ("checkpoint", result["checkpoint"]),
        ("protocol", result["protocol"]),
        ("definition", result["definition"]),
        ("frames", f"{result['frames']} ({result['split']})"),
        ("classes", f"{counted} of {known} counted"),
    ):
        head.add_row(label, Text(str(value)))
    scores = score_table(
        result["per_class"],
        miou=result["miou"],
        accuracy=result["accuracy"],
        mean_class_accuracy=result["mean_class_accuracy"],
    )
    return Group(head, Text(""), scores)
