"""smp-camvid download."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Annotated, NoReturn

import typer

from smp_camvid.errors import InterruptedRun, UsageError


def download(
    source: Annotated[
        str | None,
        typer.Option(
            "--source",
            metavar="kaggle|segnet|synthetic|PLUGIN",
            help="Where from: kaggle (960x720, 32 classes, needs an account), segnet (480x360, "
            "11 classes, needs none), synthetic (drawn here); kaggle if absent.",
            show_default=False,
        ),
    ] = None,
    to: Annotated[
        str | None,
        typer.Option(
            "--to", metavar="DIR", help="Folder to make; data/camvid, or data/SOURCE, if absent."
        ),
    ] = None,
    archive: Annotated[
        str | None,
        typer.Option(
            "--archive", metavar="FILE.zip", help="A zip of CamVid that you have already."
        ),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace a dataset that download put there before.")
    ] = False,
) -> None:
    """Get CamVid, or another dataset, into a folder: whole, checked, or not at all."""
    if source is not None and archive is not None:
        raise UsageError("--archive is a source of its own.", "Leave out --source.")
    from smp_camvid.data.layouts import count
    from smp_camvid.data.sources import DEFAULT, obtain
    from smp_camvid.report.progress import transfer_progress

    source = source or DEFAULT
    try:
        with sigterm_is_ctrl_c(), transfer_progress() as watcher:
            made = obtain(source, to, archive, force, watcher)
    except KeyboardInterrupt:
        raise interrupted(source, to, anew=force or archive is not None) from None
    for note in made.notes:
        typer.echo(f"note: {note}", err=True)
    if made.already:
        whole = "as it came" if made.notes else "whole"
        typer.echo(f"{made.path} is there already and {whole}; nothing to do.", err=True)
    else:
        splits = ", ".join(f"{name} {frames}" for name, frames in made.splits.items())
        frames = count(sum(made.splits.values()), "frame")
        typer.echo(f"{frames} ({splits}) from {made.source}, checked.", err=True)
    typer.echo(str(made.path))


@contextlib.contextmanager
def sigterm_is_ctrl_c() -> Iterator[None]:
    """A scheduler's or `kill`'s end tidies up like the user's own."""
    if threading.current_thread() is not threading.main_thread():  # where no handler can be set
        yield
        return
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt


def interrupted(source: str, to: str | None, anew: bool) -> InterruptedRun:
    """What is left, and what the same command does with it; `anew`: it never uses what is left."""
    from smp_camvid.data.room import in_words
    from smp_camvid.data.sources import kept_bytes

    kept = 0 if anew else kept_bytes(source, to)
    if kept:
        return InterruptedRun(
            f"Interrupted; {in_words(kept)} of the archive are kept.",
            "The same command goes on where it stopped.",
        )
    return InterruptedRun(
        "Interrupted; nothing half-made is left.", "The same command begins anew."
    )
