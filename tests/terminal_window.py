"""A terminal window as its user sees it: what was written, resized as terminals really do it."""

from __future__ import annotations

import pyte
from pyte.modes import DECAWM
from pyte.screens import Char

DIM = (140, 146, 158)


class Window(pyte.Screen):
    """pyte's screen with a scrollback, a count of broken lines and the two ways to resize.

    Most terminals break lines anew (`reflow`) and keep the cursor on its character; xterm and the
    Linux console cut them.  pyte itself does neither.
    """

    def __init__(self, columns: int, lines: int, reflow: bool = True) -> None:
        self.scrolled: list[str] = []
        self.broken: list[str] = []  # lines that ran over the edge
        self.reflow = reflow
        super().__init__(columns, lines)
        self.stream = pyte.ByteStream(self)

    def write(self, data: bytes, newlines: bool = False) -> None:
        """`newlines`: the data has not been through a terminal's driver, which adds the returns."""
        self.stream.feed(data.replace(b"\n", b"\r\n") if newlines else data)

    def draw(self, data: str) -> None:
        for char in data:
            if self.cursor.x == self.columns and DECAWM in self.mode:
                self.broken.append(self.text(self.cursor.y))
            super().draw(char)

    def select_graphic_rendition(self, *codes: int, private: bool = False) -> None:
        if 2 in codes[:1] or (2 in codes and 38 not in codes and 48 not in codes):
            codes = (*(code for code in codes if code != 2), 38, 2, *DIM)  # pyte knows no dim
        super().select_graphic_rendition(*codes)

    def index(self) -> None:
        if self.cursor.y == self.lines - 1:
            self.scrolled.append(self.text(0))
        super().index()

    def text(self, y: int) -> str:
        return "".join(char.data for char in self.row(y)).rstrip()

    def row(self, y: int) -> list[Char]:
        return [self.buffer[y][x] for x in range(self.columns)]

    @property
    def seen(self) -> list[str]:
        """The lines in the window, without the empty ones at its end."""
        rows = [self.text(y) for y in range(self.lines)]
        return rows[: max((y + 1 for y, row in enumerate(rows) if row), default=0)]

    @property
    def everything(self) -> list[str]:
        """The scrollback, then what is in the window."""
        return [*self.scrolled, *self.seen]

    def resize(self, lines: int | None = None, columns: int | None = None) -> None:
        lines, columns = lines or self.lines, columns or self.columns
        rows = [
            self.row(y)[: len(self.text(y))] for y in range(max(len(self.seen), self.cursor.y + 1))
        ]
        broken: list[list[Char]] = []
        for y, row in enumerate(rows):
            if y == self.cursor.y:
                at = (
                    len(broken)
                    + (min(self.cursor.x, max(0, len(row) - 1)) // columns) * self.reflow
                )
            starts = range(0, max(1, len(row)), columns) if self.reflow else [0]
            broken += [row[start : start + columns] for start in starts]
        # The last lines stay in view, but never at the cost of the cursor.
        over = len(broken) - lines if self.reflow else at - lines + 1
        up = min(max(0, over), at)
        self.scrolled += ["".join(char.data for char in row).rstrip() for row in broken[:up]]
        self.lines, self.columns = lines, columns
        self.buffer.clear()
        for y, row in enumerate(broken[up : up + lines]):
            for x, char in enumerate(row):
                self.buffer[y][x] = char
        self.cursor.y, self.cursor.x = at - up, min(self.cursor.x, columns - 1)
