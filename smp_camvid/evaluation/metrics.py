"""mIoU as this package means it, and the other scores that follow from counted pixels.

Void pixels are left out; a class's IoU is intersection over union of the pooled counts; the mean
is over the classes whose union is not empty, and the number of classes in it is always printed.
docs/concepts-miou.md has every formula, and how other projects count.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from smp_camvid.data.classes import VOID, ClassTable

DEFINITION = (
    "pooled confusion matrix over the split, void pixels left out, "
    "mean over the classes whose union is not empty"
)

Matrix = npt.NDArray[np.int64]
Numbers = npt.NDArray[np.float64]

HIT, TRUTH, PREDICTED = range(3)
"""What `counts` `[..., 3, C]` hold for each class: pixels that are right, true, predicted."""


class ConfusionMatrix:
    """Counts on the device that holds the predictions; one transfer at the end.

    `counts[t, p]` is the number of pixels of true class t predicted as p.
    """

    def __init__(self, classes: int, device: torch.device | str = "cpu") -> None:
        self.classes = classes
        self.counts = torch.zeros(classes * classes, dtype=torch.int64, device=device)

    def update(self, prediction: torch.Tensor, target: torch.Tensor) -> None:
        """`prediction` and `target`: int64 of equal shape; target 255 counts nowhere."""
        # Void goes to an extra bin instead of a boolean mask, which would stall a GPU.
        bins = torch.where(
            target == VOID, self.classes * self.classes, target * self.classes + prediction
        )
        self.counts += counted(bins, self.classes * self.classes + 1)[:-1]

    def matrix(self) -> Matrix:
        """`[C, C]` int64, rows are truth."""
        array: Matrix = self.counts.cpu().numpy().reshape(self.classes, self.classes)
        return array


def counted(bins: torch.Tensor, size: int, weights: torch.Tensor | None = None) -> torch.Tensor:
    """How often each of 0 ... size - 1 occurs in `bins`, int64 `[size]`; or the sum of `weights`
    there, of their dtype.  Unlike torch.bincount it asks no GPU for the largest: it never waits.
    """
    if weights is None:
        weights = torch.ones((), dtype=torch.int64, device=bins.device).expand_as(bins)
    total = torch.zeros(size, dtype=weights.dtype, device=bins.device)
    return total.index_add_(0, bins.flatten(), weights.flatten())


@dataclass(frozen=True)
class ClassScores:
    """Scores of one class; None where the fraction would be 0/0."""

    iou: float | None
    precision: float | None
    """Right among the pixels predicted as it."""
    recall: float | None
    """Right among the pixels that are it: the class's accuracy."""
    dice: float | None
    """Twice the right ones among both together; also called F1."""


@dataclass(frozen=True)
class Summary:
    """What counted pixels say.  None and nan never mix: an absent class has None."""

    miou: float
    accuracy: float
    mean_class_accuracy: float
    frequency_weighted_iou: float
    """The IoU of the classes that occur in the truth, weighted by their pixels there."""
    classes: Mapping[str, ClassScores]

    @property
    def per_class(self) -> dict[str, float | None]:
        """The IoU of each class."""
        return {name: scores.iou for name, scores in self.classes.items()}

    @property
    def classes_counted(self) -> int:
        return sum(scores.iou is not None for scores in self.classes.values())


def summarize(matrix: Matrix, table: ClassTable) -> Summary:
    """Scores of a `[C, C]` confusion matrix (rows truth).  0.0 where nothing was counted."""
    counts = np.stack([np.diag(matrix), matrix.sum(1), matrix.sum(0)])
    return summarize_counts(counts, table)


def summarize_counts(counts: npt.NDArray[np.int64], table: ClassTable) -> Summary:
    """The same of counts `[3, C]`, which is all that these scores need."""
    hit, truth, predicted = counts.astype(np.float64)
    iou = class_iou(counts, table)
    recall = ratio(hit, truth)
    columns = (iou, ratio(hit, predicted), recall, ratio(2 * hit, truth + predicted))
    frequency = ratio(truth, truth.sum())
    return Summary(
        miou=_or_zero(mean_iou(iou)),
        accuracy=_or_zero(ratio(hit.sum(), truth.sum())),
        mean_class_accuracy=_or_zero(mean_iou(recall)),
        frequency_weighted_iou=float(np.nansum(frequency * iou)),
        classes={
            name: ClassScores(*(or_none(column[i]) for column in columns))
            for i, name in enumerate(table.names)
            if i != table.void_index
        },
    )


def class_iou(counts: npt.NDArray[np.number], table: ClassTable) -> Numbers:
    """Counts `[..., 3, C]` -> IoU `[..., C]`, nan for a class whose union is empty."""
    hit, truth, predicted = (counts[..., row, :].astype(np.float64) for row in range(3))
    iou = ratio(hit, truth + predicted - hit)
    if table.void_index is not None:  # never a target: a prediction of it is only a miss
        iou[..., table.void_index] = np.nan
    return iou


def mean_iou(iou: Numbers) -> Numbers:
    """`[..., C]` -> `[...]`: the mean over what is not nan; nan where all are."""
    known = ~np.isnan(iou)
    return ratio(np.where(known, iou, 0).sum(-1), known.sum(-1))


def ratio(part: npt.ArrayLike, whole: npt.ArrayLike) -> Numbers:
    """`part / whole`, nan where both are 0."""
    part, whole = np.broadcast_arrays(np.asarray(part, np.float64), whole)
    quotient: Numbers = np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole > 0)
    return quotient


def or_none(value: npt.ArrayLike) -> float | None:
    """A number, None for nan."""
    number = float(np.asarray(value, np.float64))
    return None if np.isnan(number) else number


def _or_zero(value: Numbers) -> float:
    return or_none(value) or 0.0
