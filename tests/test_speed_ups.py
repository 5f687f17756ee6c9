"""Speed-ups change nothing: the same losses with and without each, to what the precision allows."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from plain_training import PlainLoop, mean_iou
from runs_of_tests import bare_trainer, batch_of
from torch import Tensor, nn
from train_step import loop_of, made_up, network_of, trainer_of

from smp_camvid.data.classes import VOID
from smp_camvid.inference.device import cpu_multiplies_bf16
from smp_camvid.training import learner as learner_module
from smp_camvid.training.depthwise import slow_in_bf16, widen_depthwise
from smp_camvid.training.losses import log_softmax_outside_void

STEPS, SIZE = 4, (32, 48)


def losses_of(precision: str, **options: object) -> tuple[list[float], list[float]]:
    """(the plain loop's, ours) over a few steps from the same weights on the same batch."""
    network, batch = network_of("vanilla-4"), made_up(4, SIZE)
    amp = torch.bfloat16 if precision == "bf16" else None
    plain: PlainLoop = loop_of(network, "cpu", amp=amp, penalty=0.0)
    known = {"precision": precision, "weight_decay": 0.0, "device": "cpu", **options}
    ours = trainer_of(copy.deepcopy(network), batch, **known)
    x = network.normalize(batch.image)
    return (
        [plain.step(x, batch.target)[0] for _ in range(STEPS)],
        [ours.train_step(batch) for _ in range(STEPS)],
    )


def test_our_step_is_the_plain_loop_in_float32() -> None:
    plain, ours = losses_of("fp32")
    assert ours == pytest.approx(plain, rel=1e-5)
    assert len(set(plain)) == STEPS  # it learns
    _, other = losses_of("fp32", lr=4e-4)
    assert other[1:] != pytest.approx(plain[1:], rel=1e-5)  # the test can fail


@pytest.mark.skipif(not cpu_multiplies_bf16(), reason="bf16 is only emulated here")
def test_our_step_is_the_plain_loop_in_bf16() -> None:
    plain, ours = losses_of("bf16")
    assert ours == pytest.approx(plain, rel=5e-3)
    whole, _ = losses_of("fp32")
    assert ours == pytest.approx(whole, rel=1e-2)


# --- the loss in one pass --------------------------------------------------------------------


def in_parts(logits: Tensor, target: Tensor) -> Tensor:
    """What `log_softmax_outside_void` replaces."""
    void = (target == VOID).unsqueeze(1)
    lifted = logits.to(torch.promote_types(logits.dtype, torch.float32)).masked_fill(void, 0)
    return lifted.log_softmax(1)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_the_loss_in_one_pass_is_that_of_its_parts(
    dtype: torch.dtype, layout: torch.memory_format
) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 5, 6, 7, generator=generator).to(dtype).contiguous(memory_format=layout)
    target = torch.randint(0, 5, (2, 6, 7), generator=generator)
    target[:, :2] = VOID
    logits[0, 0, 0, 0] = float("nan")  # under void
    direction = torch.randn(2, 5, 6, 7, generator=generator).to(
        torch.promote_types(dtype, torch.float32)
    )
    found = []
    for way in (in_parts, log_softmax_outside_void):
        leaf = logits.clone().requires_grad_()
        value = way(leaf, target)
        (gradient,) = torch.autograd.grad((value * direction).sum(), leaf)
        found.append((value.detach(), gradient))
    (value, gradient), (ours, our_gradient) = found
    assert torch.equal(ours, value)
    assert torch.equal(our_gradient, gradient)
    assert our_gradient.dtype == dtype
    assert not our_gradient[:, :, :2].any() and our_gradient[:, :, 2:].any()


# --- depthwise convolutions ------------------------------------------------------------------


class Depthwise(nn.Module):
    """One of each: with a good kernel in bf16 (plain, 3x3 stride 1) and without."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.plain = nn.Conv2d(3, 8, 3, padding=1)
        self.good = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.strided = nn.Conv2d(8, 8, 3, stride=2, padding=1, groups=8)
        self.wide = nn.Conv2d(8, 8, 5, padding=2, groups=8)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.wide(self.strided(self.good(self.plain(x))))
        return out


def gradients(model: nn.Module, x: Tensor, bf16: bool) -> tuple[Tensor, list[Tensor]]:
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        out = model(x)
    found = torch.autograd.grad(out.float().square().sum(), list(model.parameters()))
    return out, list(found)


def test_widened_convolutions_are_nearer_to_float32() -> None:
    x, plain = torch.randn(2, 3, 20, 20, generator=torch.Generator().manual_seed(1)), Depthwise()
    wide = copy.deepcopy(plain)
    widen_depthwise(wide)
    _, truth = gradients(plain, x, bf16=False)
    out, narrow = gradients(plain, x, bf16=True)
    ours, found = gradients(wide, x, bf16=True)
    assert ours.dtype == out.dtype == torch.bfloat16

    def error(some: list[Tensor]) -> float:
        pairs = zip(some, truth, strict=True)
        return float(np.mean([float((a - b).norm() / b.norm()) for a, b in pairs]))

    assert error(found) < error(narrow) < 0.05
    assert error(found) > 0  # the rest is bf16 as before
    # without autocast, and when it does not learn, nothing is another
    assert all(map(torch.equal, gradients(wide, x, bf16=False)[1], truth))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(wide(x), plain(x))


def test_only_what_is_slow_is_widened_and_the_state_stays() -> None:
    model = Depthwise()
    assert {name for name, layer in model.named_children() if slow_in_bf16(layer)} == {
        "strided", "wide"
    }  # fmt: skip
    before = list(model.state_dict())
    widen_depthwise(model)
    assert list(model.state_dict()) == before
    twin = copy.deepcopy(model)
    with torch.no_grad():
        twin.wide.weight.zero_()
    x = torch.ones(1, 3, 8, 8)
    out, _ = gradients(twin, x, bf16=True)  # the copy runs its own weights
    bias = twin.wide.bias.detach().to(torch.bfloat16)[None, :, None, None]
    assert torch.equal(out.detach(), bias.expand_as(out))


def test_losses_of_a_net_with_depthwise_convolutions_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(widened: bool) -> list[float]:
        torch.manual_seed(0)
        if not widened:
            monkeypatch.setattr(learner_module, "widen_depthwise", lambda network: None)
        trainer = trainer_of(network_of("unet-lite0"), batch, precision="bf16", device="cpu")
        return [trainer.train_step(batch) for _ in range(2)]

    batch = made_up(2, (64, 64))
    assert run(widened=True) == pytest.approx(run(widened=False), rel=5e-3)


# --- labels of one byte ----------------------------------------------------------------------


def test_labels_of_one_byte_train_like_those_of_eight(tmp_path: Path) -> None:
    narrow, wide = (bare_trainer(tmp_path) for _ in range(2))
    batch = batch_of(4)
    small = batch._replace(target=batch.target.to(torch.uint8))
    assert batch.target.dtype == torch.int64 and (small.target == VOID).any()
    assert narrow.train_step(small) == wide.train_step(batch)
    pairs = zip(narrow.network.parameters(), wide.network.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    ours, theirs = (trainer.val_step(small) for trainer in (narrow, wide))
    assert np.array_equal(ours.matrix, theirs.matrix) and ours.matrix.sum() > 0


def test_the_baseline_counts_right() -> None:
    """The plain loop's mIoU on four pixels, by hand."""
    prediction = np.array([[0, 1, 1, 2]])
    target = np.array([[0, 1, 0, 255]])
    assert mean_iou(prediction, target, 3) == pytest.approx((1 / 2 + 1 / 2) / 2)
