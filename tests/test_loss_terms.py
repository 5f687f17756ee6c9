"""Every term against a closed form or a reference that is written another way; void everywhere."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from segmentation_models_pytorch.losses import DiceLoss
from sklearn.metrics import f1_score, jaccard_score

from smp_camvid.data.classes import VOID
from smp_camvid.training.loss_terms import (
    CrossEntropyTerm,
    DiceTerm,
    FocalTerm,
    LovaszTerm,
    OhemTerm,
    Term,
    lovasz_slopes,
    one_hot,
)
from smp_camvid.training.losses import CrossEntropy, Loss

Array = np.ndarray
CLASS_WEIGHTS = torch.tensor([0.5, 2.0, 1.0, 0.1, 4.0])

ALL: dict[str, Callable[[], Term]] = {
    "cross_entropy": CrossEntropyTerm,
    "cross_entropy, weighted and smoothed": lambda: CrossEntropyTerm(CLASS_WEIGHTS, 0.1),
    "focal": FocalTerm,
    "focal, weighted, gamma .5": lambda: FocalTerm(CLASS_WEIGHTS, 0.5),
    "dice": DiceTerm,
    "lovasz": LovaszTerm,
    "ohem": OhemTerm,
}
every_term = pytest.mark.parametrize("name", ALL)


def loss_of(term: Term) -> Loss:
    return Loss({"term": term}, {"term": 1.0})


def value(term: Term, *batch: torch.Tensor) -> float:
    loss = loss_of(term)
    return float(loss.total(*loss(*batch)))


@pytest.fixture
def batch() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Logits, target with void and an absent class, pixel weights."""
    g = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 5, 6, 7, generator=g) * 2
    target = torch.randint(0, 5, (3, 6, 7), generator=g)
    target[0][target[0] == 3] = 1  # absent from one frame
    target[torch.rand(target.shape, generator=g) < 0.3] = VOID
    return logits, target, torch.rand(target.shape, generator=g) * 5


Data = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def pixels(logits: torch.Tensor, target: torch.Tensor) -> Iterator[tuple[Array, Array]]:
    """Frame by frame, without void: probabilities `[N, C]` in float64 and labels `[N]`."""
    for scores, label in zip(logits.double().numpy(), target.numpy(), strict=True):
        counted = label != VOID
        powers = np.exp(scores[:, counted].T)
        yield powers / powers.sum(1, keepdims=True), label[counted]


# --- over pixels -----------------------------------------------------------------------------


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weights", [None, CLASS_WEIGHTS])
def test_cross_entropy_is_torchs(
    batch: Data, smoothing: float, weights: torch.Tensor | None
) -> None:
    logits, target, _ = batch
    expected = F.cross_entropy(
        logits, target, weight=weights, ignore_index=VOID, label_smoothing=smoothing
    )
    found = value(CrossEntropyTerm(weights, smoothing), logits, target)
    assert found == pytest.approx(float(expected), abs=1e-6)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0, 5.0])
def test_focal_written_out(batch: Data, gamma: float) -> None:
    logits, target, weight = batch
    total = count = 0.0
    for frame, (probs, labels) in enumerate(pixels(logits, target)):
        pixel_weights = weight[frame][target[frame] != VOID].tolist()
        for p, t, w in zip(probs, labels, pixel_weights, strict=True):
            total += w * float(CLASS_WEIGHTS[t]) * (1 - p[t]) ** gamma * -math.log(p[t])
            count += w * float(CLASS_WEIGHTS[t])
    loss = loss_of(FocalTerm(CLASS_WEIGHTS, gamma))
    sums, counts = loss(logits, target, weight)
    assert (float(sums), float(counts)) == pytest.approx((total, count), rel=1e-6)
    if gamma == 0:
        same = CrossEntropy(CLASS_WEIGHTS)(logits, target, weight)
        assert torch.allclose(sums, same[0]) and torch.equal(counts, same[1])


def test_pixel_and_class_weights_multiply(batch: Data) -> None:
    logits, target, weight = batch
    total = count = 0.0
    for frame, (probs, labels) in enumerate(pixels(logits, target)):
        for p, t, w in zip(probs, labels, weight[frame][target[frame] != VOID], strict=True):
            total += float(w) * float(CLASS_WEIGHTS[t]) * -math.log(p[t])
            count += float(w) * float(CLASS_WEIGHTS[t])
    sums, counts = CrossEntropy(CLASS_WEIGHTS)(logits, target, weight)
    assert (float(sums), float(counts)) == pytest.approx((total, count), rel=1e-6)


