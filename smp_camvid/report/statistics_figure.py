"""The picture of `data stats`: how common each class is, by split and by drive."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from smp_camvid.data.statistics import Statistics
from smp_camvid.report.style import (
    BLUE,
    GREY,
    GRID,
    INK,
    NOTE,
    ORANGE,
    SHARES,
    SOFT,
    blank_figure,
    ink_on,
    share_norm,
    styled,
    table_frame,
)
from smp_camvid.report.tables import shortened

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MARKS = {"train": (ORANGE, "o"), "val": (BLUE, "D"), "test": (GREY, "s")}
_DRIVES = 8
_DARKEST = 0.5  # the share with the deepest colour
_LEAST = 1e-4  # one pixel in ten thousand: what is rarer sits at the left edge


@styled
def statistics_figure(statistics: Statistics) -> Figure:
    """Left the share of each class in each split, on a logarithmic axis, the most common on top;
    a split without a class has no mark there, and a class that is nowhere says so.

    Right the same by drive, in per cent of the drive's own pixels; the eight longest drives.
    """
    table = statistics.table
    shown = [i for i in range(len(table)) if i != table.void_index]
    overall = statistics.shares(statistics.frames)
    order = sorted(shown, key=lambda i: -overall[i])
    longest = sorted(statistics.drives, key=lambda d: -len(statistics.of(drive=d)))[:_DRIVES]
    drives = [drive for drive in statistics.drives if drive in longest]
    title = f"Share of each class among the labelled pixels of {len(statistics.frames)} frames"
    figure = blank_figure(8.6 + 0.75 * len(drives), 1.7 + 0.33 * len(order), title)
    left, right = figure.subplots(1, 2, width_ratios=(7, 1.5 + 0.75 * len(drives)))
    _by_split(left, statistics, order)
    _by_drive(right, statistics, order, drives)
    return figure


def _by_split(axes: Axes, statistics: Statistics, order: list[int]) -> None:
    rows = np.arange(len(order))
    shares = np.array([statistics.shares(statistics.of(split=s)) for s in statistics.splits])
    counted = shares[:, order]
    least = max(_LEAST, 10 ** np.floor(np.log10(counted[counted > 0].min(initial=0.1))))
    visible = np.where(counted > 0, counted.clip(least), np.nan)
    there = (counted > 0).any(0)
    axes.hlines(
        rows[there], np.nanmin(visible[:, there], 0), np.nanmax(visible[:, there], 0),
        color=GRID, linewidth=4, zorder=1,
    )  # fmt: skip
    for row in rows[~there]:
        axes.text(least * 1.1, row, "none", va="center", fontsize=9, color=SOFT)
    for split, values in zip(statistics.splits, visible, strict=True):
        color, marker = _MARKS[split]
        number = len(statistics.of(split=split))
        axes.plot(
            values, rows, marker, color=color, markersize=7, label=f"{split}, {number} frames"
        )
    axes.set_xscale("log")
    axes.set_xlim(least * 0.8, 1)
    ticks = [tick for tick in (0.0001, 0.001, 0.01, 0.1, 1) if tick >= least * 0.99]
    names = [f"{100 * tick:g} %" for tick in ticks]
    if (counted[counted > 0] < least).any():  # they sit on the first tick
        names[0] = f"\N{LESS-THAN OR EQUAL TO} {names[0]}"
    axes.set_xticks(ticks, names)
    axes.minorticks_off()
    axes.set_yticks(rows, [shortened(statistics.table.names[i], 20) for i in order])
    axes.set_ylim(len(order) - 0.5, -0.5)
    axes.grid(axis="x", color=GRID, linewidth=0.8)
    _quiet(axes)
    axes.legend(
        loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, frameon=False,
        fontsize=NOTE, labelcolor=INK, handletextpad=0.3, columnspacing=1.4,
    )  # fmt: skip


def _by_drive(axes: Axes, statistics: Statistics, order: list[int], drives: list[str]) -> None:
    shares = np.array([statistics.shares(statistics.of(drive=drive)) for drive in drives])
    cells = shares[:, order].T
    axes.imshow(cells, cmap=SHARES, norm=share_norm(_DARKEST), aspect="auto")
    for (row, column), value in np.ndenumerate(cells):
        text = "" if value == 0 else "<.1" if value < 0.001 else f"{100 * value:.1f}"
        axes.text(
            column, row, text, ha="center", va="center", fontsize=9, color=ink_on(value, _DARKEST)
        )
    names = [f"{shortened(d, 10)}\n{len(statistics.of(drive=d))} frames" for d in drives]
    axes.set_xticks(range(len(drives)), names)
    axes.set_yticks([])
    axes.xaxis.tick_top()
    _quiet(axes)


def _quiet(axes: Axes) -> None:
    table_frame(axes)
    axes.tick_params(axis="x", labelsize=9, colors=SOFT)
