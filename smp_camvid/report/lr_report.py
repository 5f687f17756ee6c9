"""What `train --find-lr` shows: the curve as a picture, the suggestion in words."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from smp_camvid.report.style import (
    BLUE,
    FAINT,
    INK,
    NOTE,
    ORANGE,
    SOFT,
    blank_figure,
    heading,
    plot_frame,
    styled,
)
from smp_camvid.report.tables import number
from smp_camvid.training.lr_finder import RangeTest

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@styled
def lr_figure(test: RangeTest, title: str = "", current: float | None = None) -> Figure:
    """Loss over the learning rate: each step's, smoothed, and the rates worth knowing.

    `current` is the recipe's rate.
    """
    figure = blank_figure(8.4, 4.8)
    axes = figure.subplots()
    axes.plot(test.rates, test.losses, ".", color=FAINT, markersize=5, label="each step")
    axes.plot(test.rates, test.smoothed, color=BLUE, linewidth=2, label="smoothed")
    _frame(axes, test)
    marks = (
        (test.steepest, ORANGE, "-", "suggested: falls fastest"),
        (test.careful, ORANGE, ":", "careful: at most a tenth of the lowest"),
        (current, SOFT, "--", "the recipe's"),
    )
    for rate, color, style, name in marks:
        if rate is not None:
            label = f"{name}, {in_digits(rate)}"
            axes.axvline(rate, color=color, linestyle=style, linewidth=1.5, label=label)
    axes.legend(frameon=False, fontsize=NOTE, labelcolor=INK, loc="lower left")
    heading(axes, title or "Learning-rate range test")
    return figure


def _frame(axes: Axes, test: RangeTest) -> None:
    curve = test.smoothed
    # The runaway at the end would flatten everything before it.
    top = 1.5 * max(curve[0], float(np.median(test.losses)))
    axes.set_ylim(min(0.0, min(test.losses)), top)
    axes.set_xscale("log")
    plot_frame(axes, "learning rate", "training loss after the step")


def lr_rows(test: RangeTest, current: float) -> Iterator[tuple[str, str]]:
    """What came out, as label and text; `current` is the recipe's rate."""
    first, last = in_digits(test.rates[0]), in_digits(test.rates[-1])
    ended = "where the loss ran away" if test.diverged else "and the loss did not run away"
    yield "tried", f"{len(test.rates)} rates from {first} to {last}, {ended}"
    if test.lowest is None or test.steepest is None or test.careful is None:
        yield "found", "nothing: the loss did not fall clearly at any rate, so none is suggested"
        yield "hint", "more frames a step give a calmer curve: --accumulate 4"
    else:
        curve = test.smoothed
        least = number(float(curve[test.rates.index(test.lowest)]))
        yield "loss", f"{number(float(curve[0]))} at first, {least} at {in_digits(test.lowest)}"
        yield "suggested", f"--lr {in_digits(test.steepest)}, where the loss falls fastest"
        yield (
            "careful",
            f"--lr {in_digits(test.careful)}, at most a tenth of where the loss is lowest",
        )
        if not test.diverged:
            yield "note", "the loss never ran away, so look at the curve before you trust them"
    yield "the recipe has", f"--lr {current:g}"


def next_command(test: RangeTest, folder: Path) -> str:
    """The run with the suggested rate; empty when there is none."""
    if test.steepest is None:
        return ""
    config = shlex.quote(str(folder / "config.toml"))
    return f"smp-camvid train --recipe {config} --lr {in_digits(test.steepest)}"


def in_digits(rate: float) -> str:
    """Two digits, as people write a rate: `0.0032`, `3.2e-05`."""
    return f"{float(f'{rate:.1e}'):g}"
