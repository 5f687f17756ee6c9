"""--batch-size auto: the most frames that fit, and batches that add up to the same step."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from smp_camvid.cli import app
from smp_camvid.data.classes import CAMVID11
from smp_camvid.data.crops import PLAIN, CropPlan
from smp_camvid.errors import DeviceError, UsageError
from smp_camvid.models.network import Network
from smp_camvid.recipe import Recipe, resolve
from smp_camvid.training import batch_size as batch_size_module
from smp_camvid.training import experiment
from smp_camvid.training.batch_size import (
    SPARE,
    UNSEEN,
    Trial,
    divide,
    largest_picture,
    largest_that_fits,
    resolve_batch_size,
)
from smp_camvid.training.distributed import Dist
from smp_camvid.training.learner import Learner

SIZE = (32, 48)
SMALL = [
    ("model.base_channels", 4), ("model.depth", 2), ("model.padding", "same"),
    ("model.dropout", 0.5), ("data.size", list(SIZE)), ("train.precision", "fp32"),
    ("train.device", "cpu"), ("train.workers", 0), ("train.verbose", 0), ("train.epochs", 1),
    ("train.save_plots", False),
]  # fmt: skip


def small(*changes: tuple[str, Any]) -> Recipe:
    return resolve("vanilla", [*SMALL, *changes]).recipe


def auto(effective: int, *changes: tuple[str, Any]) -> Recipe:
    return small(("train.batch_size", "auto"), ("train.effective_batch", effective), *changes)


def network_of(recipe: Recipe) -> Network:
    return experiment.build_network(recipe, CAMVID11)


# --- the search and the division ---------------------------------------------------------------


@pytest.mark.parametrize("cap", [1, 2, 3, 7, 16, 33])
def test_the_search_finds_the_limit_in_few_tries(cap: int) -> None:
    for limit in range(40):
        tried: list[int] = []

        def fits(frames: int, limit: int = limit, tried: list[int] = tried) -> bool:
            tried.append(frames)
            return frames <= limit

        assert largest_that_fits(fits, cap) == min(limit, cap)
        assert max(tried) <= cap and len(set(tried)) == len(tried)
        assert len(tried) <= 2 * cap.bit_length() + 1
        failed = [frames for frames in tried if frames > limit]
        assert max(failed, default=0) <= 2 * max(1, limit)  # never far beyond what there is


def test_the_division_keeps_the_step() -> None:
    for share in range(1, 65):
        for most in range(1, share + 1):
            frames, batches = divide(share, most)
            assert 1 <= frames <= most
            if frames * batches == share:
                continue
            # Only where every exact division would leave more than half of the room empty.
            assert not any(share % n == 0 for n in range((most + 1) // 2, most + 1))
            assert abs(frames * batches - share) <= batches / 2
            assert batches == -(-share // most)
    assert divide(16, 13) == (8, 2)
    assert divide(7, 6) == (4, 2)
    assert divide(4, 4) == (4, 1)
    assert divide(12, 1) == (1, 12)


def test_the_largest_picture_of_a_run() -> None:
    assert largest_picture((64, 96), PLAIN) == (64, 96)
    assert largest_picture((64, 96), CropPlan(multi_scale=(0.5, 2.0))) == (128, 192)
    whole = CropPlan(full_frame_from=5, frame_size=(360, 480))
    assert largest_picture((64, 96), whole) == (360, 480)
    both = CropPlan(multi_scale=(1.0, 2.0), full_frame_from=5, frame_size=(100, 100))
    assert largest_picture((64, 96), both) == (128, 192)


# --- what a recipe means by it -----------------------------------------------------------------


def test_auto_keeps_the_frames_a_step_of_what_it_replaces(tmp_path: Path) -> None:
    def train(name: str, *options: tuple[str, Any]) -> Any:
        return resolve(name, options).recipe.train

    ask = ("train.batch_size", "auto")
    assert train("base", ask).effective_batch == 4
    assert train("notebook", ask).effective_batch == 16
    assert train("base", ask, ("train.accumulate", 3)).effective_batch == 12
    assert train("base", ask, ("train.effective_batch", 6)).effective_batch == 6
    mine = tmp_path / "mine.toml"
    mine.write_text('[train]\nbatch_size = "auto"\neffective_batch = 24\n')
    assert train(str(mine)).effective_batch == 24
    assert train(str(mine), ask).effective_batch == 24
    assert train(str(mine), ("train.batch_size", 8)).effective_batch == 0
    mine.write_text('[train]\nbatch_size = "auto"\naccumulate = 2\n')
    assert train(str(mine)).effective_batch == 8


@pytest.mark.parametrize("wrong", [0, -1, 2.5, "many", True, "4"])
def test_a_wrong_batch_size_is_one_problem(wrong: Any) -> None:
    with pytest.raises(UsageError, match="has 1 problem") as caught:
        small(("train.batch_size", wrong))
    assert "train.batch_size: should be auto or a whole number of at least 1" in str(caught.value)


# --- the whole ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("effective", "limit", "batch", "accumulate", "words"),
    [
        (8, 100, 8, 1, "all frames of a step fit at once"),
        (8, 5, 4, 2, "8 frames a step as before"),
        (16, 1, 1, 16, "one frame fits"),
        (7, 6, 4, 2, "8 frames a step, since 7 cannot be divided so well"),
    ],
)
def test_the_recipe_that_runs_has_numbers(
    effective: int, limit: int, batch: int, accumulate: int, words: str
) -> None:
    recipe = auto(effective)
    found, sentence = resolve_batch_size(
        recipe, network_of(recipe), SIZE, Dist(), lambda frames: frames <= limit
    )
    assert (found.train.batch_size, found.train.accumulate) == (batch, accumulate)
    assert words in sentence and f"--batch-size {batch} --accumulate {accumulate}" in sentence
    written = tomllib.loads(found.to_toml())["train"]
    assert (written["batch_size"], written["accumulate"]) == (batch, accumulate)
    again, silent = resolve_batch_size(found, network_of(recipe), SIZE, Dist())
    assert again == found and silent == ""


class Four(Dist):
    """Four processes, of which another one has less room."""

    world = 4

    def gather(self, value: Any) -> list[Any]:
        return [value, 3, value, value]


def test_processes_agree_on_the_least() -> None:
    recipe = auto(64)
    found, sentence = resolve_batch_size(
        recipe, network_of(recipe), SIZE, Four(), lambda frames: True
    )
    # 16 frames for each, 3 at a time: 2 x 8 in each of 4 processes.
    assert (found.train.batch_size, found.train.accumulate) == (8, 8)
    assert "3 frames fit at once in each of 4 processes" in sentence


def small_device(monkeypatch: pytest.MonkeyPatch, most: int) -> list[int]:
    """A device on which steps of more than `most` frames fail as CUDA's do; returns the tries."""
    real, tried = Learner.step, []

    def step(self: Learner, batches: Sequence[Any]) -> Any:
        tried.append(len(batches[0].image))
        if tried[-1] > most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return real(self, batches)

    monkeypatch.setattr(Learner, "step", step)
    monkeypatch.setattr(Trial, "fits", property(lambda self: self.survives))
    return tried


