"""smp-camvid watch."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from smp_camvid import runs
from smp_camvid.errors import RunError

if TYPE_CHECKING:
    from smp_camvid.report.console import ConsoleListener
    from smp_camvid.report.following import Follower
    from smp_camvid.training.events import RunEnded

LOOK_EVERY_SECONDS = 0.5
ROWS_SHOWN = 12  # of the epochs before, in a terminal; the curves have all


def watch(
    run: Annotated[
        Path | None,
        typer.Argument(metavar="[RUN]", help="Run folder; the newest under ./runs if absent."),
    ] = None,
    once: Annotated[
        bool, typer.Option("--once", help="Print how things are and leave, instead of following.")
    ] = False,
) -> None:
    """Show a run that another process trains, here or elsewhere, from its folder."""
    folder = find_run(run)
    from smp_camvid.report.console import ConsoleListener
    from smp_camvid.report.following import Follower
    from smp_camvid.report.terminal import can_redraw, make_console

    console = make_console(stderr=False)
    follower = Follower(folder, ROWS_SHOWN if can_redraw(console) else None)
    listener = ConsoleListener(console, meter=None)
    try:
        with signals_noted() as asked:
            ended = look_once(follower, listener) if once else follow(follower, listener, asked)
    finally:
        listener.close()
    if ended and ended.reason not in ("done", "interrupted"):
        how = "was killed" if ended.reason == "killed" else ended.reason
        raise RunError(f"The run {how} in epoch {ended.epoch}.", again(folder))


def find_run(run: Path | None) -> Path:
    """Raises RunError when there is no such run folder, or none at all."""
    if run is None:
        newest = runs.newest_begun()
        if newest is None:
            raise RunError("There is no run under ./runs.", "Name a run folder.")
        return newest
    if not (run / "config.toml").is_file():
        raise RunError(
            f"{run} is not a run folder: it has no config.toml.", "Name one under ./runs."
        )
    return run


def again(folder: Path) -> str:
    return f"Go on with: smp-camvid train --resume {folder}"


def tell(follower: Follower, listener: ConsoleListener) -> RunEnded | None:
    """Tells the listener what is new, with the times and the machine that files know."""
    from smp_camvid.training.events import RunEnded, RunStarted

    for event in follower.news():
        if isinstance(event, RunStarted):
            listener.before = follower.before
        listener.on_event(event)
        if isinstance(event, RunEnded):
            return event
        if listener.state:
            follower.date(listener.state)
    listener.draw()
    return None


def look_once(follower: Follower, listener: ConsoleListener) -> RunEnded | None:
    ended = tell(follower, listener)
    if ended is None and listener.state is None:
        raise RunError(f"{follower.run} has recorded nothing yet.", "Look again in a minute.")
    if ended is None:
        listener.leave()
    return ended


def follow(follower: Follower, listener: ConsoleListener, asked: Callable[[], bool]) -> RunEnded:
    """Until the run has ended.  Raises KeyboardInterrupt when the user `asked` to leave."""
    waits = silent = False
    while (ended := tell(follower, listener)) is None:
        if listener.state is None and not waits:
            typer.echo(f"{follower.run} has recorded nothing yet; waiting for it.", err=True)
            waits = True
        if listener.state is not None and silent != listener.state.is_silent:
            silent = listener.state.is_silent
            listener.say_signs()
        time.sleep(LOOK_EVERY_SECONDS)
        if asked():
            raise KeyboardInterrupt
    return ended


@contextlib.contextmanager
def signals_noted() -> Iterator[Callable[[], bool]]:
    """SIGINT and SIGTERM wait until a picture is whole; the second one leaves at once."""
    heard: list[int] = []

    def note(number: int, *_: object) -> None:
        if heard:
            raise KeyboardInterrupt
        heard.append(number)

    if threading.current_thread() is not threading.main_thread():  # where no handler can be set
        yield lambda: False
        return
    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(heard)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
