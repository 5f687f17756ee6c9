"""A run's events without a run; as a program it logs them to W&B and ends itself with SIGKILL."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np

from smp_camvid.data.classes import CAMVID11
from smp_camvid.training.events import (
    EpochDone,
    Event,
    History,
    Pictures,
    RunEnded,
    RunStarted,
    Scores,
    StepDone,
)

STEPS = 3  # of an epoch


def started(run_dir: Path) -> RunStarted:
    return RunStarted(
        run_dir.name, run_dir, "cpu", "camvid11@360x480", CAMVID11, 4, 1, STEPS, 2, 5, 3, 10, (),
        "Adam", (),
    )  # fmt: skip


def step(number: int, loss: float | None = 0.5) -> StepDone:
    """The n-th optimizer step of the run, from 1."""
    epoch, inside = divmod(number - 1, STEPS)
    return StepDone(epoch + 1, inside + 1, STEPS, loss, 1 / number, 2 * inside, 1.0)


def epoch_done(epoch: int, gpu: int | None = None) -> EpochDone:
    scores = Scores(1 / epoch, epoch / 10, epoch / 20, {"Sky": epoch / 30, "Car": None})
    return EpochDone(epoch, 4, scores, scores, 1e-3, 9.0, 1.0, 1.0, 0.1, gpu, False)


def epoch_of(number: int) -> list[Event]:
    """Everything of one epoch."""
    first = (number - 1) * STEPS + 1
    return [*(step(i) for i in range(first, first + STEPS)), epoch_done(number)]


def pictures(epoch: int) -> Pictures:
    rng = np.random.default_rng(epoch)
    label = rng.integers(0, 11, (36, 48)).astype(np.uint8)
    return Pictures(epoch, "val", [(rng.integers(0, 255, (36, 48, 3), np.uint8), label, label)])


def ended(run_dir: Path, reason: str = "done") -> RunEnded:
    return RunEnded(reason, run_dir, 4, None, None, "")


def tell(logger: Any, *events: Event) -> None:
    for event in events:
        logger.on_event(event)


def main(run_dir: Path) -> None:
    from smp_camvid.report import scalars
    from smp_camvid.report.wandb_log import WandbLogger

    scalars.EVERY_STEPS = 1
    tell(WandbLogger(run_dir, History()), started(run_dir), *epoch_of(1), *epoch_of(2), step(7))
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
