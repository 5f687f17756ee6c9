"""Batches for training and evaluation.

The sampler hands out (epoch, index, batch), so that persistent workers see the epoch change, and
everything random is drawn from that and the seed: batches do not depend on the workers.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import signal
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from smp_camvid.data.border import BorderWeight
from smp_camvid.data.cache import FrameCache
from smp_camvid.data.camvid import Classes, Size, SplitSource, open_dataset
from smp_camvid.data.crops import PLAIN, CropPlan, rarity
from smp_camvid.data.sampling import EpochSampler, EqualSizes, Place, share_of

_GRACE_SECONDS = 30  # longer than a training step takes


class Batch(NamedTuple):
    """What every loader yields."""

    image: Tensor
    """uint8 `[B, 3, H, W]` RGB, channels last in memory."""
    target: Tensor
    """Class indices `[B, h, w]`, void 255: uint8 from our loaders, an eighth of the bytes that have
    to reach the device, and int64 there.  For evaluation its size may be another."""
    # The field's name for it; nobody searches a batch with tuple.index.
    index: Tensor  # type: ignore[assignment]
    """int64 `[B]`: which frames of the split."""
    weight: Tensor | None
    """float32 `[B, h, w]` weight of each pixel, or None."""


@dataclass(frozen=True)
class Sample:
    """One frame on its way into a batch."""

    image: npt.NDArray[np.uint8]
    label: npt.NDArray[np.uint8]
    index: int
    weight: npt.NDArray[np.float32] | None


class _CachedFrames:
    """What the sets of both loaders know of their frames."""

    def __init__(self, cache: FrameCache) -> None:
        self.cache = cache
        self.table = cache.table
        self.frames = cache.frames
        self.protocol = cache.protocol
        self.made_from: Mapping[str, Any] = {}
        """What `loaders` was asked for, as keys of a recipe; empty for a loader built otherwise."""

    def __len__(self) -> int:
        return len(self.cache)


class TrainSet(_CachedFrames, Dataset[Sample]):
    """Augmented frames, asked for by place: (epoch, index), and the batch, 0 if left out."""

    def __init__(
        self,
        cache: FrameCache,
        *,
        size: Size,
        augment: Sequence[Mapping[str, Any]],
        seed: int,
        border_weight: BorderWeight | None = None,
        crops: CropPlan = PLAIN,
    ) -> None:
        # Only training augments; the import takes seconds.
        from smp_camvid.data.transforms import build_augmentation

        super().__init__(cache)
        assert cache.images.shape(0)[:2] == cache.labels.shape(0), "open it with label_size='image'"
        self.seed, self.size, self.crops = seed, size, crops
        rare = rarity(cache.labels) if crops.rare else None
        self.augmentation = build_augmentation(augment, size, rare)
        self.augmentation.check(cache.image(0), cache.label(0))
        self.weights = None if border_weight is None else cache.border_weights(border_weight)

    def __getitem__(self, at: tuple[int, ...]) -> Sample:
        epoch, index, batch = Place(*at)
        image, label, weight = self.augmentation(
            self.cache.image(index),
            self.cache.label(index),
            (self.seed, epoch, index),
            None if self.weights is None else self.weights[index],
            self.crops.crop(self.size, self.seed, epoch, batch),
        )
        return Sample(image, label, index, weight)


class EvalSet(_CachedFrames, Dataset[Sample]):
    """Frames as they are, in order."""

    def __getitem__(self, index: int) -> Sample:
        return Sample(self.cache.image(index), self.cache.label(index), index, None)


def train_loader(
    cache: FrameCache,
    *,
    size: Size,
    augment: Sequence[Mapping[str, Any]] = (),
    batch_size: int,
    seed: int,
    workers: int = 0,
    border_weight: BorderWeight | None = None,
    crops: CropPlan = PLAIN,
    context: str | None = None,
    rank: int = 0,
    world: int = 1,
) -> DataLoader[Sample]:
    """Shuffled, augmented batches of crops of `size`, or of what `crops` makes of it.

    The cache must hold labels of its frames' size (`label_size="image"`).  Call
    `loader.sampler.set_epoch(n)` before each pass.  `context` is a multiprocessing start method
    ("spawn"), None the platform's own.  `batch_size` is that of all `world` processes together.
    Raises UsageError for a step that cannot be applied and a batch that cannot be shared out.
    """
    sampler = EpochSampler(len(cache), batch_size, seed, rank, world)
    return DataLoader(
        TrainSet(
            cache, size=size, augment=augment, seed=seed, border_weight=border_weight, crops=crops
        ),
        batch_size=share_of(batch_size, world),
        sampler=sampler,
        **_workers(workers, context),
    )


def eval_loader(
    cache: FrameCache,
    *,
    batch_size: int,
    workers: int = 0,
    context: str | None = None,
    rank: int = 0,
    world: int = 1,
) -> DataLoader[Sample]:
    """All frames in order; frames of other sizes start another batch.

    Each of `world` processes gets every `world`-th batch of `batch_size`, possibly none.
    """
    return DataLoader(
        EvalSet(cache),
        batch_sampler=EqualSizes(cache, batch_size, rank, world),
        **_workers(workers, context),
    )


def one_by_one(cache: FrameCache, indices: Iterable[int]) -> Iterator[Batch]:
    """Some frames as `eval_loader` gives them, each a batch of its own."""
    frames = EvalSet(cache)
    for index in indices:
        yield _collate([frames[index]])


def loaders(
    data: str | Path = "data/camvid",
    *,
    size: Size = (360, 480),
    batch_size: int = 4,
    classes: Classes = "11",
    workers: int = 0,
    seed: int = 0,
    augment: Sequence[Mapping[str, Any]] | None = None,
    split_source: SplitSource = "standard",
) -> tuple[DataLoader[Sample], DataLoader[Sample]]:
    """(train_loader, val_loader) of a dataset folder, or of "synthetic".

    `augment`: steps as in a recipe; None is a horizontal flip.  Validation labels have the size
    scores are counted at (`CamVid.score_size`).  `loader.dataset` carries `table` and `protocol`.
    """
    dataset = open_dataset(data, classes, split_source, need=("train", "val"))
    train = FrameCache.open(dataset, "train", size[0], "image")
    val = FrameCache.open(dataset, "val", size[0], dataset.score_size())
    steps = [{"name": "HorizontalFlip", "p": 0.5}] if augment is None else augment
    learned = train_loader(
        train, size=size, augment=steps, batch_size=batch_size, seed=seed, workers=workers
    )
    made_from = {
        "data": {
            "path": "synthetic" if str(data) == "synthetic" else str(dataset.root.resolve()),
            "classes": classes,
            "split_source": split_source,
            "size": list(size),
        },
        "augment": [dict(step) for step in steps],
        "train": {"batch_size": batch_size, "workers": workers},
        "about": {"family": dataset.family, "split_source": dataset.split_source},
    }
    learned.dataset.made_from = made_from  # type: ignore[attr-defined]  # it is a TrainSet
    return learned, eval_loader(val, batch_size=batch_size, workers=workers)


def _workers(workers: int, context: str | None) -> dict[str, Any]:
    workers = min(workers, os.cpu_count() or 1)  # more only wait, and torch warns
    return {
        "num_workers": workers,
        "collate_fn": _collate,
        "pin_memory": torch.cuda.is_available(),
        "persistent_workers": workers > 0,
        "multiprocessing_context": context if workers > 0 else None,
        "worker_init_fn": partial(_quiet_worker, _leaving),
        # Else each pass would take a draw from the generator that dropout uses.
        "generator": torch.Generator(),
    }


# Set when this process ends; its workers see it.
_leaving = multiprocessing.RawValue("b", 0)


@atexit.register
def _leave() -> None:
    _leaving.value = 1


def _quiet_worker(leaving: Any, _: int) -> None:
    cv2.setNumThreads(0)
    # Ctrl-C, and often SIGTERM, reach the whole process group; the main process decides what
    # happens then.  When it is leaving it means what it sends; a worker it forgot still ends, by
    # the alarm.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "alarm"):

        def terminated(number: int, frame: Any) -> None:
            if leaving.value:
                os._exit(0)
            signal.alarm(_GRACE_SECONDS)

        signal.signal(signal.SIGTERM, terminated)


def _collate(samples: Sequence[Sample]) -> Batch:
    weights = [sample.weight for sample in samples if sample.weight is not None]
    return Batch(
        torch.from_numpy(np.stack([s.image for s in samples])).permute(0, 3, 1, 2),
        torch.from_numpy(np.stack([s.label for s in samples])),
        torch.tensor([s.index for s in samples]),
        torch.from_numpy(np.stack(weights)) if weights else None,
    )
