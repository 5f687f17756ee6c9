"""Training as people watch it: one row an epoch in the scrollback, a live region below it.

The rows are printed once and stay, so the terminal's own scrollback is the table and the end is
clean; only the region below them (bars, IoU of the classes, notices) is redrawn.  It is redrawn
from `on_event` and never from a thread: data workers are forked while it is on the screen.
Where there is no terminal the same events become plain lines.
"""

from __future__ import annotations

import atexit
import importlib.util
import os
import sys
import time
from collections.abc import Callable

from rich.console import Console
from rich.live import Live
from rich.text import Text

from smp_camvid.report.live import NOTICES_IN_VIEW, LiveView, ViewState, notice_line
from smp_camvid.report.rows import epoch_head, epoch_row, plain_epoch, plain_step, summary
from smp_camvid.report.tables import (
    architecture_table,
    class_bars,
    number,
    parameter_table,
    worst_first,
)
from smp_camvid.training.events import (
    EpochDone,
    Event,
    Notice,
    RunEnded,
    RunStarted,
    Saved,
    StepDone,
    ValidationStep,
)

REDRAW_SECONDS = 0.2  # five pictures a second: smooth to the eye, easy on an ssh line
PLAIN_SECONDS = 30.0  # a sign of life in a log


def make_console(stderr: bool = True) -> Console:
    """The console of every command: no markup, so that a path with `[` in it is printed as it is.

    Colour asked for by FORCE_COLOR does not make a log file a place for moving pictures.
    """
    stream = sys.stderr if stderr else sys.stdout
    return Console(
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
    in_ci = os.environ.get("CI", "").lower() not in ("", "0", "false")
    return console.is_terminal and console.is_interactive and not in_ci


class ConsoleListener:
    """Shows a run on the terminal: live where that works, in plain lines where not.

    `verbose`: 0 nothing; 1 the model's parts and the progress; 2 also the optimizer;
    3 also every parameter tensor.  `close` takes the live region away; it is called at the end
    of the run, when drawing fails, and at exit.
    """

    def __init__(
        self,
        console: Console | None = None,
        verbose: int = 1,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.console = console or make_console()
        self.verbose = verbose
        self._clock = clock
        self._state: ViewState | None = None
        self._live: Live | None = None
        self._drawn = self._spoken = self._began = clock()
        self._rows = self._head_width = 0

    def on_event(self, event: Event) -> None:
        if self.verbose <= 0:
            return
        try:
            self._take(event)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Removes the live region and leaves the notices that were in it in the scrollback."""
        atexit.unregister(self.close)
        live, self._live = self._live, None
        if live is None:
            return
        live.stop()
        for message in self._state.notices[-NOTICES_IN_VIEW:] if self._state else ():
            self._say(notice_line(message))

    def _take(self, event: Event) -> None:
        if isinstance(event, RunStarted):
            self.close()
            self._start(event)
        elif isinstance(event, Notice):
            self._note(event.message)
        elif self._state is None:
            return  # joined late: without the header nothing below it means anything
        elif isinstance(event, StepDone | ValidationStep):
            self._state.take_step(event)
            self._draw()
            self._sign_of_life(event, self._state)
        elif isinstance(event, EpochDone):
            self._state.take_epoch(event)
            self._epoch(event)
        elif isinstance(event, Saved):
            self._state.saved = event
            self._draw()
        elif isinstance(event, RunEnded):
            self._end(event, self._state)

    # -- start ---------------------------------------------------------------------------------

    def _start(self, run: RunStarted) -> None:
        self._state = ViewState(run, self._clock)
        self._began = self._spoken = self._clock()
        self._rows = 0
        self._say(Text(f"run {run.name}", "bold").append(f" on {run.device}", "not bold"))
        self._say(
            f"{run.protocol}: {run.train_frames} frames to train on, {run.val_frames} to validate; "
            f"{len(run.classes)} classes"
        )
        epochs = f"epochs {run.first_epoch} to {run.epochs}"
        each = f" = {run.processes} processes x {run.batch_size // run.processes}"
        each = each if run.processes > 1 else " each"
        self._say(f"{epochs}, {run.steps_per_epoch} steps of {run.batch_size} frames{each}")
        self._say(f"folder {run.run_dir}")
        self._say("")
        self.console.print(architecture_table(run.architecture, run.parameters))
        if self.verbose >= 2:
            self._say(f"\noptimizer: {run.optimizer}")
        if self.verbose >= 3:
            self._say("")
            self.console.print(parameter_table(run.parameter_sizes))
        self._say("")
        if can_redraw(self.console):
            self._live = Live(
                LiveView(self._state),
                console=self.console,
                auto_refresh=False,
                transient=True,
                redirect_stdout=self.console.is_terminal and sys.stdout.isatty(),
                vertical_overflow="crop",
            )
            atexit.register(self.close)
            self._live.start(refresh=True)

    # -- while it runs -------------------------------------------------------------------------

    def _say(self, line: str | Text) -> None:
        """One line, left to the terminal to wrap, so that paths and commands copy whole."""
        self.console.print(line, soft_wrap=True, markup=False, emoji=False, highlight=False)

    def _draw(self, now: bool = False) -> None:
        if self._live and (now or self._clock() - self._drawn >= REDRAW_SECONDS):
            self._drawn = self._clock()
            self._live.refresh()

    def _note(self, message: str) -> None:
        if self._live is None or self._state is None:
            self._say(notice_line(message))
            return
        notices = self._state.notices
        notices.append(message)
        if len(notices) > NOTICES_IN_VIEW:  # the oldest leaves the view for the scrollback
            self._say(notice_line(notices.pop(0)))
        self._draw(now=True)

    def _epoch(self, event: EpochDone) -> None:
        if self._live is None:
            self._spoken = self._clock()
            self._say(plain_epoch(event))
            return
        width, gpu = self.console.width, event.gpu_memory_bytes is not None
        head_every = min(20, max(6, self.console.height - 16))  # one head always in view
        if self._rows % head_every == 0 or width != self._head_width:
            self._rows, self._head_width = 0, width
            for line in epoch_head(width, gpu):
                self._say(Text(line, "dim"))
        self._rows += 1
        self._say(epoch_row(event, width, gpu, self.console.options.ascii_only))
        self._draw(now=True)

    def _sign_of_life(self, event: StepDone | ValidationStep, state: ViewState) -> None:
        if self._live is None and self._clock() - self._spoken >= PLAIN_SECONDS:
            self._spoken = self._clock()
            self._say(plain_step(event, state))

    # -- end -----------------------------------------------------------------------------------

    def _end(self, event: RunEnded, state: ViewState) -> None:
        self.close()
        self._state = None
        last = next((e for e in reversed(state.epochs) if e.val), None)
        if last and last.val and last.val.per_class:
            self._say(f"\nIoU of the classes, val, epoch {last.epoch}, worst first")
            worst = dict(worst_first(last.val.per_class))
            if self.console.is_terminal or self.console.is_jupyter:
                self.console.print(class_bars(worst, width=self.console.width))
            else:
                self._say(", ".join(f"{name} {number(value)}" for name, value in worst.items()))
        self._say("")
        for label, text in summary(event, state, self._clock() - self._began):
            self._say(Text(f"{label:<7} ", "bold").append(text, "not bold"))
