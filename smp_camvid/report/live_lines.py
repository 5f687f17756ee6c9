"""The lines of the live view: heading, bars, curves, status."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence

from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from smp_camvid.report.sparkline import finite_range, sparkline
from smp_camvid.report.tables import duration, number
from smp_camvid.report.view_state import ViewState
from smp_camvid.training.events import EpochDone, StepDone, ValidationStep

COMPACT = 60  # columns below which only the needful is said
STYLES = {"train": "magenta", "val": "cyan", "step": "magenta", "": "dim"}

Curve = tuple[str, list[float], str]  # train or val, a value for each epoch, the newest in words


def rate(lr: float) -> str:
    """A learning rate in at most six characters: `2.0e-4`."""
    return f"{lr:.1e}".replace("e-0", "e-").replace("e+00", "")


def notice_line(message: str) -> Text:
    return Text("note: ", style="yellow").append(message)


def heading_text(state: ViewState, width: int) -> Text:
    """Run, device, protocol, frames and sizes: as many as fit."""
    run = state.run
    frames = f"{run.train_frames} train + {run.val_frames} val frames"
    parts = [run.device, run.protocol, frames, f"{run.parameters:,} parameters"]
    title = Text(run.name, style="bold", no_wrap=True, overflow="ellipsis")
    for part in parts:
        if part and title.cell_len + 2 + len(part) <= width:
            title.append(f"  {part}", style="not bold")
    return title


def progress_bars(state: ViewState, width: int) -> Table:
    """Two lines: this epoch and the whole run."""
    run, step = state.run, state.step
    done, steps = (step.step, step.steps) if step else (0, run.steps_per_epoch)
    validating = isinstance(step, ValidationStep)
    within = 1.0 if validating else done / max(1, steps)
    compact = width < COMPACT
    grid = Table.grid(padding=(0, 1, 0, 0), pad_edge=False, expand=True)
    grid.add_column(no_wrap=True)
    grid.add_column(ratio=1, min_width=4 if compact else 8)
    grid.add_column(no_wrap=True, justify="right")
    grid.add_column(no_wrap=True)
    grid.add_row(
        Text(f"epoch {state.epoch}/{run.epochs}"),
        _bar(done, steps),
        f"{'val' if validating else 'train'} {done}/{steps}" if steps else "",
        _epoch_info(state, compact),
    )
    grid.add_row(
        Text("run"),
        _bar(state.finished + (within if step else 0.0), run.epochs),
        f"{state.finished}/{run.epochs}",
        _run_info(state, compact),
    )
    return grid


def _bar(done: float, total: float) -> ProgressBar:
    return ProgressBar(
        total=max(1, total),
        completed=done,
        style="grey30",
        complete_style="cyan",
        finished_style="green",
    )


def _epoch_info(state: ViewState, compact: bool) -> Text:
    step, info = state.step, Text()
    if not compact:
        info.append("loss ", "dim").append(f"{number(state.loss)}  ")
    if isinstance(step, StepDone) and step.step:
        left = step.seconds / step.step * (step.steps - step.step)
        if not compact:
            info.append(f"{step.images / max(step.seconds, 1e-9):.1f}").append(" img/s  ", "dim")
        info.append(duration(left)).append(" left", "dim")
    return info


def _run_info(state: ViewState, compact: bool) -> Text:
    info, best = Text(), state.best
    if best and best.val and not compact:
        info.append("best ", "dim").append(number(best.val.miou), "bold")
        info.append(f" (epoch {best.epoch})  ", "dim")
    return info.append("ETA ", "dim").append(duration(state.seconds_left()))


# -- curves ------------------------------------------------------------------------------------


def _scores(epochs: Sequence[EpochDone], what: str) -> list[Curve]:
    """Train and val; an epoch that was not validated keeps the value of the last that was."""
    train = [float(getattr(epoch.train, what)) for epoch in epochs]
    curves = [("train", train, number(train[-1]))]
    if any(epoch.val for epoch in epochs):
        seen = (getattr(epoch.val, what) if epoch.val else None for epoch in epochs)
        val = list(itertools.accumulate(seen, _kept, initial=math.nan))[1:]
        curves.append(("val", val, number(val[-1])))
    return curves


def _kept(last: float, new: float | None) -> float:
    return last if new is None else new


def _stretched(values: list[float], whole: int, cells: int) -> list[float]:
    """Up to four characters for each value, as many as the `whole` curve will have room for."""
    times = min(4, max(1, cells // max(1, whole)))
    return [value for value in values for _ in range(times)]


def _pairs(state: ViewState) -> Iterator[tuple[str, int, list[Curve]]]:
    """Name, values that the curves will have in the end, and the curves of one scale."""
    if state.epochs:
        yield "loss", state.run.epochs, _scores(state.epochs, "loss")
        yield "mIoU", state.run.epochs, _scores(state.epochs, "miou")
    elif state.losses:
        steps = state.run.steps_per_epoch
        yield "loss", steps, [("step", state.losses, number(state.losses[-1]))]


def curve_lines(state: ViewState, width: int) -> list[Text]:
    """A line for the losses and one for mIoU, train and val beside each other in one scale."""
    lines = []
    for name, whole, curves in _pairs(state):
        shown = curves if width >= COMPACT else curves[-1:]
        span = finite_range(*(values for _, values, _ in shown))
        cells = max(4, (width - 6) // len(shown) - 15)
        line = Text(f"{name:<6}", "dim", no_wrap=True, overflow="crop")
        for kind, values, newest in shown:
            (curve,) = sparkline(_stretched(values, whole, cells), cells, span=span)
            line.append(f"{kind:<6}", "dim").append(curve, f"not dim {STYLES[kind]}")
            line.append(f" {newest}{'':{max(0, cells - len(curve))}}  ", "not dim")
        line.rstrip()
        lines.append(line)
    return lines


def tall_curves(state: ViewState, width: int, rows: int) -> list[Text]:
    """Each curve in `rows` lines of its own, its newest value at the end."""
    cells = width - 6 - 6 - 8
    lines: list[Text] = []
    for name, whole, curves in _pairs(state):
        span = finite_range(*(values for _, values, _ in curves))
        for kind, values, newest in curves:
            label = name if kind == curves[0][0] else ""
            curve = sparkline(_stretched(values, whole, cells), cells, rows, span)
            lines += _tall(label, kind, curve, newest)
    rates = [epoch.lr for epoch in state.epochs] or ([state.lr] if state.lr is not None else [])
    if rates:
        newest = rate(rates[-1] if state.lr is None else state.lr)
        curve = sparkline(_stretched(rates, state.run.epochs, cells), cells)
        lines += _tall("lr", "", curve, newest)
    return lines


def _tall(name: str, kind: str, curve: list[str], newest: str) -> Iterator[Text]:
    cells = max(map(len, curve))
    for row, part in enumerate(curve):
        last = row == len(curve) - 1
        line = Text(f"{name if last else '':<6}{kind if last else '':<6}", "dim", no_wrap=True)
        line.append(f"{part:<{cells}}", f"not dim {STYLES[kind]}")
        yield line.append(f" {newest}" if last else "", "not dim")


# -- status ------------------------------------------------------------------------------------


def status_items(state: ViewState, with_rate: bool = True) -> list[Text]:
    """What stands below, each a few words that stay together."""
    rate = _rate(state) if with_rate else None
    found = [signs_of_life(state), rate, _machine(state), _wait(state), _saved(state)]
    return [item for item in found if item is not None]


def _item(label: str, value: str) -> Text:
    return Text(f"{label} ", "dim", no_wrap=True).append(value, "not dim")


def _rate(state: ViewState) -> Text | None:
    return None if state.lr is None else _item("lr", rate(state.lr))


def _machine(state: ViewState) -> Text | None:
    use = state.machine
    if use is None or use.used_bytes is None or not use.total_bytes:
        return None
    words = f"{use.used_bytes / 2**30:.1f} of {use.total_bytes / 2**30:.1f} GiB"
    if use.load is not None:
        words += f", {use.load:.0%} busy" if use.gpu else f", load {use.load:.1f} per core"
    return _item("GPU" if use.gpu else "memory", words)


def _wait(state: ViewState) -> Text | None:
    if not state.epochs or state.epochs[-1].seconds <= 0:
        return None
    last = state.epochs[-1]
    return _item("waited for data", f"{last.data_wait_seconds / last.seconds:.0%}")


def _saved(state: ViewState) -> Text | None:
    saved = state.saved
    if saved is None:
        return None
    name, ago = saved.path.name, duration(state.clock() - state.saved_at)
    epoch = "" if name.startswith("epoch-") else f" (epoch {saved.epoch})"
    return _item("saved", f"{name}{epoch}, {ago} ago")


def signs_of_life(state: ViewState) -> Text | None:
    """Of a run that another process trains: when it was last heard of."""
    if state.heard_at is None:
        return None
    text = f"last sign of life {duration(state.clock() - state.heard_at)} ago"
    if state.epoch_at is not None:
        text += f", last epoch {duration(state.clock() - state.epoch_at)} ago"
    return Text(text, "bold yellow" if state.is_silent else "dim", no_wrap=True)
