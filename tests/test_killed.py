"""A run killed with SIGKILL at any moment and resumed is the run that was never killed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import killed_run
import numpy as np
import pytest
import torch
from fork_server import fork_server

from smp_camvid import recipe
from smp_camvid.data.camvid import standard_stems

pytestmark = pytest.mark.slow

VANILLA = [
    ("model.base_channels", 4), ("model.depth", 2), ("model.padding", "same"),
    ("model.norm", "batch"), ("model.dropout", 0.3),
]  # fmt: skip
SMP = [
    ("model.arch", "unet"), ("model.encoder_name", "tu-test_resnet"), ("model.encoder_depth", 3),
    ("model.decoder_channels", [16, 8, 8]), ("model.encoder_options", {"drop_path_rate": 0.3}),
]  # fmt: skip
COMMON = [
    ("data.size", [32, 48]), ("train.epochs", 3), ("train.batch_size", 2), ("train.accumulate", 2),
    ("train.workers", 2), ("train.ema", 0.9), ("train.schedule", "cosine"), ("train.lr", 1e-2),
    ("train.checkpoint_steps", 2), ("train.save_every", 1), ("train.verbose", 0),
    ("train.save_plots", False), ("train.precision", "fp32"), ("train.optimizer", "adamw"),
    ("train.stop_after", 50),
]  # fmt: skip
# 13 frames in twos (the last alone and left out), two batches a step: three steps an epoch.
FRAMES, STEPS = {"train": 13, "val": 5}, 9


def drawn_points(seed: int) -> list[tuple[str, int]]:
    """Kill points over steps, validation and writes, each counted from where the run goes on."""
    rng = np.random.default_rng(seed)
    kinds = [
        "StepDone", "ValidationStep", "checkpoint half written", "checkpoint not renamed",
        "weights half written", "metrics written",
    ]  # fmt: skip
    order = [*rng.permutation(kinds)]
    return [(str(kind), int(rng.integers(1, 3))) for kind in order]


@pytest.fixture
def start(make_segnet: Any, tmp_path: Path) -> Any:
    """Writes the recipe of one family and returns what starts a process on it."""
    stems = {split: list(standard_stems(split)[:n]) for split, n in FRAMES.items()}
    data = make_segnet(stems, (36, 48))
    server = fork_server()

    def begin(family: Sequence[tuple[str, Any]], folder: str) -> Any:
        save_dir = tmp_path / folder
        chosen = [*family, *COMMON, ("data.path", str(data)), ("name", "run")]
        file = tmp_path / f"{folder}.toml"
        file.write_text(
            recipe.resolve("base", [*chosen, ("train.save_dir", str(save_dir))]).recipe.to_toml()
        )

        def process(kill: tuple[str, int] | None, resume: bool, restore: bool = True) -> int:
            run_dir = str(save_dir / "run-1") if resume else ""
            child = server.Process(target=killed_run.run, args=(str(file), run_dir, kill, restore))
            child.start()
            child.join(120)
            assert child.exitcode is not None, "the process hangs"
            return child.exitcode

        return process, save_dir / "run-1"

    return begin


def leaves(value: Any, path: str = "") -> dict[str, Any]:
    """Nested values -> those at the ends, by path."""
    if isinstance(value, dict | list | tuple):
        inner = value.items() if isinstance(value, dict) else enumerate(value)
        return {k: v for key, item in inner for k, v in leaves(item, f"{path}/{key}").items()}
    return {path: value}


def differing(ours: Path, theirs: Path) -> list[str]:
    """What two runs of one recipe do not share: files byte for byte, checkpoints leaf for leaf."""
    found = [
        name
        for name in [
            "metrics.jsonl",
            *(f"weights/{p.name}" for p in (theirs / "weights").iterdir()),
        ]
        if (ours / name).read_bytes() != (theirs / name).read_bytes()
    ]
    a, b = (
        leaves(torch.load(run / "checkpoint.pt", weights_only=True)["parts"])
        for run in (ours, theirs)
    )
    assert a.keys() == b.keys()
    for key, value in a.items():
        same = torch.equal(value, b[key]) if isinstance(value, torch.Tensor) else value == b[key]
        found += [] if same else [key]
    return found


def train_killed(process: Any, run: Path, points: list[tuple[str, int]], **how: Any) -> None:
    """Every point in turn: the run goes on, is killed there, and has work left."""
    for number, point in enumerate(points):
        assert process(point, resume=number > 0, **how) == killed_run.KILLED, point
        done = [torch.load(p, weights_only=True) for p in whole_checkpoints(run)]
        steps = max((d["state"]["step"] for d in done), default=0)
        assert steps < STEPS, f"no work left at {point}"
    assert process(None, resume=True, **how) == 0


def whole_checkpoints(run: Path) -> list[Path]:
    return [p for p in (run / "checkpoint.pt", run / "checkpoint-previous.pt") if p.is_file()]


@pytest.mark.parametrize("family", [VANILLA, SMP], ids=["vanilla", "smp"])
def test_a_run_killed_anywhere_is_the_run_never_killed(start: Any, family: Any) -> None:
    process, whole = start(family, "whole")
    assert process(None, resume=False) == 0
    killed = 0
    for seed in (1, 2, 3):
        points = drawn_points(seed)[:4]
        process, run = start(family, f"killed{seed}")
        train_killed(process, run, points)
        killed += len(points)
        assert differing(run, whole) == []
        assert not list(run.rglob(".*")), "unfinished files are left"
    assert killed >= 10


def test_without_the_random_state_it_is_another_run(start: Any) -> None:
    process, whole = start(VANILLA, "whole")
    assert process(None, resume=False) == 0
    process, run = start(VANILLA, "forgetful")
    train_killed(process, run, [("StepDone", 5)], restore=False)
    assert "metrics.jsonl" in differing(run, whole)
