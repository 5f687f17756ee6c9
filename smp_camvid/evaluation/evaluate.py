"""Scores of one model on a split of a dataset."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from smp_camvid.evaluation.bootstrap import Bootstrap
from smp_camvid.evaluation.document import document
from smp_camvid.evaluation.examination import examine
from smp_camvid.evaluation.loop import OnStep
from smp_camvid.evaluation.split import open_split
from smp_camvid.inference.predictor import Segmenter


def evaluate(
    segmenter: Segmenter,
    data: str | Path,
    *,
    split: str = "val",
    size: tuple[int, int] | None = None,
    batch_size: int = 4,
    workers: int = 0,
    tolerance: float | None = None,
    bootstrap: Bootstrap | None = None,
    on_step: OnStep | None = None,
) -> dict[str, Any]:
    """Scores a model on a split of `data`; returns the document of `evaluate --json`.

    `size` is the label size scored at (default: what the model's run recorded), `tolerance` that of
    boundary F1 in pixels (default: .75 % of the labels' diagonal), `bootstrap` how intervals are
    made.  docs/design.md names the keys; a score that does not exist, as the IoU of a class that
    occurs nowhere, is None.  Raises DataError or UsageError.
    """
    cache = open_split(segmenter, data, split, size)
    exam = examine(
        segmenter,
        cache,
        split,
        batch_size=batch_size,
        workers=workers,
        tolerance=tolerance,
        on_step=on_step,
    )
    return document(exam, bootstrap or Bootstrap())
