"""How large a training crop is, and where it lies.

The size is a function of (seed, epoch, batch), so that all frames of a batch and all processes
agree on it; the place is drawn from (seed, epoch, index) with the rest of the augmentation.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from smp_camvid.data.classes import VOID

Picture = npt.NDArray[np.uint8]
Weights = npt.NDArray[np.float32]
Rarity = npt.NDArray[np.float64]
Size = tuple[int, int]
Augmented: TypeAlias = tuple[Picture, Picture, Weights | None]

# Keeps the draw of a batch's size apart from that of the frame order.
_SCALE = 0x5CA1E

GRID = 32
"""Multi-scale crops are multiples of this: the stride of the deepest encoder stage."""


@dataclass(frozen=True)
class Crop:
    """One training crop."""

    size: Size
    """Height and width."""
    rare: float = 0.0
    """Probability that it is placed on a rare class."""


@dataclass(frozen=True)
class CropPlan:
    """How the crops of a run differ from plain ones, which are of one size, placed anywhere."""

    rare: float = 0.0
    """Probability that a crop is placed on a rare class (`rarity`)."""
    multi_scale: tuple[float, float] | None = None
    """Smallest and largest factor on height and width; each batch draws one."""
    full_frame_from: int | None = None
    """First epoch of the last ones, which train on whole frames: plain crops of `frame_size`."""
    frame_size: Size | None = None
    """Height and width of a whole frame; needed with `full_frame_from`."""

    def crop(self, size: Size, seed: int, epoch: int, batch: int) -> Crop:
        """What becomes of a crop of `size` in a batch of an epoch."""
        if self.full_frame_from is not None and epoch >= self.full_frame_from:
            assert self.frame_size is not None
            return Crop(self.frame_size)
        if self.multi_scale is None:
            return Crop(size, self.rare)
        factor = np.random.default_rng((_SCALE, seed, epoch, batch)).uniform(*self.multi_scale)
        return Crop((_on_grid(size[0] * factor), _on_grid(size[1] * factor)), self.rare)


PLAIN = CropPlan()


def _on_grid(length: float) -> int:
    return max(1, round(length / GRID)) * GRID


def cut(
    image: Picture,
    label: Picture,
    weight: Weights | None,
    crop: Crop,
    rng: np.random.Generator,
    rarity: Rarity | None = None,
) -> Augmented:
    """Pads to at least the crop's size (black, void, weight 0) and cuts exactly that size out."""
    height, width = crop.size
    below, right = max(0, height - label.shape[0]), max(0, width - label.shape[1])
    top, left = int(rng.integers(below + 1)), int(rng.integers(right + 1))
    pad = ((top, below - top), (left, right - left))
    # np.pad copies even where it adds nothing: the cache's arrays are read-only.
    label = np.pad(label, pad, constant_values=VOID)
    y, x = _corner(label, crop, rng, rarity)
    window = (slice(y, y + height), slice(x, x + width))
    image, label = np.pad(image, (*pad, (0, 0)))[window], label[window]
    if weight is not None:
        weight = np.where(label == VOID, np.float32(0), np.pad(weight, pad)[window])
    return image, label, weight


def _corner(
    label: Picture, crop: Crop, rng: np.random.Generator, rarity: Rarity | None
) -> tuple[int, int]:
    """Top and left of the crop."""
    (height, width), (h, w) = label.shape, crop.size
    # Drawn first, so that a frame without rare classes gets the crop it has without them.
    anywhere = int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1))
    if rarity is None or not crop.rare or rng.random() >= crop.rare:
        return anywhere
    return rare_corner(label, crop.size, rng, rarity) or anywhere


def rarity(labels: Iterable[Picture]) -> Rarity:
    """How rare each label value is, float64 `[256]`: 1 / its share of the pixels that count.

    0 for what is not rare: void, and every class with at least an equal share, which is 1 over
    the number of classes that occur.
    """
    counts = np.zeros(256, np.int64)
    for label in labels:
        counts += np.bincount(label.ravel(), minlength=256)
    counts[VOID] = 0
    share = counts / max(1, int(counts.sum()))
    rare = (share > 0) & (share < 1 / max(1, int((counts > 0).sum())))
    weights = np.zeros(256)
    weights[rare] = 1 / share[rare]
    return weights


def rare_corner(
    label: Picture, size: Size, rng: np.random.Generator, rarity: Rarity
) -> tuple[int, int] | None:
    """Top and left of a crop with a pixel of a rare class in it; None where there is no such.

    The class is drawn by rarity from those in the label, then one of its pixels, then one of the
    places that contain the pixel.
    """
    # Plain integers: compared with one of numpy's, the label would be widened to 64 bits first.
    present = [value for value in np.flatnonzero(rarity).tolist() if (label == value).any()]
    if not present:
        return None
    weights = rarity[present]
    chosen = int(rng.choice(present, p=weights / weights.sum()))
    pixels = np.flatnonzero(label == chosen)
    y, x = divmod(int(rng.choice(pixels)), label.shape[1])
    return _start(y, size[0], label.shape[0], rng), _start(x, size[1], label.shape[1], rng)


def _start(at: int, length: int, whole: int, rng: np.random.Generator) -> int:
    """Where a stretch of `length` within `whole` begins that has `at` in it."""
    return int(rng.integers(max(0, at - length + 1), min(at, whole - length) + 1))
