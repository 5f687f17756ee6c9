"""Ctrl-C and SIGTERM: a run that was stopped and goes on is the run that never stopped."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
import torch
from runs_of_tests import Recorder, Stopper, lines, small, trained
from safetensors.torch import load_file

import smp_camvid
from smp_camvid import runs
from smp_camvid.errors import RunError
from smp_camvid.recipe import resolve
from smp_camvid.training import events
from smp_camvid.training.experiment import build_trainer
from smp_camvid.training.trainer import Trainer


@pytest.mark.parametrize(
    ("kind", "after"),
    [(events.StepDone, 1), (events.StepDone, 5), (events.ValidationStep, 1), (events.EpochDone, 1)],
)
@pytest.mark.parametrize("sig", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_and_resumed_equals_uninterrupted(
    segnet_data: Path, tmp_path: Path, kind: type, after: int, sig: signal.Signals
) -> None:
    changes = {"train__epochs": 3, "model__dropout": 0.3, "train__schedule": "cosine"}
    whole = trained(segnet_data, tmp_path, **changes).run_dir
    recipe = small(segnet_data, tmp_path, **changes)
    cut = build_trainer(recipe, listeners=[Stopper(kind, after, sig)])
    ended = cut.train()
    assert ended.reason == "interrupted" and cut.state.epoch < 3
    assert ended.next_command == f"smp-camvid train --resume {ended.run_dir}"
    going_on = build_trainer(recipe, listeners=[])
    going_on.resume(ended.run_dir)
    assert going_on.train().reason == "done"
    assert lines(ended.run_dir) == lines(whole)
    ours, theirs = (
        load_file(run / "weights" / "last.safetensors") for run in (ended.run_dir, whole)
    )
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


class Impatient(Stopper):
    """Sends the signal twice."""

    def on_event(self, event: events.Event) -> None:
        super().on_event(event)
        if isinstance(event, self.kind) and len(self.of(self.kind)) == self.after:
            signal.raise_signal(self.sig)


def test_the_second_signal_leaves_at_once_and_is_no_failure(
    segnet_data: Path, tmp_path: Path
) -> None:
    heard = Impatient(events.StepDone, 1)
    with pytest.raises(KeyboardInterrupt):
        build_trainer(small(segnet_data, tmp_path), listeners=[heard]).train()
    (ended,) = heard.of(events.RunEnded)
    assert ended.reason == "interrupted"
    assert ended.next_command == f"smp-camvid train --resume {ended.run_dir}"


@pytest.mark.parametrize(("after", "share"), [(1, 0.5), (2, 1.0)])
def test_the_time_left_is_that_of_whole_epochs(
    segnet_data: Path, tmp_path: Path, after: int, share: float
) -> None:
    """Two steps an epoch; after the second one of them only the validation is left to time."""
    recipe = small(segnet_data, tmp_path, train__epochs=3)
    run = build_trainer(recipe, listeners=[Stopper(events.StepDone, after)]).train().run_dir
    heard = Recorder()
    going_on = build_trainer(recipe, listeners=[heard])
    going_on.resume(run)
    going_on.train()
    first, second, third = heard.of(events.EpochDone)
    assert first.seconds_left == pytest.approx(2 * first.seconds / share)
    assert second.seconds_left == pytest.approx(second.seconds) and third.seconds_left == 0


def test_signal_handlers_are_put_back(segnet_data: Path, tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    trained(segnet_data, tmp_path, train__epochs=1)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_a_run_from_python_knows_its_data_and_goes_on_in_its_folder(
    segnet_data: Path, tmp_path: Path
) -> None:
    learned, judged = smp_camvid.loaders(segnet_data, size=(32, 48), batch_size=2)
    model = smp_camvid.create_model(
        "vanilla", classes=11, norm="batch", padding="same", base_channels=4, depth=1
    )
    stopper = Stopper(events.StepDone, 4)
    made = Trainer(
        model, learned, judged, epochs=2, save_dir=tmp_path, precision="fp32", listeners=[stopper],
        save_plots=False,
    )  # fmt: skip
    ended = made.train()
    assert ended.reason == "interrupted" and ended.epoch == 2
    recipe = resolve(str(ended.run_dir / "config.toml")).recipe
    assert recipe.data.path == str(segnet_data.resolve()) and recipe.data.size == (32, 48)
    assert recipe.train.batch_size == 2 and recipe.augment[0].name == "HorizontalFlip"
    assert smp_camvid.load(ended.run_dir).metadata["family"] == "camvid"  # last was written
    again = made.train()
    assert (again.reason, again.run_dir) == ("done", ended.run_dir)
    assert [row["epoch"] for row in runs.read_lines(ended.run_dir / "metrics.jsonl")] == [1, 2]


def test_curves_of_a_resumed_run_hold_all_epochs(segnet_data: Path, tmp_path: Path) -> None:
    recipe = small(segnet_data, tmp_path, train__epochs=3)
    cut = build_trainer(recipe, listeners=[Stopper(events.EpochDone, 2)])
    run = cut.train().run_dir
    going_on = build_trainer(recipe, listeners=[])
    going_on.resume(run)
    history = going_on.keeper.history()
    assert [epoch.epoch for epoch in history.epochs] == [1, 2]
    heard = [
        event for event in cut._audience._listeners[0].heard if isinstance(event, events.EpochDone)
    ]  # type: ignore[attr-defined]
    assert [e.val for e in history.epochs] == [e.val for e in heard]
    assert [e.best for e in history.epochs] == [e.best for e in heard]


def test_resuming_asks_for_no_weights_it_once_started_from(
    segnet_data: Path, tmp_path: Path
) -> None:
    first = trained(segnet_data, tmp_path / "a", train__epochs=1)
    recipe = small(segnet_data, tmp_path / "b", model__weights=str(first.run_dir))
    run = build_trainer(recipe, listeners=[Stopper(events.StepDone, 2)]).train().run_dir
    (first.run_dir / "weights" / "last.safetensors").unlink()
    with pytest.raises(RunError):
        build_trainer(recipe, listeners=[])
    going_on = build_trainer(recipe, listeners=[], weights_follow=True)
    going_on.resume(run)
    assert going_on.train().reason == "done"
