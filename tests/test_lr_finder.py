"""The learning-rate range test: against problems whose answer is known, and without a trace."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from smp_camvid import runs
from smp_camvid.cli import app
from smp_camvid.errors import TrainingError
from smp_camvid.recipe import resolve
from smp_camvid.report.lr_report import in_digits, lr_figure, lr_rows, next_command
from smp_camvid.report.style import png_bytes
from smp_camvid.training.experiment import build_trainer
from smp_camvid.training.learner import Learner
from smp_camvid.training.lr_finder import (
    STEPS_PER_DECADE,
    RangeTest,
    find_lr,
    range_test,
    rates_between,
)
from smp_camvid.training.trainer import Trainer

RATES = rates_between(1e-6, 10.0)


def quadratic(largest: float, noise: float, seed: int = 0) -> Callable[[float], float]:
    """Plain SGD on 1/2 sum h w^2 with curvatures h up to `largest`: stable below 2 / largest."""
    rng = np.random.default_rng(seed)
    curvature = np.geomspace(largest / 100, largest, 50)
    weights = rng.normal(size=50) / np.sqrt(curvature)

    def step(lr: float) -> float:
        nonlocal weights
        loss = 0.5 * float((curvature * weights**2).sum()) + 0.2 + noise * abs(rng.normal())
        gradient = curvature * weights + noise * rng.normal(size=50) * np.sqrt(curvature)
        weights = weights - lr * gradient
        return loss

    return step


def small(data: Path, save_dir: Path, **changes: Any) -> Trainer:
    values = {
        "model.base_channels": 4, "model.depth": 2, "model.padding": "same", "model.dropout": 0.5,
        "data.size": [32, 48], "data.path": str(data), "train.epochs": 1, "train.batch_size": 2,
        "train.workers": 0, "train.verbose": 0, "train.save_plots": False,
        "train.precision": "fp32", "train.device": "cpu", "train.save_dir": str(save_dir),
        **{key.replace("__", "."): value for key, value in changes.items()},
    }  # fmt: skip
    return build_trainer(resolve("vanilla", list(values.items())).recipe, listeners=[])


# --- known answers -----------------------------------------------------------------------------


def test_the_rates_grow_by_one_factor() -> None:
    assert len(RATES) == 7 * STEPS_PER_DECADE + 1
    assert RATES[0] == 1e-6 and RATES[-1] == pytest.approx(10)
    ratios = np.array(RATES[1:]) / np.array(RATES[:-1])
    np.testing.assert_allclose(ratios, 10 ** (1 / STEPS_PER_DECADE))


@pytest.mark.parametrize("largest", [2.0, 30.0, 500.0])
@pytest.mark.parametrize("noise", [0.0, 0.3])
def test_the_suggestion_lies_below_what_is_stable(largest: float, noise: float) -> None:
    """Within two decades below 2 / L, where SGD begins to diverge, wherever that is."""
    stable = 2 / largest
    test = range_test(quadratic(largest, noise), RATES)
    assert test.steepest is not None and test.careful is not None and test.lowest is not None
    assert stable / 100 < test.steepest < stable
    assert stable / 100 < test.careful < stable
    assert stable / 5 < test.lowest < 5 * stable
    if largest > 2:  # at 2 / L = 1 there are too few rates left for a runaway
        assert test.diverged and test.rates[-1] < 10 * stable


def test_the_loss_belongs_to_the_rate_before_it() -> None:
    """losses[i] is what the update with rates[i] led to."""
    seen = []

    def step(lr: float) -> float:
        loss = 9.0 if not seen else 9 + math.log10(seen[-1])
        seen.append(lr)
        return loss

    test = range_test(step, RATES[:30])
    np.testing.assert_allclose(test.losses, 9 + np.log10(test.rates))
    assert len(test.rates) == 29 and not test.diverged


def test_the_careful_rate_is_never_the_bolder_one() -> None:
    """A loss that falls at once and creeps on until the last rate, where no rate is too high."""
    losses = tuple(3.0 if rate < 1e-4 else 1 - 0.05 * math.log10(rate / 1e-4) for rate in RATES)
    test = RangeTest(tuple(RATES), losses, diverged=False)
    assert test.lowest is not None and test.careful is not None
    assert test.careful == test.steepest < test.lowest / 10
    assert "never ran away" in dict(lr_rows(test, 0.01))["note"]
    steep = tuple(3.0 if r < 1e-3 else 1.0 if r < 1e-2 else 9.0 for r in RATES)
    fallen = RangeTest(tuple(RATES), steep, diverged=True)
    assert fallen.lowest is not None and fallen.careful == fallen.lowest / 10
    assert "note" not in dict(lr_rows(fallen, 0.01))


def test_smoothing_has_no_lag_and_little_noise() -> None:
    edge = tuple(1.0 if rate < 1e-3 else 0.0 for rate in RATES)
    test = RangeTest(tuple(RATES), edge, diverged=False)
    assert test.steepest == pytest.approx(1e-3, rel=0.1)  # a causal mean would be late
    rng = np.random.default_rng(0)
    noisy = RangeTest(tuple(RATES), tuple(5 + rng.normal(size=len(RATES))), diverged=False)
    assert np.std(noisy.smoothed) < 0.6
    assert noisy.lowest is noisy.steepest is noisy.careful is None


def test_nothing_is_suggested_where_nothing_falls() -> None:
    for test in (
        range_test(lambda lr: 2.0, RATES),
        range_test(lambda lr: 2.0 + lr, RATES),
        RangeTest((), (), diverged=True),
    ):
        assert test.lowest is test.steepest is test.careful is None
        if test.rates:
            said = dict(lr_rows(test, 0.01))
            assert said["found"].startswith("nothing: the loss did not fall")
        assert next_command(test, Path("runs/x-find-lr-1")) == ""


def test_the_test_ends_when_the_loss_runs_away() -> None:
    def step(lr: float) -> float:
        return 1.0 if lr < 1e-3 else 100.0

    test = range_test(step, RATES)
    assert test.diverged and test.rates[-1] < 2e-3
    ends_in_nan = range_test(lambda lr: 1.0 if lr < 1e-3 else math.nan, RATES)
    assert ends_in_nan.diverged and all(math.isfinite(loss) for loss in ends_in_nan.losses)


# --- on a Trainer ------------------------------------------------------------------------------


def everything(trainer: Trainer) -> list[Any]:
    """All that training changes."""
    learner = trainer.learner
    return [
        {name: tensor.clone() for name, tensor in learner.trained.state_dict().items()},
        copy.deepcopy(learner.optimizer.state_dict()),
        copy.deepcopy(learner.ema.state_dict()) if learner.ema else {},
        copy.deepcopy(vars(trainer.state)),
        [p.grad for p in learner.trained.parameters()],
        torch.get_rng_state(),
    ]


def equal(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[k], other[k]) for k in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(equal, one, other))
    return bool(one == other)


def test_the_trainer_is_left_as_it_was(segnet_data: Path, tmp_path: Path) -> None:
    trainer = small(segnet_data, tmp_path, train__ema=0.9, train__encoder_lr=0.1)
    before, rates = everything(trainer), []
    real = trainer.learner.step

    def watched(*given: Any) -> Any:
        rates.append([group["lr"] for group in trainer.optimizer.param_groups])
        return real(*given)

    trainer.learner.step = watched  # type: ignore[method-assign]
    test = find_lr(trainer, 1e-4, 1e-2)
    assert len(rates) == 2 * STEPS_PER_DECADE + 1 and len(test.rates) == 2 * STEPS_PER_DECADE
    factors = [group["lr_factor"] for group in trainer.optimizer.param_groups]
    assert set(factors) == {0.1, 1.0}
    np.testing.assert_allclose(rates[0], [1e-4 * factor for factor in factors])
    assert equal(everything(trainer), before)
    assert not (tmp_path / "vanilla-1").exists()
    # What is compared is what a step changes: one step changes it.
    trainer.train_step(next(iter(trainer.train_loader)))
    assert not equal(everything(trainer)[0], before[0])


def test_training_after_the_test_is_training_without_it(segnet_data: Path, tmp_path: Path) -> None:
    plain = small(segnet_data, tmp_path / "plain")
    tested = small(segnet_data, tmp_path / "tested")
    find_lr(tested, 1e-4, 1e-1)
    for trainer in (plain, tested):
        trainer.train()
    lines = [(trainer.run_dir / "metrics.jsonl").read_text() for trainer in (plain, tested)]
    assert lines[0] == lines[1]
    assert equal(plain.network.state_dict(), tested.network.state_dict())


def test_a_loss_that_is_no_number_at_once_is_an_error(segnet_data: Path, tmp_path: Path) -> None:
    trainer = small(segnet_data, tmp_path)
    with torch.no_grad():
        next(trainer.network.parameters()).fill_(math.nan)
    with pytest.raises(TrainingError, match="loss of the first batch is nan"):
        find_lr(trainer)


# --- what is shown -----------------------------------------------------------------------------


def test_the_picture_and_the_words() -> None:
    test = range_test(quadratic(30.0, 0.1), RATES)
    assert test.steepest is not None and test.careful is not None
    figure = lr_figure(test, "runs [1] $x$", current=0.5)
    (axes,) = figure.axes
    labels = " ".join(str(text.get_text()) for text in axes.get_legend().get_texts())
    for rate in (test.steepest, test.careful, 0.5):
        assert in_digits(rate) in labels
    assert axes.get_xscale() == "log"
    assert len(png_bytes(figure)) > 10_000
    said = dict(lr_rows(test, 0.5))
    assert said["suggested"].startswith(f"--lr {in_digits(test.steepest)},")
    assert "ran away" in said["tried"] and said["the recipe has"] == "--lr 0.5"
    assert png_bytes(lr_figure(range_test(lambda lr: 2.0, RATES)))


def test_rates_as_people_write_them() -> None:
    assert in_digits(0.0031623) == "0.0032"
    assert in_digits(1.2589e-06) == "1.3e-06"
    assert in_digits(10) == "10"


def test_the_command_leaves_a_curve_and_says_what_to_type(
    segnet_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = small(segnet_data, Path("runs")).keeper.recipe.to_toml()
    Path("mine.toml").write_text(config.replace('name = "vanilla"', 'name = "mine"'))
    done = CliRunner().invoke(app, ["train", "--recipe", "mine.toml", "--find-lr"])
    assert done.exit_code == 0, done.output
    folder = Path("runs/mine-find-lr-1")
    assert {path.name for path in folder.iterdir()} == {
        "config.toml", "environment.json", "lr-curve.jsonl", "lr-curve.png",
    }  # fmt: skip
    rows = runs.read_lines(folder / "lr-curve.jsonl")
    assert rows and set(rows[0]) == {"lr", "loss", "smoothed"}
    with Image.open(folder / "lr-curve.png") as picture:
        assert picture.size[0] > 500
    assert f"folder         {folder}\n" in done.stdout
    if "--lr" in done.stdout.split("suggested")[-1]:
        assert f"smp-camvid train --recipe {folder}/config.toml --lr" in done.stdout
    again = resolve(str(folder / "config.toml")).recipe
    assert again.train.batch_size == 2 and again.name == "mine"


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--find-lr", "--dry-run"], "Leave one of them out"),
        (["--find-lr", "--resume", "runs/x-1"], "--recipe runs/x-1/config.toml"),
        (["--dry-run", "--resume", "runs/x-1"], "--recipe runs/x-1/config.toml"),
        (["--find-lr", "--devices", "2"], "runs in one process"),
    ],
)
def test_what_does_not_go_together_is_refused(options: list[str], reason: str) -> None:
    done = CliRunner().invoke(app, ["train", *options])
    assert done.exit_code == 2
    assert reason in done.stderr and "Traceback" not in done.stderr


def test_torchrun_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    for option in ("--find-lr", "--dry-run"):
        done = CliRunner().invoke(app, ["train", option])
        assert done.exit_code == 2 and f"{option} runs in one process" in done.stderr


def test_a_learner_that_forgets_would_be_noticed(
    segnet_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The equality above fails when nothing is put back."""
    trainer = small(segnet_data, tmp_path)
    before = everything(trainer)
    monkeypatch.setattr(Learner, "load_state_dict", lambda self, parts: None)
    find_lr(trainer, 1e-3, 1e-2)
    assert not equal(everything(trainer), before)
