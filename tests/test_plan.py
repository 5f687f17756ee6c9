"""train --dry-run: the numbers of the plan, and that nothing comes of it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from typer.testing import CliRunner

from smp_camvid.cli import app
from smp_camvid.errors import DeviceError
from smp_camvid.recipe import Recipe, resolve
from smp_camvid.report.plan_tables import LrCurve, filled_curve, plan_view
from smp_camvid.training import plan as plan_module
from smp_camvid.training.experiment import build_trainer
from smp_camvid.training.keeper import disk_needed
from smp_camvid.training.learner import Learner
from smp_camvid.training.plan import (
    Plan,
    check_room,
    lr_over,
    make_plan,
    plan_without_data,
)
from smp_camvid.training.schedule import lr_factor
from smp_camvid.training.step_time import Timing, time_steps
from smp_camvid.training.trainer import Trainer

VALUES = {
    "model.base_channels": 4, "model.depth": 2, "model.padding": "valid", "data.size": [32, 48],
    "train.epochs": 3, "train.batch_size": 2, "train.accumulate": 2, "train.workers": 0,
    "train.verbose": 0, "train.precision": "fp32", "train.device": "cpu", "train.val_every": 2,
}  # fmt: skip
OPTIONS = [word for key, value in VALUES.items() for word in ("--set", f"{key}={value}")]


def small(data: Path | str, save_dir: Path, **changes: Any) -> Recipe:
    own = {key.replace("__", "."): value for key, value in changes.items()}
    places = {"data.path": str(data), "train.save_dir": str(save_dir)}
    return resolve("vanilla", list({**VALUES, **places, **own}.items())).recipe


def opened(data: Path, save_dir: Path, **changes: Any) -> Trainer:
    return build_trainer(small(data, save_dir, **changes), listeners=[])


def printed(plan: Plan, width: int = 80) -> str:
    console = Console(width=width, color_system=None, markup=False, highlight=False)
    with console.capture() as capture:
        console.print(plan_view(plan))
    return capture.get()


def test_the_numbers_of_a_plan(segnet_data: Path, tmp_path: Path) -> None:
    trainer = opened(segnet_data, tmp_path)
    plan = make_plan(trainer)
    # Of 5 frames, 2 batches of 2 (one of 1 is left out) make one step of 2 batches.
    assert plan.data is not None
    assert (plan.data.train_frames, plan.data.val_frames, plan.steps) == (5, 3, 3)
    assert plan.data.steps_per_epoch == trainer.steps_per_epoch
    assert plan.picture == (32, 48) and plan.frames == 2
    # Depth 2 loses 20 pixels on each side and takes 4k.
    assert plan.network_size == (72, 88) and plan.mirrored
    assert plan.parameters == trainer.network.num_parameters
    assert plan.disk == disk_needed(trainer.config, trainer.network)
    assert plan.memory is not None and plan.flops is not None and plan.needed_memory is not None
    assert plan.needed_memory > plan.memory.total(2)
    assert plan.seconds is None
    timed = dataclasses.replace(plan, timing=Timing(step=10.0, steps_timed=3, validation=7.0))
    assert timed.seconds == 3 * 10.0 + 2 * 7.0  # validated after epochs 2 and 3


def test_processes_share_the_batch(segnet_data: Path, tmp_path: Path) -> None:
    plan = make_plan(opened(segnet_data, tmp_path), processes=2)
    assert plan.frames == 1
    assert "4 frames = 1 x 2 processes x 2 batches" in printed(plan)


def test_the_largest_picture_counts(segnet_data: Path, tmp_path: Path) -> None:
    scaled = opened(segnet_data, tmp_path, data__multi_scale=[1.0, 3.0], model__padding="same")
    plan = make_plan(scaled)
    assert plan.picture == (96, 128) and plan.network_size == (96, 128)  # multiples of 32
    plain = make_plan(opened(segnet_data, tmp_path, model__padding="same"))
    assert plan.memory is not None and plain.memory is not None
    assert plan.memory.frame > 5 * plain.memory.frame
    assert "scaled by 1 to 3" in printed(plan) and "at most 96x128" in printed(plan)


def test_measuring_leaves_the_run_as_it_would_be(segnet_data: Path, tmp_path: Path) -> None:
    lines, heard = [], list[tuple[int, int]]()
    for name in ("plain", "measured"):
        trainer = opened(segnet_data, tmp_path / name, train__save_plots=False)
        if name == "measured":
            timing = time_steps(trainer, 1, lambda step, steps: heard.append((step, steps)))
            assert timing.step > 0 and timing.validation > 0 and timing.steps_timed == 3
            assert heard == [(1, 4), (2, 4), (3, 4), (4, 4)]
            assert not (tmp_path / name).exists()
        trainer.train()
        lines.append((trainer.run_dir / "metrics.jsonl").read_text())
    assert lines[0] == lines[1]


@pytest.mark.parametrize("schedule", ["constant", "cosine", "poly", "onecycle"])
def test_the_drawn_rates_are_those_of_the_schedule(tmp_path: Path, schedule: str) -> None:
    recipe = small("x", tmp_path, train__schedule=schedule, train__warmup_epochs=0.5)
    every = lr_over(recipe.train, 20, 1000)
    assert every == [recipe.train.lr * lr_factor(schedule, n, 60, 10) for n in range(60)]
    few = lr_over(recipe.train, 20, 7)
    assert len(few) == 7 and few[0] == every[0] and few[-1] == every[-1]


def test_a_curve_in_characters() -> None:
    assert filled_curve([0, 1, 2, 3, 4], 5, 1, " 1234") == [" 1234"]
    assert filled_curve([4, 2, 0], 3, 2, " 12") == ["2  ", "22 "]
    assert filled_curve([1, 3, 4, 4], 2, 1, " 12") == ["12"]  # means of two
    assert filled_curve([0.0, 0.0], 5, 2) == ["  ", "  "]


def test_the_curve_where_there_are_only_ascii_characters() -> None:
    console, curve = Console(width=40, color_system=None), LrCurve([0.1, 0.2, 0.15, 0.1], 5)
    options = dataclasses.replace(console.options, encoding="ascii")
    lines = ["".join(s.text for s in line) for line in console.render_lines(curve, options)]
    assert all(line.isascii() and len(line) <= 40 for line in lines)
    assert lines[0].startswith("0.2") and lines[-1].rstrip().endswith("epoch 5")


def test_a_step_that_is_too_large_is_told(
    segnet_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = make_plan(opened(segnet_data, tmp_path))
    check_room(plan)
    assert plan.needed_memory is not None
    check_room(dataclasses.replace(plan, free_memory=None))
    check_room(dataclasses.replace(plan, free_memory=plan.needed_memory))
    tight = dataclasses.replace(plan, free_memory=plan.needed_memory - 1)
    with pytest.raises(DeviceError, match=r"needs about .* --batch-size auto"):
        check_room(tight)
    assert "too little" in printed(tight)

    monkeypatch.setattr(plan_module, "free_bytes", lambda device: 1000)
    monkeypatch.setattr(Learner, "step", None)  # it is not even tried
    done = run(segnet_data, tmp_path)
    assert done.exit_code == 1
    assert "A training step needs about" in done.stderr and "not measured" in done.stdout


def test_running_out_while_measuring(
    segnet_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def step(self: Learner, batches: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr(Learner, "step", step)
    done = run(segnet_data, tmp_path)
    assert done.exit_code == 1
    assert "out of memory: a training step of 2 frames of 32x48" in done.stderr
    assert "parameters" in done.stdout


def run(data: Path, where: Path, *options: str) -> Any:
    save = where / "runs"
    words = ["train", "--data", str(data), "--save-dir", str(save), *OPTIONS, *options]
    done = CliRunner().invoke(app, [*words, "--dry-run"], env={"COLUMNS": "80"})
    assert not save.exists(), "a plan leaves no folder"
    return done


def test_the_command(segnet_data: Path, tmp_path: Path) -> None:
    done = run(segnet_data, tmp_path)
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    for label, start in (
        ("protocol", "camvid11@360x480"), ("frames", "5 to train on, 3 to validate"),
        ("a step", "4 frames = 2 x 2 batches"), ("steps", "1 an epoch, 3 in all (3 epochs)"),
        ("network gets", "72x88, with mirrored borders"), ("the run", "0:0"),
        ("schedule", "poly, peak 0.0002"),
    ):  # fmt: skip
        assert any(line.startswith(f"{label:<14} {start}") for line in lines), label
    assert max(map(len, lines)) <= 80
    assert "\x1b" not in done.stdout


def test_without_a_dataset_the_network_is_still_known(tmp_path: Path) -> None:
    missing = tmp_path / "nowhere"
    done = run(missing, tmp_path)
    assert done.exit_code == 1 and "nowhere" in done.stderr
    assert "72x88, with mirrored borders" in done.stdout and "no dataset" in done.stdout
    assert "an epoch" not in done.stdout
    unknown = run(missing, tmp_path, "--classes", "dataset")
    assert unknown.exit_code == 1 and not unknown.stdout
    plan = plan_without_data(small(missing, tmp_path, train__batch_size="auto"))
    assert plan is not None
    found = plan.recipe.train
    assert (found.batch_size, found.accumulate) == (8, 1)  # the base's 4 frames, 2 batches a step
