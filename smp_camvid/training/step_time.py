"""How long a step takes here: a few real ones on the real batches, whose effect is taken back."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice

from smp_camvid.data.loaders import Batch
from smp_camvid.evaluation.loop import evaluate_batches, judge
from smp_camvid.training.batches import as_batch, length_of, move_batch
from smp_camvid.training.out_of_memory import training_told
from smp_camvid.training.trainer import Trainer
from smp_camvid.training.trial_steps import endless_groups, left_as_found

STEPS_TO_TIME = 4
"""The first one, with the start of workers and kernels, is not counted where there are more."""
SECONDS_TO_TIME = 30.0
"""No further step is begun after so long: on a slow machine one has to do."""

OnStep = Callable[[int, int], None]


@dataclass(frozen=True)
class Timing:
    """What a few real steps took, in seconds."""

    step: float
    steps_timed: int
    validation: float
    """A whole validation, from one of its batches; 0 without a val split."""


def time_steps(
    trainer: Trainer, processes: int = 1, on_step: OnStep = lambda step, steps: None
) -> Timing:
    """Takes a few training steps and a validation batch, and takes their effect back.

    With several `processes` the steps are the share of one.  Raises DeviceError when a step does
    not fit into the memory.
    """
    learner = trainer.learner
    seconds: list[float] = []
    began = time.perf_counter()
    with left_as_found(learner):
        groups = endless_groups(trainer)
        while len(seconds) < STEPS_TO_TIME and time.perf_counter() - began < SECONDS_TO_TIME:
            asked = time.perf_counter()
            batches = [_share(batch, processes) for batch in next(groups)]
            images = [batch.image for batch in batches]
            with training_told(trainer.keeper.recipe, learner.network, learner.arithmetic, images):
                learner.step(batches)
            seconds.append(time.perf_counter() - asked)
            on_step(len(seconds), STEPS_TO_TIME)
        counted = seconds[1:] or seconds
        validation = _validation_seconds(trainer) / processes
    return Timing(sum(counted) / len(counted), len(counted), validation)


def _share(batch: Batch, processes: int) -> Batch:
    image, target, index, weight = (None if t is None else t[::processes] for t in batch)
    assert image is not None and target is not None and index is not None
    return Batch(image, target, index, weight)


def _validation_seconds(trainer: Trainer) -> float:
    if trainer.val_loader is None:
        return 0.0
    first = islice(trainer.val_loader, 1)
    batches = [move_batch(as_batch(batch), trainer.device) for batch in first]
    seconds = []
    for _ in range(2):  # the first time kernels are chosen
        began = time.perf_counter()
        evaluate_batches(judge(trainer.judged), batches, loss=trainer.loss)
        seconds.append(time.perf_counter() - began)
    return min(seconds) * length_of(trainer.val_loader)
