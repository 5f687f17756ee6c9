"""How a download tells what it is doing: it calls a `Watcher` and prints nothing itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


def _nothing(*_: object) -> None:
    pass


@dataclass(frozen=True)
class Watcher:
    """Two functions that somebody who shows progress hands in; both do nothing by default."""

    progress: Callable[[str, int, int | None], None] = _nothing
    """(stage, done, total): bytes, total None while it is not known."""
    note: Callable[[str], None] = _nothing
    """A sentence worth a line of its own, such as why it waits."""
    frames: Callable[[int, int], None] = _nothing
    """(done, total) of a source that draws or copies frames one by one."""


SILENT = Watcher()
