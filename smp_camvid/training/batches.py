"""Batches on their way to a step: any loader's pairs, checked, moved, and skipped on resuming."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence, Sized
from itertools import islice
from typing import Any

import torch

from smp_camvid.data.classes import VOID
from smp_camvid.data.loaders import Batch
from smp_camvid.errors import DataError


def as_batch(batch: Any) -> Batch:
    """A Batch, or any (picture, label) pair of tensors as one."""
    if isinstance(batch, Batch):
        return batch
    return Batch(batch[0], batch[1].long(), torch.arange(len(batch[0])), None)


def batches_of(loader: Iterable[Any], epoch: int, skip: int) -> Iterator[Batch]:
    """The batches of an epoch (from 1) after the first `skip`."""
    sampler: Any = getattr(loader, "sampler", None)
    if hasattr(sampler, "set_epoch"):
        sampler.set_epoch(epoch)
    if hasattr(sampler, "start"):  # the sampler skips without loading
        sampler.start(skip)
        skip = 0
    return map(as_batch, islice(iter(loader), skip, None))


def length_of(loader: Iterable[Any]) -> int:
    """Batches of a pass over it; 0 when it does not know."""
    return len(loader) if isinstance(loader, Sized) else 0


def steps_of(loader: Iterable[Any], accumulate: int) -> int:
    """Optimizer steps of a pass.  Raises DataError for a loader without a length."""
    if not length_of(loader):
        raise DataError("The train loader has no length; the schedule needs to know it.")
    return math.ceil(length_of(loader) / accumulate)


def check_batch(batch: Batch, classes: int, first: bool) -> Batch:
    """Labels are checked here, on the CPU: a wrong one on a GPU is a device-side assert.

    `first`: nothing is trained yet, so the scale of the pictures is looked at too.
    """
    image, target = batch.image, batch.target
    if target.ndim != 3 or image.ndim != 4 or image.shape[1] != 3:
        raise DataError(
            f"A batch must be pictures [B, 3, H, W] and labels [B, H, W], not "
            f"{list(image.shape)} and {list(target.shape)}."
        )
    if first and image.is_floating_point() and float(image.max()) <= 1:
        raise DataError(
            "Pictures must be RGB from 0 to 255; these are at most 1.",
            "Leave out the division: the model normalises by itself.",
        )
    wrong = ((target < 0) | (target >= classes)) & (target != VOID)
    if wrong.any():
        frame = int(wrong.flatten(1).any(1).nonzero()[0])
        raise DataError(
            f"Frame {int(batch.index[frame])} has the label {int(target[wrong][0])}; "
            f"{classes} classes are 0 to {classes - 1}, void is {VOID}."
        )
    return batch


def move_batch(batch: Batch, device: torch.device) -> Batch:
    """Everything a step computes with, on the device."""
    image, target, index, weight = batch
    return Batch(
        image.to(device, non_blocking=True),
        target.to(device, non_blocking=True).long(),
        index,
        None if weight is None else weight.to(device, non_blocking=True),
    )


def frame_names(loader: Iterable[Any], batches: Sequence[Batch]) -> list[str]:
    """What the frames of some batches are called, with their index in the split."""
    frames = getattr(getattr(loader, "dataset", None), "frames", None)
    indices = [int(i) for batch in batches for i in batch.index]
    return [f"{frames[i].stem} (frame {i})" if frames else f"frame {i}" for i in indices]
