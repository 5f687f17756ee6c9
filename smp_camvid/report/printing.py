"""What a command prints as its result: drawn for a terminal, plain lines for a file or a pipe."""

from __future__ import annotations

from rich.console import Console, RenderableType

from smp_camvid.report.terminal import has_swatches as has_swatches
from smp_camvid.report.terminal import make_console


def print_view(view: RenderableType, console: Console | None = None) -> None:
    """Prints on stdout; where that is no terminal, without the blanks that fill up columns."""
    console = console or make_console(stderr=False)
    if console.is_terminal:
        console.print(view)
        return
    with console.capture() as captured:
        console.print(view)
    lines = captured.get().splitlines()
    console.file.write("".join(f"{line.rstrip()}\n" for line in lines))
