"""Boundary F1, calibration, intervals and the peers' definitions against references that import
nothing of ours: scikit-learn, smp's own metrics, and loops over pixels."""

from __future__ import annotations

import itertools
import math
import re
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import segmentation_models_pytorch as smp
import torch
from sklearn.calibration import calibration_curve
from sklearn.metrics import jaccard_score

from smp_camvid.data.classes import CAMVID11, ClassTable
from smp_camvid.evaluation.bootstrap import Bootstrap, interval, resampled
from smp_camvid.evaluation.boundary import boundary_counts, class_f1, default_tolerance
from smp_camvid.evaluation.calibration import calibration_counts, calibration_error, reliability
from smp_camvid.evaluation.definitions import peers
from smp_camvid.evaluation.document import iou_intervals
from smp_camvid.evaluation.metrics import class_iou, mean_iou

VOID = 255
Labels = npt.NDArray[np.int64]


def regions(rng: np.random.Generator, frames: int, classes: list[int], void: float) -> Labels:
    """Rectangles of classes `[B, 13, 17]`, some pixels void."""
    labels = rng.choice(classes, size=(frames, 1, 1)) * np.ones((1, 13, 17), np.int64)
    for frame, _ in itertools.product(range(frames), range(8)):
        y, x, h, w = rng.integers((13, 17, 8, 8))
        labels[frame, y : y + h + 1, x : x + w + 1] = rng.choice(classes)
    labels[rng.random(labels.shape) < void] = VOID
    return labels


def outline(labels: Labels, of: int) -> list[tuple[int, int]]:
    """Pixels of a class with a neighbour of another, by the words of the definition."""
    found = []
    height, width = labels.shape
    for y, x in itertools.product(range(height), range(width)):
        around = [(y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)]
        inside = [labels[b, a] for b, a in around if 0 <= b < height and 0 <= a < width]
        if labels[y, x] == of and any(value not in (of, VOID) for value in inside):
            found.append((y, x))
    return found


def share_near(these: list[tuple[int, int]], those: list[tuple[int, int]], limit: float) -> float:
    near = sum(any(math.dist(a, b) <= limit for b in those) for a in these)
    return near / len(these) if these else 0.0


def f1_by_hand(found: Labels, target: Labels, of: int, limit: float) -> float | None:
    """Mean over frames for one class."""
    scores = []
    for guess, truth in zip(np.where(target == VOID, VOID, found), target, strict=True):
        mine, real = outline(guess, of), outline(truth, of)
        if mine or real:
            precision, recall = share_near(mine, real, limit), share_near(real, mine, limit)
            both = precision + recall
            scores.append(2 * precision * recall / both if both else 0.0)
    return sum(scores) / len(scores) if scores else None


def f1_of(found: Labels, target: Labels, classes: int, limit: float) -> npt.NDArray[np.float64]:
    counts = boundary_counts(torch.from_numpy(found), torch.from_numpy(target), classes, limit)
    return class_f1(counts.numpy())


@pytest.mark.parametrize("limit", [0.0, 1.0, 1.5, 2.3, 4.5, 40.0])
@pytest.mark.parametrize(
    ("classes", "void"), [([0, 1, 2], 0.0), ([0, 1, 2, 3], 0.2), ([0, 61, 62, 69], 0.05)]
)
def test_boundary_f1_is_what_a_loop_over_pixels_finds(
    classes: list[int], void: float, limit: float
) -> None:
    rng = np.random.default_rng(len(classes))
    target = regions(rng, 3, classes, void)
    found = np.where(rng.random(target.shape) < 0.97, target, rng.choice(classes, target.shape))
    found[0] = np.roll(found[0], 2, axis=1)
    hidden = (target == VOID) | (found == VOID)
    found[hidden] = rng.choice(classes, hidden.sum())
    scores = f1_of(found, target, max(classes) + 1, limit)
    assert np.isnan(np.delete(scores, classes)).all()
    for of in classes:
        expected = f1_by_hand(found, target, of, limit)
        assert expected is not None and scores[of] == pytest.approx(expected, abs=1e-12)
    assert (scores[classes] < 1).all() or limit == 40


