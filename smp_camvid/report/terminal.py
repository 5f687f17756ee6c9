"""What the place that is printed to can do: colour, Unicode, lines that are drawn again."""

from __future__ import annotations

import importlib.util
import os
import sys

from rich.console import Console


def make_console(stderr: bool = True) -> Console:
    """The console of every command: no markup, so that a path with `[` in it is printed as it is.

    Colour asked for by FORCE_COLOR does not make a log file a place for moving pictures.
    """
    stream = sys.stderr if stderr else sys.stdout
    plain = _in_ci() or os.environ.get("TERM") == "dumb"  # terminals by name only
    return Console(
        force_terminal=False if plain else None,
        stderr=stderr,
        markup=False,
        emoji=False,
        highlight=False,
        force_interactive=None if stream.isatty() else False,
    )


def can_redraw(console: Console) -> bool:
    """Whether a live region works: a real terminal outside CI, or a notebook with ipywidgets."""
    if console.is_jupyter:
        return importlib.util.find_spec("ipywidgets") is not None
    moves = console.is_terminal and console.is_interactive and not console.legacy_windows
    return moves and not _in_ci()


def _in_ci() -> bool:
    return os.environ.get("CI", "").lower() not in ("", "0", "false")


def has_swatches(console: Console) -> bool:
    """Whether blocks of colour can be shown: they say nothing without colour or outside Unicode."""
    return bool(console.color_system) and not console.no_color and not console.options.ascii_only
