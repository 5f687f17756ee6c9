"""smp-camvid download."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from smp_camvid import registry


def download(
    source: Annotated[
        str, typer.Option("--source", help="Where from: synthetic, or a plugin's name.")
    ] = "synthetic",
    to: Annotated[
        Path | None,
        typer.Option("--to", metavar="DIR", help="Folder to make; data/SOURCE if absent."),
    ] = None,
) -> None:
    """Get a dataset: the procedurally drawn road scenes, or what a plugin offers."""
    from smp_camvid.report.progress import step_progress

    maker = registry.load_entry(registry.SOURCES, source)
    target = to or Path("data") / source
    with step_progress("writing frames") as on_step:
        made = maker().fetch(target, on_step)
    typer.echo(str(made))
