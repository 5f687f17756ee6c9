"""mIoU as this package means it, counted in one confusion matrix over the whole split.

Void pixels are left out; a class's IoU is intersection over union of the pooled counts; the mean
is over the classes whose union is not empty, and the number of classes in it is always printed.
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
        counted = torch.bincount(bins.flatten(), minlength=self.classes * self.classes + 1)
        self.counts += counted[:-1]

    def matrix(self) -> Matrix:
        """`[C, C]` int64, rows are truth."""
        array: Matrix = self.counts.cpu().numpy().reshape(self.classes, self.classes)
        return array


@dataclass(frozen=True)
class Summary:
    """What one confusion matrix says.  None and nan never mix: an absent class has None."""

    miou: float
    accuracy: float
    mean_class_accuracy: float
    per_class: Mapping[str, float | None]

    @property
    def classes_counted(self) -> int:
        return sum(iou is not None for iou in self.per_class.values())


def summarize(matrix: Matrix, table: ClassTable) -> Summary:
    """Scores of a `[C, C]` confusion matrix (rows truth).  0.0 where nothing was counted."""
    counts = matrix.astype(np.float64)
    hit = np.diag(counts)
    truth, predicted = counts.sum(1), counts.sum(0)
    union = truth + predicted - hit
    if table.void_index is not None:  # never a target: a prediction of it is only a miss
        union[table.void_index] = 0
    present = union > 0
    iou = np.divide(hit, union, out=np.zeros_like(hit), where=present)
    recall = np.divide(hit, truth, out=np.zeros_like(hit), where=truth > 0)
    total = truth.sum()
    return Summary(
        miou=float(iou[present].mean()) if present.any() else 0.0,
        accuracy=float(hit.sum() / total) if total else 0.0,
        mean_class_accuracy=float(recall[truth > 0].mean()) if total else 0.0,
        per_class={
            name: float(iou[i]) if present[i] else None
            for i, name in enumerate(table.names)
            if i != table.void_index
        },
    )