def test_a_certain_pixel_has_no_slope_in_the_focal_loss() -> None:
    logits = torch.tensor([[200.0, 0.0]]).reshape(1, 2, 1, 1).requires_grad_()
    loss = loss_of(FocalTerm(gamma=0.5))
    loss.total(*loss(logits, torch.zeros(1, 1, 1, dtype=torch.long))).backward()
    assert logits.grad is not None and (logits.grad == 0).all()


# --- over frames -----------------------------------------------------------------------------


def dice_reference(probs: Array, labels: Array) -> float:
    losses = []
    for c in np.unique(labels):
        truth = labels == c
        losses.append(1 - 2 * probs[truth, c].sum() / (probs[:, c].sum() + truth.sum()))
    return float(np.mean(losses))


def lovasz_reference(probs: Array, labels: Array) -> float:
    """The Lovasz extension as an integral: of the Jaccard loss of {error >= x}, x from 0 to 1."""
    losses = []
    for c in np.unique(labels):
        truth = labels == c
        errors = np.where(truth, 1 - probs[:, c], probs[:, c])
        levels = np.unique([0.0, *errors])
        integral = 0.0
        for low, high in pairwise(levels):
            wrong = errors >= high  # all through the interval
            integral += (high - low) * wrong.sum() / (truth | wrong).sum()
        losses.append(integral)
    return float(np.mean(losses))


def ohem_reference(probs: Array, labels: Array, share: float = 0.25) -> float:
    losses = np.sort(-np.log(probs[np.arange(len(labels)), labels]))[::-1]
    return float(losses[: max(1, round(share * len(labels)))].mean())


@pytest.mark.parametrize(
    ("term", "reference"),
    [(DiceTerm, dice_reference), (LovaszTerm, lovasz_reference), (OhemTerm, ohem_reference)],
)
def test_frame_terms_are_their_references(
    batch: Data, term: Callable[[], Term], reference: Callable[[Array, Array], float]
) -> None:
    logits, target, weight = batch
    expected = sum(reference(*frame) for frame in pixels(logits, target))
    for weights in ((), (weight,)):  # pixel weights are none of theirs
        sums, counts = loss_of(term())(logits, target, *weights)
        assert float(counts) == 3
        assert float(sums) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("share", [0.001, 0.3, 1.0])
def test_ohem_keeps_a_share_and_at_least_one(batch: Data, share: float) -> None:
    logits, target, _ = batch
    expected = sum(ohem_reference(*frame, share) for frame in pixels(logits, target))
    sums, _ = loss_of(OhemTerm(share))(logits, target)
    assert float(sums) == pytest.approx(expected, rel=1e-6)


def test_ohem_learns_from_the_hardest_alone(batch: Data) -> None:
    logits, target, _ = batch
    leaf = logits.requires_grad_()
    loss_of(OhemTerm(0.1))(leaf, target)[0].backward()
    assert leaf.grad is not None
    for frame in range(3):
        learned = (leaf.grad[frame] != 0).any(0)
        assert int(learned.sum()) == round(0.1 * int((target[frame] != VOID).sum()))


def test_equally_hard_pixels_are_not_all_kept() -> None:
    logits = torch.zeros(1, 3, 4, 5, requires_grad=True)
    sums, _ = loss_of(OhemTerm(0.25))(logits, torch.ones(1, 4, 5, dtype=torch.long))
    sums.backward()
    assert float(sums.detach()) == pytest.approx(math.log(3), abs=1e-6)
    assert logits.grad is not None and int((logits.grad != 0).any(1).sum()) == 5


def test_certain_predictions_score_as_scikit_learn_says() -> None:
    """Where every probability is 0 or 1, soft Dice is 1 - F1 and Lovasz 1 - IoU."""
    rng = np.random.default_rng(0)
    target = rng.integers(0, 4, (8, 9))  # class 4 is absent, and predicted
    target[rng.random(target.shape) < 0.2] = VOID
    predicted = rng.integers(0, 5, (8, 9))
    logits = torch.from_numpy(np.eye(5)[predicted]).permute(2, 0, 1)[None].float() * 200
    truth, claim = target[target != VOID], predicted[target != VOID]
    present = np.unique(truth)
    for term, score in ((DiceTerm(), f1_score), (LovaszTerm(), jaccard_score)):
        expected = 1 - score(truth, claim, labels=present, average="macro")
        found = value(term, logits, torch.from_numpy(target)[None])
        assert found == pytest.approx(expected, abs=1e-6)


