"""The loss against torch and against the sum written out; the class weights' formulas."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from smp_camvid.data.camvid import open_dataset
from smp_camvid.data.classes import CAMVID11, VOID
from smp_camvid.training.losses import CrossEntropy, Frequencies, class_weights, count_frequencies


@pytest.fixture
def batch() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Logits, target with void, pixel weights, class weights."""
    g = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 5, 6, 7, generator=g) * 3
    target = torch.randint(0, 5, (2, 6, 7), generator=g)
    target[torch.rand(target.shape, generator=g) < 0.3] = VOID
    weight = torch.rand(target.shape, generator=g) * 5
    return logits, target, weight, torch.tensor([0.5, 2.0, 1.0, 0.1, 4.0])


Data = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weighted", [False, True])
def test_mean_is_torchs(batch: Data, smoothing: float, weighted: bool) -> None:
    logits, target, _, weights = batch
    used = weights if weighted else None
    total, count = CrossEntropy(used, smoothing)(logits, target)
    expected = F.cross_entropy(
        logits, target, weight=used, ignore_index=VOID, label_smoothing=smoothing
    )
    assert float(total / count) == pytest.approx(float(expected), abs=1e-6)


def by_hand(logits: np.ndarray, target: np.ndarray, weight: np.ndarray, classes: np.ndarray):  # type: ignore[no-untyped-def]
    total = count = 0.0
    for (b, y, x), t in np.ndenumerate(target):
        if t == VOID:
            continue
        scores = logits[b, :, y, x].astype(float)
        w = float(weight[b, y, x]) * float(classes[t])
        total += w * (math.log(np.exp(scores).sum()) - scores[t])
        count += w
    return total, count


def test_pixel_and_class_weights_multiply(batch: Data) -> None:
    logits, target, weight, weights = batch
    total, count = CrossEntropy(weights)(logits, target, weight)
    expected = by_hand(*(t.numpy() for t in batch))
    assert (float(total), float(count)) == pytest.approx(expected, rel=1e-6)
    assert torch.equal(CrossEntropy(weights).count(target, weight), count)


def test_count_without_weights_is_the_number_of_pixels(batch: Data) -> None:
    logits, target, _, _ = batch
    total, count = CrossEntropy()(logits, target)
    assert int(count) == int((target != VOID).sum())
    expected = F.cross_entropy(logits, target, ignore_index=VOID, reduction="sum")
    assert float(total) == pytest.approx(float(expected), rel=1e-6)


def test_what_is_under_void_has_no_effect(batch: Data) -> None:
    logits, target, weight, weights = batch
    loss, void = CrossEntropy(weights, 0.1), target == VOID
    first = logits.clone().requires_grad_()
    other = torch.where(void[:, None], torch.randn_like(logits) * 50, logits).requires_grad_()
    spoilt = torch.where(void, torch.nan, weight)
    results = loss(first, target, weight), loss(other, target, spoilt)
    assert torch.equal(results[0][0], results[1][0])
    assert torch.equal(results[0][1], results[1][1])
    for total, _ in results:
        total.backward()
    assert first.grad is not None and other.grad is not None
    assert torch.equal(first.grad, other.grad)
    assert (first.grad[void[:, None].expand_as(logits)] == 0).all()
    # Negative control: the same change elsewhere is noticed.
    moved = torch.where(void[:, None], logits, logits + torch.randn_like(logits))
    assert not torch.equal(loss(moved, target, weight)[0], results[0][0])


def test_parts_add_up_to_the_whole(batch: Data) -> None:
    logits, target, weight, weights = batch
    loss = CrossEntropy(weights)
    whole = loss(logits, target, weight)
    parts = [loss(logits[i : i + 1], target[i : i + 1], weight[i : i + 1]) for i in range(2)]
    for k in range(2):
        assert float(whole[k]) == pytest.approx(float(parts[0][k] + parts[1][k]), rel=1e-6)
    means = [float(total / count) for total, count in parts]
    assert abs(sum(means) / 2 - float(whole[0] / whole[1])) > 1e-3  # a mean of means is not it


def test_void_alone_is_nothing(batch: Data) -> None:
    logits, target, weight, weights = batch
    logits = logits.requires_grad_()
    total, count = CrossEntropy(weights, 0.1)(logits, torch.full_like(target, VOID), weight)
    total.backward()
    assert (float(total.detach()), float(count)) == (0, 0)
    assert logits.grad is not None and (logits.grad == 0).all()


def test_low_precision_logits_are_summed_in_float32(batch: Data) -> None:
    logits, target, _, _ = batch
    total, count = CrossEntropy()(logits.bfloat16(), target)
    assert total.dtype == count.dtype == torch.float32
    expected = CrossEntropy()(logits.bfloat16().float(), target)[0]
    assert torch.equal(total, expected)


# --- class weights ---------------------------------------------------------------------------

LABELS = [
    np.array([[0, 0, 0, 1], [0, 0, 0, VOID]], np.uint8),  # 7 pixels: six of 0, one of 1
    np.array([[0, 2, 2, 2], [2, VOID, VOID, VOID]], np.uint8),  # 5 pixels: one of 0, four of 2
]


def test_frequencies() -> None:
    found = count_frequencies(LABELS, 4)
    assert found.share == pytest.approx((7 / 12, 1 / 12, 4 / 12, 0))
    assert found.share_where_present == pytest.approx((7 / 12, 1 / 7, 4 / 5, 0))


def test_formulas() -> None:
    found = count_frequencies(LABELS, 4)
    assert class_weights("none", found) is None
    log = class_weights("log", found, 1.1)
    assert log is not None and log.dtype == torch.float32
    expected = [1 / math.log(1.1 + p) for p in (7 / 12, 1 / 12, 4 / 12)]
    assert log.tolist() == pytest.approx([*expected, 0], rel=1e-6)
    median = class_weights("median", found)
    middle = 7 / 12  # of 1/7, 7/12, 4/5
    assert median is not None
    expected = [1, middle * 7, middle / (4 / 5)]
    assert median.tolist() == pytest.approx([*expected, 0], rel=1e-6)


def test_rare_classes_weigh_more() -> None:
    camvid = (0.175, 0.242, 0.010, 0.330, 0.047, 0.101, 0.012, 0.012, 0.061, 0.0067, 0.0030)
    frequencies = Frequencies(camvid, camvid)
    log, median = class_weights("log", frequencies), class_weights("median", frequencies)
    assert log is not None and median is not None
    for weights in (log, median):
        assert (int(weights.argmax()), int(weights.argmin())) == (10, 3)
    assert median.max() / median.min() == pytest.approx(0.330 / 0.0030)
    assert log.max() / log.min() < 4


@pytest.mark.slow
def test_real_frequencies(real_data) -> None:  # type: ignore[no-untyped-def]
    dataset = open_dataset(real_data)
    labels = (dataset.load_label(frame) for frame in dataset.split("train"))
    found = count_frequencies(labels, len(CAMVID11))
    published = (17.5, 24.2, 1.0, 33.0, 4.7, 10.1, 1.2, 1.2, 6.1, 0.67, 0.30)
    assert np.allclose(np.array(found.share) * 100, published, atol=0.06)
