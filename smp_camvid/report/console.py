"""Training as people watch it: one row an epoch in the scrollback, a live region below it.

The rows are printed once and stay, so the terminal's own scrollback is the table and the end is
clean; only the region below them (bars, curves, IoU of the classes, notices) is redrawn.  It is
redrawn from `on_event` and never from a thread: data workers are forked while it is on the screen.
Where there is no terminal the same events become plain lines.
"""

from __future__ import annotations

import atexit
import time
from collections.abc import Callable

from rich.console import Console
from rich.text import Text

from smp_camvid.report.class_bars import class_bars
from smp_camvid.report.live import NOTICES_IN_VIEW, LiveView
from smp_camvid.report.live_lines import notice_line, signs_of_life
from smp_camvid.report.machine_use import MachineMeter
from smp_camvid.report.region import Redrawn, open_region
from smp_camvid.report.rows import epoch_head, epoch_row, plain_epoch, plain_step, summary
from smp_camvid.report.tables import architecture_table, number, parameter_table, worst_first
from smp_camvid.report.terminal import can_redraw as can_redraw
from smp_camvid.report.terminal import has_swatches
from smp_camvid.report.terminal import make_console as make_console
from smp_camvid.report.view_state import ViewState
from smp_camvid.training.events import (
    EpochDone,
    Event,
    History,
    Notice,
    RunEnded,
    RunStarted,
    Saved,
    StepDone,
    ValidationStep,
)

REDRAW_SECONDS = 0.2  # five pictures a second: smooth to the eye, easy on an ssh line
REDRAW_SHARE = 0.02  # of the time, at most, goes into drawing; on a busy machine it is seldom
PLAIN_SECONDS = 30.0  # a sign of life in a log


