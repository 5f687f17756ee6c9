"""What an event says in numbers, under the names that every logger uses."""

from __future__ import annotations

from collections.abc import Iterator

from smp_camvid.training.events import EpochDone, Scores, StepDone

EVERY_STEPS = 10
"""One step of so many is logged: a curve is as clear, and a long run's file stays small."""


def global_step(event: StepDone) -> int:
    """Optimizer steps since the run began, from 1."""
    return (event.epoch - 1) * event.steps + event.step


def of_step(event: StepDone) -> dict[str, float]:
    """Learning rate, and the loss where it was read."""
    loss = {} if event.loss is None else {"step/loss": event.loss}
    return {**loss, "step/lr": event.lr}


def of_epoch(event: EpochDone) -> dict[str, float]:
    """Scores of both passes, per class too, and what the machine did; unknown ones are left out."""
    machine = {
        "machine/images_per_second": event.images_per_second,
        "machine/data_wait_seconds": event.data_wait_seconds,
    }
    if event.gpu_memory_bytes is not None:
        machine["machine/gpu_memory_bytes"] = event.gpu_memory_bytes
    val = {} if event.val is None else dict(_of_scores("val", event.val))
    return {**dict(_of_scores("train", event.train)), **val, **machine}


def _of_scores(name: str, scores: Scores) -> Iterator[tuple[str, float]]:
    yield f"{name}/loss", scores.loss
    yield f"{name}/miou", scores.miou
    yield f"{name}/accuracy", scores.accuracy
    for label, iou in scores.per_class.items():
        if iou is not None:
            yield f"{name}_iou/{label}", iou


class Thinned:
    """Chooses the first step of every EVERY_STEPS whose loss was read.

    A run that goes on in the middle of such a stretch waits for the next: the interrupted one has
    chosen there, and both together log the steps that an uninterrupted run would.
    """

    def __init__(self) -> None:
        self._stretch: int | None = None

    def takes(self, event: StepDone) -> bool:
        step = global_step(event)
        if self._stretch is None:
            self._stretch = (step - 2) // EVERY_STEPS  # of the step before
        stretch = (step - 1) // EVERY_STEPS
        if event.loss is None or stretch == self._stretch:
            return False
        self._stretch = stretch
        return True
