"""Curves as geometry that a template draws: SVG that fits any width, its values beside it.

Places are shares of the plot's width and height, so that a page scales the plot and not its text.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from smp_camvid.report.compare_tables import letter
from smp_camvid.report.html_records import RunRecord

SPLITS = ("train", "val")
SIDE = 1000
"""Of the square that lines are drawn in, before a page stretches it."""


@dataclass(frozen=True)
class Series:
    """One line.  `color` numbers the page's line colours; `split` is "" where there is none."""

    name: str
    color: int
    x: tuple[float, ...]
    y: tuple[float | None, ...]
    split: str = ""

    @property
    def last(self) -> float | None:
        """The value at the end; None where there is none at all."""
        return next((value for value in reversed(self.y) if value is not None), None)


@dataclass(frozen=True)
class Chart:
    """Lines over one x axis.  `labels` name the places of x where a number would say less."""

    name: str
    title: str
    series: tuple[Series, ...]
    x_name: str = "epoch"
    top: float | None = None
    labels: tuple[str, ...] = ()

    @property
    def drawn(self) -> bool:
        """Whether there is anything to see."""
        return any(value is not None for line in self.series for value in line.y)

    @property
    def span(self) -> tuple[float, float]:
        """First and last x, never the same."""
        places = [x for line in self.series for x in line.x]
        low, high = min(places, default=0), max(places, default=1)
        return (low, high) if high > low else (low - 0.5, high + 0.5)

    @property
    def high(self) -> float:
        """What the upper edge stands for; the lower one is 0."""
        if self.top is not None:
            return self.top
        found = [value for line in self.series for value in line.y if value is not None]
        return nice_ticks(max(found, default=1.0) or 1.0)[-1]

    @property
    def words(self) -> str:
        """What is seen, for those who do not see it."""
        parts = [
            f"{line.name} from {known[0]:.3g} to {known[-1]:.3g}".strip()
            for line in self.series
            if (known := [value for value in line.y if value is not None])
        ]
        return f"{self.title} by {self.x_name}: {', '.join(parts) or 'nothing measured'}"

    def across(self, x: float) -> float:
        low, high = self.span
        return (x - low) / (high - low)

    def down(self, y: float) -> float:
        return 1 - min(max(y / self.high, 0.0), 1.0)

    @property
    def y_ticks(self) -> list[float]:
        return nice_ticks(self.high)

    @property
    def x_ticks(self) -> list[int]:
        """About five whole numbers, the first and the last among them."""
        low, high = (math.ceil(edge) for edge in self.span)
        step = max(1, round((high - low) / 4))
        inner = [x for x in range(low, high, step) if high - x > step / 2]
        return sorted({low, *inner, high} & set(range(low, math.floor(self.span[1]) + 1)))

    def lines(self, series: Series) -> list[str]:
        """The `points` of a polyline for each stretch without a gap."""
        known = zip(series.x, series.y, strict=True)
        stretches = groupby(known, lambda point: point[1] is not None)
        return [" ".join(self._point(x, y) for x, y in part) for here, part in stretches if here]

    def _point(self, x: float, y: float | None) -> str:
        return f"{SIDE * self.across(x):.1f},{SIDE * self.down(y or 0.0):.1f}"

    def dots(self, series: Series) -> list[tuple[float, float]]:
        """Where values are, in per cent, if they are few enough to be seen one by one."""
        known = [(x, y) for x, y in zip(series.x, series.y, strict=True) if y is not None]
        if len(known) > 25:
            return []
        return [(100 * self.across(x), 100 * self.down(y)) for x, y in known]

    def data(self) -> dict[str, Any]:
        """What the page's script reads values from."""
        return {
            "x_name": self.x_name,
            "span": self.span,
            "high": self.high,
            "labels": self.labels,
            "series": [
                {"name": s.name, "split": s.split, "color": s.color, "x": s.x, "y": s.y}
                for s in self.series
            ],
        }


def nice_ticks(high: float) -> list[float]:
    """0 and four to six round steps, the last one not below `high`."""
    raw = high / 4
    scale = 10.0 ** math.floor(math.log10(raw))
    step = next(scale * m for m in (1, 2, 2.5, 5, 10) if scale * m >= raw * 0.999)
    return [round(step * i, 12) for i in range(math.ceil(high / step - 1e-9) + 1)]


def run_charts(records: Sequence[RunRecord]) -> list[Chart]:
    """Loss, mIoU, accuracy, learning rate and speed by epoch; of one run or of several."""
    made = [
        Chart("loss", "Loss", _scored(records, "loss")),
        Chart("miou", "mIoU", _scored(records, "miou"), top=1.0),
        Chart("accuracy", "Pixel accuracy", _scored(records, "accuracy"), top=1.0),
        Chart("lr", "Learning rate", tuple(_plain(records, "epochs", "lr"))),
        Chart("speed", "Images a second", tuple(_plain(records, "timing", "images_per_second"))),
    ]
    return [chart for chart in made if chart.drawn]


def class_charts(records: Sequence[RunRecord], names: Sequence[str]) -> list[Chart]:
    """The IoU of each class by epoch."""
    made = [
        Chart(f"class-{i}", name, _scored(records, name, of_class=True), top=1.0)
        for i, name in enumerate(names)
    ]
    return [chart for chart in made if chart.drawn]


def _scored(records: Sequence[RunRecord], key: str, of_class: bool = False) -> tuple[Series, ...]:
    """Train and val of each run; of one run alone the split decides the colour."""
    lines = []
    for number, record in enumerate(records):
        for split in SPLITS:
            rows = [row for row in record.epochs if row.get(split) is not None]
            where = [row[split].get("per_class", {}) if of_class else row[split] for row in rows]
            alone = len(records) == 1
            lines.append(
                Series(
                    name=split if alone else f"{letter(number)} {split}",
                    color=SPLITS.index(split) if alone else number,
                    x=tuple(row["epoch"] for row in rows),
                    y=tuple(finite(scores.get(key)) for scores in where),
                    split=split,
                )
            )
    return tuple(line for line in lines if line.x)


def _plain(records: Sequence[RunRecord], rows_of: str, key: str) -> list[Series]:
    lines = []
    for number, record in enumerate(records):
        rows = getattr(record, rows_of)
        x = tuple(row["epoch"] for row in rows)
        color = 2 if len(records) == 1 else number
        name = "" if len(records) == 1 else letter(number)
        lines.append(Series(name, color, x, tuple(finite(row[key]) for row in rows)))
    return [line for line in lines if line.x]


def frame_chart(documents: Sequence[Any]) -> Chart:
    """The mIoU frame by frame, in the order of the split."""
    alone = len(documents) == 1
    lines = []
    for number, document in enumerate(documents):
        values = tuple(frame["miou"] for frame in document["per_frame"])
        x = tuple(range(1, len(values) + 1))
        lines.append(Series("" if alone else letter(number), 1 if alone else number, x, values))
    labels = tuple(frame["frame"] for frame in documents[0]["per_frame"])
    return Chart("frames", "mIoU of each frame", tuple(lines), "frame", 1.0, labels)


def finite(value: float | None) -> float | None:
    """A value that JSON and a plot can hold; a diverged loss is a gap."""
    return value if value is not None and math.isfinite(value) else None