class ConsoleListener:
    """Shows a run on the terminal: live where that works, in plain lines where not.

    `verbose`: 0 nothing; 1 the model's parts and the progress; 2 also the optimizer;
    3 also every parameter tensor.  `history` are epochs on record: the curves begin with them.
    `meter` makes what measures the machine, if this is the one that trains.  `close` takes the
    live region away; it is called at the end of the run, when drawing fails, and at exit.
    """

    def __init__(
        self,
        console: Console | None = None,
        verbose: int = 1,
        clock: Callable[[], float] = time.monotonic,
        history: History | None = None,
        meter: Callable[[str], MachineMeter] | None = MachineMeter,
    ) -> None:
        self.console = console or make_console()
        self.verbose = verbose
        self.state: ViewState | None = None
        """What the events so far say, while a run is on."""
        self._make_meter = meter
        self._meter: MachineMeter | None = None
        self._clock = clock
        self.before = list(history.epochs) if history else []
        """The epochs on record that the next run goes on from."""
        self._live: Redrawn | None = None
        self._drawn = self._spoken = clock()
        self._cost = 0.0
        self._rows, self._head = 0, [""]

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
        for message in self.state.notices[-NOTICES_IN_VIEW:] if self.state else ():
            self._say(notice_line(message))

    def leave(self) -> None:
        """Prints how things are, to stay: what the live region showed, or a line of a log."""
        state, was_live = self.state, self._live is not None
        self.close()
        if state and was_live:
            self._say("")
            self.console.print(LiveView(state), width=self.console.width - 1)
        elif state:
            if state.step:
                self._say(plain_step(state.step, state))
            self.say_signs()

    def say_signs(self) -> None:
        """When a run trained elsewhere was last heard of: a line of a log; live it is in view."""
        if self.state and self._live is None and (signs := signs_of_life(self.state)):
            self._say(signs)

    def draw(self, now: bool = False) -> None:
        """Draws the live region again, `now` or when it is time; nothing without one."""
        pause = max(REDRAW_SECONDS, self._cost / REDRAW_SHARE)
        began = self._clock()
        if self._live and (now or began - self._drawn >= pause):
            if self._meter and self.state:
                self.state.machine = self._meter()
            self._live.refresh()
            self._drawn = self._clock()
            self._cost = self._drawn - began

    def _take(self, event: Event) -> None:
        if isinstance(event, RunStarted):
            self.close()
            self._start(event)
        elif isinstance(event, Notice):
            self._note(event.message)
        elif self.state is None:
            return  # joined late: without the header nothing below it means anything
        elif isinstance(event, StepDone | ValidationStep):
            self.state.take_step(event)
            self.draw()
            self._sign_of_life(event, self.state)
        elif isinstance(event, EpochDone):
            self.state.take_epoch(event)
            self._epoch(event)
        elif isinstance(event, Saved):
            self.state.take_saved(event)
            self.draw()
        elif isinstance(event, RunEnded):
            self._end(event, self.state)

    # -- start ---------------------------------------------------------------------------------

    def _start(self, run: RunStarted) -> None:
        self.state = ViewState.of(run, self._clock, self.before)
        self._meter = self._make_meter(run.device) if self._make_meter else None
        self._spoken = self._clock()
        self._rows = 0
        self._introduce(run)
        if can_redraw(self.console):
            atexit.register(self.close)
            self._live = open_region(self.console, LiveView(self.state))

    def _introduce(self, run: RunStarted) -> None:
        self._say(Text(f"run {run.name}", "bold").append(f" on {run.device}", "not bold"))
        frames = f"{run.train_frames} frames to train on, {run.val_frames} to validate"
        if run.protocol:
            self._say(f"{run.protocol}: {frames}; {len(run.classes)} classes")
        steps = f", {run.steps_per_epoch} steps of {run.batch_size} frames"
        each = f" = {run.processes} processes x {run.batch_size // run.processes}"
        steps += each if run.processes > 1 else " each"
        epochs = f"epochs {run.first_epoch} to {run.epochs}"
        self._say(epochs + (steps if run.steps_per_epoch else ""))
        self._say(f"folder {run.run_dir}")
        self._say("")
        if run.architecture:
            self.console.print(architecture_table(run.architecture, run.parameters))
        if self.verbose >= 2:
            self._say(f"\noptimizer: {run.optimizer}")
        if self.verbose >= 3:
            self._say("")
            self.console.print(parameter_table(run.parameter_sizes))
        if run.architecture or self.verbose >= 2:
            self._say("")

    # -- while it runs -------------------------------------------------------------------------

    def _say(self, line: str | Text) -> None:
        """One line, left to the terminal to wrap, so that paths and commands copy whole."""
        self.console.print(line, soft_wrap=True, markup=False, emoji=False, highlight=False)

    def _note(self, message: str) -> None:
        if self._live is None or self.state is None:
            self._say(notice_line(message))
            return
        notices = self.state.notices
        notices.append(message)
        if len(notices) > NOTICES_IN_VIEW:  # the oldest leaves the view for the scrollback
            self._say(notice_line(notices.pop(0)))
        self.draw(now=True)

    def _epoch(self, event: EpochDone) -> None:
        if self._live is None:
            self._spoken = self._clock()
            self._say(plain_epoch(event))
            return
        width, gpu = self.console.width, event.gpu_memory_bytes is not None
        head_every = min(20, max(6, self.console.height // 2 - 6))  # one head always in view
        head = epoch_head(width, gpu)
        lines = []
        if self._rows % head_every == 0 or head != self._head:
            self._rows, self._head = 0, head
            lines = [Text(line, "dim") for line in head]
        self._rows += 1
        lines.append(epoch_row(event, width, gpu, self.console.options.ascii_only))
        self._say(Text("\n").join(lines))

    def _sign_of_life(self, event: StepDone | ValidationStep, state: ViewState) -> None:
        if self._live is None and self._clock() - self._spoken >= PLAIN_SECONDS:
            self._spoken = self._clock()
            self._say(plain_step(event, state))

    # -- end -----------------------------------------------------------------------------------

    def _end(self, event: RunEnded, state: ViewState) -> None:
        self.close()
        self.state = None
        last = next((e for e in reversed(state.epochs) if e.val), None)
        if last and last.val and last.val.per_class:
            self._say(f"\nIoU of the classes, val, epoch {last.epoch}, worst first")
            worst = dict(worst_first(last.val.per_class))
            if self.console.is_terminal or self.console.is_jupyter:
                table = state.run.classes if has_swatches(self.console) else None
                self.console.print(class_bars(worst, width=self.console.width, swatches=table))
            else:
                self._say(", ".join(f"{name} {number(value)}" for name, value in worst.items()))
        self._say("")
        for label, text in summary(event, state, self._clock() - state.began_at):
            self._say(Text(f"{label:<7} ", "bold").append(text, "not bold"))
