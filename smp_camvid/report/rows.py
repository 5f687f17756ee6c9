"""The lines of a run: an epoch as a row of the table or of a log, and the last lines."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from rich.text import Text

from smp_camvid.report.live_lines import rate
from smp_camvid.report.tables import duration, number
from smp_camvid.report.view_state import ViewState
from smp_camvid.training.events import EpochDone, RunEnded, StepDone, ValidationStep


@dataclass(frozen=True)
class _Column:
    head: tuple[str, str]
    width: int
    cell: Callable[[EpochDone], str]
    dropped: int = 0  # the highest goes first when the line is too short; 0 stays


_EPOCH_COLUMNS = (
    _Column(("", "epoch"), 5, lambda e: str(e.epoch)),
    _Column(("train", "loss"), 6, lambda e: number(e.train.loss)),
    _Column(("val", "loss"), 6, lambda e: number(e.val.loss if e.val else None), 2),
    _Column(("train", "mIoU"), 5, lambda e: number(e.train.miou)),
    _Column(("val", "mIoU"), 5, lambda e: number(e.val.miou if e.val else None)),
    _Column(("train", "acc"), 5, lambda e: number(e.train.accuracy), 5),
    _Column(("val", "acc"), 5, lambda e: number(e.val.accuracy if e.val else None), 4),
    _Column(("", "lr"), 6, lambda e: rate(e.lr), 6),
    _Column(("", "img/s"), 6, lambda e: f"{e.images_per_second:.4g}", 3),
    _Column(("GPU", "mem"), 6, lambda e: f"{(e.gpu_memory_bytes or 0) / 2**30:.1f}G", 7),
    _Column(("", "time"), 6, lambda e: duration(e.seconds), 1),
    _Column(("", "ETA"), 6, lambda e: duration(e.seconds_left)),
    _Column(("data", "wait"), 5, lambda e: f"{e.data_wait_seconds / max(e.seconds, 1e-9):.0%}", 8),
)


def _epoch_columns(width: int, gpu: bool) -> list[_Column]:
    columns = [c for c in _EPOCH_COLUMNS if gpu or c.head[0] != "GPU"]
    while sum(c.width + 1 for c in columns) > width and any(c.dropped for c in columns):
        columns.remove(max(columns, key=lambda c: c.dropped))
    return columns


def epoch_head(width: int, gpu: bool) -> list[str]:
    """The two lines above the rows of `epoch_row`."""
    columns = _epoch_columns(width, gpu)
    return [" " + " ".join(c.head[line].rjust(c.width) for c in columns) for line in (0, 1)]


def epoch_row(epoch: EpochDone, width: int, gpu: bool, ascii_only: bool = False) -> Text:
    """One epoch in fixed columns, marked when it is the best so far.

    What does not fit `width` is left out, the least needed first.
    """
    cells = [c.cell(epoch).rjust(c.width) for c in _epoch_columns(width, gpu)]
    mark = ("*" if ascii_only else "★") if epoch.best else " "
    return Text(mark + " ".join(cells), "bold" if epoch.best else "")


def plain_epoch(epoch: EpochDone) -> str:
    """An epoch as one line of a log."""
    val, train = epoch.val, epoch.train
    parts = [
        f"epoch {epoch.epoch}/{epoch.epochs}",
        f"loss {number(train.loss)} val {number(val.loss if val else None)}",
        f"mIoU {number(train.miou)} val {number(val.miou if val else None)}",
        f"accuracy {number(train.accuracy)} val {number(val.accuracy if val else None)}",
        f"lr {epoch.lr:.2e}",
        f"{epoch.images_per_second:.4g} img/s",
    ]
    if epoch.gpu_memory_bytes is not None:
        parts.append(f"GPU {epoch.gpu_memory_bytes / 2**30:.1f} GiB")
    parts.append(f"{duration(epoch.seconds)}, {duration(epoch.seconds_left)} left")
    return "  ".join(parts) + ("  best" if epoch.best else "")


def plain_step(event: StepDone | ValidationStep, state: ViewState) -> str:
    """A sign of life within a long epoch, as one line of a log."""
    kind = "val step" if isinstance(event, ValidationStep) else "step"
    line = f"epoch {event.epoch}/{state.run.epochs}  {kind} {event.step}/{event.steps}"
    if isinstance(event, ValidationStep):
        return line
    rate = event.images / max(event.seconds, 1e-9)
    left = event.seconds / max(1, event.step) * (event.steps - event.step)
    return f"{line}  loss {number(state.loss)}  {rate:.4g} img/s  {duration(left)} to validation"


def summary(event: RunEnded, state: ViewState, seconds: float) -> Iterator[tuple[str, str]]:
    """The last lines: what came out, by which measure, where it lies and what to type next."""
    run = state.run
    if event.reason == "done":
        yield "done", f"{event.epoch} of {run.epochs} epochs, {duration(seconds)}"
    else:
        why = "stopped" if event.reason == "interrupted" else event.reason
        yield why, f"in epoch {event.epoch} of {run.epochs}"
    best = next((e for e in state.epochs if e.epoch == event.best_epoch), None)
    if best and best.val:
        yield "best", f"epoch {best.epoch}: val mIoU {number(best.val.miou)}"
    elif event.best_epoch is not None:
        yield "best", f"epoch {event.best_epoch}"
    last = next((e for e in reversed(state.epochs) if e.val), None)
    if last and last.val:
        counted = sum(value is not None for value in last.val.per_class.values())
        score = f"val mIoU {number(last.val.miou)}, accuracy {number(last.val.accuracy)}"
        yield "last", f"epoch {last.epoch}: {score}, {run.protocol}"
        mean = f"mean over {counted} classes" if counted else "mean over the classes that occur"
        yield "measure", f"mIoU pooled over the split, void left out, {mean}"
    if state.saved:
        yield "saved", f"{state.where(state.saved.path)} (epoch {state.saved.epoch})"
    yield "folder", str(event.run_dir)
    if event.next_command:
        yield "next", event.next_command