def test_boundaries_in_and_around_void_do_not_count() -> None:
    target = np.zeros((1, 6, 12), np.int64)
    target[:, :, 4:8] = VOID
    target[:, :, 8:] = 1  # the classes meet only across void
    found = np.where(target == VOID, 0, target)
    found[:, :, 6:8] = 1
    assert np.isnan(f1_of(found, target, 2, 2.0)).all()
    found[:, 2, 5] = 1  # whatever is predicted under void
    assert np.isnan(f1_of(found, target, 2, 2.0)).all()
    found[:, 2, 1] = 1  # and one that is not
    assert f1_of(found, target, 2, 2.0).tolist() == [0.0, 0.0]
    assert np.isnan(f1_of(found, np.full_like(target, VOID), 2, 2.0)).all()


def test_a_shift_within_the_tolerance_costs_nothing_and_one_beyond_it_all() -> None:
    target = np.zeros((1, 4, 40), np.int64)
    target[:, :, 20:] = 1
    for shift, score in ((0, 1.0), (3, 1.0), (5, 0.0)):
        assert f1_of(np.roll(target, shift, 2)[:, :, 6:], target[:, :, 6:], 2, 4.0)[1] == score
    assert default_tolerance((360, 480)) == pytest.approx(4.5)
    assert default_tolerance((48, 64)) == 1.0


