"""Several processes train as one: the same weights, the same scores, one writer, one ending."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gloo_group
import numpy as np
import pytest
from gloo_group import SMALL, Group
from runs_of_tests import small

import smp_camvid
from smp_camvid import runs
from smp_camvid.data.camvid import standard_stems
from smp_camvid.evaluation.evaluate import evaluate

VANILLA = {**SMALL, "norm": "none"}
FROZEN = {
    "arch": "unet", "encoder_name": "tu-test_resnet", "encoder_weights": None,
    "encoder_depth": 3, "decoder_channels": (16, 8, 8),
}  # fmt: skip
# Of its encoder only the first stages are used.
SHALLOW = {**FROZEN, "encoder_name": "mobilenet_v2"}


@pytest.fixture(scope="module")
def two() -> Iterator[Group]:
    group = Group(2)
    yield group
    group.close()


@pytest.fixture(scope="module")
def three() -> Iterator[Group]:
    group = Group(3)
    yield group
    group.close()


def furthest(one: dict[str, Any], other: dict[str, Any]) -> float:
    """The largest difference between two sets of weights."""
    return max(float(np.abs(one[key] - other[key]).max()) for key in one)


CASES = {
    "vanilla": (VANILLA, {}, {}),
    "smp, BatchNorm frozen": (FROZEN, {}, {"freeze_norm": True}),
    "all losses": (
        VANILLA,
        {"dice": 1.0, "lovasz": 1.0, "ohem": 0.5, "focal": 0.5, "label_smoothing": 0.1},
        {},
    ),
    "accumulation": (VANILLA, {"dice": 1.0}, {"accumulate": 3}),
    "deep supervision, accumulation, checkpointing": (
        VANILLA,
        {},
        {"deep_supervision": 0.5, "accumulate": 2, "activation_checkpointing": True},
    ),
    "encoder frozen for an epoch": (FROZEN, {}, {"freeze_norm": True, "freeze_encoder": 1}),
    "encoder used in part, gradients clipped": (
        SHALLOW,
        {},
        {"freeze_norm": True, "clip_norm": 1.0},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_two_processes_equal_one_with_the_doubled_batch(two: Group, case: str) -> None:
    """20 steps of 5 frames, 3 + 2, with as many void pixels as chance will have."""
    alone = gloo_group.train(*CASES[case])
    first, second = two(gloo_group.train, *CASES[case])
    assert furthest(first["weights"], second["weights"]) == 0
    assert furthest(first["weights"], alone["weights"]) <= 1e-6
    assert np.allclose(first["losses"], alone["losses"], rtol=0, atol=1e-6)


@pytest.mark.parametrize("missing", ["counts", "gradients"])
def test_without_an_all_reduce_they_do_not(two: Group, missing: str) -> None:
    alone = gloo_group.train(*CASES["vanilla"])
    first, _ = two(gloo_group.train, *CASES["vanilla"], deaf=missing)
    assert furthest(first["weights"], alone["weights"]) > 1e-3


def test_a_step_waits_for_the_device_once(two: Group) -> None:
    options = {"ema": 0.9, "clip_norm": 1.0, "deep_supervision": 0.5}
    for counts in two(gloo_group.host_reads, {**SMALL, "norm": "batch"}, {"dice": 1.0}, options):
        assert counts[1:] == [1, 1]


def test_parameters_out_of_reach_are_not_sent(two: Group) -> None:
    counted, same = two(gloo_group.parameters_sent, SHALLOW, {}, {"freeze_norm": True})
    sent, reached, learning = counted
    assert counted == same
    assert sent == reached < learning - 50
    fewer, _ = two(gloo_group.parameters_sent, SHALLOW, {}, {"freeze_encoder": -1})
    assert fewer[0] == fewer[1] == fewer[2] < sent - 10


def test_statistics_become_those_that_are_saved(two: Group) -> None:
    """Each process has normalised by its own frames."""
    (before, after), (others_before, others_after) = two(
        gloo_group.statistics_before_and_after_aligning, {**SMALL, "norm": "batch"}
    )

    def same(one: list[Any], other: list[Any]) -> bool:
        return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))

    assert not same(before, others_before)
    assert same(after, others_after)
    assert same(after, before)


# --- evaluation -------------------------------------------------------------------------------


@pytest.fixture
def data(make_segnet: Any) -> Path:
    frames = {"train": 13, "val": 7}
    return make_segnet({k: list(standard_stems(k)[:n]) for k, n in frames.items()}, (36, 48))


@pytest.mark.parametrize("world", ["two", "three"])
def test_every_frame_counts_once(data: Path, world: str, request: pytest.FixtureRequest) -> None:
    """Whatever the split's size: batches of two, so some processes have none."""
    group: Group = request.getfixturevalue(world)
    for frames in range(1, 8):
        matrix, loss, counted = gloo_group.evaluate_first(data, frames)
        assert counted == frames
        for theirs in group(gloo_group.evaluate_first, data, frames):
            assert np.array_equal(theirs[0], matrix)
            assert theirs[1] == pytest.approx(loss, abs=1e-6)
            assert theirs[2] == frames


# --- whole runs -------------------------------------------------------------------------------


@pytest.fixture
def write_recipe(data: Path, tmp_path: Path) -> Any:
    """A run of three epochs, BatchNorm and averaged weights among them, as a file."""

    def write(**changed: Any) -> str:
        file = tmp_path / "recipe.toml"
        chosen = small(
            data, tmp_path / "runs", name="run", model__norm="batch", train__batch_size=4,
            train__ema=0.9, **{"train__epochs": 3, **changed},
        )  # fmt: skip
        file.write_text(chosen.to_toml())
        return str(file)

    return write


def test_a_run_of_two_has_one_writer_and_one_decoder(
    two: Group, write_recipe: Any, data: Path, tmp_path: Path
) -> None:
    (folder, decoded), (same, decoded_there) = two(gloo_group.run, write_recipe())
    assert folder == same
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["run-1"]
    assert (decoded, decoded_there) == (13 + 7, 0)
    run = Path(folder)
    rows = runs.read_lines(run / "metrics.jsonl")
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    assert not list(run.rglob(".*"))
    environment = json.loads((run / "environment.json").read_text())
    assert (environment["processes"], environment["backend"]) == (2, "gloo")
    # The scores are those of the weights that were saved.
    again = evaluate(smp_camvid.load(run), data, batch_size=4)
    assert again["miou"] == pytest.approx(rows[-1]["val"]["miou"], abs=1e-6)


def test_one_process_goes_on_with_a_run_of_two(two: Group, write_recipe: Any) -> None:
    (folder, _), _ = two(gloo_group.run, write_recipe())
    told = gloo_group.resume(write_recipe(train__epochs=4), folder)
    assert any("Processes: 1 instead of 2" in notice for notice in told), told
    assert [row["epoch"] for row in runs.read_lines(Path(folder) / "metrics.jsonl")] == [1, 2, 3, 4]


@pytest.mark.parametrize("rank", [0, 1])
def test_a_nan_in_one_process_stops_all_before_the_update(
    two: Group, tmp_path: Path, rank: int
) -> None:
    answers = two(gloo_group.nan_in_one_process, str(tmp_path), rank, at=2)
    assert answers[0] == answers[1]
    message, as_before = answers[0]
    assert message.startswith("TrainingError: The loss is nan at epoch 1, batch 3 ")
    assert f"frame {200 + rank}" in message and f"frame {201 - rank}" not in message
    assert as_before
