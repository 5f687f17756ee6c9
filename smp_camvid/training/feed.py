"""A run's batches on their way to its steps: fetched and uploaded before they are needed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext, suppress
from itertools import islice
from typing import Any

import torch

from smp_camvid.data.loaders import Batch
from smp_camvid.data.sampling import EpochSampler
from smp_camvid.training.batches import batches_of, length_of


class Uploaded(Batch):
    """A batch that was checked and is on the device."""

    __slots__ = ()


class Feed:
    """The groups of batches, one for each optimizer step, of one epoch after the other.

    Two things are done early.  The workers of our loader begin an epoch before the last step of the
    one before it is computed, else its first step would wait for its first batch.  And
    while a GPU computes a step, the next group is fetched, and uploaded on a stream of its own.
    """

    def __init__(self, loader: Iterable[Any], per_step: int, device: torch.device) -> None:
        self.loader, self.per_step, self.device = loader, per_step, device
        self.stream: torch.cuda.Stream | None = None
        if device.type == "cuda":
            self.stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self.waited = 0.0
        """Seconds that this epoch's batches were waited for; a GPU may have had work meanwhile."""
        self._batches: Iterator[Batch] = iter(())
        self._next: list[Uploaded] | Exception | None = None
        self._begun: tuple[int, int, Iterator[Batch]] | None = None
        self._ready: Callable[[Batch], Batch] | None = None

    def epoch(
        self, epoch: int, skip: int, last: bool, ready: Callable[[Batch], Batch]
    ) -> Iterator[list[Uploaded]]:
        """The groups of an epoch (from 1) after its first `skip` batches.

        `last`: no epoch follows.  `ready` checks a batch and brings it to the device.  Raises what
        it and the loader raise, in its turn.
        """
        self.waited, self._next, self._ready = 0.0, None, ready
        try:
            self._batches = self._pass_of(epoch, skip)
            taken, length = skip, length_of(self.loader)
            while group := self._taken():
                taken += len(group)
                if taken == length and not last:
                    self._begin(epoch + 1)
                yield group
        finally:
            self._ready = None  # it may be a method of whoever holds this feed

    def meanwhile(self) -> None:
        """What a step calls when the device has all its work; a CPU has none left to do more."""
        if self.stream is not None:
            self.ahead()

    def ahead(self) -> None:
        """Fetches and uploads the next group, if that was not done; what goes wrong is kept."""
        if self._next is not None or self._ready is None:
            return
        asked = time.perf_counter()
        try:
            group = list(islice(self._batches, self.per_step))
            self.waited += time.perf_counter() - asked
            with self._uploading(group):
                self._next = [Uploaded(*self._ready(batch)) for batch in group]
        except Exception as error:  # of a loader that may be anybody's
            self._next = error

    def _uploading(self, group: list[Batch]) -> AbstractContextManager[Any]:
        # What a loader made on the device itself is read where it was made.
        there = any(part.is_cuda for batch in group for part in batch if part is not None)
        if self.stream is None or there:
            return nullcontext()
        return torch.cuda.stream(self.stream)

    def _taken(self) -> list[Uploaded]:
        self.ahead()
        group, self._next = self._next, None
        if isinstance(group, Exception):
            raise group
        assert group is not None
        if self.stream is not None:
            here = torch.cuda.current_stream(self.device)
            here.wait_stream(self.stream)
            for tensor in (part for batch in group for part in batch if part is not None):
                if tensor.is_cuda:  # else its memory could be taken for the next while it is read
                    tensor.record_stream(here)
        return group

    def _pass_of(self, epoch: int, skip: int) -> Iterator[Batch]:
        begun, self._begun = self._begun, None
        if begun is not None and not skip and begun[:2] == (epoch, self._passes):
            batches = begun[2]
        else:
            batches = batches_of(self.loader, epoch, skip)
        if self._passes is None:
            return batches
        # Not read to its end: by then it may stand at the beginning of the next epoch.
        return islice(batches, length_of(self.loader) - skip)

    def _begin(self, epoch: int) -> None:
        # A foreign loader's workers, and its random numbers, are its own affair.
        if self._passes is not None and getattr(self.loader, "persistent_workers", False):
            with suppress(Exception):  # it comes again when the epoch is asked for
                batches = batches_of(self.loader, epoch, 0)
                self._begun = (epoch, self._passes, batches)

    @property
    def _passes(self) -> int | None:
        """How often our loader was begun, by whomever; None for another loader."""
        sampler = getattr(self.loader, "sampler", None)
        return sampler.passes if isinstance(sampler, EpochSampler) else None
