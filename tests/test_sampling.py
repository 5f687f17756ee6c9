"""Who gets which frame: the ranks' shares, put together, are the batches of one process."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from smp_camvid.data.sampling import EpochSampler, EqualSizes, Place, share_of
from smp_camvid.errors import UsageError

Shares = list[list[list[int]]]
"""Rank, batch, frames."""


def batches_of(sampler: EpochSampler) -> list[list[int]]:
    """As the DataLoader cuts them: by the share's size, blind to the places' batch numbers."""
    drawn = list(sampler)
    assert len(drawn) == len(sampler)
    size = sampler.batch_size // sampler.world
    cut = [drawn[i : i + size] for i in range(0, len(drawn), size)]
    assert [{place.batch for place in batch} for batch in cut] == [{i} for i in range(len(cut))]
    return [[place.index for place in batch] for batch in cut]


def put_together(shares: Shares, world: int) -> list[list[int]]:
    """The global batches.  Fails unless the ranks have as many, each its every world-th frame."""
    assert len({len(batches) for batches in shares}) == 1
    whole = []
    for parts in zip(*shares, strict=True):
        batch = [-1] * sum(len(part) for part in parts)
        for rank, part in enumerate(parts):
            batch[rank::world] = part
        whole.append(batch)
    return whole


def kept(frames: int, batch_size: int, world: int) -> int:
    """How many frames an epoch has, as the rule for the last batch says."""
    last = frames % batch_size
    alone = last < world * min(2, batch_size // world)
    return frames - last if alone and frames > last else frames


def check_epoch(
    make: Callable[..., EpochSampler], frames: int, batch_size: int, world: int, epoch: int
) -> None:
    shares: Shares = []
    for rank in range(world):
        sampler = make(frames, batch_size, 7, rank=rank, world=world)
        sampler.set_epoch(epoch)
        shares.append(batches_of(sampler))
    whole = [index for batch in put_together(shares, world) for index in batch]
    assert len(set(whole)) == len(whole) == kept(frames, batch_size, world)
    alone = EpochSampler(frames, batch_size, 7)
    alone.set_epoch(epoch)
    assert [place.index for place in alone][: len(whole)] == whole


@given(
    frames=st.integers(1, 80), share=st.integers(1, 6), world=st.integers(1, 6),
    epoch=st.integers(1, 3),
)  # fmt: skip
def test_shares_together_are_the_epoch_of_one_process(
    frames: int, share: int, world: int, epoch: int
) -> None:
    assume(frames >= world)
    check_epoch(EpochSampler, frames, share * world, world, epoch)


def test_without_rank_and_world_every_process_would_get_everything() -> None:
    """Negative control of the test above."""

    def deaf(frames: int, batch_size: int, seed: int, rank: int, world: int) -> EpochSampler:
        return EpochSampler(frames, batch_size, seed)

    with pytest.raises(AssertionError):
        check_epoch(deaf, 12, 4, 2, 1)


@given(
    frames=st.integers(4, 60), share=st.integers(1, 4), world=st.integers(1, 4),
    done=st.integers(0, 5),
)  # fmt: skip
def test_an_epoch_goes_on_in_the_middle(frames: int, share: int, world: int, done: int) -> None:
    """`start` counts batches of the whole group, and the batches keep their numbers."""
    for rank in range(world):
        sampler = EpochSampler(frames, share * world, 0, rank, world)
        whole = list(sampler)
        sampler.start(done)
        assert list(sampler) == [place for place in whole if place.batch >= done]
        assert list(sampler) == whole  # the next pass is a whole one


@pytest.mark.parametrize(
    ("frames", "batch_size", "sizes"),
    [(5, 2, [2, 2]), (6, 2, [2, 2, 2]), (5, 3, [3, 2]), (4, 3, [3]), (367, 6, [6] * 61),
     (3, 1, [1, 1, 1]), (1, 4, [1]), (2, 4, [2])],
)  # fmt: skip
def test_no_last_batch_of_one(frames: int, batch_size: int, sizes: list[int]) -> None:
    batches = batches_of(EpochSampler(frames, batch_size, seed=0))
    assert [len(batch) for batch in batches] == sizes


@pytest.mark.parametrize(
    ("frames", "batch_size", "world", "sizes"),
    [
        (11, 4, 2, [[2, 2], [2, 2]]),  # 3 are left: one process would have a single frame
        (367, 16, 4, [[4] * 22 + [4]] * 3 + [[4] * 22 + [3]]),
        (7, 2, 2, [[1, 1, 1]] * 2),  # batches of one are asked for; 1 is left for 2 processes
        (3, 8, 2, [[2], [1]]),  # all there is
    ],
)
def test_no_process_is_left_with_one_frame_or_none(
    frames: int, batch_size: int, world: int, sizes: list[list[int]]
) -> None:
    found = []
    for rank in range(world):
        sampler = EpochSampler(frames, batch_size, 0, rank, world)
        found.append([len(batch) for batch in batches_of(sampler)])
    assert found == sizes


def test_each_frame_is_left_out_in_turn() -> None:
    sampler = EpochSampler(5, 2, seed=0)
    left_out = set()
    for epoch in range(1, 40):
        sampler.set_epoch(epoch)
        left_out |= set(range(5)) - {place.index for place in sampler}
    assert left_out == set(range(5))


def test_a_place_is_a_plain_tuple() -> None:
    assert Place(2, 7) == (2, 7, 0)
    assert list(EpochSampler(1, 1, seed=0)) == [(1, 0, 0)]


# --- evaluation ------------------------------------------------------------------------------


def cache_of(sizes: Sequence[int]) -> Any:
    """A cache that knows nothing but its frames' sizes."""
    shapes = SimpleNamespace(shape=lambda index: (sizes[index],))

    class Cache:
        images = labels = shapes

        def __len__(self) -> int:
            return len(sizes)

    return Cache()


