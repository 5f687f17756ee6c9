"""What is fetched early is what would have been fetched late."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch
from runs_of_tests import Stopper, small

import smp_camvid
from smp_camvid import runs
from smp_camvid.data.cache import FrameCache
from smp_camvid.data.camvid import open_dataset
from smp_camvid.data.loaders import Batch, train_loader
from smp_camvid.errors import DataError
from smp_camvid.training import events
from smp_camvid.training.batches import batches_of
from smp_camvid.training.experiment import build_trainer
from smp_camvid.training.feed import Feed, Uploaded

CPU = torch.device("cpu")
PASSES = [(1, 1), (2, 0), (3, 0)]  # (epoch, skip) of a run that goes on after its first batch


def as_they_are(batch: Batch) -> Batch:
    return batch


def content(batches: Iterable[Batch]) -> list[tuple[list[int], bytes]]:
    return [(b.index.tolist(), b.image.contiguous().numpy().tobytes()) for b in batches]


@pytest.fixture
def make(segnet_data: Path, tmp_path: Path) -> Callable[..., Any]:
    cache = FrameCache.open(open_dataset(segnet_data), "train", None, "image", tmp_path)

    def made(workers: int) -> Any:
        steps = [{"name": "HorizontalFlip", "p": 0.5}]
        return train_loader(
            cache, size=(32, 32), augment=steps, batch_size=2, seed=1, workers=workers
        )

    return made


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("per_step", [1, 2])
@pytest.mark.parametrize("early", [False, True])
def test_the_same_batches_as_pass_by_pass(
    make: Callable[..., Any], workers: int, per_step: int, early: bool
) -> None:
    plain = make(0)
    expected = [content(batches_of(plain, epoch, skip)) for epoch, skip in PASSES]
    feed = Feed(make(workers), per_step, CPU)
    for (epoch, skip), batches in zip(PASSES, expected, strict=True):
        found = []
        for group in feed.epoch(epoch, skip, epoch == 3, as_they_are):
            assert len(group) <= per_step and all(isinstance(b, Uploaded) for b in group)
            found += content(group)
            if early:  # as a GPU's step does; a second call changes nothing
                feed.ahead()
                feed.ahead()
        assert found == batches
    assert expected[1] != expected[2]


def test_workers_begin_an_epoch_before_the_last_step_of_the_one_before(
    make: Callable[..., Any],
) -> None:
    loader = make(1)
    feed = Feed(loader, 1, CPU)
    for epoch in (1, 2):
        groups, seen = feed.epoch(epoch, 0, epoch == 2, as_they_are), []
        for _ in groups:
            seen.append(loader.sampler.passes)
        # Begun once an epoch: the second while the last group of the first is out.
        assert seen == ([1] * (len(loader) - 1) + [2] if epoch == 1 else [2] * len(loader))


def test_a_pass_that_somebody_else_began_is_not_taken_for_ours(make: Callable[..., Any]) -> None:
    expected = content(batches_of(make(0), 2, 0))
    loader = make(1)
    feed = Feed(loader, 1, CPU)
    list(feed.epoch(1, 0, False, as_they_are))
    next(iter(loader))  # a listener that looks at a batch at the end of an epoch
    assert content(chain(*feed.epoch(2, 0, True, as_they_are))) == expected


def test_an_epoch_that_was_broken_off_can_go_on(make: Callable[..., Any]) -> None:
    expected = content(batches_of(make(0), 1, 1))
    feed = Feed(make(1), 1, CPU)
    for _ in feed.epoch(1, 0, False, as_they_are):
        feed.ahead()  # fetched, and never taken
        break
    assert content(chain(*feed.epoch(1, 1, False, as_they_are))) == expected


def test_a_foreign_loader_is_read_to_its_end_and_begun_once_an_epoch() -> None:
    begun = []

    class Pairs:
        def __len__(self) -> int:
            return 2  # and it yields three

        def __iter__(self) -> Iterator[Any]:
            begun.append(1)
            return iter([(torch.zeros(1, 3, 4, 4), torch.zeros(1, 4, 4))] * 3)

    feed = Feed(Pairs(), 1, CPU)
    assert len(list(feed.epoch(1, 0, False, as_they_are))) == 3 and len(begun) == 1
    assert len(list(feed.epoch(2, 1, False, as_they_are))) == 2 and len(begun) == 2


def test_what_goes_wrong_early_is_told_in_its_turn() -> None:
    def ready(batch: Batch) -> Batch:
        if batch.image.max() > 1:
            raise DataError("This frame is wrong.")
        return batch

    pairs = [(torch.full((1, 3, 4, 4), float(n)), torch.zeros(1, 4, 4)) for n in range(3)]
    feed = Feed(pairs, 1, CPU)
    groups = feed.epoch(1, 0, True, ready)
    next(groups)
    feed.ahead()
    assert next(groups)[0].image.max() == 1
    feed.ahead()  # silent: the step in progress is a good one
    with pytest.raises(DataError, match="wrong"):
        next(groups)


def weights_and_scores(run: Path) -> tuple[bytes, list[Any]]:
    scores = [(row["train"], row["val"]) for row in runs.read_lines(run / "metrics.jsonl")]
    return (run / "weights" / "last.safetensors").read_bytes(), scores


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_run_that_fetches_early_is_the_same_run(
    segnet_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, accumulate: int
) -> None:
    options = {"train__epochs": 3, "train__accumulate": accumulate, "train__workers": 1}
    late = build_trainer(small(segnet_data, tmp_path / "late", **options), listeners=[])
    expected = weights_and_scores(late.train().run_dir)
    monkeypatch.setattr(Feed, "meanwhile", Feed.ahead)  # what a GPU's step does
    whole = build_trainer(small(segnet_data, tmp_path / "whole", **options), listeners=[])
    assert weights_and_scores(whole.train().run_dir) == expected

    recipe = small(segnet_data, tmp_path / "stopped", **options)
    stopper = Stopper(
        events.StepDone, after=late.steps_per_epoch + 1
    )  # in epoch 2, the next batches fetched
    run = build_trainer(recipe, listeners=[stopper]).train()
    assert run.reason == "interrupted"
    again = build_trainer(recipe, listeners=[])
    again.resume(run.run_dir)
    assert weights_and_scores(again.train().run_dir) == expected


def test_a_trainer_goes_when_it_is_let_go(segnet_data: Path, tmp_path: Path) -> None:
    """Its weights would else stay on the GPU until the garbage collector comes by."""
    made = build_trainer(small(segnet_data, tmp_path, train__workers=0), listeners=[])
    gone = weakref.ref(made)
    made.train()
    gc.collect()
    gc.disable()
    try:
        del made
        assert gone() is None
    finally:
        gc.enable()


def test_a_step_calls_back_before_its_update(tmp_path: Path) -> None:
    made = smp_camvid.loaders("synthetic", size=(48, 64), batch_size=2)
    model = smp_camvid.create_model("vanilla", base_channels=4, depth=2)
    trainer = smp_camvid.Trainer(model, *made, epochs=1, save_dir=tmp_path, verbose=0)
    weight = next(trainer.network.parameters())
    before, seen = weight.detach().clone(), []
    batch = next(iter(made[0]))
    moved = Batch(batch.image, batch.target.long(), batch.index, None)
    trainer.learner.step([moved], lambda: seen.append((weight.clone(), weight.grad is not None)))
    (then, has_gradient), = seen  # fmt: skip
    assert torch.equal(then, before) and has_gradient and not torch.equal(weight, before)
