"""Early stopping on any metric of the validation split."""

from __future__ import annotations

import math

from smp_camvid.data.classes import ClassTable
from smp_camvid.errors import UsageError, did_you_mean
from smp_camvid.training.events import Scores

_METRICS = ("miou", "accuracy", "loss")


def check_metric(metric: str, table: ClassTable) -> None:
    """Raises UsageError for a metric that validation does not measure."""
    known = (*_METRICS, *table.names)
    if metric not in known:
        guess = did_you_mean(metric, known) or f"It is one of {', '.join(known)}."
        raise UsageError(f"There is no metric {metric!r}. {guess}")


def watched(metric: str, scores: Scores) -> float:
    """The metric, larger is better; a class that is nowhere counts as never better."""
    if metric == "loss":
        return -scores.loss if math.isfinite(scores.loss) else -math.inf
    if metric in _METRICS:
        return float(getattr(scores, metric))
    found = scores.per_class[metric]
    return -math.inf if found is None else found
