"""Whether a pixel called with confidence .8 is right eight times in ten.

Expected calibration error as in Guo et al., "On calibration of modern neural networks", ICML 2017:
pixels fall into 15 equal bins by their confidence, the largest class probability; the error is
the mean over pixels of |accuracy - mean confidence| of their bin.  Pixels of the whole split are
pooled, void is left out.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from smp_camvid.data.classes import VOID
from smp_camvid.evaluation.metrics import Numbers, counted, or_none, ratio
from smp_camvid.inference.device import widest_float

BINS = 15

PIXELS, RIGHT, CONFIDENCE = range(3)
"""What `calibration_counts` holds for each bin: pixels, right ones, the sum of confidences."""


def calibration_counts(scores: Tensor, found: Tensor, target: Tensor) -> Tensor:
    """Maps `[B, C, H, W]` whose softmax are probabilities -> float64 `[B, 3, 15]`."""
    confidence = scores.contiguous().softmax(1).amax(1)  # three times faster than channels last
    # Bin m holds (m / 15, (m + 1) / 15].
    place = (confidence * BINS).ceil().long().sub_(1).clamp_(0, BINS - 1)
    frame = torch.arange(len(target), device=target.device)[:, None, None]
    # Void goes to an extra bin: a boolean mask would stall a GPU.
    bins = torch.where(target == VOID, len(target) * BINS, frame * BINS + place)
    wide = widest_float(target.device)

    def summed(values: Tensor) -> Tensor:
        total = counted(bins, len(target) * BINS + 1, values.to(wide))
        return total[:-1].view(len(target), BINS)

    right = found == target
    return torch.stack([summed(torch.ones_like(right)), summed(right), summed(confidence)], 1)


def calibration_error(counts: Numbers) -> float | None:
    """Counts `[3, 15]` -> the error, None where nothing was counted."""
    pixels, right, confidence = counts
    return or_none(ratio(np.abs(right - confidence).sum(), pixels.sum()))


def reliability(counts: Numbers) -> list[dict[str, Any]]:
    """Each bin: from, to, its pixels, and their mean confidence and accuracy (None if empty)."""
    pixels, right, confidence = counts
    edges = np.linspace(0, 1, BINS + 1)
    means, accuracies = ratio(confidence, pixels), ratio(right, pixels)
    return [
        {
            "from": float(edges[i]),
            "to": float(edges[i + 1]),
            "pixels": int(pixels[i]),
            "confidence": or_none(means[i]),
            "accuracy": or_none(accuracies[i]),
        }
        for i in range(BINS)
    ]
