"""How much a score depends on which moments of a drive were labelled.

Frames of a drive resemble their neighbours, so single frames are no independent draws: blocks of
consecutive frames are drawn instead (circular block bootstrap, Politis and Romano 1992), within
each drive as many frames as it has.  Scores of a resample come from its pooled counts, so one
matrix product makes all resamples.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from smp_camvid.data.layouts import count
from smp_camvid.evaluation.metrics import Numbers

LEVEL = 0.95
LEAST_BLOCKS = 4
"""With fewer blocks there is no interval: resamples would be nearly the split itself."""


@dataclass(frozen=True)
class Bootstrap:
    """How intervals are made."""

    block: int = 20
    """Consecutive frames of a drive that are drawn together.  On CamVid's val split intervals grow
    with it up to about 20, where neighbours have little in common any more."""
    resamples: int = 2000
    seed: int = 0

    def blocks(self, drives: Sequence[str]) -> int:
        """How many blocks make up one resample of frames of these drives."""
        return sum(-(-frames // self.block) for frames in Counter(drives).values())

    def weights(self, drives: Sequence[str]) -> npt.NDArray[np.int64] | None:
        """How often each frame is in each resample, `[R, N]`; None with too few blocks.

        `drives` names the drive of each of the N frames, which are in order of time.  For each
        drive, in order of appearance, ceil(n / block) starts are drawn from 0..n-1; blocks go on
        at the drive's beginning where it ends, and the last one is cut to make n frames.
        """
        if self.blocks(drives) < LEAST_BLOCKS:
            return None
        rng = np.random.default_rng(self.seed)
        weights = np.zeros((self.resamples, len(drives)), np.int64)
        names = np.array(drives)
        for drive in dict.fromkeys(drives):
            (members,) = np.nonzero(names == drive)
            length = len(members)
            starts = rng.integers(length, size=(self.resamples, -(-length // self.block)))
            drawn = (starts[:, :, None] + np.arange(self.block)) % length
            drawn = drawn.reshape(self.resamples, -1)[:, :length]
            np.add.at(weights, (np.arange(self.resamples)[:, None], members[drawn]), 1)
        return weights

    def describe(self, drives: Sequence[str]) -> dict[str, Any]:
        """What an interval is, for those who read it."""
        blocks = self.blocks(drives)
        return {
            "level": LEVEL,
            "method": "percentiles of a circular block bootstrap within each drive",
            "block_frames": self.block,
            "blocks": blocks,
            "resamples": self.resamples,
            "seed": self.seed,
            "meaning": MEANING if blocks >= LEAST_BLOCKS else too_few(len(drives), blocks),
        }


MEANING = (
    "what other moments of the same drives would have given this model; "
    "not other roads, weather, cameras, or a training with another seed"
)


def too_few(frames: int, blocks: int) -> str:
    """Why there is no interval."""
    made = f"{count(frames, 'frame')} make {count(blocks, 'block')}"
    return f"none, for {made}, and {LEAST_BLOCKS} are the least"


def resampled(weights: npt.NDArray[np.int64], counts: npt.NDArray[np.int64]) -> Numbers:
    """Weights `[R, N]` and counts of N frames `[N, ...]` -> pooled counts `[R, ...]`."""
    flat = counts.reshape(len(counts), -1).astype(np.float64)  # exact to 2**53 pixels, and BLAS
    pooled: Numbers = (weights.astype(np.float64) @ flat).reshape(len(weights), *counts.shape[1:])
    return pooled


def interval(values: Numbers) -> list[float] | None:
    """The middle 95 % of R resampled values, those that are not nan; None where none is left."""
    known = values[~np.isnan(values)]
    if not len(known):
        return None
    edges = np.quantile(known, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return [float(edge) for edge in edges]


def intervals(values: Numbers) -> list[list[float] | None]:
    """`interval` of each column of `[R, C]`."""
    return [interval(column) for column in values.T]
