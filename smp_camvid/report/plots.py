"""Pictures of a run: curves, confusion matrix, sheets of frame, truth and prediction.

Figures are made from `matplotlib.figure.Figure` and never through pyplot, so nothing here touches
the state of a notebook or needs a display.  matplotlib is imported when the first one is drawn.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from smp_camvid.data.classes import ClassTable
from smp_camvid.report.sheets import INK, SOFT, prediction_sheet
from smp_camvid.runs import write_bytes
from smp_camvid.training.events import EpochDone, Event, History, Pictures, RunEnded, RunStarted

__all__ = ["PlotListener", "confusion_figure", "curves", "prediction_sheet"]

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

GRID = "#d9dee3"
_TRAIN, _VAL = "#c2570c", "#1d5fa8"  # told apart by colour-blind eyes and in grey
_DPI = 120


def curves(history: History, title: str = "") -> Figure:
    """Loss, mIoU and accuracy by epoch: train above, val below, each column on one scale."""
    figure = blank_figure(12, 6.6)
    grid = figure.subplots(2, 3, sharex=True, sharey="col", squeeze=False)
    rows = (
        ("train", _TRAIN, [(e, e.train) for e in history.epochs]),
        ("val", _VAL, [(e, e.val) for e in history.epochs if e.val]),
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
        axes.set_xlabel("epoch", color=SOFT)
    _mark_best(grid[1, 1], history)
    if title:
        figure.suptitle(title, x=0.01, ha="left", color=INK, fontsize=13, parse_math=False)
    return figure


def blank_figure(width: float, height: float) -> Figure:
    """White, of `width` x `height` inches, laid out by itself; pyplot knows nothing of it."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=_DPI, layout="constrained", facecolor="white")
    figure.set_layout_engine("constrained", w_pad=0.12, h_pad=0.12)
    return figure


def _curve(
    axes: Axes, name: str, color: str, epochs: Sequence[int], values: Sequence[float]
) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.plot(epochs, values, color=color, linewidth=2, marker="o" if len(epochs) < 25 else None)
    axes.lines[0].set_markersize(4)
    axes.set_title(name, loc="left", color=INK, fontsize=12)
    axes.grid(color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(GRID)
    axes.tick_params(colors=SOFT, labelsize=10, labelbottom=True, labelleft=True)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    finite = [value for value in values if np.isfinite(value)]
    note = f"last {values[-1]:.3f}" if finite else "not measured"
    axes.set_title(note, loc="right", color=SOFT, fontsize=10)


def _mark_best(axes: Axes, history: History) -> None:
    best = next((e for e in reversed(history.epochs) if e.best and e.val), None)
    if best is None or best.val is None:
        return
    axes.axvline(best.epoch, color=SOFT, linewidth=1, linestyle=":")
    axes.plot([best.epoch], [best.val.miou], marker="*", markersize=13, color=_VAL)
    first, last = history.epochs[0].epoch, history.epochs[-1].epoch
    right = best.epoch > (first + last) / 2
    axes.annotate(  # at the end of the line that the curve is not at
        f"best {best.val.miou:.3f}, epoch {best.epoch}",
        (best.epoch, 0.04 if best.val.miou > 0.3 else 0.9),
        xytext=(-7 if right else 7, 0),
        textcoords="offset points",
        ha="right" if right else "left",
        color=INK,
        fontsize=10,
    )


def confusion_figure(matrix: npt.NDArray[np.int64], table: ClassTable) -> Figure:
    """`[C, C]` counts (rows truth, columns prediction) as per cent of each row.

    The void class of the table, which is never truth, is left out; a class without a truth pixel
    keeps an empty row; less than a tenth of a per cent is left blank.
    """
    from matplotlib.colors import PowerNorm

    keep = [i for i in range(len(table)) if i != table.void_index]
    counts = np.asarray(matrix)[np.ix_(keep, keep)].astype(np.float64)
    names, truth = [table.names[i] for i in keep], counts.sum(axis=1)
    share = np.divide(counts, truth[:, None], out=np.zeros_like(counts), where=truth[:, None] > 0)
    cell, font = (0.56, 10) if len(keep) <= 16 else (0.37, 8)
    side = 2.2 + cell * len(keep)
    figure = blank_figure(side + 1.2, side)
    axes = figure.subplots()
    # The square root lets a confusion of one per cent show beside a diagonal of ninety.
    axes.imshow(share, cmap="Blues", norm=PowerNorm(0.5, vmin=0, vmax=1))
    for (row, column), value in np.ndenumerate(share):
        if value >= 0.001:
            _percent(axes, column, row, value, font)
    total = max(1.0, truth.sum())
    rows = [f"{name}  {_share(pixels / total)}" for name, pixels in zip(names, truth, strict=True)]
    axes.set_yticks(range(len(keep)), rows)
    axes.set_xticks(range(len(keep)), names, rotation=45, ha="right", rotation_mode="anchor")
    axes.tick_params(length=0, labelsize=10, colors=INK)
    for label in (*axes.get_xticklabels(), *axes.get_yticklabels()):
        label.set_parse_math(False)
    axes.spines[:].set_visible(False)
    axes.set_xlabel("prediction", color=SOFT, fontsize=11)
    axes.set_ylabel("truth, with its share of all pixels", color=SOFT, fontsize=11)
    axes.set_title("Confusion, per cent of the true pixels of a class", loc="left", color=INK)
    return figure


def _share(part: float) -> str:
    return "none" if part == 0 else f"{100 * part:.1f} %"


def _percent(axes: Axes, x: int, y: int, value: float, font: int) -> None:
    text = "<1" if value < 0.005 else f"{100 * value:.0f}"
    color = "white" if value > 0.35 else SOFT if x != y else INK
    axes.text(x, y, text, ha="center", va="center", fontsize=font, color=color)


class PlotListener:
    """Writes `plots/` and `images/` of a run directory; a file is there whole or not at all.

    Curves every `every` epochs and at the end, the confusion matrix at the end, a sheet for each
    `Pictures`.  `history` holds earlier epochs of a resumed run.  With `show` the pictures appear
    in the notebook as well; elsewhere `show` does nothing.
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
        if event.confusion is not None and self._run is not None:
            figure = confusion_figure(event.confusion, self._run.classes)
            self._write("plots/confusion.png", png_bytes(figure))

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


def png_bytes(picture: Figure | Image.Image) -> bytes:
    """A figure or a sheet as a PNG file."""
    buffer = io.BytesIO()
    if isinstance(picture, Image.Image):
        picture.save(buffer, "PNG")
    else:
        picture.savefig(buffer, format="png")
    return buffer.getvalue()


def _show_in_notebook(data: bytes) -> None:
    """Inline where an IPython kernel runs us; IPython is never imported for it."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    if getattr(shell, "kernel", None) is not None:
        from importlib import import_module

        display: Callable[[Any], Any] = import_module("IPython.display").display
        display(import_module("IPython.display").Image(data=data))
