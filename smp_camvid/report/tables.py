"""Figures in words, bars, and tables of the parts of a model and the sizes of its parameters.

Everything from outside (class names, paths, layer names) goes in as `rich.text.Text`, never as
markup, so a `[` in it stays a `[`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from smp_camvid.training.events import ModelPart

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
