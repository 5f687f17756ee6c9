"""smp-camvid download."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

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
        Path | None,
        typer.Option(
            "--to", metavar="DIR", help="Folder to make; data/camvid, or data/SOURCE, if absent."
        ),
    ] = None,
    archive: Annotated[
        Path | None,
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

    try:
        with transfer_progress() as watcher:
            made = obtain(source or DEFAULT, to, archive, force, watcher)
    except KeyboardInterrupt:
        raise InterruptedRun(
            "Interrupted; nothing half-made is left.",
            "The same command goes on where it stopped.",
        ) from None
    for note in made.notes:
        typer.echo(f"note: {note}", err=True)
    if made.already:
        typer.echo(f"{made.path} is there already and whole; nothing to do.", err=True)
    else:
        splits = ", ".join(f"{name} {frames}" for name, frames in made.splits.items())
        frames = count(sum(made.splits.values()), "frame")
        typer.echo(f"{frames} ({splits}) from {made.source}, checked.", err=True)
    typer.echo(str(made.path))
