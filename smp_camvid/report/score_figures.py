"""Scores as figures: confusion, the classes' IoU, calibration, and the classes by drive."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from smp_camvid.data.classes import ClassTable
from smp_camvid.report.style import (
    BLUE,
    FAINT,
    GRID,
    INK,
    LABEL,
    NOTE,
    ORANGE,
    PALE,
    SHARES,
    SOFT,
    blank_figure,
    heading,
    ink_on,
    plot_frame,
    share_norm,
    styled,
    table_frame,
)
from smp_camvid.report.tables import number, shortened, worst_first

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LONGEST_NAME = 24
_SMALL = 8  # points, in the cells of more than 16 classes
_DRIVES = 12


@styled
def confusion_figure(matrix: npt.NDArray[np.int64], table: ClassTable, title: str = "") -> Figure:
    """`[C, C]` counts (rows truth, columns prediction) as per cent of each row.

    The void class of the table has no row, for it is never truth, and no column; pixels taken for
    it still count in their row.  A class without a truth pixel keeps an empty row; less than a
    tenth of a per cent is left blank.
    """
    keep = [i for i in range(len(table)) if i != table.void_index]
    rows_of_truth = np.asarray(matrix)[keep].astype(np.float64)
    counts, truth = rows_of_truth[:, keep], rows_of_truth.sum(axis=1)
    names = [_short(table.names[i]) for i in keep]
    share = np.divide(counts, truth[:, None], out=np.zeros_like(counts), where=truth[:, None] > 0)
    cell, font = (0.56, NOTE) if len(keep) <= 16 else (0.37, _SMALL)
    words = f"{title}\nConfusion, per cent of the true pixels of a class".strip()
    side = 0.5 + cell * len(keep) + 0.09 * max(map(len, names))
    figure = blank_figure(max(6.4, side + 0.9), side + 0.3 * words.count("\n") + 0.3, words)
    axes = figure.subplots()
    axes.imshow(share, cmap=SHARES, norm=share_norm())
    for (row, column), value in np.ndenumerate(share):
        if value >= 0.001:
            text = "<1" if value < 0.005 else f"{100 * value:.0f}"
            color = SOFT if value < 0.1 else ink_on(value)
            axes.text(column, row, text, ha="center", va="center", fontsize=font, color=color)
    total = max(1.0, truth.sum())
    rows = [f"{name}  {_share(pixels / total)}" for name, pixels in zip(names, truth, strict=True)]
    axes.set_yticks(range(len(keep)), rows)
    axes.set_xticks(range(len(keep)), names, rotation=45, ha="right", rotation_mode="anchor")
    table_frame(axes)
    axes.set_xlabel("prediction", color=SOFT, fontsize=LABEL)
    axes.set_ylabel("truth, with its share of all pixels", color=SOFT, fontsize=LABEL)
    return figure


def _short(name: str) -> str:
    return shortened(name, LONGEST_NAME)


def _share(part: float) -> str:
    return "none" if part == 0 else "<0.1 %" if part < 0.0005 else f"{100 * part:.1f} %"


@styled
def class_iou_figure(
    per_class: Mapping[str, float | None],
    miou: float | None,
    table: ClassTable,
    title: str = "",
    intervals: Mapping[str, Sequence[float] | None] | None = None,
) -> Figure:
    """The IoU of each class as a bar, worst first as in the tables, each with its colour.

    A class that occurs nowhere (None) has no bar and says so; the dotted line is the mean.
    `intervals`: the ends of the 95 % interval of each class, None where there is none.
    """
    order = worst_first(per_class)
    figure = blank_figure(9.4, 1.5 + 0.3 * len(order), title)
    axes = figure.subplots()
    rows, values = range(len(order)), [np.nan if iou is None else iou for _, iou in order]
    axes.barh(rows, values, height=0.62, color=BLUE)
    for row, (name, iou) in enumerate(order):
        between = (intervals or {}).get(name)
        _swatch(axes, row, table, name)
        _bar_words(axes, row, iou, between)
        if between:
            axes.plot(between, [row, row], color=INK, linewidth=1.5, marker="|", markersize=7)
    if miou is not None:
        axes.axvline(miou, color=SOFT, linewidth=1.2, linestyle=":", zorder=0.9)
    axes.set_yticks(rows, [_short(name) for name, _ in order])
    axes.set_ylim(len(order) - 0.4, -0.6)
    axes.set_xlim(0, 1)
    axes.set_xticks(np.linspace(0, 1, 6))
    axes.grid(axis="x", color=GRID, linewidth=0.8)
    table_frame(axes)
    axes.tick_params(axis="y", pad=22)
    axes.tick_params(axis="x", colors=SOFT)
    counted = sum(iou is not None for iou in per_class.values())
    with_lines = ", line: 95 % interval" if any((intervals or {}).values()) else ""
    mean = "no mean" if miou is None else f"dotted: mean {miou:.3f} over {counted} classes"
    heading(axes, f"IoU by class{with_lines}", mean)
    return figure


def _swatch(axes: Axes, row: int, table: ClassTable, name: str) -> None:
    """The class's own colour, between its name and its bar."""
    color = [part / 255 for part in table.colors[table.names.index(name)]]
    axes.plot(
        [-0.016], [row], marker="s", markersize=9, color=color, markeredgecolor=SOFT,
        markeredgewidth=0.6, transform=axes.get_yaxis_transform(), clip_on=False,
    )  # fmt: skip


