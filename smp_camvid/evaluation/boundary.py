"""Boundary F1: how well the outlines of the classes are met, within a tolerance.

Csurka, Larlus and Perronnin, "What is a good evaluation measure for semantic segmentation?",
BMVC 2013: in each frame and for each class, precision is the share of the predicted boundary
that lies within the tolerance of the true one, recall the share of the true boundary within the
tolerance of the predicted one, and F1 their harmonic mean; a class's score is the mean over frames.
Distance by dilation as in Perazzi et al., CVPR 2016 (DAVIS), here with an exact disc.

What their texts leave open is decided thus.  A pixel is on the boundary of its class when one of
its four neighbours is of another class; the rim of the frame is no boundary.  Void is no class,
and what is predicted under void is void: neither ends in it nor around it make a boundary.  A
frame counts for a class that has a boundary there, in truth or in prediction; where only one of
them has, its F1 is 0.  The mean is over the classes that any frame counts for.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from smp_camvid.data.classes import VOID
from smp_camvid.evaluation.metrics import Numbers, counted, ratio

TOLERANCE = 0.0075
"""Of the labels' diagonal, as Csurka et al. have it: 4.5 pixels at 360x480."""

_BITS = 62  # classes whose boundaries fit into one integer

PREDICTED_EDGE, PREDICTED_NEAR, TRUE_EDGE, TRUE_NEAR = range(4)
"""What `boundary_counts` holds for each class: boundary pixels, and those near the other's."""


def default_tolerance(size: tuple[int, int]) -> float:
    """Pixels, for labels of `size`; at least the next pixel."""
    return max(1.0, TOLERANCE * float(np.hypot(*size)))


def boundary_counts(found: Tensor, target: Tensor, classes: int, tolerance: float) -> Tensor:
    """int64 `[B, H, W]` each, target 255 for void -> int64 `[B, 4, C]`, on their device.

    `tolerance` in pixels, between pixel centres; a distance equal to it is within.
    """
    guess = torch.where(target == VOID, VOID, found)
    edge, true_edge = _edges(guess), _edges(target)
    near, true_near = torch.zeros_like(edge), torch.zeros_like(edge)
    for first in range(0, classes, _BITS):
        bits, true_bits = _as_bits(guess, edge, first), _as_bits(target, true_edge, first)
        near |= (bits & _dilate(true_bits, tolerance)) != 0
        true_near |= (true_bits & _dilate(bits, tolerance)) != 0
    sides = (guess, edge, near), (target, true_edge, true_near)
    return torch.cat([_by_class(*side, classes) for side in sides], 1)


def _by_class(labels: Tensor, edge: Tensor, near: Tensor, classes: int) -> Tensor:
    """How many pixels of each frame and class are on the boundary, and near: `[B, 2, C]`."""
    frame = torch.arange(len(labels), device=labels.device)[:, None, None]
    # In one histogram: 0 for no boundary, then alone, then near; class by class, frame by frame.
    place = (3 * frame + edge.long() + near.long()) * classes + labels
    counts = counted(torch.where(edge, place, 0), 3 * classes * len(labels))
    counts = counts.view(len(labels), 3, classes)
    alone, both = counts[:, 1], counts[:, 2]
    return torch.stack([alone + both, both], 1)


def _edges(labels: Tensor) -> Tensor:
    """Which pixels have a neighbour of another class; void is none.  bool `[B, H, W]`."""
    counted = labels != VOID
    edge = torch.zeros_like(counted)
    for dim in (1, 2):
        last = labels.shape[dim] - 1
        one, next_ = labels.narrow(dim, 0, last), labels.narrow(dim, 1, last)
        differ = (one != next_) & counted.narrow(dim, 0, last) & counted.narrow(dim, 1, last)
        edge.narrow(dim, 0, last).logical_or_(differ)
        edge.narrow(dim, 1, last).logical_or_(differ)
    return edge


def _as_bits(labels: Tensor, edge: Tensor, first: int) -> Tensor:
    """Bit i of a boundary pixel of class `first + i` is set: all classes dilate at once."""
    bit = labels - first
    within = edge & (bit >= 0) & (bit < _BITS)
    return torch.where(within, torch.ones_like(labels) << bit.clamp(0, _BITS - 1), 0)


def _dilate(bits: Tensor, radius: float) -> Tensor:
    """Each pixel gets the bits of all within `radius` of it: row by row of the disc."""
    height, width = bits.shape[1:]
    out, run, reach = bits.clone(), bits.clone(), 0
    for dy in range(min(int(radius), height - 1), -1, -1):
        while reach < min(int(np.sqrt(radius**2 - dy**2)), width - 1):
            reach += 1
            run[:, :, reach:] |= bits[:, :, :-reach]
            run[:, :, :-reach] |= bits[:, :, reach:]
        out[:, dy:] |= run[:, : height - dy]
        out[:, : height - dy] |= run[:, dy:]
    return out


def frame_f1(counts: npt.NDArray[np.int64]) -> Numbers:
    """Counts `[..., 4, C]` -> F1 `[..., C]`, nan where neither side has a boundary."""
    edge, near, true_edge, true_near = (counts[..., row, :] for row in range(4))
    precision, recall = np.nan_to_num(ratio(near, edge)), np.nan_to_num(ratio(true_near, true_edge))
    f1 = np.nan_to_num(ratio(2 * precision * recall, precision + recall))
    return np.where(edge + true_edge > 0, f1, np.nan)


def class_f1(counts: npt.NDArray[np.int64]) -> Numbers:
    """Counts of N frames `[N, 4, C]` -> the mean F1 of each class `[C]`, nan where none counts."""
    f1 = frame_f1(counts)
    return ratio(np.nansum(f1, 0), (~np.isnan(f1)).sum(0))
