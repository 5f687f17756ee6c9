"""The Trainer: what a run leaves, what it equals, and what it tells."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from runs_of_tests import Recorder, bare_trainer, batch_of, lines, small, trained

import smp_camvid
from smp_camvid import runs
from smp_camvid.data.cache import FrameCache
from smp_camvid.data.camvid import open_dataset
from smp_camvid.data.loaders import eval_loader, train_loader
from smp_camvid.errors import RunError
from smp_camvid.evaluation.evaluate import evaluate
from smp_camvid.recipe import resolve
from smp_camvid.training import events, pace
from smp_camvid.training.experiment import build_trainer
from smp_camvid.training.trainer import Trainer


def test_a_run_leaves_what_is_promised(segnet_data: Path, tmp_path: Path) -> None:
    recipe = small(segnet_data, tmp_path / "runs", train__save_every=1, train__save_plots=True)
    done = build_trainer(recipe).train()
    left = {str(p.relative_to(done.run_dir)) for p in done.run_dir.rglob("*") if p.is_file()}
    assert left == {
        "config.toml", "environment.json", "metrics.jsonl", "timing.jsonl", "checkpoint.pt",
        "checkpoint-previous.pt", "progress.json",
        "weights/epoch-0001.safetensors", "weights/epoch-0002.safetensors",
        "weights/best.safetensors", "weights/last.safetensors",
        "plots/curves.png", "plots/confusion.png", "plots/class-iou.png",
        "plots/epoch-0001-curves.png", "plots/epoch-0002-curves.png",
        "images/epoch-0001-train.png", "images/epoch-0001-val.png",
        "images/epoch-0002-train.png", "images/epoch-0002-val.png",
    }  # fmt: skip
    rows = runs.read_lines(done.run_dir / "metrics.jsonl")
    assert [row["epoch"] for row in rows] == [1, 2]
    assert set(rows[0]) == {"epoch", "lr", "train", "val"}
    assert set(rows[0]["val"]) == {"loss", "miou", "accuracy", "per_class"}
    again = resolve(str(done.run_dir / "config.toml")).recipe
    assert again == recipe.model_copy(
        update={"data": recipe.data.model_copy(update={"path": str(segnet_data.resolve())})}
    )


def test_it_learns(segnet_data: Path, tmp_path: Path) -> None:
    run = trained(
        segnet_data,
        tmp_path,
        train__epochs=40,
        train__schedule="onecycle",
        augment=[],
        model__base_channels=8,
    ).run_dir
    rows = runs.read_lines(run / "metrics.jsonl")
    assert rows[-1]["train"]["loss"] < 0.5 * rows[0]["train"]["loss"]
    assert rows[-1]["val"]["miou"] > rows[0]["val"]["miou"] + 0.2


def test_same_seed_same_run_whatever_the_workers(segnet_data: Path, tmp_path: Path) -> None:
    first = lines(trained(segnet_data, tmp_path).run_dir)
    assert lines(trained(segnet_data, tmp_path).run_dir) == first
    assert lines(trained(segnet_data, tmp_path, train__workers=2).run_dir) == first
    assert lines(trained(segnet_data, tmp_path, train__seed=1).run_dir) != first


class DrawnInTheWorker:
    """The mistake the sampler avoids: noise from a generator that each worker has of its own."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self.generator = np.random.default_rng(0)

    def __call__(self, image: Any, label: Any, seed: Any, *rest: Any) -> Any:
        drawn = tuple(int(n) for n in self.generator.integers(0, 1 << 30, 3))
        return self.inner(image, label, drawn, *rest)