def check_evaluation(
    make: Callable[..., EqualSizes], sizes: Sequence[int], batch_size: int, world: int
) -> None:
    shares = [list(make(cache_of(sizes), batch_size, rank, world)) for rank in range(world)]
    seen = [index for batches in shares for batch in batches for index in batch]
    assert sorted(seen) == list(range(len(sizes)))
    whole = list(EqualSizes(cache_of(sizes), batch_size))
    assert [whole[rank::world] for rank in range(world)] == shares
    for batch in whole:
        assert len({sizes[index] for index in batch}) == 1 and len(batch) <= batch_size
    if len(set(sizes)) == 1:
        assert len(whole) == math.ceil(len(sizes) / batch_size)


@given(
    sizes=st.lists(st.sampled_from([1, 1, 1, 2]), min_size=1, max_size=40),
    batch_size=st.integers(1, 9), world=st.integers(1, 6),
)  # fmt: skip
def test_evaluation_counts_every_frame_once(sizes: list[int], batch_size: int, world: int) -> None:
    check_evaluation(EqualSizes, sizes, batch_size, world)


def test_without_rank_and_world_frames_would_count_twice() -> None:
    """Negative control of the test above."""
    with pytest.raises(AssertionError):
        check_evaluation(lambda cache, size, *_: EqualSizes(cache, size), [1] * 101, 8, 2)


# --- what cannot be shared out ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("batch_size", "world", "nearest"),
    [(6, 4, "4 or 8"), (9, 2, "8 or 10"), (1, 2, "2"), (3, 8, "8"), (7, 3, "6 or 9")],
)
def test_a_batch_that_does_not_divide_names_the_nearest(
    batch_size: int, world: int, nearest: str
) -> None:
    with pytest.raises(UsageError, match=f"batch of {batch_size} .* {world} processes") as caught:
        EpochSampler(100, batch_size, 0, world=world)
    assert caught.value.hint == f"Use --batch-size {nearest}."
    for named in nearest.split(" or "):
        assert share_of(int(named), world) * world == int(named)


def test_more_processes_than_frames() -> None:
    with pytest.raises(UsageError, match="3 frames to learn from are too few for 4 processes"):
        EpochSampler(3, 4, 0, world=4)
    assert len(EpochSampler(4, 4, 0, rank=3, world=4)) == 1