def noisy(seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Scores of 3 frames and 5 classes that are right more often when they are sure."""
    generator = torch.Generator().manual_seed(seed)
    target = torch.randint(0, 5, (3, 9, 11), generator=generator)
    scores = torch.randn(3, 5, 9, 11, generator=generator) * 2
    scores += 2 * torch.nn.functional.one_hot(target, 5).permute(0, 3, 1, 2)
    target[torch.rand(target.shape, generator=generator) < 0.3] = VOID
    return scores, scores.argmax(1), target


@pytest.mark.parametrize("seed", range(3))
def test_calibration_agrees_with_scikit_learn(seed: int) -> None:
    scores, found, target = noisy(seed)
    frames = calibration_counts(scores, found, target)
    counts = frames.sum(0).numpy()
    counted = (target != VOID).numpy()
    sure = scores.softmax(1).amax(1).double().numpy()[counted]
    right = (found == target).numpy()[counted]
    accuracy, confidence = calibration_curve(right, sure, n_bins=15)
    filled = [one for one in reliability(counts) if one["pixels"]]
    assert [one["accuracy"] for one in filled] == pytest.approx(list(accuracy), abs=1e-6)
    assert [one["confidence"] for one in filled] == pytest.approx(list(confidence), abs=1e-6)
    pixels = np.array([one["pixels"] for one in filled])
    assert pixels.sum() == counted.sum()
    expected = (np.abs(accuracy - confidence) * pixels).sum() / pixels.sum()
    assert calibration_error(counts) == pytest.approx(expected, abs=1e-6)
    alone = calibration_counts(scores[1:2], found[1:2], target[1:2])
    assert torch.allclose(frames[1:2], alone)


def test_calibration_at_its_ends() -> None:
    target = torch.zeros(1, 4, 5, dtype=torch.long)
    certain = torch.stack([torch.full((1, 4, 5), 50.0), torch.zeros(1, 4, 5)], 1)
    right = calibration_counts(certain, target, target)[0].numpy()
    assert calibration_error(right) == 0.0 and right[0, -1] == 20
    wrong = calibration_counts(certain.flip(1), target + 1, target)[0].numpy()
    assert calibration_error(wrong) == 1.0
    nothing = calibration_counts(certain, target, torch.full_like(target, VOID))[0].numpy()
    assert calibration_error(nothing) is None and reliability(nothing)[3]["accuracy"] is None


def frames_of(rng: np.random.Generator, lengths: list[int]) -> tuple[Labels, Labels]:
    """Truth and prediction `[N, 40]` of 4 classes; accuracy drifts slowly along each drive, class
    3 is in few frames, frame 2 is void."""
    count = sum(lengths)
    target = rng.integers(3, size=(count, 40))
    target[5:8, :4] = 3
    target[2] = VOID
    chance = np.concatenate([0.6 + 0.35 * np.sin(np.arange(n) / 6) for n in lengths])[:, None]
    found = np.where(rng.random(target.shape) < chance, target % 251, rng.integers(3, size=(40,)))
    return found, target


def count(found: Labels, target: Labels, classes: int) -> npt.NDArray[np.int64]:
    """`[N, 3, C]` by loops."""
    rows = []
    for guess, truth in zip(found, target, strict=True):
        seen = truth != VOID
        rows.append(
            [
                [((guess == c) & (truth == c)).sum() for c in range(classes)],
                [(truth == c).sum() for c in range(classes)],
                [((guess == c) & seen).sum() for c in range(classes)],
            ]
        )
    return np.array(rows)


TABLE4 = ClassTable("dataset", ("a", "b", "c", "d"), ((0, 0, 0),) * 4)


def test_intervals_are_those_of_pixels_drawn_block_by_block() -> None:
    lengths, block, resamples, seed = [13, 7, 4], 5, 150, 3
    found, target = frames_of(np.random.default_rng(0), lengths)
    drives = ["x"] * 13 + ["y"] * 7 + ["z"] * 4
    rng, starts = np.random.default_rng(seed), []
    for length in lengths:
        starts.append(rng.integers(length, size=(resamples, math.ceil(length / block))))
    means, of_class = [], [[], [], [], []]
    for draw in range(resamples):
        frames: list[int] = []
        for begin, (length, mine) in enumerate(zip(lengths, starts, strict=True)):
            chosen = [(s + i) % length for s in mine[draw] for i in range(block)][:length]
            frames += [sum(lengths[:begin]) + one for one in chosen]
        truth, guess = target[frames].ravel(), found[frames].ravel()
        guess, truth = guess[truth != VOID], truth[truth != VOID]
        labels = sorted({*truth, *guess})
        scores = jaccard_score(truth, guess, labels=labels, average=None)
        means.append(scores.mean())
        for label, score in zip(labels, scores, strict=True):
            of_class[label].append(score)
    counts = count(found, target, 4)
    bootstrap = Bootstrap(block, resamples, seed)
    mean, each = iou_intervals(counts, TABLE4, drives, bootstrap)
    assert mean == pytest.approx(list(np.quantile(means, [0.025, 0.975])), abs=1e-9)
    for mine, theirs in zip(each, of_class, strict=True):
        assert mine == pytest.approx(list(np.quantile(theirs, [0.025, 0.975])), abs=1e-9)
    other = iou_intervals(counts, TABLE4, drives, Bootstrap(block, resamples, seed + 1))[0]
    assert mean != pytest.approx(other, abs=1e-9)


def test_every_frame_is_drawn_equally_often_and_drives_keep_their_length() -> None:
    drives = ["x"] * 11 + ["y"] * 6
    weights = Bootstrap(4, 6000).weights(drives)
    assert weights is not None
    assert (weights[:, :11].sum(1) == 11).all() and (weights[:, 11:].sum(1) == 6).all()
    assert weights.mean(0) == pytest.approx(np.ones(17), abs=0.06)
    # A block keeps neighbours together: being drawn goes with the neighbour's being drawn.
    single = Bootstrap(1, 6000).weights(drives)
    assert single is not None
    together = [np.corrcoef(drawn[:, 4], drawn[:, 5])[0, 1] for drawn in (weights, single)]
    assert together[0] > 0.5 and together[1] < 0.1


def test_blocks_widen_the_interval_of_frames_that_resemble_their_neighbours() -> None:
    found, target = frames_of(np.random.default_rng(1), [120])
    counts = count(found, target, 4)

    def width(counts: npt.NDArray[np.int64], block: int) -> float:
        low, high = iou_intervals(counts, TABLE4, ["x"] * 120, Bootstrap(block))[0] or (0, 0)
        return float(high - low)

    assert width(counts, 20) > 1.7 * width(counts, 1)
    shuffled = counts[np.random.default_rng(2).permutation(120)]
    assert width(shuffled, 20) < 1.4 * width(shuffled, 1)


def test_single_frames_give_the_interval_that_statistics_books_give() -> None:
    values = np.random.default_rng(0).normal(50, 10, (400, 1)).round().astype(np.int64)
    weights = Bootstrap(1, 4000).weights(["x"] * 400)
    assert weights is not None
    low, high = interval(resampled(weights, values)[:, 0] / 400) or (0, 0)
    half = 1.96 * values.std() / 20
    expected = [values.mean() - half, values.mean() + half]
    assert [low, high] == pytest.approx(expected, abs=0.1 * half)


def test_too_few_blocks_give_no_interval() -> None:
    found, target = frames_of(np.random.default_rng(0), [9])
    counts = count(found, target, 4)
    assert iou_intervals(counts, TABLE4, ["x"] * 9, Bootstrap(3)) == (None, [None] * 4)
    assert "9 frames make 3 blocks" in Bootstrap(3).describe(["x"] * 9)["meaning"]
    assert iou_intervals(counts, TABLE4, ["x"] * 9, Bootstrap(2))[0] is not None


def test_definitions_are_what_smp_and_scikit_learn_print() -> None:
    rng = np.random.default_rng(5)
    target = rng.choice([0, 1, 2, 4, 9], size=(6, 8, 9))
    target[rng.random(target.shape) < 0.2] = VOID
    target[3] = VOID
    found = np.where(rng.random(target.shape) < 0.7, target % 251, rng.choice([0, 1, 4, 7]))
    flat = (len(target), -1)
    counts = count(found.reshape(flat), target.reshape(flat), 11)
    mine = {one["name"]: one["miou"] for one in peers(counts, CAMVID11)}
    stats = smp.metrics.get_stats(
        torch.from_numpy(found), torch.from_numpy(target), "multiclass", VOID, num_classes=11
    )
    for name, reduction in (
        ("absent-1", "macro"),
        ("micro", "micro"),
        ("micro-imagewise", "micro-imagewise"),
        ("macro-imagewise", "macro-imagewise"),
    ):
        theirs = float(smp.metrics.iou_score(*stats, reduction=reduction))
        assert mine[name] == pytest.approx(theirs, abs=1e-6), name
    guess, truth = found[target != VOID], target[target != VOID]
    zero = jaccard_score(truth, guess, labels=range(11), average="macro", zero_division=0)
    assert mine["absent-0"] == pytest.approx(zero, abs=1e-12)
    present = jaccard_score(truth, guess, average="macro")
    assert mine["present"] == pytest.approx(present, abs=1e-12)
    each = []
    for one, real in zip(found, target, strict=True):
        if (real != VOID).any():
            each.append(jaccard_score(real[real != VOID], one[real != VOID], average="macro"))
    assert mine["frames"] == pytest.approx(np.mean(each), abs=1e-12)
    assert len({round(value, 6) for value in mine.values()}) == len(mine)  # all of them differ


def test_a_void_channel_is_no_class_in_any_definition() -> None:
    rng = np.random.default_rng(1)
    counts = rng.integers(1, 50, (4, 3, 3))
    counts[:, 1:] += counts[:, :1]
    plain = ClassTable("dataset", ("a", "b", "c"), ((0, 0, 0),) * 3)
    with_void = ClassTable("dataset", ("a", "Void", "b", "c"), ((0, 0, 0),) * 4, void_index=1)
    padded = np.insert(counts, 1, 7, axis=2)
    padded[:, :2, 1] = 0  # never right, never true, sometimes predicted
    assert peers(padded, with_void) == peers(counts, plain)


def test_the_mean_is_nan_only_where_there_is_nothing() -> None:
    counts = np.zeros((2, 3, 2), np.int64)
    counts[0, :, 0] = 4, 5, 6
    table = ClassTable("dataset", ("a", "b"), ((0, 0, 0), (1, 1, 1)))
    iou = class_iou(counts, table)
    assert iou[0, 0] == 4 / 7 and np.isnan(iou[0, 1]) and np.isnan(iou[1]).all()
    assert mean_iou(iou)[0] == 4 / 7 and np.isnan(mean_iou(iou)[1])


def test_the_example_of_the_docs_is_right() -> None:
    text = (Path(__file__).parents[1] / "docs" / "concepts-miou.md").read_text()
    said = {
        name: float(value) for name, value in re.findall(r"^\| `([\w-]+)` \| (\.\d+)", text, re.M)
    }
    rows = re.findall(r"^\| (road|car|pole) \|(.*)\| \| \1 \|(.*)\|$", text, re.M)
    frames = np.zeros((2, 4, 4), np.int64)
    for row, (_, *sides) in enumerate(rows):
        for frame, side in enumerate(sides):
            frames[frame, row] = [int(cell) for cell in side.split("|")]
    counts = np.stack([[np.diag(m), m.sum(1), m.sum(0)] for m in frames])
    assert {one["name"]: round(one["miou"], 3) for one in peers(counts, TABLE4)} == said
