"""Which frames make up which batch, and which of them this process gets.

With `world` processes each batch of `batch_size` frames is shared out: rank r takes
`batch[r::world]`.  One process is the case of world 1, so the batches are the same ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from torch.utils.data import Sampler

from smp_camvid.data.cache import FrameCache
from smp_camvid.data.layouts import count
from smp_camvid.errors import UsageError

# Keeps the draw of the frame order apart from those of the augmentation.
_ORDER = 0x5EED


class Place(NamedTuple):
    """Where a frame stands in a run: all that a random draw may depend on, beside the seed."""

    epoch: int
    # The field's name for it; nobody searches a place with tuple.index.
    index: int  # type: ignore[assignment]
    """Which frame of the split."""
    batch: int = 0
    """Which batch of the epoch, of the whole group, counted from 0."""


class EpochSampler(Sampler[Place]):
    """One epoch's frames, in an order drawn from (seed, epoch): rank `rank`'s share of `world`.

    Every rank gets as many batches as any other.  Raises UsageError when the batch or the frames
    cannot be shared out.
    """

    def __init__(
        self, frames: int, batch_size: int, seed: int, rank: int = 0, world: int = 1
    ) -> None:
        share = share_of(batch_size, world)
        if frames < world:
            raise UsageError(
                f"{count(frames, 'frame')} to learn from are too few for {world} processes.",
                f"Start at most {frames}.",
            )
        self.frames, self.batch_size, self.seed = frames, batch_size, seed
        self.rank, self.world = rank, world
        self.epoch = 1
        self.passes = 0
        """How many have begun."""
        self._first = 0
        # BatchNorm has no variance over a batch of one, and a process without a frame would let
        # the others wait, so such a last batch is left out, except where it is all there is.
        whole, rest = divmod(frames, batch_size)
        self.batches = whole + (rest >= world * min(2, share) or whole == 0)

    def set_epoch(self, epoch: int) -> None:
        """Before each pass over the loader."""
        self.epoch = epoch

    def start(self, batches: int) -> None:
        """Leaves out the first batches of the next pass: an epoch goes on in the middle."""
        self._first = batches

    def __len__(self) -> int:
        """Frames this process gets in a whole epoch."""
        taken = min(self.frames, self.batches * self.batch_size)
        # Batches start at multiples of world: rank r gets each world-th frame from the r-th on.
        return len(range(self.rank, taken, self.world))

    def __iter__(self) -> Iterator[Place]:
        self.passes += 1
        first, self._first = self._first, 0
        order = np.random.default_rng((_ORDER, self.seed, self.epoch)).permutation(self.frames)
        return iter(
            [
                Place(self.epoch, int(index), batch)
                for batch in range(first, self.batches)
                for index in self._share(order, batch)
            ]
        )

    def _share(self, order: npt.NDArray[Any], batch: int) -> npt.NDArray[Any]:
        start = batch * self.batch_size
        return order[start : start + self.batch_size][self.rank :: self.world]


class EqualSizes(Sampler[list[int]]):
    """Every frame once, in order, in batches that never mix sizes: rank `rank`'s of `world`.

    Whole batches are shared out, so each frame is judged in the company it would have with one
    process; where there are fewer batches than processes, some get none.
    """

    def __init__(self, cache: FrameCache, batch_size: int, rank: int = 0, world: int = 1) -> None:
        batches: list[list[int]] = []
        last = None
        for index in range(len(cache)):
            size = (cache.images.shape(index), cache.labels.shape(index))
            if size != last or len(batches[-1]) == batch_size:
                batches.append([])
            batches[-1].append(index)
            last = size
        self.batches = batches[rank::world]

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self.batches)


def share_of(batch_size: int, world: int) -> int:
    """Frames of each batch that one of `world` processes gets.

    Raises UsageError naming the nearest batch sizes when they cannot all get as many.
    """
    if batch_size % world == 0:
        return batch_size // world
    below = batch_size - batch_size % world
    nearest = f"{below} or {below + world}" if below else f"{world}"
    raise UsageError(
        f"A batch of {batch_size} frames cannot be shared out equally to {world} processes.",
        f"Use --batch-size {nearest}.",
    )
