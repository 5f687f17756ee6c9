"""Augmentation: frame and label move together, and nothing but (seed, epoch, index) draws."""

from __future__ import annotations

import pickle
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from smp_camvid.data.classes import VOID
from smp_camvid.data.transforms import Augmentation, _bicubic, build_augmentation
from smp_camvid.errors import UsageError

SIZE = (96, 128)

GEOMETRIC: list[dict[str, Any]] = [
    {"name": "HorizontalFlip"},
    {"name": "VerticalFlip"},
    {"name": "Transpose"},
    {"name": "RandomRotate90"},
    {"name": "D4"},
    {"name": "RandomScale", "scale_limit": [-0.5, 1.0]},
    {"name": "RandomResizedCrop", "size": [80, 100], "scale": [0.3, 0.9]},
    {"name": "RandomSizedCrop", "min_max_height": [50, 90], "size": [96, 128]},
    {"name": "RandomCrop", "height": 60, "width": 70},
    {"name": "CenterCrop", "height": 60, "width": 70},
    {"name": "PadIfNeeded", "min_height": 150, "min_width": 150},
    {"name": "CropAndPad", "px": [-9, 9]},
    {"name": "Affine", "scale": [0.7, 1.4], "rotate": [-20, 20], "shear": [-5, 5]},
    {"name": "Rotate", "limit": 30},
    {"name": "SafeRotate", "limit": 30},
    {"name": "Perspective", "scale": [0.05, 0.1]},
    {"name": "GridDistortion"},
    {"name": "ElasticTransform", "alpha": 150, "sigma": 10},
    {"name": "OpticalDistortion", "distort_limit": [-0.5, 0.5]},
    {"name": "ElasticDeformation", "sigma": 6},
    {"name": "OneOf", "transforms": [{"name": "Rotate"}, {"name": "RandomScale"}]},
]