@pytest.mark.slow
def test_spawned_workers_change_nothing_and_worker_draws_would(
    segnet_data: Path, tmp_path: Path
) -> None:
    dataset = open_dataset(segnet_data)

    def run(workers: int, context: str | None = None, broken: bool = False) -> str:
        recipe = small(segnet_data, tmp_path)
        cache = FrameCache.open(dataset, "train", 32, "image")
        val = eval_loader(FrameCache.open(dataset, "val", 32, (360, 480)), batch_size=2)
        steps = [step.model_dump() for step in recipe.augment]
        loader = train_loader(
            cache, size=(32, 48), augment=steps, batch_size=2, seed=0, workers=workers,
            context=context,
        )  # fmt: skip
        if broken:
            frames: Any = loader.dataset
            frames.augmentation = DrawnInTheWorker(frames.augmentation)
        torch.manual_seed(0)
        model = smp_camvid.create_model(
            "vanilla", classes=11, norm="batch", padding="same", base_channels=4, depth=2
        )
        made = Trainer(model, loader, val, recipe=recipe, listeners=[])
        return lines(made.train().run_dir)

    alone = run(0)
    assert run(2, "spawn") == alone
    assert run(0, broken=True) != run(2, broken=True)


def test_ten_lines_of_python_are_enough(segnet_data: Path, tmp_path: Path) -> None:
    learned, judged = smp_camvid.loaders(segnet_data, size=(32, 48), batch_size=2)
    model = smp_camvid.create_model(
        "vanilla",
        in_channels=3,
        classes=11,
        norm="batch",
        padding="valid",
        base_channels=4,
        depth=1,
    )
    trainer = Trainer(model, learned, judged, epochs=1, lr=2e-4, save_dir=tmp_path, verbose=0)
    ended = trainer.train()
    result = smp_camvid.load(ended.run_dir)(np.zeros((37, 51, 3), np.uint8))
    assert result.mask.shape == (37, 51) and result.mask.dtype == np.uint8
    assert result.probs.shape == (11, 37, 51)
    assert result.probs.sum(0) == pytest.approx(np.ones((37, 51)), abs=1e-5)
    assert result.overlay().shape == (37, 51, 3)


def test_a_listener_that_fails_is_left_out(segnet_data: Path, tmp_path: Path) -> None:
    class Broken:
        def on_event(self, event: events.Event) -> None:
            raise ValueError("no disk")

    heard = Recorder()
    build_trainer(small(segnet_data, tmp_path), listeners=[Broken(), heard]).train()
    notices = heard.of(events.Notice)
    assert [n.message for n in notices] == ["Broken failed and was left out: ValueError: no disk"]
    assert len(heard.of(events.EpochDone)) == 2


