"""Work on many files as people watch it: results on stdout, how far it is on stderr.

Where there is no bar, none of what draws it is imported: a picture alone is done before that.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import typer

from smp_camvid.errors import visible

if TYPE_CHECKING:
    from rich.progress import Progress

OnStep = Callable[[int, int | None], None]
PLAIN_SECONDS = 30.0  # a sign of life in a log


@dataclass(frozen=True)
class JobView:
    """How a command speaks while a job runs."""

    say: Callable[[str], None]
    """A result, on stdout."""
    note: Callable[[str], None]
    """What is worth knowing, on stderr."""
    step: OnStep
    """So many are done of so many."""


@contextlib.contextmanager
def job_progress(label: str) -> Iterator[JobView]:
    """A bar with speed and time left on stderr; where it cannot be redrawn, a line now and then."""
    bar = _bar() if sys.stderr.isatty() else None
    if bar is None:
        yield JobView(_say, _note, _sign_of_life(label))
        return
    with bar as progress:
        task = progress.add_task(label, total=None)

        def above(text: str) -> None:
            progress.console.print(visible(text), soft_wrap=True)

        yield JobView(
            above if sys.stdout.isatty() else _say,
            above,
            lambda done, total: progress.update(task, completed=done, total=total),
        )


def plain_view(label: str = "") -> JobView:
    """Lines and no progress; with a label a sign of life now and then."""
    return JobView(_say, _note, _sign_of_life(label) if label else lambda done, total: None)


def _note(text: str) -> None:
    typer.echo(visible(text), err=True)


def _say(text: str) -> None:
    typer.echo(visible(text))


def _sign_of_life(label: str) -> OnStep:
    began = spoken = time.monotonic()

    def step(done: int, total: int | None) -> None:
        nonlocal spoken
        now = time.monotonic()
        if now - spoken >= PLAIN_SECONDS:
            spoken = now
            of = f" of {total}" if total is not None else ""
            _note(f"{label}: {done}{of}, {done / (now - began):.1f}/s")

    return step


def _bar() -> Progress | None:
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        Task,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    from smp_camvid.report.console import can_redraw, make_console

    class Speed(ProgressColumn):
        def render(self, task: Task) -> Text:
            speed = task.finished_speed or task.speed
            return Text(f"{speed:.1f}/s" if speed else "")

    console = make_console()
    if not can_redraw(console):
        return None
    # Redirected, what is meant for a file on stdout would be printed above the bar.
    return Progress(
        TextColumn("{task.description}"), BarColumn(24), MofNCompleteColumn(), Speed(),
        TimeRemainingColumn(), console=console, transient=True, redirect_stdout=False,
        speed_estimate_period=60,
    )  # fmt: skip
