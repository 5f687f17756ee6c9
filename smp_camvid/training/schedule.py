"""Learning-rate schedules: pure functions of the step, so that resuming restores nothing."""

from __future__ import annotations

import math

from smp_camvid.recipe import TrainConfig

POLY_POWER = 0.9
ONECYCLE_START, ONECYCLE_END, ONECYCLE_RISE = 1 / 25, 1e-4, 0.3


def lr_at(config: TrainConfig, steps_per_epoch: int, step: int) -> float:
    """The learning rate of optimizer step `step`, from 0; plateau's own factor left out."""
    steps, warmup = config.epochs * steps_per_epoch, round(config.warmup_epochs * steps_per_epoch)
    return config.lr * lr_factor(config.schedule, step, steps, warmup)


def lr_factor(schedule: str, step: int, steps: int, warmup: int = 0) -> float:
    """Factor on the peak learning rate for optimizer step `step` (from 0) of `steps`.

    * constant, plateau: 1 (plateau's own factor is state, see `TrainState.note_plateau`)
    * cosine: (1 + cos(pi t)) / 2;  poly: (1 - t) ** 0.9, with t from 0 to 1 after the warm-up
    * onecycle: cosine rise from 1/25 over the first 30 %, cosine fall to 1e-4 (Smith 2018)
    * the first `warmup` steps rise linearly: (step + 1) / warmup
    """
    if step < warmup:
        return (step + 1) / warmup
    t = (step - warmup) / max(1, steps - warmup)
    if schedule == "cosine":
        return (1 + math.cos(math.pi * t)) / 2
    if schedule == "poly":
        return float((1 - t) ** POLY_POWER)
    if schedule == "onecycle":
        if t < ONECYCLE_RISE:
            return _cosine(ONECYCLE_START, 1.0, t / ONECYCLE_RISE)
        return _cosine(1.0, ONECYCLE_END, (t - ONECYCLE_RISE) / (1 - ONECYCLE_RISE))
    assert schedule in ("constant", "plateau")
    return 1.0


def _cosine(start: float, end: float, t: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * t)) / 2
