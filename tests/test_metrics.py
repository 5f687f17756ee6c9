"""mIoU against scikit-learn, and its definition at the edges."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from runs_of_tests import HostReads
from sklearn.metrics import (
    confusion_matrix,
    jaccard_score,
    precision_recall_fscore_support,
)

from smp_camvid.data.classes import CAMVID11, CAMVID32, VOID, ClassTable
from smp_camvid.evaluation import examination
from smp_camvid.evaluation.boundary import boundary_counts
from smp_camvid.evaluation.calibration import calibration_counts
from smp_camvid.evaluation.metrics import ConfusionMatrix, counted, summarize


def _count(prediction: np.ndarray, target: np.ndarray, classes: int, batch: int) -> np.ndarray:
    confusion = ConfusionMatrix(classes)
    for start in range(0, len(target), batch):
        part = slice(start, start + batch)
        confusion.update(torch.from_numpy(prediction[part]), torch.from_numpy(target[part]))
    return confusion.matrix()


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("batch", [1, 3, 8])
def test_agrees_with_scikit_learn(seed: int, batch: int) -> None:
    rng = np.random.default_rng(seed)
    present = rng.choice(11, size=rng.integers(2, 11), replace=False)  # the others are absent
    target = rng.choice(present, (8, 16, 20))
    prediction = np.where(rng.random(target.shape) < 0.6, target, rng.choice(present, target.shape))
    target[rng.random(target.shape) < 0.2] = VOID
    matrix = _count(prediction, target, 11, batch)
    counted = target != VOID
    truth, guess = target[counted], prediction[counted]
    assert (matrix == confusion_matrix(truth, guess, labels=range(11))).all()
    scores = summarize(matrix, CAMVID11)
    labels = sorted(set(truth) | set(guess))
    expected = jaccard_score(truth, guess, labels=labels, average=None)
    found = [iou for iou in scores.per_class.values() if iou is not None]
    assert found == pytest.approx(list(expected), abs=1e-12)
    assert scores.miou == pytest.approx(expected.mean(), abs=1e-12)
    assert scores.classes_counted == len(labels)
    assert scores.accuracy == pytest.approx((truth == guess).mean(), abs=1e-12)
    precision, recall, dice, support = precision_recall_fscore_support(
        truth, guess, labels=range(11), zero_division=np.nan
    )
    for i, one in enumerate(scores.classes.values()):
        for mine, theirs in zip(
            (one.precision, one.recall, one.dice), (precision[i], recall[i], dice[i]), strict=True
        ):
            assert np.isnan(theirs) if mine is None else mine == pytest.approx(theirs, abs=1e-12)
    assert scores.mean_class_accuracy == pytest.approx(np.nanmean(recall), abs=1e-12)
    everyone = jaccard_score(truth, guess, labels=range(11), average=None, zero_division=0)
    weighted = (everyone * support).sum() / support.sum()
    assert scores.frequency_weighted_iou == pytest.approx(weighted, abs=1e-12)


def test_changing_what_lies_under_void_changes_nothing() -> None:
    rng = np.random.default_rng(0)
    target = rng.integers(0, 11, (2, 9, 9))
    target[:, :4] = VOID
    prediction = rng.integers(0, 11, target.shape)
    other = prediction.copy()
    other[:, :4] = rng.integers(0, 11, other[:, :4].shape)
    assert (_count(prediction, target, 11, 2) == _count(other, target, 11, 2)).all()
    other[:, 5] = (other[:, 5] + 1) % 11
    assert (_count(prediction, target, 11, 2) != _count(other, target, 11, 2)).any()


def test_an_absent_class_has_no_iou_and_a_missed_one_zero() -> None:
    matrix = np.zeros((11, 11), np.int64)
    matrix[0, 0], matrix[1, 0] = 8, 2
    scores = summarize(matrix, CAMVID11)
    assert scores.per_class["Sky"] == 0.8
    assert scores.per_class["Building"] == 0.0
    assert scores.per_class["Pole"] is None
    assert (scores.miou, scores.classes_counted) == (0.4, 2)


def test_the_void_channel_of_the_32_has_no_iou() -> None:
    matrix = np.zeros((32, 32), np.int64)
    sky, void = CAMVID32.names.index("Sky"), CAMVID32.names.index("Void")
    matrix[sky, sky], matrix[sky, void] = 3, 1
    scores = summarize(matrix, CAMVID32)
    assert "Void" not in scores.per_class and len(scores.per_class) == 31
    assert (scores.miou, scores.classes_counted) == (0.75, 1)


def test_nothing_counted_is_zero_and_not_nan() -> None:
    table = ClassTable("dataset", ("a", "b"), ((0, 0, 0), (1, 1, 1)))
    scores = summarize(np.zeros((2, 2), np.int64), table)
    assert (scores.miou, scores.accuracy, scores.classes_counted) == (0.0, 0.0, 0)


def test_counting_is_that_of_numpy() -> None:
    bins = torch.randint(0, 7, (3, 40, 50), generator=torch.Generator().manual_seed(0))
    weights = torch.rand(bins.shape, dtype=torch.float64)
    flat, weight = bins.numpy().ravel(), weights.numpy().ravel()
    assert (counted(bins, 9).numpy() == np.bincount(flat, minlength=9)).all()
    assert (counted(bins, 9, weights).numpy() == np.bincount(flat, weight, 9)).all()


def test_no_measure_waits_for_the_device() -> None:
    target = torch.randint(0, 11, (2, 16, 16))
    target[:, :4] = VOID
    scores = torch.randn(2, 11, 16, 16)
    found, confusion = scores.argmax(1), ConfusionMatrix(11)
    with HostReads() as reads:
        confusion.update(found, target)
        examination._frame_counts(11, scores, found, target)
        boundary_counts(found, target, 11, 2.0)
        calibration_counts(scores, found, target)
    assert reads.count == 0
    with HostReads() as reads:  # the counter counts
        torch.bincount(found.flatten())
    assert reads.count == 1
