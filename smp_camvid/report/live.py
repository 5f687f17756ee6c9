"""The live view of a run, composed for the width and height of the moment.

    heading                                   run, device, protocol, frames
    bars                                      this epoch, the whole run
    curves | classes, or one above the other  train and val in one scale; IoU and its change
    status                                    learning rate, machine, data, last file
    notices                                   the newest, whole in the scrollback at the end

What is left out first in a low window: space, classes (the worst stay), curves, heading.  Classes
keep the order of their table, so that a bar is where the eye left it; the final table is sorted.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from smp_camvid.data.classes import ClassTable
from smp_camvid.report.class_bars import class_bars, most_columns
from smp_camvid.report.live_lines import (
    curve_lines,
    heading_text,
    notice_line,
    progress_bars,
    status_items,
    tall_curves,
)
from smp_camvid.report.terminal import has_swatches
from smp_camvid.report.view_state import ViewState

NOTICES_IN_VIEW = 3
SIDE_BY_SIDE = 104  # columns from which curves and classes stand beside each other
CLASSES_FROM = 30  # columns that a name, a bar and two numbers need
ROWS_KEPT = 10  # lines that the rows of finished epochs keep above the view, where there are 30


class LiveView:
    """Draws `state` anew each time it is printed, in at most `max_height` - 1 lines."""

    def __init__(self, state: ViewState) -> None:
        self.state = state

    def __rich_console__(
        self, console: Console, options: ConsoleOptions
    ) -> Iterator[RenderableType]:
        table = self.state.run.classes if has_swatches(console) else None
        page = _Page(self.state, options.max_width, options.ascii_only, table)
        yield from page.fill(options.max_height - 1)


class _Page:
    """The blocks of the view at one width."""

    def __init__(
        self, state: ViewState, width: int, ascii_only: bool, swatches: ClassTable | None
    ) -> None:
        self.state, self.width, self.ascii_only = state, width, ascii_only
        self.swatches = swatches

    def fill(self, height: int) -> Iterator[RenderableType]:
        notices = self._notices(max(1, height // 6))
        free = height - min(ROWS_KEPT, height // 3) - 2 - len(notices)
        if free >= 2:
            title = heading_text(self.state, self.width - 4)
            yield Rule(title, align="left", style="dim", characters="-" if self.ascii_only else "─")
            free -= 1
        yield progress_bars(self.state, self.width)
        if self.width >= SIDE_BY_SIDE and free >= 6 and not self.ascii_only:
            yield from self._beside(free)
        else:
            yield from self._stacked(free)
        yield from notices

    # -- one above the other -------------------------------------------------------------------

    def _stacked(self, free: int) -> Iterator[RenderableType]:
        status = _packed(status_items(self.state), self.width)[: 2 if free > 9 else 1]
        status = status[: max(0, free)]
        free -= len(status)
        curves = [] if self.ascii_only else curve_lines(self.state, self.width)
        curves = curves if len(curves) <= free else []
        free -= len(curves)
        needed = math.ceil(len(self.state.run.classes) / most_columns(self.width))
        rows = min(free - 1, needed) if self._per_class() and free >= 3 else 0
        free -= rows + (rows > 0)
        classes = [self._classes(self.width, rows)] if rows else []
        blocks = [block for block in (curves, classes) if block]
        for block in blocks:
            if free > 0:
                yield Text("")
                free -= 1
            yield from block
        if blocks and free > 0 and status:
            yield Text("")
        yield from status

    # -- side by side --------------------------------------------------------------------------

    def _beside(self, free: int) -> Iterator[RenderableType]:
        left = min(76, max(48, self.width * 2 // 5))
        right = self.width - left - 3
        status = [_cut(item, left) for item in status_items(self.state, with_rate=False)]
        fixed = len(status) + 2  # the learning rate and a blank line
        tall = max(r for r in (1, 2, 3) if r == 1 or 4 * r + fixed + 6 <= free)
        classes = 1 + math.ceil(len(self.state.run.classes) / most_columns(right))
        body = min(free, max(4 * tall + fixed, classes if self._per_class() else 0))
        tall = max(1, min(3, (body - fixed) // 4))
        lines = [*tall_curves(self.state, left, tall), Text(""), *status]
        if free > body:
            yield Text("")
        if not self._per_class():
            yield from lines[:body]
            return
        grid = Table.grid(padding=(0, 3, 0, 0), pad_edge=False)
        grid.add_column(width=left, no_wrap=True, overflow="crop")
        grid.add_column(width=right, no_wrap=True, overflow="crop")
        grid.add_row(Group(*lines[:body]), self._classes(right, body - 1))
        yield grid

    # -- parts ---------------------------------------------------------------------------------

    def _per_class(self) -> bool:
        judged = self.state.judged
        known = judged and judged[-1].val and judged[-1].val.per_class
        return bool(known) and self.width >= CLASSES_FROM

    def _classes(self, width: int, rows: int) -> RenderableType:
        *earlier, last = self.state.judged
        before = earlier[-1] if earlier else None
        assert last.val
        now = last.val.per_class
        which = "worst classes" if rows * most_columns(width) < len(now) else "classes"
        title = f"IoU of the {which}, val, epoch {last.epoch}"
        change = f" (and its change since epoch {before.epoch})" if before else ""
        title += change if len(title + change) <= width else ""
        previous = before.val.per_class if before and before.val else None
        return Group(
            _cut(Text(title, "dim"), width),
            class_bars(now, previous, width=width, rows=rows, swatches=self.swatches),
        )

    def _notices(self, most: int) -> list[Text]:
        """The newest, wrapped, in at most `most` lines."""
        lines: list[Text] = []
        for message in reversed(self.state.notices[-NOTICES_IN_VIEW:]):
            wrapped = list(notice_line(message).wrap(Console(width=self.width), self.width))
            if lines and len(lines) + len(wrapped) > most:
                break
            lines = [*wrapped[:most], *lines]
        return lines


def _cut(text: Text, width: int) -> Text:
    text.truncate(width, overflow="ellipsis")
    return text


def _packed(items: list[Text], width: int) -> list[Text]:
    """`items` in as few lines as hold them, three blanks between two."""
    lines: list[Text] = []
    for item in items:
        if lines and lines[-1].cell_len + 3 + item.cell_len <= width:
            lines[-1].append("   ").append_text(item)
        else:
            lines.append(_cut(item, width))
    return lines
