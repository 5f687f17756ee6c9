"""Real runs with TensorBoard and offline W&B: their files hold what metrics.jsonl holds."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from logged import Ears, curves_of, next_second, parts_of, pixels, places, recorded, tensorboard
from runs_of_tests import Recorder, small

from smp_camvid.report.wandb_records import history_rows
from smp_camvid.training.events import Event, StepDone
from smp_camvid.training.experiment import build_trainer


@pytest.fixture
def logged(
    segnet_data: Path, tmp_path: Path, machine: dict[str, str], ears: Ears
) -> SimpleNamespace:
    """A run from the command line with both loggers: its folder and what it said."""
    words = [
        "train", "--logger", "tensorboard", "--logger", "wandb", "--data", segnet_data,
        "--size", "32x48", "--epochs", "2", "--batch-size", "2", "--workers", "0",
        "--precision", "fp32", "--set", "model.base_channels=4", "--set", "model.depth=2",
        "--set", "model.padding=same", "--set", "data.score_size=native",
    ]  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "smp_camvid", *map(str, words)],
        cwd=tmp_path / "cwd", env={**machine, **ears.environment()},
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return SimpleNamespace(run=tmp_path / "cwd/runs/vanilla-1", out=done.stdout, err=done.stderr)


@pytest.mark.slow
def test_a_real_run_is_in_both_files_and_nowhere_else(
    logged: SimpleNamespace, tmp_path: Path, temporary: Path, ears: Ears
) -> None:
    assert logged.out == "runs/vanilla-1\n"
    assert "wandb:" not in logged.err and "was left out" not in logged.err
    assert not ears.heard.is_set()
    assert not [*(tmp_path / "home").rglob("*"), *temporary.rglob("*")]
    assert [path.name for path in (tmp_path / "cwd").iterdir()] == ["runs"]
    check_curves(logged.run)
    check_pictures_and_recipe(logged.run)


def check_curves(run: Path) -> None:
    """Both files against metrics.jsonl, value by value, and nothing beside."""
    truth, curves = recorded(run), curves_of(run)
    (part,) = parts_of(run)
    rows = [*history_rows(part)]
    by_epoch = {row["epoch"]: row for row in rows if "val/loss" in row}
    assert set(truth) == set(by_epoch) == {1, 2}
    for epoch, values in truth.items():
        assert {k: v for k, v in by_epoch[epoch].items() if k[:3] in ("tra", "val")} == values
        at = {name: curve[2 * epoch] for name, curve in curves.items() if name in values}
        assert at == pytest.approx(values, rel=1e-6)  # event files hold float32
    names = {name for values in truth.values() for name in values}
    assert {name for name in curves if name.startswith(("train", "val"))} == names
    assert set(curves["machine/images_per_second"]) == {2, 4}
    (first,) = [row for row in rows if "step" in row]  # one of ten
    assert first["step"] == 1 and first["step/lr"] == 2e-4
    assert curves["step/loss"] == {1: pytest.approx(first["step/loss"], rel=1e-6)}


def check_pictures_and_recipe(run: Path) -> None:
    read, recipe = tensorboard(run), (run / "config.toml").read_text()
    (text,) = read.Tensors("recipe/text_summary")
    assert textwrap.dedent(text.tensor_proto.string_val[0].decode()).strip() == recipe.strip()
    (part,) = parts_of(run)
    rows = [*history_rows(part)]
    for split in ("train", "val"):
        (row,) = [row for row in rows if f"pictures/{split}" in row]
        (stored,) = read.Images(f"pictures/{split}")
        file = part.parent / "files" / row[f"pictures/{split}"]["path"]
        assert (row["epoch"], stored.step) == (2, 4)
        assert pixels(file) == pixels(io.BytesIO(stored.encoded_image_string))


class LateStop:
    """Ctrl-C in the second epoch of a run whose last checkpoint is its first."""

    def __init__(self, run_dir: Path) -> None:
        self.checkpoint, self.steps = run_dir / "checkpoint.pt", 0

    def on_event(self, event: Event) -> None:
        self.steps += isinstance(event, StepDone)
        if isinstance(event, StepDone) and self.steps == 1:
            self.first = self.checkpoint.read_bytes()
        if isinstance(event, StepDone) and self.steps == 3:
            os.kill(os.getpid(), signal.SIGINT)


def test_a_real_run_resumed_has_the_curves_of_an_uninterrupted_one(
    segnet_data: Path, tmp_path: Path, own_wandb: None, every_step: None,
    beside: Callable[[Any], Any],
) -> None:  # fmt: skip
    recipe = small(segnet_data, tmp_path, train__loggers=["tensorboard", "wandb"])
    whole = build_trainer(recipe).train().run_dir
    stop = beside(LateStop(tmp_path / "vanilla-2"))
    cut = build_trainer(recipe).train()
    assert cut.reason == "interrupted" and cut.run_dir == stop.checkpoint.parent
    stop.checkpoint.write_bytes(stop.first)
    written = places(parts_of(cut.run_dir)[0])
    assert ("step/loss", 3) in written and ("val/loss", 1) in written  # past the checkpoint
    beside(Recorder())
    next_second()
    again = build_trainer(recipe)
    again.resume(cut.run_dir)
    assert again.train().reason == "done"
    assert seeded(curves_of(cut.run_dir)) == seeded(curves_of(whole))
    (only,), both = parts_of(whole), parts_of(cut.run_dir)
    found = sorted(place for part in both for place in places(part))
    assert len(both) == 2 and found == sorted(places(only))


def seeded(curves: dict[str, dict[int, float]]) -> dict[str, dict[int, float]]:
    """Those that the seed determines."""
    return {name: curve for name, curve in curves.items() if not name.startswith("machine")}
