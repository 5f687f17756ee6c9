"""Going on with a run: what is refused, what is forgiven, what a broken disk leaves."""

from __future__ import annotations

import resource
from pathlib import Path
from typing import Any

import pytest
import torch
from runs_of_tests import Recorder, Stopper, lines, small, trained
from typer.testing import CliRunner

from smp_camvid import runs
from smp_camvid.cli import app
from smp_camvid.errors import RunError, UsageError
from smp_camvid.training import events, keeper
from smp_camvid.training.checkpoint import checksum, load_checkpoint
from smp_camvid.training.experiment import build_trainer


def heard_on_resuming(run: Path, recipe: Any) -> list[str]:
    recorder = Recorder()
    going_on = build_trainer(recipe, listeners=[recorder])
    going_on.resume(run)
    going_on.train()
    return [notice.message for notice in recorder.of(events.Notice)]


def damage(path: Path, how: str) -> None:
    data = bytearray(path.read_bytes())
    if how == "torn":
        path.write_bytes(data[: len(data) // 2])
    elif how == "a bit of a weight":
        document = torch.load(path, weights_only=True)
        name = next(n for n in document["parts"]["model"] if n.endswith("weight"))
        document["parts"]["model"][name].view(-1).view(torch.uint8)[0] ^= 1
        torch.save(document, path)
    else:
        assert how == "missing"
        path.unlink()


@pytest.mark.parametrize("how", ["torn", "a bit of a weight", "missing"])
def test_the_checkpoint_before_steps_in(segnet_data: Path, tmp_path: Path, how: str) -> None:
    changes = {"train__epochs": 3, "train__checkpoint_steps": 1, "model__dropout": 0.3}
    whole = trained(segnet_data, tmp_path, **changes).run_dir
    run = trained(segnet_data, tmp_path, **changes).run_dir
    damage(run / "checkpoint.pt", how)
    said = heard_on_resuming(run, small(segnet_data, tmp_path, **changes))
    what = "missing" if how == "missing" else "broken"
    assert f"The newest checkpoint is {what}; the run goes on from the one before it." in said
    assert lines(run) == lines(whole)
    for name in ("last", "best"):
        ours, theirs = (r / "weights" / f"{name}.safetensors" for r in (run, whole))
        assert ours.read_bytes() == theirs.read_bytes()


def test_two_broken_checkpoints_are_one_plain_error(segnet_data: Path, tmp_path: Path) -> None:
    run = trained(segnet_data, tmp_path).run_dir
    for path in run.glob("checkpoint*.pt"):
        damage(path, "torn")
    with pytest.raises(RunError, match="and so is the one before it"):
        load_checkpoint(run / "checkpoint.pt")


def test_the_checksum_sees_values_names_and_types() -> None:
    document = {"a": [1, 2.0], "t": torch.arange(3)}
    assert checksum(document) == checksum({"a": [1, 2.0], "t": torch.arange(3)})
    for other in (
        {"a": [1, 2.5], "t": torch.arange(3)},
        {"b": [1, 2.0], "t": torch.arange(3)},
        {"a": [1, 2.0], "t": torch.arange(3).int()},
        {"a": [1, 2.0], "t": torch.tensor([0, 1, 3])},
    ):
        assert checksum(document) != checksum(other)


def test_a_changed_recipe_is_refused_with_the_difference(segnet_data: Path, tmp_path: Path) -> None:
    run = trained(segnet_data, tmp_path).run_dir
    before = lines(run)
    other = build_trainer(
        small(segnet_data, tmp_path, train__lr=3e-3, loss__label_smoothing=0.1), listeners=[]
    )
    with pytest.raises(UsageError) as caught:
        other.resume(run)
    assert "loss.label_smoothing 0.0 -> 0.1; train.lr 0.01 -> 0.003" in str(caught.value)
    words = ["train", "--resume", str(run)]
    refused = CliRunner().invoke(app, [*words, "--lr", "0.003", "--arch", "unet"])
    assert refused.exit_code == 2 and refused.stdout == ""
    assert "model.arch vanilla -> unet" in refused.stderr and "0.01 -> 0.003" in refused.stderr
    assert CliRunner().invoke(app, [*words, "--epochs", "1"]).exit_code == 2
    # the value that the run has anyway is no change, and these never are
    same = [*words, "--lr", "0.01", "--workers", "1", "--device", "cpu"]
    assert CliRunner().invoke(app, same).exit_code == 0
    assert lines(run) == before


def test_more_epochs_follow_the_schedule_of_the_new_total(
    segnet_data: Path, tmp_path: Path
) -> None:
    cosine = {"train__schedule": "cosine"}
    run = trained(segnet_data, tmp_path, train__epochs=2, **cosine).run_dir
    longer = small(segnet_data, tmp_path, train__epochs=4, **cosine)
    said = heard_on_resuming(run, longer)
    assert any("schedule of the new total" in sentence for sentence in said)
    whole = trained(segnet_data, tmp_path, train__epochs=4, **cosine).run_dir
    ours, theirs = (runs.read_lines(r / "metrics.jsonl") for r in (run, whole))
    assert [row["epoch"] for row in ours] == [1, 2, 3, 4]
    assert [row["lr"] for row in ours[2:]] == [row["lr"] for row in theirs[2:]]
    assert ours[1]["lr"] != theirs[1]["lr"]


def test_early_stopping_counts_on_after_a_resume(segnet_data: Path, tmp_path: Path) -> None:
    # a rate that changes nothing: the first epoch stays the best
    still = {
        "train__lr": 1e-30, "train__epochs": 9, "train__stop_after": 3, "model__norm": "none",
    }  # fmt: skip
    made = trained(segnet_data, tmp_path, **still)
    assert made.state.epoch == 4 and made.state.stopped
    cut = build_trainer(
        small(segnet_data, tmp_path, **still), listeners=[Stopper(events.EpochDone, 3)]
    )
    assert cut.train().reason == "interrupted" and cut.state.epoch == 3
    again = build_trainer(small(segnet_data, tmp_path, **still), listeners=[])
    again.resume(cut.run_dir)
    again.train()
    assert again.state.epoch == 4 and lines(cut.run_dir) == lines(made.run_dir)
    assert (cut.run_dir / "weights" / "last.safetensors").is_file()


@pytest.mark.parametrize(("metric", "ok"), [("loss", True), ("Sky", True), ("sky", False)])
def test_early_stopping_watches_any_metric(
    segnet_data: Path, tmp_path: Path, metric: str, ok: bool
) -> None:
    changes = {"train__stop_after": 1, "train__stop_metric": metric, "train__lr": 1e-30}
    if ok:
        assert trained(segnet_data, tmp_path, train__epochs=5, **changes).state.epoch <= 5
        return
    with pytest.raises(UsageError, match=r"no metric 'sky'\. Did you mean 'Sky'"):
        build_trainer(small(segnet_data, tmp_path, **changes), listeners=[])


def test_a_full_disk_leaves_the_last_checkpoint_whole(segnet_data: Path, tmp_path: Path) -> None:
    changes = {"train__epochs": 4, "train__checkpoint_steps": 1}
    whole = trained(segnet_data, tmp_path, **changes).run_dir
    recipe = small(segnet_data, tmp_path, **changes)
    made = build_trainer(recipe, listeners=[DiskFills(after=5)])
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        with pytest.raises(RunError) as caught:
            made.train()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    run = made.run_dir
    assert f"smp-camvid train --resume {run}" in str(caught.value)
    assert "cannot be written (File too large); its last checkpoint is whole" in str(caught.value)
    assert load_checkpoint(run / "checkpoint.pt")["state"].step == 4
    assert not list(run.rglob(".*"))
    heard_on_resuming(run, recipe)
    assert lines(run) == lines(whole)
    ours, theirs = (r / "weights" / "last.safetensors" for r in (run, whole))
    assert ours.read_bytes() == theirs.read_bytes()


class DiskFills(Recorder):
    """From the n-th step on no file can grow beyond a kilobyte."""

    def __init__(self, after: int) -> None:
        super().__init__()
        self.after = after

    def on_event(self, event: events.Event) -> None:
        super().on_event(event)
        if len(self.of(events.StepDone)) == self.after:
            hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
            resource.setrlimit(resource.RLIMIT_FSIZE, (1024, hard))


def test_a_run_without_a_checkpoint_yet_begins_anew_in_its_folder(
    segnet_data: Path, tmp_path: Path
) -> None:
    whole = trained(segnet_data, tmp_path).run_dir
    recipe = small(segnet_data, tmp_path)
    killed = runs.create_run(tmp_path, "vanilla")
    runs.write_text(killed / "config.toml", recipe.to_toml())
    heard_on_resuming(killed, recipe)
    assert lines(killed) == lines(whole)
    (whole / "checkpoint.pt").unlink()
    (whole / "checkpoint-previous.pt").unlink()
    with pytest.raises(RunError, match="no checkpoint"):  # it has weights: nothing may be lost
        heard_on_resuming(whole, recipe)


def test_a_slow_disk_is_asked_less_often(
    segnet_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = trained(segnet_data, tmp_path)
    clock = iter([1000.0, 1000.0 + keeper.SAVE_AT_LEAST_EVERY_SECONDS])
    monkeypatch.setattr(keeper.time, "monotonic", lambda: next(clock))
    made.keeper._saved_at = 0.0
    made.keeper._cost = 0.0
    assert made.keeper.overdue
    made.keeper._cost = 100.0  # a write that takes longer than a minute may wait for its turn
    assert not made.keeper.overdue


def test_operations_without_a_repeatable_kernel_are_named_once(
    segnet_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard = Recorder()
    recipe = small(segnet_data, tmp_path, train__deterministic=True)
    made = build_trainer(recipe, listeners=[heard])
    step = made.learner.step

    def with_unpooling(*given: Any) -> Any:
        pooled, at = torch.nn.functional.max_pool2d(torch.rand(1, 1, 4, 4), 2, return_indices=True)
        torch.nn.functional.max_unpool2d(pooled, at, 2)  # has none on a CPU either
        return step(*given)

    monkeypatch.setattr(made.learner, "step", with_unpooling)
    try:
        made.train()
    finally:
        torch.use_deterministic_algorithms(False)
    said = [n.message for n in heard.of(events.Notice)]
    assert len(said) == 1 and "Not deterministic on this device: max_unpooling2d" in said[0]