def coordinates() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A frame whose colours say where each pixel was, a label of 8x8 cells, and a weight map."""
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    image = np.stack([40 + y, 40 + x, np.full_like(y, 255)], -1).astype(np.uint8)
    label = ((y // 8) * 16 + x // 8).astype(np.uint8)  # 12 x 16 cells, 0 to 191
    return image, label, (1 + label).astype(np.float32)


def compare(image: np.ndarray, label: np.ndarray) -> tuple[int, int]:
    """How many pixels in the middle of a cell say the same in frame and label, how many do not."""
    y, x = image[..., 0] - 40.0, image[..., 1] - 40.0
    # Blue below 255 means that black padding is mixed in.
    certain = (label != VOID) & (image[..., 2] == 255)
    certain &= (np.abs(y % 8 - 3.5) < 2) & (np.abs(x % 8 - 3.5) < 2)
    same = label == (y // 8) * 16 + x // 8
    return int((certain & same).sum()), int((certain & ~same).sum())


@pytest.mark.parametrize("step", GEOMETRIC, ids=lambda step: step["name"])
def test_label_and_weights_move_with_the_frame(step: dict[str, Any]) -> None:
    image, label, weight = coordinates()
    augment = build_augmentation([step], SIZE)
    compared = moved = 0
    for epoch in range(6):
        image_, label_, weight_ = augment(image, label, (0, epoch, 1), weight)
        assert weight_ is not None
        assert (image_.shape, label_.shape, weight_.shape) == ((*SIZE, 3), SIZE, SIZE)
        assert (image_.dtype, label_.dtype, weight_.dtype) == (np.uint8, np.uint8, np.float32)
        seen = label_ != VOID
        # The weight says the cell too, and is 0 on void.
        assert np.array_equal(weight_, np.where(seen, 1.0 + label_, 0))
        agree, disagree = compare(image_, label_)
        compared += agree
        assert disagree == 0
        if not np.array_equal(label_, label):
            moved += 1
            # Negative control: a label left where it was is noticed.
            assert compare(image_, label)[1] > 0
    assert compared > 3000
    assert moved


@pytest.mark.parametrize(
    "step",
    [
        {"name": "Affine", "rotate": [30, 30]},
        {"name": "Affine", "scale": [0.5, 0.5]},
        {"name": "Perspective", "scale": [0.1, 0.1], "fit_output": True},
        {"name": "CropAndPad", "px": 10},
        {"name": "PadIfNeeded", "min_height": 150, "min_width": 150},
        {"name": "CoarseDropout"},
        {"name": "GridDropout"},
        {"name": "ElasticDeformation", "sigma": 20},
    ],
    ids=lambda step: step["name"],
)
def test_new_pixels_are_void(step: dict[str, Any]) -> None:
    image, label, _ = coordinates()
    label = label % 11 + 1  # no class 0, which fill_mask would be by default
    found = [build_augmentation([step], SIZE)(image, label, (0, e, 0))[1] for e in range(4)]
    assert (np.stack(found) == VOID).any()
    assert 0 not in np.stack(found)


def test_padding_and_crop_alone() -> None:
    image, label, weight = coordinates()
    augment = build_augmentation([], (120, 90))  # higher and narrower than the frame
    corners = set()
    for epoch in range(8):
        image_, label_, weight_ = augment(image, label, (0, epoch, 0), weight)
        assert weight_ is not None
        rows, columns = np.nonzero(label_ != VOID)
        top, left = int(rows.min()), int(image_[rows.min(), 0, 1]) - 40
        assert np.array_equal(label_[top : top + 96], label[:, left : left + 90])
        assert np.array_equal(image_[top : top + 96], image[:, left : left + 90])
        assert (image_[label_ == VOID] == 0).all()
        assert (weight_[label_ == VOID] == 0).all()
        assert len(rows) == 96 * 90 == len(columns)
        corners.add((top, left))
    assert len(corners) > 4
    same = build_augmentation([], SIZE)(image, label, (0, 0, 0))
    assert np.array_equal(same[0], image)
    assert np.array_equal(same[1], label)


STEPS = [
    {"name": "HorizontalFlip", "p": 0.5},
    {"name": "RandomScale", "scale_limit": [-0.3, 0.5], "p": 1.0},
    {"name": "ColorJitter", "p": 0.8},
    {"name": "ElasticDeformation", "sigma": 4.0, "p": 0.5},
]


def test_drawn_from_seed_epoch_and_index_alone() -> None:
    image, label, _ = coordinates()
    one, two = build_augmentation(STEPS, (64, 64)), build_augmentation(STEPS, (64, 64))
    seeds = [(s, e, i) for s in (0, 1) for e in (1, 2) for i in (0, 1, 2)]
    first = {seed: one(image, label, seed) for seed in seeds}
    np.random.seed(5)  # nobody may listen to this
    copy = pickle.loads(pickle.dumps(two))
    for seed in reversed(seeds):
        for augment in (two, copy):
            found = augment(image, label, seed)
            assert np.array_equal(found[0], first[seed][0])
            assert np.array_equal(found[1], first[seed][1])
    assert len({found[0].tobytes() for found in first.values()}) == len(seeds)


def test_steps_draw_independently() -> None:
    """Seeded alike, two flips of p = 1/2 would always happen together."""
    image, label, _ = coordinates()
    steps = [{"name": "HorizontalFlip", "p": 0.5}, {"name": "VerticalFlip", "p": 0.5}]
    augment = build_augmentation(steps, SIZE)
    flips = []
    for index in range(200):
        corner = augment(image, label, (0, 1, index))[0][0, 0] - 40
        flips.append((bool(corner[0] > 0), bool(corner[1] > 0)))
    for both in ((False, False), (False, True), (True, False), (True, True)):
        assert 30 <= flips.count(both) <= 70  # 50 expected, standard deviation 6


def test_elastic_deformation_has_the_papers_size() -> None:
    """Displacements of 10 px at the grid points; in between bicubic weights average it."""
    weights = _bicubic(41, 3)
    assert np.allclose(weights.sum(1), 1)
    assert np.allclose(weights[[0, 20, 40]], np.eye(3))
    # A cubic convolution repeats a straight line away from the ends.
    assert np.allclose(_bicubic(61, 7)[10:51] @ np.arange(7), np.linspace(1, 5, 41))
    step = build_augmentation([{"name": "ElasticDeformation"}], SIZE)._compose.transforms[0]
    step.set_random_seed(0)
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    at_corner = []
    for _ in range(400):
        maps = step.get_params_dependent_on_data({"shape": (*SIZE, 3)}, {})
        at_corner += [maps["map_x"][0, 0] - x[0, 0], maps["map_y"][-1, -1] - y[-1, -1]]
    assert np.std(at_corner) == pytest.approx(10, rel=0.1)
    assert np.mean(at_corner) == pytest.approx(0, abs=1.1)


def test_elastic_deformation_mirrors_the_frame() -> None:
    image, label, _ = coordinates()
    image_, label_, _ = build_augmentation([{"name": "ElasticDeformation", "sigma": 25}], SIZE)(
        image, label, (0, 1, 0)
    )
    assert (label_ == VOID).any()
    assert (image_[..., 2] == 255).all()  # no black anywhere


def test_read_only_arrays_are_fine() -> None:
    image, label, weight = coordinates()
    for array in (image, label, weight):
        array.flags.writeable = False
    for steps in ([], STEPS):
        found = build_augmentation(steps, SIZE)(image, label, (0, 1, 2), weight)
        assert all(array is not None and array.flags.writeable for array in found)


# --- mistakes --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("step", "reason"),
    [
        (
            {"name": "HorizontalFlop"},
            "augment 1: .* 'HorizontalFlop'. Did you mean 'HorizontalFlip'",
        ),
        ({"p": 0.5}, "no augmentation None"),
        ({"name": "Affine", "rotat": 3}, "Affine has no argument 'rotat'. Did you mean 'rotate'"),
        ({"name": "HorizontalFlip", "q": 3}, "no argument 'q'. It takes p"),
        ({"name": "HorizontalFlip", "always_apply": True}, "no argument 'always_apply'"),
        ({"name": "Affine", "scale": "big"}, "Affine refuses this: .*scale"),
        ({"name": "RandomCrop"}, "RandomCrop refuses this: .*height"),
        ({"name": "ElasticDeformation", "grid": 1}, "grid at least 2"),
        ({"name": "OneOf", "transforms": [{"name": "Flop"}]}, "augment 1.1: .* 'Flop'"),
    ],
)
def test_mistakes_in_a_step(step: dict[str, Any], reason: str) -> None:
    with pytest.raises(UsageError, match=reason) as caught:
        build_augmentation([step], SIZE)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("step", "reason"),
    [
        ({"name": "Normalize"}, "it makes float32"),
        ({"name": "RandomCrop", "height": 500, "width": 20, "p": 0.1}, "augment 2: RandomCrop"),
        ({"name": "ToGray", "num_output_channels": 1}, "augment 2: ToGray"),
    ],
)
def test_steps_that_cannot_work_on_the_frames(step: dict[str, Any], reason: str) -> None:
    image, label, _ = coordinates()
    augment = build_augmentation([{"name": "HorizontalFlip"}, step], SIZE)
    with pytest.raises(UsageError, match=reason):
        augment.check(image, label)
    Augmentation([*STEPS, *GEOMETRIC], SIZE).check(image, label)


def test_import_asks_no_network() -> None:
    code = (
        "import os, socket; os.environ.pop('NO_ALBUMENTATIONS_UPDATE', None)\n"
        "def no(*_, **__): raise SystemExit('network')\n"
        "socket.socket.connect = socket.getaddrinfo = no\n"
        "import smp_camvid.data.transforms"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
