"""What a run's events so far say: the live view draws it, the lines of a log quote it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from smp_camvid.report.machine_use import MachineUse
from smp_camvid.training.events import EpochDone, RunStarted, Saved, StepDone, ValidationStep

STEP_LOSSES_KEPT = 400
SILENT_SECONDS = 60.0


@dataclass
class ViewState:
    """Filled event by event; times are those of `clock`, in seconds."""

    run: RunStarted
    clock: Callable[[], float]
    began_at: float
    epochs: list[EpochDone] = field(default_factory=list)
    step: StepDone | ValidationStep | None = None
    loss: float | None = None
    losses: list[float] = field(default_factory=list)  # of the steps of this epoch
    lr: float | None = None
    saved: Saved | None = None
    saved_at: float = 0.0
    notices: list[str] = field(default_factory=list)
    machine: MachineUse | None = None
    epoch_at: float | None = None
    heard_at: float | None = None  # the last sign of life of a run that another process trains
    left: float | None = None  # seconds to the end, as known at `left_at`
    left_at: float = 0.0
    _epoch_of_losses: int = 0
    _measured: bool = False  # an epoch was done by this machine

    @classmethod
    def of(
        cls, run: RunStarted, clock: Callable[[], float], before: Sequence[EpochDone] = ()
    ) -> ViewState:
        """`before`: the epochs on record that the run goes on from."""
        lr = before[-1].lr if before else None
        return cls(run, clock, clock(), epochs=list(before), lr=lr)

    @property
    def best(self) -> EpochDone | None:
        return next((epoch for epoch in reversed(self.epochs) if epoch.best), None)

    @property
    def finished(self) -> int:
        """The last epoch done."""
        return self.epochs[-1].epoch if self.epochs else self.run.first_epoch - 1

    @property
    def epoch(self) -> int:
        return self.step.epoch if self.step else min(self.finished + 1, self.run.epochs)

    @property
    def judged(self) -> list[EpochDone]:
        """The epochs that were validated."""
        return [epoch for epoch in self.epochs if epoch.val]

    def take_step(self, event: StepDone | ValidationStep) -> None:
        self.step = event
        if isinstance(event, ValidationStep):
            return
        if event.epoch != self._epoch_of_losses:
            self.loss, self.losses, self._epoch_of_losses = None, [], event.epoch
        self.lr = event.lr
        if event.loss is not None:
            self.loss = event.loss
            self.losses = [*self.losses[-STEP_LOSSES_KEPT + 1 :], event.loss]
        if not self._measured:  # until an epoch is measured: the steps alone, validation unknown
            per_step = event.seconds / max(1, event.step)
            to_do = (self.run.epochs - event.epoch + 1) * event.steps - event.step
            self.left, self.left_at = per_step * to_do, self.clock()

    def take_epoch(self, event: EpochDone) -> None:
        self.epochs.append(event)
        self.step, self.lr, self._measured = None, event.lr, True
        self.epoch_at = self.clock()
        self.left, self.left_at = event.seconds_left, self.epoch_at

    def take_saved(self, event: Saved, seconds_ago: float = 0.0) -> None:
        self.saved, self.saved_at = event, self.clock() - seconds_ago

    def seconds_left(self) -> float | None:
        return None if self.left is None else max(0.0, self.left - self.clock() + self.left_at)

    @property
    def is_silent(self) -> bool:
        """Whether a sign of life is overdue: a minute, or ten steps where they are slow."""
        if self.heard_at is None:
            return False
        step = self.step
        slow = 10 * step.seconds / max(1, step.step) if isinstance(step, StepDone) else 0.0
        return self.clock() - self.heard_at > max(SILENT_SECONDS, slow)

    def where(self, path: Path) -> str:
        """`path` as seen from the run directory."""
        root = self.run.run_dir
        return str(path.relative_to(root)) if path.is_relative_to(root) else str(path)
