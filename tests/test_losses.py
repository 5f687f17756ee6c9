"""The weighted sum and what a recipe makes of it; the terms have their own file."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from smp_camvid.data.border import BorderWeight
from smp_camvid.data.classes import VOID
from smp_camvid.errors import UsageError
from smp_camvid.recipe import LossConfig, resolve
from smp_camvid.training.class_weights import class_weights, count_frequencies
from smp_camvid.training.loss_terms import CrossEntropyTerm, DiceTerm, FocalTerm, OhemTerm
from smp_camvid.training.losses import CrossEntropy, Loss
from smp_camvid.training.objective import TERMS, build_border_weight, build_loss

Data = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]


@pytest.fixture
def batch() -> Data:
    """Logits, target with void, pixel weights, class weights."""
    g = torch.Generator().manual_seed(0)
    logits = torch.randn(4, 5, 6, 7, generator=g) * 3
    target = torch.randint(0, 5, (4, 6, 7), generator=g)
    target[torch.rand(target.shape, generator=g) < 0.3] = VOID
    target[2, :4] = VOID  # frames differ in how much they count
    weight = torch.rand(target.shape, generator=g) * 5
    return logits, target, weight, torch.tensor([0.5, 2.0, 1.0, 0.1, 4.0])


def everything(**changes: Any) -> Loss:
    weights = {"cross_entropy": 1.0, "focal": 0.7, "dice": 2.0, "lovasz": 0.5, "ohem": 0.3}
    return build_loss(LossConfig(**{**weights, "label_smoothing": 0.1, **changes}), [], 5)


# --- the sum ---------------------------------------------------------------------------------


def test_cross_entropy_alone_is_torchs(batch: Data) -> None:
    logits, target, _, weights = batch
    loss = CrossEntropy(weights, 0.1)
    sums, counts = loss(logits, target)
    assert sums.shape == counts.shape == loss.weights.shape == (1,)
    expected = F.cross_entropy(
        logits, target, weight=weights, ignore_index=VOID, label_smoothing=0.1
    )
    assert float(loss.total(sums, counts)) == pytest.approx(float(expected), abs=1e-6)


def test_total_is_the_weighted_sum_of_the_means(batch: Data) -> None:
    logits, target, weight, _ = batch
    parts = {"cross_entropy": 2.0, "dice": 0.5, "ohem": 3.0}
    loss = Loss(
        {"cross_entropy": CrossEntropyTerm(), "dice": DiceTerm(), "ohem": OhemTerm(0.5)}, parts
    )
    expected = 0.0
    for name, factor in parts.items():
        alone = build_loss(LossConfig(**{"cross_entropy": 0, name: 1, "ohem_share": 0.5}), [], 5)
        expected += factor * float(alone.total(*alone(logits, target, weight)))
    found = loss.total(*loss(logits, target, weight))
    assert float(found) == pytest.approx(expected, rel=1e-6)
    assert loss.weights.tolist() == [2.0, 0.5, 3.0]


def test_sums_divided_by_counts_by_hand() -> None:
    loss = Loss({"a": DiceTerm(), "b": OhemTerm()}, {"b": 0.5, "a": 2.0})
    total = loss.total(torch.tensor([3.0, 8.0]), torch.tensor([4.0, 16.0]))
    assert float(total) == 2 * 3 / 4 + 0.5 * 8 / 16
    assert float(loss.total(torch.zeros(2), torch.zeros(2))) == 0


def test_counts_are_known_without_logits(batch: Data) -> None:
    logits, target, weight, _ = batch
    loss = everything()
    for given in (weight, None):
        assert torch.equal(loss.count(target, given), loss(logits, target, given)[1])
    pixels, frames = float((target != VOID).sum()), 4.0
    assert loss.count(target).tolist() == [pixels, pixels, frames, frames, frames]


def test_half_batches_add_up_to_the_whole(batch: Data) -> None:
    logits, target, weight, _ = batch
    loss = everything()

    def gradient(*groups: slice) -> tuple[torch.Tensor, torch.Tensor]:
        leaf = logits.clone().requires_grad_()
        counts = torch.stack([loss.count(target[g], weight[g]) for g in groups]).sum(0)
        totals = [loss.total(loss(leaf[g], target[g], weight[g])[0], counts) for g in groups]
        value = torch.stack(totals).sum()
        value.backward()
        assert leaf.grad is not None
        return value.detach(), leaf.grad

    whole, halves = gradient(slice(0, 4)), gradient(slice(0, 1), slice(1, 4))
    for one, two in zip(whole, halves, strict=True):
        assert (one - two).abs().max() < 1e-6
    # Negative control: a mean of the halves' own means is something else.
    means = [loss.total(*loss(logits[g], target[g], weight[g])) for g in (slice(0, 1), slice(1, 4))]
    assert abs(float(sum(means)) / 2 - float(whole[0])) > 1e-3


def test_a_frame_of_void_adds_nothing(batch: Data) -> None:
    logits, target, weight, _ = batch
    loss = everything()
    emptied = target.clone()
    emptied[1] = VOID
    others = [0, 2, 3]
    leaf = logits.clone().requires_grad_()
    sums, counts = loss(leaf, emptied, weight)
    alone = loss(logits[others], target[others], weight[others])
    assert torch.allclose(sums, alone[0], rtol=1e-6) and torch.allclose(counts, alone[1])
    loss.total(sums, counts).backward()
    assert leaf.grad is not None and (leaf.grad[1] == 0).all() and (leaf.grad[0] != 0).any()
    assert leaf.grad.isfinite().all()


def test_a_batch_of_void_is_nothing(batch: Data) -> None:
    logits, target, weight, _ = batch
    loss, leaf = everything(), logits.requires_grad_()
    sums, counts = loss(leaf, torch.full_like(target, VOID), weight)
    assert (sums == 0).all() and (counts == 0).all()
    value = loss.total(sums, counts)
    value.backward()
    assert float(value.detach()) == 0
    assert leaf.grad is not None and (leaf.grad == 0).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_logits_are_summed_in_float32(batch: Data, dtype: torch.dtype) -> None:
    logits, target, weight, _ = batch
    loss = everything()
    sums, counts = loss(logits.to(dtype), target, weight)
    assert sums.dtype == counts.dtype == torch.float32
    assert torch.equal(sums, loss(logits.to(dtype).float(), target, weight)[0])


def test_memory_layout_makes_no_difference(batch: Data) -> None:
    logits, target, weight, _ = batch
    layouts = torch.contiguous_format, torch.channels_last
    found = [everything()(logits.to(memory_format=f), target, weight)[0] for f in layouts]
    assert torch.allclose(*found, rtol=1e-6)


# --- from a recipe ---------------------------------------------------------------------------


def loader_of(*labels: np.ndarray) -> Any:
    """As much of a loader as the class weights are counted on."""
    return SimpleNamespace(dataset=SimpleNamespace(cache=SimpleNamespace(labels=labels)))


def test_only_the_terms_with_a_weight_are_computed() -> None:
    assert list(build_loss(LossConfig(), [], 5).terms) == ["cross_entropy"]
    loss = build_loss(
        LossConfig(cross_entropy=0, ohem=2, focal=0.5, ohem_share=0.1, focal_gamma=3), [], 5
    )
    assert dict(zip(loss.terms, loss.weights.tolist(), strict=True)) == {"focal": 0.5, "ohem": 2}
    focal, ohem = loss.terms["focal"], loss.terms["ohem"]
    assert isinstance(focal, FocalTerm) and isinstance(ohem, OhemTerm)
    assert (focal.gamma, ohem.share) == (3, 0.1)


@pytest.mark.parametrize("name", TERMS)
def test_every_term_can_stand_alone(name: str) -> None:
    loss = build_loss(LossConfig(**{"cross_entropy": 0, name: 1}), [], 5)
    assert list(loss.terms) == [name]


def test_class_weights_reach_both_pixel_terms(batch: Data) -> None:
    logits, target, _, _ = batch
    labels = [label.astype(np.uint8) for label in target.numpy()]
    config = LossConfig(focal=1, focal_gamma=0, class_weights="median")
    loss = build_loss(config, loader_of(*labels), 5)
    weights = class_weights("median", count_frequencies(labels, 5))
    assert weights is not None
    expected = F.cross_entropy(logits, target, weight=torch.from_numpy(weights), ignore_index=VOID)
    found = loss(logits, target)
    assert torch.allclose(found[0] / found[1], expected, rtol=1e-6)
    plain = build_loss(LossConfig(), [], 5)
    assert abs(float(plain.total(*plain(logits, target)) - expected)) > 1e-3


def test_border_weights_take_the_class_weights_in() -> None:
    label = np.array([[0, 0, 1]], np.uint8)
    config = LossConfig(class_weights="log", border_w0=10, border_sigma=3)
    border = build_border_weight(config, [label], 2)
    expected = class_weights("log", count_frequencies([label], 2))
    assert expected is not None
    assert border == BorderWeight(10, 3, tuple(expected.tolist()))
    term = build_loss(config, loader_of(label), 2).terms["cross_entropy"]
    assert isinstance(term, CrossEntropyTerm) and term.class_weights is None
    assert build_border_weight(LossConfig(class_weights="log"), [label], 2) is None


def test_class_weights_need_labels_to_count() -> None:
    with pytest.raises(UsageError, match="counted on the labels"):
        build_loss(LossConfig(class_weights="log"), [], 5)


def test_a_recipe_without_a_term_is_refused() -> None:
    with pytest.raises(UsageError, match=r"loss: one of cross_entropy, focal, .* must be above 0"):
        resolve("vanilla", [("loss.cross_entropy", 0)])
    recipe = resolve("vanilla", [("loss.cross_entropy", 0), ("loss.dice", 1)]).recipe
    assert (recipe.loss.cross_entropy, recipe.loss.dice) == (0, 1)


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("name", "cross_entropy", "loss.name: unknown key. Known: cross_entropy, focal"),
        ("lovas", 1, "loss.lovas: unknown key. Did you mean 'lovasz'?"),
        ("dice", -1, "loss.dice: input should be greater than or equal to 0, not -1."),
        ("ohem_share", 0, "loss.ohem_share: input should be greater than 0, not 0."),
        ("focal", float("inf"), "loss.focal: input should be a finite number, not inf."),
    ],
)
def test_wrong_keys_are_refused_in_words(key: str, value: object, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        resolve("vanilla", [(f"loss.{key}", value)])
    assert said in str(caught.value)
