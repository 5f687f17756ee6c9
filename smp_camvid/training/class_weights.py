"""How common each class is, and the class weights that follow from it: numpy alone, no torch."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt


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
) -> npt.NDArray[np.float32] | None:
    """Weights `[C]` for the pixel terms of a loss; None for "none".

    "log": 1 / ln(c + p), p the share of all pixels (ENet, Paszke et al. 2016).
    "median": median(f) / f, f the share where present (Eigen and Fergus 2015, SegNet).
    A class without a single pixel weighs 0: it is never a target.
    """
    if kind == "none":
        return None
    if kind == "log":
        return _float32(1 / math.log(c + p) if p else 0.0 for p in frequencies.share)
    shares: Sequence[float] = frequencies.share_where_present
    present = [f for f in shares if f]
    median = float(np.median(present)) if present else 0.0  # without warning where all is void
    return _float32(median / f if f else 0.0 for f in shares)


def _float32(weights: Iterable[float]) -> npt.NDArray[np.float32]:
    return np.array([*weights], np.float32)
