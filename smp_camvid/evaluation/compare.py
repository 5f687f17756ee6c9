"""Several models on the same frames: what differs, and whether other moments would say the same.

Each resample draws the same blocks of frames for all models, so what makes a moment hard for all
of them cancels out: the interval of a difference is narrower than those of the two scores suggest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from smp_camvid.data.cache import FrameCache
from smp_camvid.errors import UsageError
from smp_camvid.evaluation.bootstrap import Bootstrap, interval, intervals, resampled
from smp_camvid.evaluation.document import document
from smp_camvid.evaluation.examination import Examination, examine
from smp_camvid.evaluation.loop import OnStep
from smp_camvid.evaluation.metrics import DEFINITION, Numbers, class_iou, mean_iou, or_none
from smp_camvid.evaluation.split import open_split
from smp_camvid.inference.predictor import Segmenter
from smp_camvid.models.flops import count_flops
from smp_camvid.models.weights import untrained_network


def compare(
    segmenters: Sequence[Segmenter],
    data: str | Path,
    *,
    split: str = "val",
    size: tuple[int, int] | None = None,
    batch_size: int = 4,
    workers: int = 0,
    tolerance: float | None = None,
    bootstrap: Bootstrap | None = None,
    on_model: Callable[[int], OnStep] = lambda number: lambda done, total: None,
) -> dict[str, Any]:
    """Judges all on the same frames; returns the document of `compare --json`.

    `models` are documents of `evaluate` with `parameters` and `flops` (of one frame of
    `frame_size`), `differences` those of all others to the first.  The options are those of
    `evaluate`; `on_model(number)` gives the progress of one model.  Raises UsageError when the
    models are scored by different protocols.
    """
    bootstrap = bootstrap or Bootstrap()
    caches = [open_split(segmenter, data, split, size) for segmenter in segmenters]
    check_same_protocol(segmenters, caches)
    exams = [
        examine(
            segmenter,
            cache,
            split,
            batch_size=batch_size,
            workers=workers,
            tolerance=tolerance,
            on_step=on_model(number),
        )
        for number, (segmenter, cache) in enumerate(zip(segmenters, caches, strict=True))
    ]
    first = exams[0]
    return {
        "protocol": first.protocol,
        "split": split,
        "frames": len(first.frames),
        "definition": DEFINITION,
        "intervals": bootstrap.describe(first.drives),
        "models": [
            {**document(exam, bootstrap), **network_facts(segmenter, cache)}
            for exam, segmenter, cache in zip(exams, segmenters, caches, strict=True)
        ],
        "differences": [difference(exam, first, bootstrap) for exam in exams[1:]],
    }


def check_same_protocol(segmenters: Sequence[Segmenter], caches: Sequence[FrameCache]) -> None:
    """Raises UsageError when the scores of two models would not mean the same."""
    first, protocol = segmenters[0].source, caches[0].protocol
    stems = [frame.stem for frame in caches[0].frames]
    for segmenter, cache in zip(segmenters[1:], caches[1:], strict=True):
        if cache.protocol != protocol:
            raise UsageError(
                f"{first} is scored as {protocol}, {segmenter.source} as {cache.protocol}: "
                "other labels or other frames, so a difference would say nothing of the models.",
                "--size HxW scores all at one size; runs on other splits or classes are "
                "evaluated each by itself.",
            )
        if [frame.stem for frame in cache.frames] != stems:
            raise UsageError(f"{first} and {segmenter.source} are judged on different frames.")


def difference(exam: Examination, first: Examination, bootstrap: Bootstrap) -> dict[str, Any]:
    """How much better `exam` is than `first`: of mIoU and of each class's IoU, with intervals.

    None for a class that one of the two has no IoU for.
    """
    pooled = _iou(exam, exam.counts.sum(0)) - _iou(first, first.counts.sum(0))
    mean = _mean(exam, exam.counts.sum(0)) - _mean(first, first.counts.sum(0))
    weights = bootstrap.weights(first.drives)
    of_mean: list[float] | None = None
    of_class: list[list[float] | None] = [None] * len(exam.table)
    if weights is not None:
        drawn, base = resampled(weights, exam.counts), resampled(weights, first.counts)
        of_mean = interval(_mean(exam, drawn) - _mean(first, base))
        of_class = intervals(_iou(exam, drawn) - _iou(first, base))
    return {
        "model": exam.model,
        "against": first.model,
        "miou": {"difference": or_none(mean), "interval": of_mean},
        "per_class": {
            name: {"difference": or_none(pooled[i]), "interval": of_class[i]}
            for i, name in enumerate(exam.table.names)
            if i != exam.table.void_index
        },
    }


def _iou(exam: Examination, counts: Any) -> Numbers:
    return class_iou(counts, exam.table)


def _mean(exam: Examination, counts: Any) -> Numbers:
    return mean_iou(_iou(exam, counts))


def network_facts(segmenter: Segmenter, cache: FrameCache) -> dict[str, Any]:
    """`parameters`, `flops` of one pass over one frame of `frame_size`, None where the network
    cannot be counted (a plugin's may not run on shapes alone)."""
    network = getattr(segmenter.engine, "network", None)
    if network is None:  # an export; its metadata knows what it was made from
        network = untrained_network(segmenter.metadata, segmenter.source)
    height, width = cache.images.shape(0)[:2]
    try:
        flops = count_flops(network, (height, width)).forward
    except Exception:  # whatever a plugin raises
        flops = None
    return {
        "parameters": network.num_parameters,
        "flops": flops,
        "frame_size": [height, width],
    }
