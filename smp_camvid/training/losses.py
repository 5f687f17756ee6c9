"""Pixel-wise cross-entropy with void left out, and the class weights that go with it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from smp_camvid.data.classes import VOID


class CrossEntropy(nn.Module):
    """Returns sum and count apart, so that batches of unequal void can be averaged rightly.

    `sum / count` over one batch is `F.cross_entropy(..., ignore_index=255)`; over several
    batches, add both up first.
    """

    class_weights: Tensor | None

    def __init__(self, class_weights: Tensor | None = None, label_smoothing: float = 0.0) -> None:
        super().__init__()
        self.register_buffer("class_weights", class_weights)
        self.label_smoothing = label_smoothing

    def forward(
        self, logits: Tensor, target: Tensor, weight: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Logits `[B, C, H, W]`, target int64 `[B, H, W]`, pixel weight `[B, H, W]` or None.

        Returns float32 scalars: the sum of the weighted losses and the sum of the weights of
        the counted pixels (their number without weights).  The two kinds of weight multiply.
        Void pixels add to neither, whatever their weight.
        """
        # Not reduced by torch: its summed form has no deterministic kernel on CUDA.
        losses = F.cross_entropy(
            logits.float(),
            target,
            weight=self.class_weights,
            ignore_index=VOID,
            reduction="none",
            label_smoothing=self.label_smoothing,
        )
        if weight is not None:
            losses = losses * weight.where(target != VOID, 0)
        return losses.sum(), self.count(target, weight)

    def count(self, target: Tensor, weight: Tensor | None = None) -> Tensor:
        """What the sum is divided by; it needs no logits, so it is known beforehand."""
        counted = target != VOID
        weights = counted.float()
        if self.class_weights is not None:
            weights = weights * self.class_weights[target.where(counted, 0)]
        if weight is not None:
            weights = weights * weight.where(counted, 0)
        return weights.sum()


@dataclass(frozen=True)
class Frequencies:
    """How common each class is among the pixels that are not void."""

    share: tuple[float, ...]
    """Share of all pixels."""
    share_where_present: tuple[float, ...]
    """Share of the pixels of those frames the class is in; 0 where it is in none."""


def count_frequencies(labels: Iterable[npt.NDArray[np.uint8]], classes: int) -> Frequencies:
    """Frequencies over label maps `[H, W]`, void 255."""
    counts = [np.bincount(label.ravel(), minlength=256)[:classes] for label in labels]
    return frequencies_of(np.array(counts))


def frequencies_of(counts: npt.NDArray[np.int64]) -> Frequencies:
    """Frequencies from the pixels of each class in each frame, `[frames, classes]`."""
    pixels = counts.sum(1, keepdims=True)
    where_present = (pixels * (counts > 0)).sum(0)
    return Frequencies(
        _shares(counts.sum(0), np.full(counts.shape[1], pixels.sum())),
        _shares(counts.sum(0), where_present),
    )


def _shares(counts: npt.NDArray[np.int64], of: npt.NDArray[np.int64]) -> tuple[float, ...]:
    return tuple(float(n / total) if total else 0.0 for n, total in zip(counts, of, strict=True))


def class_weights(
    kind: Literal["none", "log", "median"], frequencies: Frequencies, c: float = 1.1
) -> Tensor | None:
    """Weights `[C]` for CrossEntropy, float32; None for "none".

    "log": 1 / ln(c + p), p the share of all pixels (ENet, Paszke et al. 2016).
    "median": median(f) / f, f the share where present (Eigen and Fergus 2015, SegNet).
    A class without a single pixel weighs 0: it is never a target.
    """
    if kind == "none":
        return None
    if kind == "log":
        return torch.tensor([1 / math.log(c + p) if p else 0.0 for p in frequencies.share])
    shares: Sequence[float] = frequencies.share_where_present
    present = [f for f in shares if f]
    median = float(np.median(present)) if present else 0.0  # without warning where all is void
    return torch.tensor([median / f if f else 0.0 for f in shares])
