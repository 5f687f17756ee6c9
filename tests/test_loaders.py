"""Batches: the same with any number of workers, new in each epoch, never one frame alone."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from smp_camvid.data.border import BorderWeight, border_weight_map
from smp_camvid.data.cache import FrameCache
from smp_camvid.data.camvid import open_dataset
from smp_camvid.data.classes import CAMVID11
from smp_camvid.data.crops import CropPlan, rarity
from smp_camvid.data.loaders import Batch, eval_loader, loaders, train_loader
from smp_camvid.errors import UsageError

MakeDataset = Callable[..., Path]

STEPS = [
    {"name": "HorizontalFlip", "p": 0.5},
    {"name": "RandomScale", "scale_limit": [-0.2, 0.4]},
    {"name": "RandomBrightnessContrast", "p": 0.9},
]


@pytest.fixture
def cache(kaggle_data: Path, tmp_path: Path) -> FrameCache:
    return FrameCache.open(open_dataset(kaggle_data), "train", None, "image", tmp_path)


def loader_of(cache: FrameCache, **options: Any) -> DataLoader[Any]:
    defaults = {"size": (32, 32), "augment": STEPS, "batch_size": 2, "seed": 3}
    return train_loader(cache, **{**defaults, **options})


def epochs(loader: DataLoader[Any], numbers: tuple[int, ...] = (1, 2)) -> list[list[Batch]]:
    found = []
    for number in numbers:
        loader.sampler.set_epoch(number)  # type: ignore[attr-defined]
        found.append(list(loader))
    return found


def content(passes: list[list[Batch]]) -> list[list[tuple[bytes, ...]]]:
    return [
        [tuple(t.contiguous().numpy().tobytes() for t in batch[:3]) for batch in batches]
        for batches in passes
    ]


def test_batches(cache: FrameCache) -> None:
    batch = next(iter(loader_of(cache)))
    assert (batch.image.shape, batch.image.dtype) == ((2, 3, 32, 32), torch.uint8)
    assert (batch.target.shape, batch.target.dtype) == ((2, 32, 32), torch.uint8)
    assert (batch.index.dtype, batch.weight) == (torch.int64, None)
    assert batch.image.is_contiguous(memory_format=torch.channels_last)
    assert set(batch.target.unique().tolist()) <= {*range(11), 255}


def test_unaugmented_batches_are_the_frames(cache: FrameCache) -> None:
    for batch in loader_of(cache, size=(48, 64), augment=[]):
        for image, target, index in zip(batch.image, batch.target, batch.index, strict=True):
            assert np.array_equal(image.permute(1, 2, 0).numpy(), cache.image(int(index)))
            assert np.array_equal(target.numpy(), cache.label(int(index)))


def test_same_with_any_number_of_workers(cache: FrameCache) -> None:
    expected = content(epochs(loader_of(cache)))
    assert content(epochs(loader_of(cache))) == expected
    for workers in (1, 2):
        assert content(epochs(loader_of(cache, workers=workers))) == expected
    assert content(epochs(loader_of(cache, seed=4))) != expected
    assert expected[0] != expected[1]


@pytest.mark.slow
def test_same_with_spawned_workers(cache: FrameCache) -> None:
    options = {"border_weight": BorderWeight(), "crops": CropPlan(rare=0.5), "context": "spawn"}
    here, spawned = (epochs(loader_of(cache, **options, workers=workers)) for workers in (0, 2))
    assert content(spawned) == content(here)
    for mine, theirs in zip(here[1], spawned[1], strict=True):
        assert mine.weight is not None and theirs.weight is not None
        assert torch.equal(mine.weight, theirs.weight)


def test_drawing_from_the_worker_would_differ(cache: FrameCache) -> None:
    """Negative control: the comparison above notices augmentation drawn as workers would."""

    def drawn_by_worker(workers: int) -> list[list[tuple[bytes, ...]]]:
        loader = loader_of(cache, workers=workers)
        augmentation = loader.dataset.augmentation  # type: ignore[attr-defined]

        class FromWorker:
            def __call__(self, image: Any, label: Any, seed: Any, weight: Any, crop: Any) -> Any:
                draw = int(torch.randint(1 << 30, ()))
                return augmentation(image, label, (draw, 0, 0), weight, crop)

        loader.dataset.augmentation = FromWorker()  # type: ignore[attr-defined]
        torch.manual_seed(0)
        return content(epochs(loader))

    # Forked, so that the class above reaches the workers.
    assert drawn_by_worker(0) == drawn_by_worker(0)
    assert drawn_by_worker(0) != drawn_by_worker(2)


def test_epochs_differ_also_with_persistent_workers(cache: FrameCache) -> None:
    for workers in (0, 2):
        loader = loader_of(cache, augment=[], workers=workers)
        crops = {
            tuple(batch.image[k].contiguous().numpy().tobytes() for k in range(2))
            for batches in epochs(loader, (1, 2, 3, 4))
            for batch in batches
        }
        assert len(crops) == 8
        orders = [[i for b in p for i in b.index.tolist()] for p in epochs(loader, (1, 2, 3, 4))]
        assert len({tuple(order) for order in orders}) > 1


def test_loading_leaves_the_global_generators_alone(cache: FrameCache) -> None:
    torch.manual_seed(0)
    np.random.seed(0)
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    epochs(loader_of(cache))
    list(eval_loader(cache, batch_size=2))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])


def test_resuming_in_the_middle_of_an_epoch(cache: FrameCache) -> None:
    whole = content(epochs(loader_of(cache, batch_size=1), (7, 8)))
    loader = loader_of(cache, batch_size=1)
    loader.sampler.start(3)  # type: ignore[attr-defined]
    resumed = content(epochs(loader, (7, 8)))
    assert resumed[0] == whole[0][3:]
    assert resumed[1] == whole[1]
    assert len(loader) == 5


def test_border_weights_come_along(cache: FrameCache) -> None:
    border = BorderWeight(w0=6, sigma=2)
    loader = loader_of(cache, size=(48, 64), augment=[], border_weight=border)
    for batch in loader:
        assert batch.weight is not None and batch.weight.dtype == torch.float32
        for weight, index in zip(batch.weight, batch.index, strict=True):
            assert np.array_equal(
                weight.numpy(), border_weight_map(cache.label(int(index)), border)
            )
    flipped = loader_of(
        cache, size=(48, 64), augment=[{"name": "HorizontalFlip"}], border_weight=border
    )
    batch = next(iter(flipped))
    assert batch.weight is not None
    expected = border_weight_map(cache.label(int(batch.index[0])), border)[:, ::-1]
    assert np.array_equal(batch.weight[0].numpy(), expected)


# --- crops that change -----------------------------------------------------------------------

PLAN = CropPlan(rare=0.5, multi_scale=(0.5, 2.0), full_frame_from=3, frame_size=(48, 64))


def sizes(batches: list[Batch]) -> list[tuple[int, ...]]:
    return [tuple(batch.target.shape[1:]) for batch in batches]


def test_changing_crops_are_the_same_in_every_run_and_for_any_workers(cache: FrameCache) -> None:
    """Epochs 1 and 2 with rare-class crops of many sizes, 3 and 4 at full frame."""
    numbers = (1, 2, 3, 4)
    passes = epochs(loader_of(cache, crops=PLAN), numbers)
    expected = content(passes)
    for workers in (0, 1, 2):
        assert content(epochs(loader_of(cache, crops=PLAN, workers=workers), numbers)) == expected
    assert {sizes(batches)[0] for batches in passes[2:]} == {(48, 64)}
    assert all(side % 32 == 0 for batches in passes[:2] for size in sizes(batches) for side in size)
    for batches in passes:
        for batch in batches:
            assert batch.image.shape[2:] == batch.target.shape[1:]
    # The full frames go through the steps: they are not the frames as they are.
    whole = {cache.image(i).tobytes() for i in range(len(cache))}
    learned = [image for batch in passes[3] for image in batch.image.permute(0, 2, 3, 1)]
    assert not all(image.numpy().tobytes() in whole for image in learned)


def test_resuming_in_the_middle_of_an_epoch_of_many_sizes(cache: FrameCache) -> None:
    options = {"size": (64, 64), "batch_size": 1, "crops": PLAN}
    whole = epochs(loader_of(cache, **options), (1, 2))
    assert len({size for batches in whole for size in sizes(batches)}) > 2
    for skipped in (1, 3):
        loader = loader_of(cache, **options)
        loader.sampler.start(skipped)  # type: ignore[attr-defined]
        resumed = epochs(loader, (1, 2))
        assert content(resumed)[0] == content(whole)[0][skipped:]
        assert content(resumed)[1] == content(whole)[1]
    # Negative control: with batches counted from the resume, the sizes would be others.
    counted_anew = [PLAN.crop((64, 64), 3, 1, batch).size for batch in range(4)]
    assert counted_anew == sizes(whole[0])[:4] != sizes(whole[0])[1:]


def test_rare_crops_hold_rare_classes(cache: FrameCache) -> None:
    """8x8 crops of 48x64: nearly each plain one misses what is rare, each rare one has some."""
    rare = rarity(cache.labels)
    assert 0 < np.count_nonzero(rare) < 11
    found: dict[float, list[float]] = {}
    for probability in (0.0, 1.0):
        loader = loader_of(cache, size=(8, 8), augment=[], crops=CropPlan(rare=probability))
        found[probability] = [
            float((rare[target.numpy()] > 0).mean())
            for batches in epochs(loader, tuple(range(1, 21)))
            for batch in batches
            for target in batch.target
        ]
    assert min(found[1.0]) > 0
    assert min(found[0.0]) == 0
    assert np.mean(found[1.0]) > 1.5 * np.mean(found[0.0])


@pytest.mark.parametrize(("batch_size", "workers"), [(4, 0), (4, 1), (2, 0)])
def test_ranks_share_each_batch_out(cache: FrameCache, batch_size: int, workers: int) -> None:
    """The pixels of two processes, put together, are those of one."""
    plan = CropPlan(rare=0.5, multi_scale=(0.5, 1.5))
    options = {"batch_size": batch_size, "crops": plan}
    (whole,) = epochs(loader_of(cache, **options), (5,))
    ranks = [
        epochs(loader_of(cache, **options, rank=rank, world=2, workers=workers), (5,))[0]
        for rank in range(2)
    ]
    assert [len(batches) for batches in ranks] == [5 // batch_size] * 2 == [len(whole)] * 2
    for batch, *shares in zip(whole, *ranks, strict=True):
        for rank, share in enumerate(shares):
            assert torch.equal(share.image, batch.image[rank::2])
            assert torch.equal(share.target, batch.target[rank::2])
            assert share.index.tolist() == batch.index[rank::2].tolist()


def test_a_step_that_cannot_work_stops_before_the_first_batch(cache: FrameCache) -> None:
    with pytest.raises(UsageError, match="augment 1: RandomCrop cannot be applied"):
        loader_of(cache, augment=[{"name": "RandomCrop", "height": 100, "width": 10, "p": 0.01}])


# --- evaluation ------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 2])
def test_evaluation_in_order(kaggle_data: Path, tmp_path: Path, workers: int) -> None:
    cache = FrameCache.open(open_dataset(kaggle_data), "train", 24, (96, 128), tmp_path)
    loader = eval_loader(cache, batch_size=2, workers=workers)
    batches = list(loader)
    assert [batch.index.tolist() for batch in batches] == [[0, 1], [2, 3], [4]]
    assert len(loader) == 3
    assert batches[0].image.shape == (2, 3, 24, 32)
    assert batches[0].target.shape == (2, 96, 128)
    assert np.array_equal(batches[2].image[0].permute(1, 2, 0).numpy(), cache.image(4))
    assert np.array_equal(batches[2].target[0].numpy(), cache.label(4))


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize(("batch_size", "world"), [(2, 2), (1, 3), (3, 2), (4, 4)])
def test_evaluation_shares_every_frame_out_once(
    cache: FrameCache, batch_size: int, world: int, workers: int
) -> None:
    """5 frames divide by none of these; where batches are few, some processes get none."""
    shares = [
        list(eval_loader(cache, batch_size=batch_size, workers=workers, rank=rank, world=world))
        for rank in range(world)
    ]
    seen = [int(i) for batches in shares for batch in batches for i in batch.index]
    assert sorted(seen) == list(range(5))
    assert [len(batches) == 0 for batches in shares] == [
        rank >= -(-5 // batch_size) for rank in range(world)
    ]


def test_evaluation_never_mixes_sizes(make_own: MakeDataset, tmp_path: Path) -> None:
    root = make_own()
    for kind in ("images", "masks"):
        Image.new("RGB", (30, 20), (1, 2, 3)).save(root / kind / "train" / "traindrive_0002.png")
    cache = FrameCache.open(open_dataset(root, "dataset"), "train", None, None, tmp_path)
    batches = list(eval_loader(cache, batch_size=4))
    assert [batch.index.tolist() for batch in batches] == [[0, 1], [2], [3, 4]]
    assert [tuple(batch.target.shape[1:]) for batch in batches] == [(40, 56), (20, 30), (40, 56)]


def test_the_notebooks_door(kaggle_data: Path) -> None:
    train, val = loaders(kaggle_data, size=(24, 32), batch_size=2)
    assert train.dataset.table is CAMVID11 or train.dataset.table == CAMVID11  # type: ignore[attr-defined]
    assert val.dataset.protocol == "camvid11@360x480"  # type: ignore[attr-defined]
    assert next(iter(train)).image.shape == (2, 3, 24, 32)
    batch = next(iter(val))
    assert (batch.image.shape[2:], batch.target.shape[1:]) == ((24, 32), (360, 480))


def test_evaluation_imports_no_albumentations() -> None:
    code = "import sys, smp_camvid.data.loaders; assert 'albumentations' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_opening_and_caching_imports_no_torch() -> None:
    code = (
        "import sys, smp_camvid.data.cache, smp_camvid.data.camvid\n"
        "assert not {'torch', 'albumentations'} & set(sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.slow
def test_real_frames(real_data: Path, tmp_path: Path) -> None:
    dataset = open_dataset(real_data, need=("train", "val"))
    cache = FrameCache.open(dataset, "val", 360, (360, 480), tmp_path)
    assert len(cache) == 101
    for index in (0, 50, 100):
        assert np.array_equal(cache.image(index), dataset.load_image(cache.frames[index]))
        assert np.array_equal(cache.label(index), dataset.load_label(cache.frames[index]))
    assert sum(len(batch.index) for batch in eval_loader(cache, batch_size=8)) == 101


SCRIPT = """
import smp_camvid, sys
train, val = smp_camvid.loaders(sys.argv[1], size=(48, 64), batch_size=4, workers=2)
for batch in train:
    pass
"""


def test_a_script_that_keeps_its_loader_ends_in_peace(kaggle_data: Path) -> None:
    # Its workers are told to go; they used to wait for an alarm, which torch took for a failure.
    program = [sys.executable, "-c", SCRIPT, str(kaggle_data)]
    done = subprocess.run(program, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
