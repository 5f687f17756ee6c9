"""The numbers other projects print under the name of mIoU, from the same counts.

One model on one split can be .79 by one of them and .985 by another, so a published figure says
little without its definition.  Void pixels, and a channel that is never a target, are left out of
all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from smp_camvid.data.classes import ClassTable
from smp_camvid.evaluation.metrics import Numbers, class_iou, mean_iou, or_none, ratio

Counts = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Definition:
    """One way to make a single number of counts of N frames `[N, 3, C]`, C without void."""

    name: str
    meaning: str
    used_by: str
    value: Callable[[Counts], npt.ArrayLike]


def peers(counts: Counts, table: ClassTable) -> list[dict[str, Any]]:
    """Every definition of counts `[N, 3, C]`: name, miou (None where it has none), meaning,
    used_by.  The first is the one this package means by mIoU."""
    counts = np.delete(counts, [] if table.void_index is None else table.void_index, axis=2)
    return [
        {
            "name": one.name,
            "miou": or_none(one.value(counts)),
            "meaning": one.meaning,
            "used_by": one.used_by,
        }
        for one in DEFINITIONS
    ]


def _iou(counts: Counts, absent: float = np.nan) -> Numbers:
    return np.nan_to_num(class_iou(counts, _PLAIN), nan=absent)


def _micro(counts: Counts) -> Numbers:
    """All classes as one: `[..., 3, C]` -> `[...]`."""
    hit, truth, predicted = (counts[..., row, :].sum(-1) for row in range(3))
    return ratio(hit, truth + predicted - hit)


_PLAIN = ClassTable("", (), ())  # without a void channel

DEFINITIONS = (
    Definition(
        "present",
        "pooled over the split, mean over the classes that occur in truth or prediction",
        "smp-camvid, mmsegmentation, fastai, torchmetrics, ultralytics",
        lambda counts: mean_iou(_iou(counts.sum(0))),
    ),
    Definition(
        "absent-0",
        "pooled, mean over all classes, one that occurs nowhere counts 0",
        "segcraft, pixseg",
        lambda counts: _iou(counts.sum(0), absent=0.0).mean(),
    ),
    Definition(
        "absent-1",
        "pooled, mean over all classes, one that occurs nowhere counts 1",
        "smp reduction='macro', PaddleSeg",
        lambda counts: _iou(counts.sum(0), absent=1.0).mean(),
    ),
    Definition(
        "micro",
        "pooled over the split and the classes: large classes decide",
        "smp reduction='micro'",
        lambda counts: _micro(counts.sum(0)),
    ),
    Definition(
        "micro-imagewise",
        "pooled over the classes of a frame, mean over frames, a frame of void counts 1",
        "smp reduction='micro-imagewise'",
        lambda counts: np.nan_to_num(_micro(counts), nan=1.0).mean(),
    ),
    Definition(
        "macro-imagewise",
        "mean over frames and all classes, one that is not in the frame counts 1",
        "smp reduction='macro-imagewise'",
        lambda counts: _iou(counts, absent=1.0).mean(),
    ),
    Definition(
        "frames",
        "mean over frames of the mean over the classes that occur in the frame",
        "averages of per-picture or per-batch scores",
        lambda counts: mean_iou(mean_iou(_iou(counts))),
    ),
)
