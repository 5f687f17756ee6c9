"""Memory and operations of a step, counted without numbers, against real ones and by hand."""

from __future__ import annotations

import gc
from typing import Any

import pytest
import torch
from torch import nn

from smp_camvid.data.classes import CAMVID11
from smp_camvid.models.factory import create_model
from smp_camvid.models.flops import count_flops
from smp_camvid.models.network import Network
from smp_camvid.recipe import LossConfig
from smp_camvid.training.learner import Learner
from smp_camvid.training.step_memory import (
    LiveBytes,
    estimate_memory,
    made_up_batch,
)
from smp_camvid.training.trainer import Trainer

SIZE = (96, 128)


def learner(loss: LossConfig | None = None, model: Any = None, **train: Any) -> Learner:
    torch.manual_seed(0)
    net = model or create_model(
        "vanilla", classes=11, norm="batch", padding="same", base_channels=8
    )
    batches = [(torch.zeros(2, 3, *SIZE), torch.zeros(2, *SIZE))]
    return Trainer(net, batches, loss=loss, listeners=[], **train).learner


def test_live_bytes_by_hand() -> None:
    known = torch.zeros(50)
    live = LiveBytes([known])
    with live:
        known.add_(1)  # was there before
        a = torch.zeros(1000)  # 4000 bytes
        view = a.view(10, 100)  # the same storage
        b = view + 1  # 8000 alive
        del a, view  # 4000
        c = torch.zeros(500)  # 6000
        d = b.sum() + c.sum()  # numbers of 4 bytes
    assert live.peak() == 8000
    assert live.peak(without=[b]) == 4000
    assert float(d) == 1000


@pytest.mark.parametrize(
    ("loss", "options"),
    [
        (None, {"precision": "fp32"}),
        (None, {"precision": "fp32", "activation_checkpointing": True}),
        (None, {"precision": "fp32", "deep_supervision": 0.4}),
        (LossConfig(lovasz=1.0, ohem=0.5), {"precision": "fp32"}),
        (None, {"precision": "bf16"}),
    ],
    ids=["plain", "recomputed", "supervised", "lovasz", "bf16"],
)
def test_the_estimate_is_what_a_real_step_takes(
    loss: LossConfig | None, options: dict[str, Any]
) -> None:
    """Counted on shapes alone, it is that of the tensors of a real step, or a little above."""
    mine = learner(loss, **options)
    counted = estimate_memory(mine, SIZE)
    mine.step([made_up_batch(mine, 4, SIZE, weighted=False)])  # the optimizer's state is there
    mine.optimizer.zero_grad(set_to_none=True)
    gc.collect()
    live = LiveBytes(mine.trained.parameters())
    with live:
        mine.step([made_up_batch(mine, 4, SIZE, weighted=False)])
    gradients = [p.grad for p in mine.trained.parameters() if p.grad is not None]
    real = live.peak(without=gradients)
    assert 0.95 * real < counted.copies + 4 * counted.frame < 1.3 * real


def test_recomputing_and_half_precision_take_less() -> None:
    plain = estimate_memory(learner(precision="fp32"), SIZE).frame
    for less in ({"activation_checkpointing": True}, {"precision": "bf16"}):
        assert estimate_memory(learner(**{"precision": "fp32", **less}), SIZE).frame < 0.8 * plain


def test_what_is_kept_for_each_weight() -> None:
    adam = learner(precision="fp32", ema=0.99)
    bytes_of_weights = 4 * adam.network.num_parameters
    memory = estimate_memory(adam, SIZE)
    assert memory.weights == memory.gradients == memory.copies == bytes_of_weights
    assert memory.optimizer == 2 * bytes_of_weights
    assert memory.total(3) - memory.total(1) == 2 * memory.frame
    sgd = estimate_memory(learner(precision="fp32", optimizer="sgd"), SIZE)
    assert sgd.optimizer == bytes_of_weights and sgd.copies == 0
    adam.step([made_up_batch(adam, 2, SIZE, weighted=False)])
    moments = [
        tensor.numel() * 4
        for state in adam.optimizer.state.values()
        for name, tensor in state.items()
        if name != "step"
    ]
    assert sum(moments) == memory.optimizer


def test_counting_leaves_the_network_alone() -> None:
    mine = learner(precision="fp32")
    before = {k: v.clone() for k, v in mine.trained.state_dict().items()}
    generator = torch.get_rng_state()
    estimate_memory(mine, SIZE)
    count_flops(mine.trained, SIZE)
    assert all(torch.equal(v, before[k]) for k, v in mine.trained.state_dict().items())
    assert torch.equal(torch.get_rng_state(), generator)
    assert all(p.grad is None for p in mine.trained.parameters())


def test_operations_of_one_convolution() -> None:
    layer = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.Conv2d(8, 5, 1, bias=False))
    counted = count_flops(_Float(layer), (10, 12))
    first, second = 2 * 9 * 3 * 8 * (8 * 10), 2 * 8 * 5 * (8 * 10)
    assert counted.forward == first + second
    # Nobody asks for the gradient of the picture.
    assert counted.step == 2 * first + 3 * second


@pytest.mark.parametrize(
    ("layer", "each"),
    [
        (nn.Conv2d(8, 8, 3, groups=8, bias=False), 2 * 9 * 8 * (8 * 10)),  # depthwise
        (nn.Conv2d(8, 4, 3, groups=2, stride=2, bias=False), 2 * 9 * 4 * 4 * (4 * 5)),
        (nn.ConvTranspose2d(8, 6, 2, stride=2, bias=False), 2 * 4 * 8 * 6 * (10 * 12)),
    ],
    ids=["depthwise", "grouped", "transposed"],
)
def test_operations_of_other_convolutions(layer: nn.Module, each: int) -> None:
    """One multiply-add for each weight and place, once forward, twice backward."""
    before = nn.Conv2d(3, 8, 1, bias=False)  # so that the gradient of its input is asked for
    first = 2 * 3 * 8 * (10 * 12)
    counted = count_flops(_Float(nn.Sequential(before, layer)), (10, 12))
    assert counted.forward == first + each
    assert counted.step == 2 * first + 3 * each


class _Float(nn.Module):
    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.layer(image.float())  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("padding", "gmac", "tflop"), [("valid", 176.1, 1.056), ("same", 129.9, 0.779)]
)
def test_operations_of_the_papers_net(padding: str, gmac: float, tflop: float) -> None:
    """At 360x480: 556x668 with mirrored borders, 368x480 padded; a multiply-add is two."""
    with torch.device("meta"):
        net = create_model("vanilla", classes=11, norm="batch", padding=padding)
    network = Network(net, (0.5,) * 3, (0.25,) * 3, CAMVID11)
    counted = count_flops(network, (360, 480))
    assert counted.forward == pytest.approx(2e9 * gmac, rel=0.005)
    assert counted.step == pytest.approx(1e12 * tflop, rel=0.005)