def test_dice_is_smps_frame_by_frame(batch: Data) -> None:
    logits, target, _ = batch
    smp = DiceLoss("multiclass", ignore_index=VOID)
    expected = 0.0
    for frame in range(3):
        labels = target[frame : frame + 1]
        present = len(labels[labels != VOID].unique())
        # smp counts absent classes as perfect.
        expected += float(smp(logits[frame : frame + 1], labels)) * 5 / present
    assert value(DiceTerm(), logits, target) == pytest.approx(expected / 3, abs=1e-6)


def test_lovasz_at_once_is_lovasz_class_by_class() -> None:
    """What a GPU computes, without a look at which classes a frame has, and what a CPU does."""
    generator = torch.Generator().manual_seed(3)
    log_probs = torch.randn(3, 5, 12, 10, generator=generator).log_softmax(1)
    target = torch.randint(0, 4, (3, 12, 10), generator=generator)  # class 4 is nowhere
    target[0, :6] = VOID
    target[1] = torch.where(target[1] == 2, 0, target[1])
    target[2] = VOID  # a frame with nothing to judge
    truth = one_hot(target, 5)
    errors = torch.where(truth, 1 - log_probs.exp(), log_probs.exp())
    errors[0, :, 7:9] = errors[0, :1, 7:8, :1]  # ties
    given = (errors, truth, target != VOID)
    apart, at_once = LovaszTerm._slopes(*given), LovaszTerm._slopes_at_once(*given)
    assert torch.equal(at_once, apart) and apart.abs().sum() > 0
    assert not at_once[2].any() and not at_once[:, 4].any() and not at_once[1, 2].any()
    errors[0, 1, 8, 3] = float("nan")  # comes through
    assert (errors * LovaszTerm._slopes_at_once(*given)).sum().isnan()


def test_lovasz_slopes_are_the_differences_of_the_paper() -> None:
    g = torch.Generator().manual_seed(1)
    errors = torch.rand(500, generator=g, dtype=torch.float64)
    truth = torch.rand(500, generator=g) < 0.2
    order = errors.argsort(descending=True)
    found = truth[order].double()
    union = found.sum() + (1 - found).cumsum(0)
    jaccard = 1 - (found.sum() - found.cumsum(0)) / union
    expected = jaccard.diff(prepend=jaccard.new_zeros(1))
    assert (lovasz_slopes(errors, truth)[order] - expected).abs().max() < 1e-12
    # In float32 the written-out differences keep their digits.
    coarse = lovasz_slopes(errors.float(), truth)[errors.float().argsort(descending=True)]
    assert ((coarse - expected) / expected.clamp(min=1e-9)).abs().max() < 1e-5


@every_term
def test_float32_is_enough_on_a_large_frame(name: str) -> None:
    g = torch.Generator().manual_seed(2)
    logits = torch.randn(1, 5, 120, 160, generator=g) * 3
    target = torch.randint(0, 5, (1, 120, 160), generator=g)
    assert value(ALL[name](), logits, target) == pytest.approx(
        value(ALL[name](), logits.double(), target), rel=1e-5
    )


# --- what holds for all ----------------------------------------------------------------------


@every_term
def test_gradient_is_that_of_the_value(name: str, batch: Data) -> None:
    logits, target, weight = (t[:2, ..., :2, :4] for t in batch)
    assert (target == VOID).any()
    leaf = logits.double().requires_grad_()
    loss = loss_of(ALL[name]())
    assert torch.autograd.gradcheck(lambda x: loss(x, target, weight.double())[0], (leaf,))


def value_and_gradient(loss: Loss, *batch: torch.Tensor) -> tuple[torch.Tensor, ...]:
    leaf = batch[0].clone().requires_grad_()
    sums, counts = loss(leaf, *batch[1:])
    loss.total(sums, counts).backward()
    assert leaf.grad is not None
    return sums.detach(), counts, leaf.grad


