"""A bar for work that is not training: decoding frames, evaluating, writing pictures."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from smp_camvid.report.console import can_redraw, make_console

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
