"""Bars for work that is not training: decoding frames, evaluating, downloading a dataset."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.filesize import decimal
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from smp_camvid.data.watching import Watcher
from smp_camvid.report.console import PLAIN_SECONDS
from smp_camvid.report.terminal import can_redraw, make_console

OnStep = Callable[[int, int], None]


@contextlib.contextmanager
def step_progress(label: str, quiet: bool = False) -> Iterator[OnStep]:
    """Yields a function (done, total) that moves a bar on stderr; the bar goes when it is done.

    Where lines cannot be redrawn, or with `quiet`, it shows nothing.
    """
    console = make_console()
    if quiet or not can_redraw(console):
        yield lambda done, total: None
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(label, total=None, visible=False)
        yield lambda done, total: progress.update(task, completed=done, total=total, visible=True)


class _Amount(ProgressColumn):
    """`120.4 MB of 602.0 MB, 4.1 MB/s`, or `12 of 200` for things that are counted."""

    def render(self, task: Task) -> Text:
        size = decimal if task.fields["in_bytes"] else str
        text = size(int(task.completed))
        if task.total is not None:
            text += f" of {size(int(task.total))}"
        speed = task.finished_speed or task.speed
        if speed and task.fields["in_bytes"]:
            text += f", {decimal(int(speed))}/s"
        return Text(text, "progress.download")


@contextlib.contextmanager
def transfer_progress() -> Iterator[Watcher]:
    """Yields a watcher that shows a download on stderr: size, speed and time left.

    Where lines cannot be redrawn it says a plain line now and then.
    """
    console = make_console()
    if not can_redraw(console):
        yield _plain_transfer(console)
        return
    columns = (TextColumn("{task.description}"), BarColumn(24), _Amount(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        stages: dict[str, TaskID] = {}

        def show(stage: str, done: int, total: int | None, in_bytes: bool = True) -> None:
            if stage not in stages:
                for task in stages.values():
                    progress.update(task, visible=False)
                # What an earlier call fetched is no measure of the speed of this one.
                stages[stage] = progress.add_task(
                    stage, total=total, completed=done, in_bytes=in_bytes
                )
            progress.update(stages[stage], completed=done, total=total, visible=True)

        yield Watcher(
            show,
            lambda text: progress.console.print(text, soft_wrap=True),
            lambda done, total: show("writing frames", done, total, in_bytes=False),
        )


def _plain_transfer(console: Console) -> Watcher:
    spoken = began = time.monotonic()
    first: dict[str, int] = {}

    def show(stage: str, done: int, total: int | None) -> None:
        nonlocal spoken, began
        now = time.monotonic()
        if stage not in first:
            first[stage], began = done, now
        if now - spoken < PLAIN_SECONDS:
            return
        spoken = now
        of = f" of {decimal(total)}" if total is not None else ""
        speed = (done - first[stage]) / max(now - began, 1e-3)
        console.print(f"{stage}: {decimal(done)}{of}, {decimal(int(speed))}/s", soft_wrap=True)

    return Watcher(show, lambda text: console.print(text, soft_wrap=True))