@every_term
@pytest.mark.parametrize("under_void", ["noise", "inf", "nan"])
def test_what_is_under_void_has_no_effect(name: str, under_void: str, batch: Data) -> None:
    logits, target, weight = batch
    void, loss = target == VOID, loss_of(ALL[name]())
    noise = torch.randn(logits.shape, generator=torch.Generator().manual_seed(3)) * 50
    filling = noise if under_void == "noise" else torch.full_like(noise, float(under_void))
    first = value_and_gradient(loss, logits, target, weight)
    other = value_and_gradient(
        loss,
        torch.where(void.unsqueeze(1), filling, logits),
        target,
        torch.where(void, torch.nan, weight),
    )
    assert all(torch.equal(a, b) for a, b in zip(first, other, strict=True))
    assert (first[2][void.unsqueeze(1).expand_as(logits)] == 0).all()
    assert first[2].isfinite().all()
    # Negative control: the same change elsewhere is noticed.
    moved = torch.where(void.unsqueeze(1), logits, logits + noise)
    assert not torch.equal(value_and_gradient(loss, moved, target, weight)[0], first[0])


@every_term
def test_relabelling_a_pixel_as_void_takes_it_out(name: str, batch: Data) -> None:
    """A frame without a pixel column equals the frame whose column is void."""
    logits, target, weight = batch
    target = target.where(target != VOID, 2)
    emptied = target.clone()
    emptied[..., 3] = VOID
    left = [0, 1, 2, 4, 5, 6]
    found = value(ALL[name](), logits, emptied, weight)
    expected = value(ALL[name](), logits[..., left], target[..., left], weight[..., left])
    assert found == pytest.approx(expected, rel=1e-6)
    assert abs(value(ALL[name](), logits, target, weight) - expected) > 1e-4


@every_term
def test_a_nan_that_counts_is_never_swallowed(name: str, batch: Data) -> None:
    logits, target, weight = batch
    y, x = (target[1] != VOID).nonzero()[0].tolist()
    spoilt = logits.clone()
    spoilt[1, :, y, x] = torch.nan
    assert math.isnan(value(ALL[name](), spoilt, target, weight))


@every_term
def test_an_absent_class_given_no_probability_at_all(name: str, batch: Data) -> None:
    logits, target, _ = (t[:1].clone() for t in batch)  # class 3 is absent from this frame
    logits[:, 3] = -300
    _, _, gradient = value_and_gradient(loss_of(ALL[name]()), logits, target)
    assert gradient.isfinite().all() and (gradient != 0).any()


@every_term
def test_one_pixel(name: str) -> None:
    logits = torch.tensor([1.0, -1.0, 0.5, 0.0, 0.0]).reshape(1, 5, 1, 1).requires_grad_()
    loss = loss_of(ALL[name]())
    sums, counts = loss(logits, torch.full((1, 1, 1), 2))
    loss.total(sums, counts).backward()
    p = float(logits.detach().softmax(1)[0, 2])
    expected = {"lovasz": 1 - p, "dice": 1 - 2 * p / (p + 1), "ohem": -math.log(p)}.get(name)
    if expected is not None:
        assert float(sums.detach()) == pytest.approx(expected, abs=1e-6)
    assert logits.grad is not None and logits.grad.isfinite().all()


@every_term
def test_a_step_downhill_helps(name: str, batch: Data) -> None:
    loss = loss_of(ALL[name]())
    _, _, gradient = value_and_gradient(loss, *batch)
    logits, *rest = batch
    step = logits - 0.01 * gradient / gradient.norm()
    assert float(loss.total(*loss(step, *rest))) < float(loss.total(*loss(logits, *rest)))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
@every_term
def test_cuda_agrees_and_repeats_itself(name: str) -> None:
    g = torch.Generator().manual_seed(4)
    big = torch.randn(2, 5, 120, 160, generator=g), torch.randint(0, 5, (2, 120, 160), generator=g)
    big[1][:, 5:20] = VOID
    expected = value_and_gradient(loss_of(ALL[name]()), *big)
    loss = loss_of(ALL[name]()).cuda()
    torch.use_deterministic_algorithms(True)
    try:
        found = [value_and_gradient(loss, *(t.cuda() for t in big)) for _ in range(3)]
    finally:
        torch.use_deterministic_algorithms(False)
    for again in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], again, strict=True))
    for a, b in zip(found[0], expected, strict=True):
        assert torch.allclose(a.cpu(), b, rtol=1e-4, atol=1e-7)