def _bar_words(axes: Axes, row: int, iou: float | None, between: Sequence[float] | None) -> None:
    """The figures in columns of their own at the right, where no bar and no interval can reach."""
    words = ["occurs nowhere" if iou is None else f"{iou:.3f}"]
    words += [f"{between[0]:.3f} to {between[1]:.3f}"] if between else []
    for text, points in zip(words, (10, 50), strict=False):
        axes.annotate(
            text, (1, row), (points, 0), textcoords="offset points", va="center", fontsize=NOTE,
            color=SOFT if iou is None else INK, annotation_clip=False,
        )  # fmt: skip


@styled
def reliability_figure(calibration: Mapping[str, Any], title: str = "") -> Figure:
    """Above how often a pixel called with some confidence is right; below how many those are.

    `calibration` is that of the document of `evaluate`.  A calibrated model is on the diagonal.
    """
    figure = blank_figure(6.4, 6.8, title)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    bins = [b for b in calibration["bins"] if b["pixels"]]
    left = [b["from"] for b in bins]
    width = [b["to"] - b["from"] for b in bins]
    style: dict[str, Any] = {"align": "edge", "edgecolor": "white", "linewidth": 0.8}
    accuracy = [b["accuracy"] for b in bins]
    above.bar(left, accuracy, width, color=PALE, **style)
    above.plot([0, 1], [0, 1], color=ORANGE, linestyle="--", linewidth=1.5)
    above.plot([b["confidence"] for b in bins], accuracy, "o-", color=BLUE, markersize=5)
    plot_frame(above, y="share of them that is right")
    above.set_ylim(0, 1)
    ece = calibration["ece"]
    note = "nothing was counted" if ece is None else f"calibration error (ECE) {ece:.3f}"
    heading(above, "Reliability; dashed: as sure as right", note)
    total = sum(b["pixels"] for b in bins)
    below.bar(left, [b["pixels"] / total for b in bins], width, color=FAINT, **style)
    plot_frame(below, "confidence: probability of the class chosen", "share of pixels")
    below.set_xlim(0, 1)
    below.set_ylim(bottom=0)
    return figure


@styled
def drive_figure(
    by_drive: Mapping[str, Mapping[str, Any]],
    per_class: Mapping[str, float | None],
    title: str = "",
) -> Figure:
    """The IoU of each class in each drive, worst first over all; above it the drive's mIoU.

    `by_drive` is that of the document of `evaluate`; of more than twelve drives the longest.
    """
    order = [name for name, _ in worst_first(per_class)]
    longest = sorted(by_drive, key=lambda drive: -by_drive[drive]["frames"])[:_DRIVES]
    drives = [drive for drive in by_drive if drive in longest]
    found = np.array([[by_drive[d]["per_class"][name] for d in drives] for name in order])
    cells = found.astype(np.float64)
    figure = blank_figure(3.2 + 1.25 * len(drives), 2.2 + 0.3 * len(order), title)
    axes = figure.subplots()
    axes.imshow(cells, cmap=SHARES, vmin=0, vmax=1.15, aspect="auto")
    for (row, column), value in np.ndenumerate(cells):
        known = np.isfinite(value)
        color = ("white" if value > 0.6 else INK) if known else SOFT
        text = f"{value:.3f}" if known else "nowhere"
        axes.text(column, row, text, ha="center", va="center", fontsize=NOTE, color=color)
    axes.set_xticks(range(len(drives)), [_drive_words(d, by_drive[d]) for d in drives])
    axes.set_yticks(range(len(order)), [_short(name) for name in order])
    axes.xaxis.tick_top()
    table_frame(axes)
    axes.tick_params(axis="x", labelsize=9, colors=SOFT)
    heading(axes, "IoU by class and drive")
    return figure


def _drive_words(name: str, drive: Mapping[str, Any]) -> str:
    between = drive["miou_interval"]
    interval = f"{between[0]:.3f} to {between[1]:.3f}" if between else ""
    frames = f"{drive['frames']} frame{'s' * (drive['frames'] != 1)}"
    words = f"{frames}\nmIoU {number(drive['miou'])}\n{interval}"
    return f"{shortened(name, 13)}\n{words}"
