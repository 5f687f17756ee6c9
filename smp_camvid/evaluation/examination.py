"""One pass of a model over a split, kept frame by frame: every score is made from this record."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from smp_camvid.data.cache import FrameCache
from smp_camvid.data.classes import VOID, ClassTable
from smp_camvid.data.layouts import Frame
from smp_camvid.data.loaders import Batch, eval_loader, one_by_one
from smp_camvid.evaluation.boundary import boundary_counts, default_tolerance
from smp_camvid.evaluation.calibration import calibration_counts
from smp_camvid.evaluation.loop import OnStep, evaluate_batches
from smp_camvid.evaluation.metrics import Matrix, counted
from smp_camvid.evaluation.speed import Timed
from smp_camvid.inference.predictor import Segmenter

Measure = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Scores `[B, C, H, W]`, found `[B, H, W]`, target `[B, H, W]` -> one row for each frame."""


@dataclass(frozen=True)
class Examination:
    """What a model did on each of N frames, in the order of the split."""

    frames: tuple[Frame, ...]
    table: ClassTable
    split: str
    protocol: str
    matrix: Matrix
    """`[C, C]`, rows truth: pixels of the whole split."""
    counts: npt.NDArray[np.int64]
    """`[N, 3, C]`: pixels that are right, true, predicted (`metrics`)."""
    boundary: npt.NDArray[np.int64]
    """`[N, 4, C]`, see `boundary.boundary_counts`."""
    tolerance: float | None
    """Of the boundaries, in pixels; None where labels differ in size, and it with them."""
    calibration: npt.NDArray[np.float64]
    """`[N, 3, 15]`, see `calibration.calibration_counts`."""
    model: str
    checkpoint: str
    prediction: Mapping[str, Any]
    """How the model was run: height of the frames, device, tta, tile."""
    speed: Mapping[str, Any]
    trained_on: tuple[str, ...] = ()
    """Those of the judged splits whose frames the model was trained on."""

    @property
    def drives(self) -> list[str]:
        """The drive of each frame."""
        return [frame.drive for frame in self.frames]


class PerFrame:
    """Collects rows of several measures; they stay on the device until the end."""

    def __init__(self, **measures: Measure) -> None:
        self.measures = measures
        self._rows: dict[str, list[Tensor]] = {name: [] for name in measures}
        self._index: list[Tensor] = []

    def __call__(self, scores: Tensor, found: Tensor, batch: Batch) -> None:
        self._index.append(batch.index)
        for name, measure in self.measures.items():
            self._rows[name].append(measure(scores, found, batch.target))

    def rows(self, name: str) -> npt.NDArray[Any]:
        """`[N, ...]`, frame by frame."""
        found = torch.cat(self._rows[name]).cpu().numpy()
        rows = np.empty_like(found)
        rows[torch.cat(self._index).numpy()] = found
        return rows


def examine(
    segmenter: Segmenter,
    cache: FrameCache,
    split: str,
    *,
    batch_size: int = 4,
    workers: int = 0,
    tolerance: float | None = None,
    on_step: OnStep | None = None,
) -> Examination:
    """Runs `segmenter` over the frames of `cache` (`split.open_split`) and counts.

    `tolerance` of the boundaries in pixels; None is .75 % of the labels' diagonal.
    """
    classes = len(segmenter.table)
    record = PerFrame(
        counts=partial(_frame_counts, classes),
        boundary=partial(_boundary, classes, tolerance),
        calibration=calibration_counts,
    )
    timed = Timed(segmenter)
    batches = eval_loader(cache, batch_size=batch_size, workers=workers)
    began = time.perf_counter()
    result = evaluate_batches(timed, batches, len(batches), collect=record, on_step=on_step)
    return Examination(
        frames=cache.frames,
        table=cache.table,
        split=split,
        protocol=cache.protocol,
        matrix=result.matrix,
        counts=record.rows("counts"),
        boundary=record.rows("boundary"),
        tolerance=_tolerance_of(cache) if tolerance is None else tolerance,
        calibration=record.rows("calibration"),
        model=segmenter.source,
        checkpoint=Path(segmenter.source).stem,
        prediction=_how(segmenter),
        speed=_speed(timed, len(cache), time.perf_counter() - began, batch_size),
        trained_on=_trained_on(segmenter.metadata, split, cache.protocol),
    )


def _trained_on(metadata: Mapping[str, Any], split: str, protocol: str) -> tuple[str, ...]:
    """By what the weights say; of another dataset's splits nothing is known."""
    if str(metadata.get("protocol", "")).partition("@")[0] != protocol.partition("@")[0]:
        return ()
    trained = str(metadata.get("train_split", "")).split("+")
    return tuple(part for part in split.split("+") if part in trained)


def predictions(
    segmenter: Segmenter, cache: FrameCache, indices: Sequence[int]
) -> list[npt.NDArray[np.uint8]]:
    """The classes that `examine` counts, of some frames: uint8, each of its label's size."""
    found: list[npt.NDArray[np.uint8]] = []
    evaluate_batches(
        segmenter,
        one_by_one(cache, indices),
        collect=lambda scores, classes, batch: found.append(
            classes[0].to(torch.uint8).cpu().numpy()
        ),
    )
    return found


def _frame_counts(classes: int, scores: Tensor, found: Tensor, target: Tensor) -> Tensor:
    """int64 `[B, 3, C]`: right, true and predicted pixels of each frame, void left out."""
    frames = len(target)
    frame = torch.arange(frames, device=target.device)[:, None, None]
    place = (frame * classes + target) * classes + found
    bins = torch.where(target == VOID, frames * classes**2, place)
    matrices = counted(bins, frames * classes**2 + 1)[:-1].view(frames, classes, classes)
    return torch.stack([matrices.diagonal(dim1=1, dim2=2), matrices.sum(2), matrices.sum(1)], 1)


def _boundary(
    classes: int, tolerance: float | None, scores: Tensor, found: Tensor, target: Tensor
) -> Tensor:
    if tolerance is None:
        tolerance = default_tolerance((target.shape[1], target.shape[2]))
    return boundary_counts(found, target, classes, tolerance)


def _tolerance_of(cache: FrameCache) -> float | None:
    sizes = {cache.labels.shape(index) for index in range(len(cache))}
    if len(sizes) > 1:
        return None
    ((height, width),) = sizes
    return default_tolerance((height, width))


def _how(segmenter: Segmenter) -> dict[str, Any]:
    return {
        "height": segmenter.height,
        "device": segmenter.device,
        "tta": sorted({factor for factor, _ in segmenter.views}) or None,
        "tile": segmenter.tile and list(segmenter.tile),
    }


def _speed(timed: Timed, frames: int, seconds: float, batch_size: int) -> dict[str, Any]:
    return {
        "seconds": seconds,
        "images_per_second": frames / seconds,
        "network_images_per_second": timed.images_per_second(),
        "batch_size": batch_size,
        "peak_memory_bytes": timed.peak_memory(),
    }
