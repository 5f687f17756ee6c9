"""Pictures of a run while it trains: curves, confusion, classes, sheets of what it predicts."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from smp_camvid.report.score_figures import class_iou_figure, confusion_figure
from smp_camvid.report.sheets import prediction_sheet
from smp_camvid.report.style import (
    BLUE,
    INK,
    NOTE,
    ORANGE,
    SOFT,
    blank_figure,
    heading,
    plot_frame,
    png_bytes,
    styled,
)
from smp_camvid.runs import write_bytes
from smp_camvid.training.events import EpochDone, Event, History, Pictures, RunEnded, RunStarted

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_FEW = 25  # epochs: more are a line without dots


@styled
def curves(history: History, title: str = "") -> Figure:
    """Loss, mIoU and accuracy by epoch: train above, val below, each column on one scale."""
    figure = blank_figure(12, 6.6, title)
    grid = figure.subplots(2, 3, sharex=True, sharey="col", squeeze=False)
    rows = (
        ("train", ORANGE, [(e, e.train) for e in history.epochs]),
        ("val", BLUE, [(e, e.val) for e in history.epochs if e.val]),
    )
    for row, (split, color, scored) in enumerate(rows):
        for column, (name, key) in enumerate(
            (("loss", "loss"), ("mIoU", "miou"), ("pixel accuracy", "accuracy"))
        ):
            values = [getattr(scores, key) for _, scores in scored]
            epochs = [epoch.epoch for epoch, _ in scored]
            _curve(grid[row, column], f"{split} {name}", color, epochs, values)
            if column:
                grid[row, column].set_ylim(0, 1)
    for axes in grid[1]:
        axes.set_xlabel("epoch")
    _mark_best(grid[1, 1], history)
    return figure


def _curve(
    axes: Axes, name: str, color: str, epochs: Sequence[int], values: Sequence[float]
) -> None:
    from matplotlib.ticker import MaxNLocator

    few = len(epochs) < _FEW
    axes.plot(epochs, values, color=color, linewidth=2, marker="o" if few else None, markersize=4)
    plot_frame(axes)
    axes.tick_params(labelbottom=True, labelleft=True)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    last = (f"{values[-1]:.3f}" if np.isfinite(values[-1]) else "no number") if values else ""
    heading(axes, name, f"last {last}" if last else "not measured")


def _mark_best(axes: Axes, history: History) -> None:
    best = next((e for e in reversed(history.epochs) if e.best and e.val), None)
    if best is None or best.val is None:
        return
    axes.axvline(best.epoch, color=SOFT, linewidth=1, linestyle=":")
    axes.plot([best.epoch], [best.val.miou], marker="*", markersize=13, color=BLUE)
    first, last = history.epochs[0].epoch, history.epochs[-1].epoch
    right = best.epoch > (first + last) / 2
    axes.annotate(  # at the end of the line that the curve is not at
        f"best {best.val.miou:.3f}, epoch {best.epoch}",
        (best.epoch, 0.04 if best.val.miou > 0.3 else 0.9),
        xytext=(-7 if right else 7, 0),
        textcoords="offset points",
        ha="right" if right else "left",
        color=INK,
        fontsize=NOTE,
    )


class PlotListener:
    """Writes `plots/` and `images/` of a run directory; a file is there whole or not at all.

    Curves every `every` epochs and at the end, the confusion matrix and the classes' IoU at the
    end, a sheet for each `Pictures`.  `history` holds earlier epochs of a resumed run.  With
    `show` the pictures appear in the notebook as well; elsewhere `show` does nothing.
    """

    def __init__(
        self, run_dir: Path, every: int, show: bool = False, history: History | None = None
    ) -> None:
        self.run_dir = Path(run_dir)
        self.every = max(1, every)
        self.show = show
        self.history = history or History()
        self._run: RunStarted | None = None
        self._drawn = 0  # the epoch of the newest curves

    def on_event(self, event: Event) -> None:
        if isinstance(event, RunStarted):
            self._run = event
        elif isinstance(event, EpochDone):
            self.history.epochs.append(event)
            if event.epoch % self.every == 0:
                self._draw_curves(event.epoch)
        elif isinstance(event, Pictures):
            self._draw_sheet(event)
        elif isinstance(event, RunEnded):
            self._end(event)

    def _end(self, event: RunEnded) -> None:
        if self.history.epochs and self.history.epochs[-1].epoch != self._drawn:
            self._draw_curves(self.history.epochs[-1].epoch)
        validated = [e for e in self.history.epochs if e.val]
        if event.confusion is None or self._run is None:
            return
        figure = confusion_figure(event.confusion, self._run.classes)
        self._write("plots/confusion.png", png_bytes(figure))
        if validated and (last := validated[-1].val):
            title = f"{self._run.name}, val, epoch {validated[-1].epoch}, {self._run.protocol}"
            figure = class_iou_figure(last.per_class, last.miou, self._run.classes, title)
            self._write("plots/class-iou.png", png_bytes(figure))

    def _draw_curves(self, epoch: int) -> None:
        run = self._run
        picture = png_bytes(curves(self.history, f"{run.name}, {run.protocol}" if run else ""))
        self._drawn = epoch
        self._write(f"plots/epoch-{epoch:04d}-curves.png", picture)
        self._write("plots/curves.png", picture, show=False)

    def _draw_sheet(self, event: Pictures) -> None:
        assert self._run is not None, "RunStarted comes before Pictures"
        title = f"{self._run.name}, {event.split}, epoch {event.epoch}"
        sheet = prediction_sheet(event.frames, self._run.classes, title)
        self._write(f"images/epoch-{event.epoch:04d}-{event.split}.png", png_bytes(sheet))

    def _write(self, name: str, data: bytes, show: bool = True) -> None:
        write_bytes(self.run_dir / name, data)
        if show and self.show:
            _show_in_notebook(data)


def _show_in_notebook(data: bytes) -> None:
    """Inline where an IPython kernel runs us; IPython is never imported for it."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    if getattr(shell, "kernel", None) is not None:
        from importlib import import_module

        display: Callable[[Any], Any] = import_module("IPython.display").display
        display(import_module("IPython.display").Image(data=data))
