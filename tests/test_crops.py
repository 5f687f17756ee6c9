"""Crops: their size is one for a batch, their place finds what is rare, and both are pure."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from smp_camvid.data.classes import VOID
from smp_camvid.data.crops import Crop, CropPlan, cut, rare_corner, rarity
from smp_camvid.data.transforms import build_augmentation
from smp_camvid.errors import UsageError
from smp_camvid.recipe import DataConfig, resolve
from smp_camvid.training.experiment import build_trainer, crop_plan

SIZE = (40, 60)


def street(rare: int = 3, at: tuple[int, int] = (5, 50)) -> np.ndarray:
    """Classes 0 and 1 half and half, a strip of void, and one pixel of a rare class."""
    label = np.zeros(SIZE, np.uint8)
    label[20:] = 1
    label[:, :4] = VOID
    label[at] = rare
    return label


# --- what is rare ----------------------------------------------------------------------------


def test_rarity_is_one_over_the_share() -> None:
    label = np.repeat([0, 1, 2, 3, VOID], [50, 30, 15, 5, 400]).astype(np.uint8)
    found = rarity([label[:200], label[200:]])
    # An equal share of four classes is a quarter: 0 and 1 have more.
    assert {int(i): found[i] for i in np.flatnonzero(found)} == pytest.approx({2: 100 / 15, 3: 20})


@pytest.mark.parametrize("values", [[VOID], [4], [0, 1], [0, 1, VOID]])
def test_nothing_is_rare_among_equals(values: list[int]) -> None:
    weights = rarity([np.array([values] * 3, np.uint8)])
    assert weights.shape == (256,) and not weights.any()


def test_the_class_is_drawn_by_rarity_among_those_present() -> None:
    weights = np.zeros(256)
    weights[[2, 3, 7]] = 10.0, 30.0, 900.0  # 7 is not in the label
    label = np.zeros((40, 40), np.uint8)
    label[:8, :30], label[39, 39] = 2, 3  # many pixels against one: only the class counts
    rng = np.random.default_rng(0)
    drawn = Counter(label[rare_corner(label, (1, 1), rng, weights)] for _ in range(2000))
    assert set(drawn) == {2, 3}
    assert drawn[3] == pytest.approx(1500, abs=5 * math.sqrt(2000 * 0.75 * 0.25))


# --- where the crop lies ---------------------------------------------------------------------


@given(
    height=st.integers(1, 30), width=st.integers(1, 30), h=st.integers(1, 30),
    w=st.integers(1, 30), place=st.integers(0, 899), seed=st.integers(0, 5),
)  # fmt: skip
def test_the_crop_contains_the_pixel(
    height: int, width: int, h: int, w: int, place: int, seed: int
) -> None:
    """Whatever the sizes: also where the crop is larger than the frame, which is padded then."""
    label = np.zeros((height, width), np.uint8)
    label.flat[place % label.size] = 3
    weights = np.zeros(256)
    weights[3] = 5.0
    image = np.repeat(label[..., None], 3, 2)
    rng = np.random.default_rng(seed)
    image, label, _ = cut(image, label, None, Crop((h, w), rare=1.0), rng, weights)
    assert label.shape == (h, w) == image.shape[:2]
    assert (label == 3).sum() == 1
    assert np.array_equal(image[..., 0], np.where(label == VOID, 0, label))


def test_every_place_that_contains_the_pixel_is_as_likely() -> None:
    """9 x 6 places, fewer than 10 x 15, because the pixel is near two edges."""
    weights = np.zeros(256)
    weights[3] = 1.0
    label, rng, draws = street(at=(8, 57)), np.random.default_rng(0), 5400
    found = Counter(rare_corner(label, (10, 8), rng, weights) for _ in range(draws))
    assert set(found) == {(y, x) for y in range(9) for x in range(50, 53)}
    expected = draws / len(found)
    assert max(abs(n - expected) for n in found.values()) < 5 * math.sqrt(expected)


def test_pixels_of_the_class_are_as_likely_wherever_they_are() -> None:
    label = np.zeros((30, 30), np.uint8)
    label[0, 0] = label[12, 29] = label[29, 3] = 6
    weights = np.zeros(256)
    weights[6] = 1.0
    rng = np.random.default_rng(0)
    found = Counter(rare_corner(label, (1, 1), rng, weights) for _ in range(3000))
    assert set(found) == {(0, 0), (12, 29), (29, 3)}
    assert all(abs(n - 1000) < 5 * math.sqrt(3000 * 2 / 9) for n in found.values())


def test_a_frame_without_rare_classes_gets_the_plain_crop() -> None:
    weights = np.zeros(256)
    weights[[3, VOID - 1]] = 1.0
    common = street(rare=0)
    image = np.arange(common.size * 3).reshape(*SIZE, 3).astype(np.uint8)
    for seed in range(20):
        plain, rare = (
            cut(image, common, None, Crop((9, 9), p), np.random.default_rng(seed), weights)
            for p in (0.0, 1.0)
        )
        assert np.array_equal(plain[0], rare[0]) and np.array_equal(plain[1], rare[1])
    assert rare_corner(common, (9, 9), np.random.default_rng(0), weights) is None


def test_void_never_counts() -> None:
    """Void is the rarest label here, and a frame of nothing but void has nothing to find."""
    label = street(at=(5, 50))
    label[:, :4] = 0
    label[0, 0] = VOID
    weights = rarity([label])
    assert np.flatnonzero(weights).tolist() == [3]
    all_void = np.full(SIZE, VOID, np.uint8)
    assert rare_corner(all_void, (3, 3), np.random.default_rng(0), weights) is None


def share_of_crops(probability: float, steps: list[dict[str, Any]] | None = None) -> float:
    """Share of 400 crops of 8x8 that hold the one rare pixel."""
    label = street()
    image = np.repeat(label[..., None], 3, 2)
    augment = build_augmentation(steps or [], (8, 8), rarity([label]))
    crop = Crop((8, 8), probability)
    return float(
        np.mean([(augment(image, label, (0, 1, i), None, crop)[1] == 3).any() for i in range(400)])
    )


def test_the_probability_is_kept() -> None:
    """A plain crop of 8x8 has 33 x 53 places, of which 6 x 8 hold the pixel: 2.7 %."""
    plain = 6 * 8 / (33 * 53)
    for probability in (0.0, 0.3, 1.0):
        expected = probability + (1 - probability) * plain
        spread = math.sqrt(expected * (1 - expected) / 400)
        assert share_of_crops(probability) == pytest.approx(expected, abs=5 * spread)


def test_rare_classes_are_looked_for_after_the_steps() -> None:
    """In the label as it is then: flipped, the pixel lies elsewhere and is found there."""
    assert share_of_crops(1.0, [{"name": "HorizontalFlip"}]) == 1.0
    cropped_away = [{"name": "CenterCrop", "height": 20, "width": 20}]
    assert share_of_crops(1.0, cropped_away) == 0.0


def test_frame_label_and_weights_are_cut_alike() -> None:
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    image = np.stack([y, x, y], -1).astype(np.uint8)
    label = street()
    weight = (1 + y * 100 + x).astype(np.float32)
    weights = rarity([label])
    for seed in range(10):
        rng = np.random.default_rng(seed)
        found, target, weighed = cut(image, label, weight, Crop((12, 12), 1.0), rng, weights)
        rows, columns = found[..., 0], found[..., 1]
        assert np.array_equal(target, label[rows, columns])
        assert weighed is not None
        assert np.array_equal(weighed, np.where(target == VOID, 0, weight[rows, columns]))


# --- how large it is -------------------------------------------------------------------------


def test_plain_crops_are_of_one_size() -> None:
    plan = CropPlan()
    assert {plan.crop((70, 90), 0, e, b) for e in (1, 9) for b in range(9)} == {Crop((70, 90))}


def test_one_factor_a_batch_on_multiples_of_32() -> None:
    plan, size = CropPlan(rare=0.25, multi_scale=(0.5, 1.5)), (256, 352)
    sizes = {}
    for epoch in (1, 2):
        for batch in range(200):
            crop = plan.crop(size, 5, epoch, batch)
            assert crop.rare == 0.25
            # One factor explains both sides, each rounded to its nearest multiple.
            low = max((side - 16) / whole for side, whole in zip(crop.size, size, strict=True))
            high = min((side + 16) / whole for side, whole in zip(crop.size, size, strict=True))
            assert low <= high and high >= 0.5 and low <= 1.5
            assert all(side % 32 == 0 for side in crop.size)
            sizes[epoch, batch] = crop.size
    assert {height for height, _ in sizes.values()} == set(range(128, 385, 32))
    assert [sizes[1, b] for b in range(200)] != [sizes[2, b] for b in range(200)]
    # Mean factor 1, standard deviation of a uniform draw 1/sqrt(12), 400 draws.
    mean = np.mean([width for _, width in sizes.values()]) / 352
    assert mean == pytest.approx(1, abs=5 / math.sqrt(12 * 400))


def test_sizes_depend_on_seed_epoch_and_batch_alone() -> None:
    def sizes(seed: int) -> list[Crop]:
        plan = CropPlan(multi_scale=(0.5, 2.0))
        return [plan.crop((128, 128), seed, epoch, b) for epoch in (1, 2) for b in range(30)]

    np.random.seed(1)  # nobody may listen to this
    assert sizes(3) == sizes(3) != sizes(4)


def test_crops_are_never_smaller_than_32() -> None:
    plan = CropPlan(multi_scale=(0.01, 0.02))
    assert plan.crop((360, 480), 0, 1, 0).size == (32, 32)


def test_the_last_epochs_are_at_full_frame() -> None:
    plan = CropPlan(rare=0.9, multi_scale=(0.5, 2.0), full_frame_from=4, frame_size=(90, 120))
    assert {plan.crop((64, 64), 0, epoch, b) for epoch in (4, 5) for b in range(20)} == {
        Crop((90, 120), rare=0.0)
    }
    assert (90, 120) not in {plan.crop((64, 64), 0, 3, b).size for b in range(20)}


# --- the recipe ------------------------------------------------------------------------------


def test_the_plan_of_a_recipe() -> None:
    """The last 3 of 10 epochs are 8, 9 and 10; without such epochs there is no first one."""
    keys = [("train.epochs", 10), ("data.full_frame_epochs", 3), ("data.rare_crops", 0.5)]
    keys += [("data.multi_scale", [0.75, 1.25]), ("data.size", [180, 240])]
    assert crop_plan(resolve("vanilla", keys).recipe) == CropPlan(0.5, (0.75, 1.25), 8, (180, 240))
    plain = crop_plan(resolve("vanilla").recipe)
    assert (plain.rare, plain.multi_scale, plain.full_frame_from) == (0, None, None)


@pytest.mark.parametrize(
    ("key", "value", "problem"),
    [
        ("rare_crops", 1.5, "less than or equal to 1"),
        ("rare_crops", -0.1, "greater than or equal to 0"),
        ("multi_scale", [1.5, 0.5], r"should be \[lowest, highest\], not \[1.5, 0.5\]"),
        ("multi_scale", [0, 1], "greater than 0"),
        ("multi_scale", [1, 40], "less than or equal to 4"),
        ("multi_scale", [1], "field required"),
        ("full_frame_epochs", -1, "greater than or equal to 0"),
    ],
)
def test_wrong_values_are_named(key: str, value: Any, problem: str) -> None:
    with pytest.raises(UsageError, match=rf"data\.{key}.*: .*{problem}"):
        resolve("vanilla", [(f"data.{key}", value)])


def test_a_run_with_changing_crops(kaggle_data: Path, tmp_path: Path) -> None:
    """The keys arrive at the loader, and the Trainer takes every size."""
    keys: dict[str, Any] = {
        "data.path": str(kaggle_data), "data.size": [48, 64], "data.crop": [32, 48],
        "data.rare_crops": 0.5, "data.multi_scale": [0.5, 2.0], "data.full_frame_epochs": 1,
        "train.epochs": 2, "train.batch_size": 2, "train.workers": 0, "train.device": "cpu",
        "train.save_dir": str(tmp_path), "train.save_plots": False, "model.base_channels": 2,
    }  # fmt: skip
    trainer = build_trainer(resolve("vanilla", list(keys.items())).recipe, listeners=[])
    loader: Any = trainer.train_loader
    assert loader.dataset.augmentation.rarity.any()
    sizes = {}
    for epoch in (1, 2):
        loader.sampler.set_epoch(epoch)
        sizes[epoch] = {tuple(batch.target.shape[1:]) for batch in loader}
    assert sizes[2] == {(48, 64)} and sizes[1] != sizes[2]
    assert all(side % 32 == 0 for size in sizes[1] for side in size)
    assert trainer.train().reason == "done"


def test_everything_is_off_by_default() -> None:
    data = DataConfig()
    assert (data.rare_crops, data.multi_scale, data.full_frame_epochs) == (0, None, 0)
    assert DataConfig(multi_scale=(1, 1)).multi_scale == (1, 1)
