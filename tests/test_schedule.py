"""Learning-rate schedules against their formulas; optimizers against what a recipe says."""

from __future__ import annotations

import math

import pytest
import torch

from smp_camvid.recipe import TrainConfig
from smp_camvid.training.optim import build_optimizer
from smp_camvid.training.schedule import lr_at, lr_factor

STEPS = 100


def test_formulas() -> None:
    for step in range(STEPS):
        t = step / STEPS
        assert lr_factor("constant", step, STEPS) == 1
        assert lr_factor("cosine", step, STEPS) == pytest.approx((1 + math.cos(math.pi * t)) / 2)
        assert lr_factor("poly", step, STEPS) == pytest.approx((1 - t) ** 0.9)


def test_onecycle_is_torchs() -> None:
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=1.0, momentum=0.9)
    reference = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 1.0, total_steps=STEPS + 1, pct_start=0.3, div_factor=25, final_div_factor=400,
        cycle_momentum=False,
    )  # fmt: skip
    # Torch puts the peak at 0.3 * 101 - 1 and the end at step 100; ours are 30 and 100.
    assert lr_factor("onecycle", 0, STEPS) == pytest.approx(reference.get_last_lr()[0])
    assert lr_factor("onecycle", 30, STEPS) == 1
    assert lr_factor("onecycle", STEPS, STEPS) == pytest.approx(1e-4)
    ours = [lr_factor("onecycle", step, STEPS) for step in range(STEPS)]
    theirs = []
    for _ in range(STEPS):
        theirs.append(reference.get_last_lr()[0])
        optimizer.step()
        reference.step()
    assert max(abs(a - b) for a, b in zip(ours, theirs, strict=True)) < 0.05


def test_warm_up_is_linear_and_the_rest_is_shifted() -> None:
    assert [lr_factor("constant", s, STEPS, 4) for s in range(5)] == [0.25, 0.5, 0.75, 1, 1]
    assert lr_factor("cosine", 10, 110, 10) == 1
    assert lr_factor("cosine", 60, 110, 10) == pytest.approx(lr_factor("cosine", 50, 100))


def test_the_rate_of_a_step_follows_the_recipe() -> None:
    """By hand: 4 epochs of 10 steps, the first half epoch rises, then a cosine over the rest."""
    config = TrainConfig(epochs=4, lr=0.5, schedule="cosine", warmup_epochs=0.5)
    assert [lr_at(config, 10, step) for step in range(5)] == pytest.approx(
        [0.1, 0.2, 0.3, 0.4, 0.5]
    )
    assert lr_at(config, 10, 5) == 0.5
    assert lr_at(config, 10, 22) == pytest.approx(0.25 * (1 + math.cos(math.pi * 17 / 35)))


def test_norms_and_biases_do_not_decay() -> None:
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    optimizer = build_optimizer(model, TrainConfig(optimizer="adamw", weight_decay=0.5, lr=0.1))
    decayed, plain = optimizer.param_groups
    assert [p.ndim for p in decayed["params"]] == [4] and decayed["weight_decay"] == 0.5
    assert [p.ndim for p in plain["params"]] == [1, 1, 1] and plain["weight_decay"] == 0


@pytest.mark.parametrize(("name", "kind"), [("adam", "Adam"), ("adamw", "AdamW"), ("sgd", "SGD")])
def test_the_optimizer_is_the_one_named(name: str, kind: str) -> None:
    config = TrainConfig.model_validate({"optimizer": name, "momentum": 0.99, "lr": 0.25})
    optimizer = build_optimizer(torch.nn.Conv2d(1, 1, 1), config)
    group = optimizer.param_groups[0]
    assert type(optimizer).__name__ == kind and group["lr"] == 0.25
    assert (group["momentum"] if name == "sgd" else group["betas"][0]) == 0.99
