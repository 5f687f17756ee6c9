"""What the live region shows: state filled by events, composed for the size of the moment."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console, ConsoleOptions, RenderableType
from rich.progress_bar import ProgressBar
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from smp_camvid.report.tables import bar_columns, class_bars, duration, number
from smp_camvid.training.events import EpochDone, RunStarted, Saved, StepDone, ValidationStep

NOTICES_IN_VIEW = 3


def sparkline(values: Sequence[float], cells: int) -> str:
    """A curve in `cells` characters, each the last value of its share of `values`."""
    levels = "▁▂▃▄▅▆▇█"
    count = min(cells, len(values))
    picked = [values[(i + 1) * len(values) // count - 1] for i in range(count)]
    known = [value for value in picked if math.isfinite(value)]
    low, span = min(known, default=0.0), max(known, default=0.0) - min(known, default=0.0)
    return "".join(
        levels[round((value - low) / span * 7) if span else 3] if math.isfinite(value) else " "
        for value in picked
    )


@dataclass
class ViewState:
    """What the events so far say; the live view draws it, the listener fills it."""

    run: RunStarted
    clock: Callable[[], float]
    epochs: list[EpochDone] = field(default_factory=list)
    step: StepDone | ValidationStep | None = None
    train: StepDone | None = None
    loss: float | None = None
    saved: Saved | None = None
    notices: list[str] = field(default_factory=list)
    left: float | None = None  # seconds to the end, as known at `left_at`
    left_at: float = 0.0

    @property
    def best(self) -> EpochDone | None:
        return next((epoch for epoch in reversed(self.epochs) if epoch.best), None)

    @property
    def epoch(self) -> int:
        last = self.epochs[-1].epoch if self.epochs else self.run.first_epoch - 1
        return self.step.epoch if self.step else min(last + 1, self.run.epochs)

    def take_step(self, event: StepDone | ValidationStep) -> None:
        if isinstance(event, ValidationStep):
            self.step = event
            return
        if self.train is None or self.train.epoch != event.epoch:
            self.loss = None
        self.step = self.train = event
        self.loss = self.loss if event.loss is None else event.loss
        if not self.epochs:  # until an epoch is measured: the steps alone, validation unknown
            per_step = event.seconds / max(1, event.step)
            to_do = (self.run.epochs - event.epoch + 1) * event.steps - event.step
            self.left, self.left_at = per_step * to_do, self.clock()

    def take_epoch(self, event: EpochDone) -> None:
        self.epochs.append(event)
        self.step = None
        self.left, self.left_at = event.seconds_left, self.clock()

    def seconds_left(self) -> float | None:
        return None if self.left is None else max(0.0, self.left - self.clock() + self.left_at)

    def where(self, path: Path) -> str:
        """`path` as seen from the run directory."""
        root = self.run.run_dir
        return str(path.relative_to(root)) if path.is_relative_to(root) else str(path)


class LiveView:
    """The redrawn region, composed anew for the width and height of each moment."""

    def __init__(self, state: ViewState) -> None:
        self.state = state

    def __rich_console__(
        self, console: Console, options: ConsoleOptions
    ) -> Iterator[RenderableType]:
        run, width, ascii_only = self.state.run, options.max_width, options.ascii_only
        frames = f"{run.train_frames}+{run.val_frames} frames"
        title = "  ".join((run.name, run.device, run.protocol, frames))
        yield Rule(Text(title, style="bold"), align="left", style="dim")
        yield self._bars()
        below = list(self._below(width))
        used = 4 + sum(len(console.render_lines(text, options)) for text in below)
        if len(self.state.epochs) > 1 and not ascii_only:
            yield self._curves(width)
            used += 1
        yield from self._classes(width, _class_rows(console.size.height - used))
        yield from below

    def _bars(self) -> Table:
        state, run = self.state, self.state.run
        step, done, loss = state.step, state.step.step if state.step else 0, number(state.loss)
        steps = step.steps if step else run.steps_per_epoch
        info = f"loss {loss}"
        if isinstance(step, StepDone) and step.step:
            rate = step.images / max(step.seconds, 1e-9)
            left = step.seconds / step.step * (step.steps - step.step)
            info += f"  {rate:.1f} img/s  {duration(left)} left"
        kind = "val  " if isinstance(step, ValidationStep) else "train"
        fraction = done / max(1, steps) if kind == "train" else 1.0
        finished = state.epochs[-1].epoch if state.epochs else run.first_epoch - 1
        total = finished + (fraction if step else 0.0)
        best = state.best
        score = f"best {number(best.val.miou)} (epoch {best.epoch})  " if best and best.val else ""
        grid = Table.grid(padding=(0, 1, 0, 0), pad_edge=False, expand=True)
        grid.add_column(no_wrap=True)
        grid.add_column(ratio=1, min_width=8)
        grid.add_column(no_wrap=True, justify="right")
        grid.add_column(no_wrap=True)
        grid.add_row(
            Text(f"epoch {state.epoch} {kind}"), _bar(done, steps), f"{done}/{steps}", Text(info)
        )
        grid.add_row(
            Text("run"),
            _bar(total, run.epochs),
            f"{finished}/{run.epochs}",
            Text(f"{score}ETA {duration(state.seconds_left())}"),
        )
        return grid

    def _curves(self, width: int) -> Text:
        epochs, cells = self.state.epochs, max(6, width // 2 - 24)
        line = Text(no_wrap=True, overflow="crop")
        line.append("train loss ", "dim").append(sparkline([e.train.loss for e in epochs], cells))
        line.append(f" {number(epochs[-1].train.loss)}   ")
        scores = [e.val.miou for e in epochs if e.val]
        if scores:
            line.append("val mIoU ", "dim").append(sparkline(scores, cells), "cyan")
            line.append(f" {number(scores[-1])}")
        return line

    def _classes(self, width: int, rows: int) -> Iterator[RenderableType]:
        judged = [epoch for epoch in self.state.epochs if epoch.val]
        if not judged or not judged[-1].val or not judged[-1].val.per_class or rows < 1:
            return
        last, now = judged[-1], judged[-1].val.per_class
        before = judged[-2] if len(judged) > 1 else None
        which = "worst classes" if rows * bar_columns(width) < len(now) else "classes"
        title = f"IoU of the {which}, val, epoch {last.epoch}"
        if before:
            title += f" (and its change since epoch {before.epoch})"
        yield Text(title, style="dim", no_wrap=True, overflow="ellipsis")
        previous = before.val.per_class if before and before.val else None
        yield class_bars(now, previous, width=width, rows=rows)

    def _below(self, width: int) -> Iterator[Text]:
        saved = self.state.saved
        if saved:
            text = f"saved {self.state.where(saved.path)} (epoch {saved.epoch})"
            yield Text(text, style="dim", no_wrap=True, overflow="ellipsis")
        for message in self.state.notices[-NOTICES_IN_VIEW:]:
            yield notice_line(message)


def _class_rows(free: int) -> int:
    """Lines for the bars when `free` are left: as many as leave ten to the rows of the table.

    A low window shows three lines of bars at the cost of the table, a very low one none.
    """
    return max(min(3, free - 4), free - 10)


def _bar(done: float, total: float) -> ProgressBar:
    return ProgressBar(total=max(1, total), completed=done, finished_style="bar.complete")


def notice_line(message: str) -> Text:
    return Text("note: ", style="yellow").append(message)
