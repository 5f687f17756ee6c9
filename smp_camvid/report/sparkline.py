"""Curves made of characters."""

from __future__ import annotations

import math
from collections.abc import Sequence

_EIGHTHS = " ▁▂▃▄▅▆▇█"


def finite_range(*curves: Sequence[float]) -> tuple[float, float]:
    """Lowest and highest of all values that are numbers; 0 and 0 where there are none."""
    known = [value for curve in curves for value in curve if math.isfinite(value)]
    return min(known, default=0.0), max(known, default=0.0)


def sparkline(
    values: Sequence[float], cells: int, rows: int = 1, span: tuple[float, float] | None = None
) -> list[str]:
    """A curve `cells` characters wide in `rows` lines, each cell the last of its share of values.

    The highest level leaves an eighth free, so that curves below each other do not touch.
    `span` is what the lowest and the highest level stand for; without one that of the values, so
    give curves that are to be compared the same.  What is no number leaves a gap.
    """
    count = min(cells, len(values))
    picked = [values[(i + 1) * len(values) // count - 1] for i in range(count)]
    low, high = finite_range(picked) if span is None else span
    top = 8 * rows - 2
    heights = [_height(value, low, high, top) for value in picked]
    return [
        "".join(_EIGHTHS[min(8, max(0, height - 8 * below))] for height in heights)
        for below in reversed(range(rows))
    ]


def _height(value: float, low: float, high: float, top: int) -> int:
    """Eighths of a character: 0 for what is no number, else 1 to `top` + 1."""
    if not math.isfinite(value):
        return 0
    if high <= low:
        return 1 + top // 2
    return 1 + round(min(1.0, max(0.0, (value - low) / (high - low))) * top)