def test_slow_epochs_name_a_lighter_command_once(
    make_segnet: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard = Recorder()
    recipe = small(make_segnet(), tmp_path, train__batch_size=1)
    build_trainer(recipe, listeners=[heard]).train()
    assert not heard.of(events.Notice)
    monkeypatch.setattr(pace, "SLOW_EPOCH_SECONDS", 0)
    build_trainer(recipe, listeners=[heard]).train()
    notices = [n.message for n in heard.of(events.Notice)]
    assert len(heard.of(events.EpochDone)) == 4  # two of them slow
    assert len(notices) == 1 and "smp-camvid train --arch vanilla" in notices[0]


def test_old_weights_go_and_the_last_stay(segnet_data: Path, tmp_path: Path) -> None:
    made = trained(segnet_data, tmp_path, train__epochs=5, train__save_every=1, train__keep=2)
    kept = sorted(p.stem for p in (made.run_dir / "weights").glob("epoch-*"))
    assert kept == ["epoch-0004", "epoch-0005"]


def test_a_disk_too_small_stops_before_anything_is_written(
    segnet_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = build_trainer(small(segnet_data, tmp_path / "runs"), listeners=[])
    monkeypatch.setattr(runs.shutil, "disk_usage", lambda folder: SimpleNamespace(free=10))
    with pytest.raises(RunError, match="kB for weights and checkpoints; 10 bytes are free"):
        made.train()
    assert not (tmp_path / "runs").exists()


def test_plateau_halves_the_rate_when_the_loss_stands_still(
    segnet_data: Path, tmp_path: Path
) -> None:
    made = trained(
        segnet_data, tmp_path, train__schedule="plateau", train__patience=1, train__epochs=4,
        train__lr=1e-9,
    )  # fmt: skip
    rates = [row["lr"] for row in runs.read_lines(made.run_dir / "metrics.jsonl")]
    losses = [row["val"]["loss"] for row in runs.read_lines(made.run_dir / "metrics.jsonl")]
    expected, factor, best = [], 1.0, float("inf")
    for loss in losses:
        expected.append(1e-9 * factor)
        factor, best = (factor, loss) if loss < best else (factor / 2, best)
    assert rates == pytest.approx(expected)


def test_fine_tuning_needs_reset_head_for_other_classes(
    segnet_data: Path, make_own: Callable[..., Path], tmp_path: Path
) -> None:
    first = trained(segnet_data, tmp_path / "a")
    changes: dict[str, Any] = {"model__weights": str(first.run_dir), "data__classes": "dataset"}
    own = make_own()
    with pytest.raises(smp_camvid.SmpCamvidError, match="--reset-head"):
        build_trainer(small(own, tmp_path / "b", **changes), listeners=[])
    made = build_trainer(
        small(own, tmp_path / "b", **changes, model__reset_head=True), listeners=[]
    )
    ours, theirs = made.network.state_dict(), first.network.state_dict()
    same = [name for name in ours if torch.equal(ours[name], theirs[name])]
    assert {n for n in ours if n not in same} == {
        "model.segmentation_head.weight", "model.segmentation_head.bias",
    }  # fmt: skip
    assert made.train().reason == "done"
    found = evaluate(smp_camvid.load(made.run_dir), own)
    assert found["protocol"] == "dataset4@native" and set(found["per_class"]) == {
        "Lane", "Kerb", "Rest",
    }  # fmt: skip


def test_torch_generators_travel_in_the_checkpoint(segnet_data: Path, tmp_path: Path) -> None:
    run = trained(segnet_data, tmp_path).run_dir
    document = torch.load(run / "checkpoint.pt", weights_only=True)
    assert document["state"]["epoch"] == 2 and "cpu" in document["parts"]["rng"][0]


def test_environment_and_configuration_are_readable(segnet_data: Path, tmp_path: Path) -> None:
    run = trained(segnet_data, tmp_path).run_dir
    environment = json.loads((run / "environment.json").read_text())
    assert environment["device"].startswith("cpu (fp32")


def names(kinds: Sequence[events.Event]) -> list[str]:
    return [type(kind).__name__ for kind in kinds]


def test_events_come_in_order(segnet_data: Path, tmp_path: Path) -> None:
    heard = Recorder()
    build_trainer(small(segnet_data, tmp_path, train__epochs=1), listeners=[heard]).train()
    assert names(heard.heard) == [
        "RunStarted", "StepDone", "StepDone", "ValidationStep", "ValidationStep", "EpochDone",
        "Saved", "Saved", "RunEnded",
    ]  # fmt: skip
    started = heard.of(events.RunStarted)[0]
    assert started.protocol == "camvid11@360x480" and started.train_frames == 5
    assert sum(part.parameters for part in started.architecture) == started.parameters
    assert {part.output for part in started.architecture} >= {"11x32x48"}


def test_a_run_on_foreign_loaders_names_no_command_that_would_use_other_data(
    tmp_path: Path,
) -> None:
    ended = bare_trainer(tmp_path, epochs=1).train()
    assert ended.next_command == ""
    path = resolve(str(ended.run_dir / "config.toml")).recipe.data.path
    assert path == "given in Python"


def test_pictures_do_not_change_training(tmp_path: Path) -> None:
    pairs = torch.utils.data.TensorDataset(*batch_of(8)[:2])

    def run(pictures: bool) -> str:
        loader = torch.utils.data.DataLoader(pairs, batch_size=2, shuffle=True)
        made = bare_trainer(tmp_path, loader, epochs=3, save_every=1, save_plots=pictures)
        return lines(made.train().run_dir)

    assert run(True) == run(False)
