"""A few lines at the end of a terminal that are drawn again and again, and go without a trace.

rich's own Live leaves the cursor below what it drew and climbs back by the number of lines it
remembers.  When a window gets narrower, terminals break the lines anew, the number is wrong, and
remains of the old picture stay.  Here the cursor waits at the first character of the region.
Terminals keep it on that character whatever they do to the lines below, so erasing from there is
always right.  The first line is empty: what others write past Python, or somebody types, lands
there and leaves no half of a line of the view.  Lines end one column before the edge, are
overwritten in place and never cleared beforehand, and a picture is one write: nothing flickers on
a slow line.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, redirect_stderr, redirect_stdout
from typing import Protocol, TextIO, cast

from rich.console import Console, ConsoleOptions, ConsoleRenderable, RenderableType, RenderHook
from rich.control import Control
from rich.file_proxy import FileProxy
from rich.live import Live
from rich.segment import ControlType, Segment, Segments

# Terminals that know it show what is between the two at once; the others ignore it.
_BEGIN, _END = "\x1b[?2026h", "\x1b[?2026l"
# A picture made for a wider window than it arrives in is cut, not broken: the way back stays right.
_CUT, _BREAK = "\x1b[?7l", "\x1b[?7h"
_ERASE_LINE, _ERASE_BELOW = "\x1b[K", "\x1b[J"


class Redrawn(Protocol):
    """What shows a view and draws it again when told to."""

    def refresh(self) -> None: ...

    def stop(self) -> None: ...


def open_region(console: Console, view: RenderableType) -> Redrawn:
    """Shows `view` at once, in a terminal or a notebook that `can_redraw`."""
    if not console.is_jupyter:
        return Region(console, view)
    live = Live(view, console=console, auto_refresh=False, transient=True, redirect_stdout=False)
    live.start(refresh=True)
    return live


class Region(RenderHook):
    """Keeps `view` below everything that is printed, until `stop`.

    What Python writes to stdout and stderr goes above it where these are the terminal.  A child
    that was forked meanwhile writes as if there were no region.
    """

    def __init__(self, console: Console, view: RenderableType) -> None:
        self.console, self.view = console, view
        self._process = os.getpid()
        self._size = console.size
        self._streams = ExitStack()
        console.show_cursor(False)
        console.push_render_hook(self)
        if console.file.isatty():
            self._take_streams()
        self.refresh()

    def refresh(self) -> None:
        """Draws the view as it is now."""
        self.console.print(Control())

    def stop(self) -> None:
        """Takes the region away; the cursor is where it began."""
        self._streams.close()
        self.console.pop_render_hook()
        self.console.print(_codes(f"\r{_ERASE_BELOW}"))
        self.console.show_cursor(True)

    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        """What is to be printed, and the region below it."""
        if os.getpid() != self._process:
            return renderables
        above = not all(isinstance(each, Control) for each in renderables)
        resized, self._size = self._size != self.console.size, self.console.size
        erase = _ERASE_BELOW if above or resized else ""
        return [_codes(f"{_BEGIN}\r{erase}"), *renderables, _Picture(self.view)]

    def _take_streams(self) -> None:
        for stream, redirect in ((sys.stdout, redirect_stdout), (sys.stderr, redirect_stderr)):
            if stream.isatty() and not isinstance(stream, FileProxy):
                proxy = cast(TextIO, FileProxy(self.console, stream))
                self._streams.enter_context(redirect(proxy))


class _Picture:
    """A view in the lines that a window has, and the way back to its first character."""

    def __init__(self, view: RenderableType) -> None:
        self._view = view

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Segments]:
        width, height = console.size
        within = console.options.copy()
        within.max_width, within.max_height = max(1, width - 1), max(2, height - 1)
        lines = console.render_lines(self._view, within, pad=False)[: within.max_height - 1]
        yield _codes(_CUT)
        for line in lines:
            yield _codes(f"{_ERASE_LINE}\n")
            yield Segments([Segment(s.text, s.style, _CODE) for s in _without_blanks(line)])
        yield _codes(f"{_ERASE_BELOW}\r\x1b[{len(lines)}A{_BREAK}{_END}")


# rich leaves alone what it takes for control codes: a picture is made for one width, and must not
# be cropped to another that the window may have got meanwhile.
_CODE = [(ControlType.CARRIAGE_RETURN,)]


def _codes(text: str) -> Segments:
    return Segments([Segment(text, None, _CODE)])


def _without_blanks(line: list[Segment]) -> list[Segment]:
    kept = list(line)
    while kept and not kept[-1].text.strip():
        kept.pop()
    if kept:
        last = kept[-1]
        kept[-1] = Segment(last.text.rstrip(), last.style)
    return kept
