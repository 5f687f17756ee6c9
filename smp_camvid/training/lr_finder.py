"""The learning-rate range test: one short training in which the rate grows until the loss does.

L. N. Smith: Cyclical Learning Rates for Training Neural Networks.  WACV 2017, arXiv:1506.01186,
section 3.3.  The rate grows by the same factor each step (the paper: by the same amount, over
epochs), so that a hundred steps or so cover seven decades.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from smp_camvid.errors import TrainingError, UsageError
from smp_camvid.training.learner import NotFiniteError
from smp_camvid.training.trainer import Trainer
from smp_camvid.training.trial_steps import endless_groups, left_as_found

LOWEST, HIGHEST, STEPS_PER_DECADE = 1e-6, 10.0, 20
DIVERGED = 4.0
"""The test ends when the mean of the newest losses is so many times the best such mean."""
_NEWEST = 5
_SMOOTH_DECADES = 0.15  # standard deviation of the window a curve is smoothed with
_LEAST_FALL = 0.05  # share of the first loss that must be gained for a rate to be suggested

Step = Callable[[float], float]
"""Learning rate -> the loss before the update with it."""
OnStep = Callable[[int, int], None]


@dataclass(frozen=True)
class RangeTest:
    """The curve: `losses[i]` is the loss after the update with `rates[i]`, rates growing."""

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    diverged: bool
    """Whether the loss ran away, which ended the test; else the highest rate was reached."""

    @property
    def smoothed(self) -> npt.NDArray[np.float64]:
        """The losses averaged over neighbours on both sides, so that the curve has no lag."""
        rates, losses = np.log10(self.rates), np.array(self.losses)
        # What comes after the runaway would pull up the minimum before it.
        losses = np.minimum(losses, 2 * losses[0])
        distance = (rates[:, None] - rates[None, :]) / _SMOOTH_DECADES
        window = np.exp(-(distance**2) / 2)
        smoothed: npt.NDArray[np.float64] = window @ losses / window.sum(1)
        return smoothed

    @property
    def lowest(self) -> float | None:
        """The rate at which the smoothed loss is lowest; None when it never fell to speak of."""
        if len(self.rates) < _NEWEST:
            return None
        curve = self.smoothed
        best = int(curve.argmin())
        # Of a normal distribution: the median step from one loss to the next is .95 deviations.
        noise = float(np.median(np.abs(np.diff(self.losses)))) / 0.95
        if curve[0] - curve[best] < max(_LEAST_FALL * curve[0], 2 * noise):
            return None
        return self.rates[best]

    @property
    def steepest(self) -> float | None:
        """The suggestion: where the smoothed loss falls fastest, by decades of the rate."""
        if self.lowest is None:
            return None
        best = self.rates.index(self.lowest)
        slope = np.gradient(self.smoothed, np.log10(self.rates))
        return self.rates[int(slope[: best + 1].argmin())]

    @property
    def careful(self) -> float | None:
        """A tenth of the rate with the lowest loss, for long runs and noisy curves.

        Never above the suggestion.
        """
        if self.lowest is None or self.steepest is None:
            return None
        return min(self.lowest / 10, self.steepest)

    def rows(self) -> list[dict[str, float]]:
        """One a step, for a .jsonl file."""
        curves = zip(self.rates, self.losses, self.smoothed.tolist(), strict=True)
        return [{"lr": lr, "loss": loss, "smoothed": smooth} for lr, loss, smooth in curves]


def find_lr(
    trainer: Trainer,
    lowest: float = LOWEST,
    highest: float = HIGHEST,
    on_step: OnStep = lambda step, steps: None,
) -> RangeTest:
    """Trains on the trainer's batches with growing rates, and leaves it as it found it.

    Weights, statistics, optimizer and random generators are put back; nothing is written.  Each
    group of parameters keeps its factor on the rate.  Raises UsageError in several processes and
    TrainingError when the first loss is not finite.
    """
    if trainer.group.world > 1:
        raise UsageError("The learning-rate range test runs in one process.", "Leave out torchrun.")
    learner, groups = trainer.learner, endless_groups(trainer)

    def step(lr: float) -> float:
        learner.set_lr(lr)
        return learner.step(next(groups)).loss

    with left_as_found(learner):
        torch.manual_seed(trainer.config.seed)
        try:
            return range_test(step, rates_between(lowest, highest), on_step)
        except NotFiniteError as error:
            raise TrainingError(
                f"The {error.what} of the first batch is {error.value}; nothing was learned yet.",
                "Look at the labels: smp-camvid data check",
            ) from None


def rates_between(lowest: float, highest: float) -> list[float]:
    """From `lowest` to `highest`, `STEPS_PER_DECADE` of them to each factor of ten."""
    decades = math.log10(highest / lowest)
    steps = max(1, round(decades * STEPS_PER_DECADE))
    return [lowest * 10 ** (decades * n / steps) for n in range(steps + 1)]


def range_test(
    step: Step, rates: Sequence[float], on_step: OnStep = lambda step, steps: None
) -> RangeTest:
    """Takes one step for each rate, until the loss runs away.

    A step returns the loss before its own update, so the last rate's loss is that of the next.
    """
    losses: list[float] = []
    best, diverged = math.inf, False
    for number, rate in enumerate(rates, start=1):
        try:
            losses.append(step(rate))
        except NotFiniteError:
            if not losses:
                raise
            diverged = True
            break
        on_step(number, len(rates))
        recent = sum(losses[-_NEWEST:]) / len(losses[-_NEWEST:])
        if not math.isfinite(recent) or recent > DIVERGED * best:
            diverged = True
            break
        best = min(best, recent)
    known = [loss for loss in losses if math.isfinite(loss)]
    return RangeTest(tuple(rates[: len(known) - 1]), tuple(known[1:]), diverged)
