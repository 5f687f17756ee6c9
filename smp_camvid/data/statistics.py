"""`data stats`: what a dataset holds, counted over all of its pixels at their own size."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from smp_camvid.data.camvid import CamVid
from smp_camvid.data.classes import VOID, ClassTable
from smp_camvid.data.layouts import Frame
from smp_camvid.data.pictures import read_image
from smp_camvid.data.threads import OnProgress, threaded

Counts = npt.NDArray[np.int64]


@dataclass(frozen=True)
class FrameStatistics:
    """Sums over one frame and its label."""

    split: str
    drive: str
    size: tuple[int, int]
    """Height and width."""
    counts: Counts
    """Pixels of each class, `[C]`."""
    void: int
    """Pixels of no class."""
    sums: npt.NDArray[np.float64]
    """Of the values 0..1 of R, G and B, and of their squares: `[2, 3]`."""


@dataclass(frozen=True)
class Statistics:
    """Sums over every frame of some splits.  Made by `collect_statistics`."""

    root: Path
    table: ClassTable
    protocol: str
    frames: tuple[FrameStatistics, ...]

    @property
    def splits(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(frame.split for frame in self.frames))

    @property
    def drives(self) -> tuple[str, ...]:
        return tuple(sorted({frame.drive for frame in self.frames}))

    def of(self, *, split: str | None = None, drive: str | None = None) -> list[FrameStatistics]:
        """The frames of a split, of a drive, of both, or all."""
        return [
            frame
            for frame in self.frames
            if split in (None, frame.split) and drive in (None, frame.drive)
        ]

    def shares(self, frames: Iterable[FrameStatistics]) -> npt.NDArray[np.float64]:
        """Share of each class among the pixels that are not void, `[C]`; zeros without any."""
        counts = sum((frame.counts for frame in frames), np.zeros(len(self.table), np.int64))
        shares: npt.NDArray[np.float64] = counts / max(1, int(counts.sum()))
        return shares

    def void_share(self, frames: Sequence[FrameStatistics]) -> float:
        """Share of void among all pixels."""
        void = sum(frame.void for frame in frames)
        return void / max(1, void + sum(int(frame.counts.sum()) for frame in frames))

    def counts(self, split: str) -> Counts:
        """Pixels of each class in each frame of a split, `[frames, C]`."""
        return np.array([frame.counts for frame in self.of(split=split)], np.int64)

    def sizes(self) -> list[tuple[tuple[int, int], int]]:
        """((height, width), frames), the most common first."""
        return Counter(frame.size for frame in self.frames).most_common()

    def mean_std(
        self, frames: Sequence[FrameStatistics]
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Mean and standard deviation of R, G and B over all pixels, values 0..1."""
        pixels = sum(frame.size[0] * frame.size[1] for frame in frames)
        mean, square = sum((frame.sums for frame in frames), np.zeros((2, 3))) / pixels
        return mean, np.sqrt(np.maximum(0, square - mean**2))


def collect_statistics(
    dataset: CamVid, splits: Sequence[str], on_progress: OnProgress | None = None
) -> Statistics:
    """Reads every frame and label of `splits`.  Raises DataError at the first that is not good."""
    listed = [(split, frame) for split in splits for frame in dataset.split(split)]
    measured = threaded(_measure(dataset), listed, on_progress)
    return Statistics(dataset.root, dataset.table, dataset.protocol(None), tuple(measured))


def _measure(dataset: CamVid) -> Callable[[tuple[str, Frame]], FrameStatistics]:
    classes = len(dataset.table)

    def measure(item: tuple[str, Frame]) -> FrameStatistics:
        split, frame = item
        image = read_image(frame.image)
        counts = np.bincount(dataset.load_label(frame).ravel(), minlength=256)
        size = (image.shape[0], image.shape[1])
        void = int(counts[VOID])
        return FrameStatistics(split, frame.drive, size, counts[:classes], void, _sums(image))

    return measure


def _sums(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """From a histogram of each channel, which is exact and cheaper than the values."""
    values = np.arange(256) / 255
    histograms: Any = [
        np.bincount(image[..., channel].ravel(), minlength=256) for channel in (0, 1, 2)
    ]
    return np.stack([histograms @ values, histograms @ values**2])