def test_real_steps_are_tried_and_leave_no_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = small_device(monkeypatch, 5)
    recipe = auto(12)
    network = network_of(recipe)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    assert any("running_mean" in name for name in before)
    generator = torch.get_rng_state()
    found, _ = resolve_batch_size(recipe, network, SIZE, Dist())
    assert tried == [1, 2, 4, 8, 6, 5]
    assert (found.train.batch_size, found.train.accumulate) == (4, 3)
    after = network.state_dict()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())
    assert all(p.grad is None and p.device.type == "cpu" for p in network.parameters())
    assert torch.equal(torch.get_rng_state(), generator)


def test_nothing_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    small_device(monkeypatch, 0)
    recipe = auto(4)
    with pytest.raises(DeviceError, match=r"Not one frame fits.*--size") as caught:
        resolve_batch_size(recipe, network_of(recipe), SIZE, Dist())
    assert "--batch-size" not in str(caught.value)


def test_other_failures_of_a_trial_are_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    small_device(monkeypatch, 5)

    def broken(self: Learner, batches: Sequence[Any]) -> Any:
        raise RuntimeError("expected scalar type Float")

    monkeypatch.setattr(Learner, "step", broken)
    recipe = auto(4)
    with pytest.raises(RuntimeError, match="scalar type"):
        resolve_batch_size(recipe, network_of(recipe), SIZE, Dist())


def test_on_the_cpu_the_memory_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = auto(64)
    network = network_of(recipe)
    memory = Trial(recipe, network, SIZE, torch.device("cpu")).memory
    free = int(UNSEEN * (memory.total(10) - memory.weights) / SPARE) + 1000
    monkeypatch.setattr(batch_size_module, "free_bytes", lambda device: free)
    monkeypatch.setattr(Learner, "step", None)  # no step is taken
    found, _ = resolve_batch_size(recipe, network, SIZE, Dist())
    assert (found.train.batch_size, found.train.accumulate) == (8, 8)  # of 10 that fit
    monkeypatch.setattr(batch_size_module, "free_bytes", lambda device: 1000)
    with pytest.raises(DeviceError, match=r"1\.0 kB are free"):
        resolve_batch_size(recipe, network, SIZE, Dist())


def test_a_run_is_recorded_with_the_numbers(segnet_data: Path, tmp_path: Path) -> None:
    words = [word for key, value in SMALL for word in ("--set", f"{key}={value}")]
    done = CliRunner().invoke(
        app,
        ["train", *words, "--data", str(segnet_data), "--save-dir", str(tmp_path / "runs"),
         "--batch-size", "auto", "--set", "train.effective_batch=2", "--set", "train.verbose=1"],
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "Batch size auto: all frames of a step fit at once" in " ".join(done.stderr.split())
    written = tomllib.loads((tmp_path / "runs" / "vanilla-1" / "config.toml").read_text())["train"]
    assert (written["batch_size"], written["accumulate"]) == (2, 1)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_on_cuda_the_memory_is_filled_and_given_back() -> None:
    recipe = auto(4096, ("train.device", "cuda"), ("model.base_channels", 32))
    network, size = network_of(recipe), (256, 384)
    before = torch.cuda.memory_allocated()
    _, total = torch.cuda.mem_get_info()
    torch.cuda.set_per_process_memory_fraction(min(1.0, 4e9 / total))
    try:
        found, _ = resolve_batch_size(recipe, network, size, Dist())
        trial = Trial(found, network, size, torch.device("cuda"))
        assert 1 <= found.train.frames_per_batch < 4096
        assert trial.survives(found.train.frames_per_batch)
        assert not trial.survives(2 * found.train.frames_per_batch + 2)
        del trial
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
        batch_size_module.free_cache(torch.device("cuda"))
    assert torch.cuda.memory_allocated() == before
    assert all(parameter.device.type == "cpu" for parameter in network.parameters())
