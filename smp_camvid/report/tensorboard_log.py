"""TensorBoard: curves, pictures and the recipe, in `tensorboard/` of a run folder.

Everything stands at an optimizer step, what belongs to an epoch at its last one.  So one number,
the step a resumed run goes on at, tells TensorBoard what to forget of the interrupted run.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from torch.utils.tensorboard import SummaryWriter

from smp_camvid.report import scalars
from smp_camvid.report.sheets import prediction_sheet
from smp_camvid.training.events import (
    EpochDone,
    Event,
    History,
    Pictures,
    RunEnded,
    RunStarted,
    StepDone,
)

FLUSH_SECONDS = 30


class TensorBoardLogger:
    """Writes event files; those of a resumed run go on where its checkpoint was."""

    def __init__(self, run_dir: Path, history: History) -> None:
        self._run_dir = run_dir
        self._run: RunStarted | None = None
        self._writer: SummaryWriter | None = None
        self._thinned = scalars.Thinned()

    def on_event(self, event: Event) -> None:
        if isinstance(event, RunStarted):
            self._run = event
        elif isinstance(event, StepDone):
            self._step(event)
        elif isinstance(event, EpochDone):
            self._write(scalars.of_epoch(event), self._end_of(event.epoch))
        elif isinstance(event, Pictures):
            self._draw(event)
        elif isinstance(event, RunEnded) and self._writer is not None:
            self._writer.close()

    def _step(self, event: StepDone) -> None:
        step = scalars.global_step(event)
        self._open(step)
        if self._thinned.takes(event):
            self._write(scalars.of_step(event), step)

    def _write(self, values: dict[str, float], step: int) -> None:
        writer = self._open(step)
        for name, value in values.items():
            writer.add_scalar(name, value, step)

    def _draw(self, event: Pictures) -> None:
        assert self._run is not None, "RunStarted comes before Pictures"
        step = self._end_of(event.epoch)
        sheet = prediction_sheet(event.frames, self._run.classes, f"epoch {event.epoch}")
        name = f"pictures/{event.split}"
        self._open(step).add_image(name, np.asarray(sheet), step, dataformats="HWC")

    def _end_of(self, epoch: int) -> int:
        assert self._run is not None, "RunStarted comes first"
        return epoch * self._run.steps_per_epoch

    def _open(self, step: int) -> SummaryWriter:
        """The writer; the first thing it writes is that nothing from `step` on counts any more."""
        if self._writer is None:
            folder = str(self._run_dir / "tensorboard")
            self._writer = SummaryWriter(folder, purge_step=step, flush_secs=FLUSH_SECONDS)
            recipe = (self._run_dir / "config.toml").read_text(encoding="utf-8")
            as_code = "".join(f"    {line}\n" for line in recipe.splitlines())
            self._writer.add_text("recipe", as_code, step)
        return self._writer
