"""The Trainer: what a run leaves, what it equals, and what stops it."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from runs_of_tests import SMALL, Recorder, lines, small, trained
from safetensors.torch import load_file

import smp_camvid
from smp_camvid import runs
from smp_camvid.data.cache import FrameCache
from smp_camvid.data.camvid import open_dataset
from smp_camvid.data.loaders import Batch, eval_loader, train_loader
from smp_camvid.errors import DataError, RunError, TrainingError, UsageError
from smp_camvid.evaluation.evaluate import evaluate
from smp_camvid.recipe import LossConfig, resolve
from smp_camvid.training import events, pace
from smp_camvid.training.experiment import build_trainer
from smp_camvid.training.trainer import Trainer


def test_a_run_leaves_what_is_promised(segnet_data: Path, tmp_path: Path) -> None:
    recipe = small(segnet_data, tmp_path / "runs", train__save_every=1, train__save_plots=True)
    done = build_trainer(recipe).train()
    left = {str(p.relative_to(done.run_dir)) for p in done.run_dir.rglob("*") if p.is_file()}
    assert left == {
        "config.toml", "environment.json", "metrics.jsonl", "timing.jsonl", "checkpoint.pt",
        "checkpoint-previous.pt",
        "weights/epoch-0001.safetensors", "weights/epoch-0002.safetensors",
        "weights/best.safetensors", "weights/last.safetensors",
        "plots/curves.png", "plots/confusion.png",
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


def batch_of(frames: int, seed: int = 0, void: float = 0.2) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    image = torch.randint(0, 256, (frames, 3, 16, 16), generator=generator, dtype=torch.uint8)
    target = torch.randint(0, 11, (frames, 16, 16), generator=generator)
    target[torch.rand(target.shape, generator=generator) < void] = 255
    return Batch(image, target, torch.arange(frames), None)


def bare_trainer(tmp_path: Path, loader: Any = None, **options: Any) -> Trainer:
    torch.manual_seed(0)
    model = smp_camvid.create_model(
        "vanilla", classes=11, norm="none", padding="same", base_channels=4, depth=2, dropout=0.0
    )
    settings = {"precision": "fp32", "save_dir": str(tmp_path), "verbose": 0, "save_plots": False}
    return Trainer(model, loader or [batch_of(2)], None, **{**settings, **options})


def test_two_batches_of_four_step_like_one_of_eight(tmp_path: Path) -> None:
    whole = batch_of(8)
    whole.target[:4][whole.target[:4] < 6] = 255  # the halves count unequal numbers of pixels
    halves = [
        Batch(whole.image[part], whole.target[part], whole.index[part], None)
        for part in (slice(4), slice(4, 8))
    ]
    one, two, wrong = (bare_trainer(tmp_path, optimizer="sgd", lr=0.1) for _ in range(3))
    assert one.train_step(whole) == pytest.approx(two.train_step(*halves), abs=1e-6)
    for half in halves:  # two steps instead of one: the test can fail
        wrong.train_step(half)

    def difference(a: Trainer, b: Trainer) -> float:
        pairs = zip(a.network.parameters(), b.network.parameters(), strict=True)
        return max(float((p - q).detach().abs().max()) for p, q in pairs)

    assert difference(one, two) < 1e-6 < 1e-4 < difference(one, wrong)


def test_a_loss_that_is_not_finite_stops_before_the_update(
    segnet_data: Path, tmp_path: Path
) -> None:
    made = build_trainer(small(segnet_data, tmp_path), listeners=[])
    batch = next(iter(made.train_loader))
    before = [p.clone() for p in made.network.parameters()]
    poisoned = Batch(batch.image.float(), batch.target, batch.index, None)
    poisoned.image[0, 0, 0, 0] = float("nan")
    frames = made.train_loader.dataset.frames
    with pytest.raises(TrainingError) as caught:
        made.train_step(poisoned)
    assert "epoch 1, batch 1" in str(caught.value)
    assert frames[int(batch.index[0])].stem in str(caught.value)
    assert all(torch.equal(p, q) for p, q in zip(made.network.parameters(), before, strict=True))


def test_a_label_out_of_range_is_named_on_the_cpu(tmp_path: Path) -> None:
    batch = batch_of(2)
    batch.target[1, 3, 3] = 11
    with pytest.raises(DataError, match="Frame 1 has the label 11; 11 classes are 0 to 10"):
        bare_trainer(tmp_path).train_step(batch)


def test_batches_of_the_wrong_shape_or_scale_are_named(tmp_path: Path) -> None:
    good = batch_of(2)
    made = bare_trainer(tmp_path)
    with pytest.raises(DataError, match=r"labels \[B, H, W\], not .* \[2, 1, 16, 16\]"):
        made.train_step(good._replace(target=good.target[:, None]))
    with pytest.raises(DataError, match="0 to 255"):
        made.train_step(good._replace(image=good.image.float() / 255))


class Stopper(Recorder):
    """Sends this process a signal after a number of events of a kind."""

    def __init__(self, kind: type, after: int, sig: signal.Signals = signal.SIGINT) -> None:
        super().__init__()
        self.kind, self.after, self.sig = kind, after, sig

    def on_event(self, event: events.Event) -> None:
        super().on_event(event)
        if isinstance(event, self.kind) and len(self.of(self.kind)) == self.after:
            os.kill(os.getpid(), self.sig)


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


def test_signal_handlers_are_put_back(segnet_data: Path, tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    trained(segnet_data, tmp_path, train__epochs=1)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_evaluate_repeats_the_recorded_score_at_any_batch_size(
    segnet_data: Path, tmp_path: Path
) -> None:
    run = trained(segnet_data, tmp_path, train__epochs=4).run_dir
    recorded = runs.read_lines(run / "metrics.jsonl")[-1]["val"]
    segmenter = smp_camvid.load(run)
    for batch_size in (1, 2, 3):
        found = evaluate(segmenter, segnet_data, batch_size=batch_size)
        assert found["miou"] == pytest.approx(recorded["miou"], abs=1e-5)
        assert found["per_class"] == pytest.approx(recorded["per_class"], abs=1e-5)
    assert found["protocol"] == "camvid11@360x480" and found["checkpoint"] == "last"


@pytest.mark.parametrize("changes", [{}, {"model__padding": "valid", "data__size": [24, 36]}])
def test_predict_counted_by_hand_is_what_evaluate_says(
    make_segnet: Callable[..., Path], tmp_path: Path, changes: dict[str, Any]
) -> None:
    data = make_segnet(size=(48, 64))
    run = trained(data, tmp_path, data__score_size="native", train__epochs=3, **changes).run_dir
    segmenter = smp_camvid.load(run)
    dataset = open_dataset(data, need=("val",))
    hit, union = np.zeros(11), np.zeros(11)
    for frame in dataset.split("val"):
        truth, guess = dataset.load_label(frame), segmenter(frame.image).mask
        assert guess.shape == truth.shape
        for c in range(11):
            a, b = truth == c, (guess == c) & (truth != 255)
            hit[c] += (a & b).sum()
            union[c] += (a | b).sum()
    expected = (hit[union > 0] / union[union > 0]).mean()
    assert evaluate(segmenter, data)["miou"] == pytest.approx(expected, abs=1e-5)


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


def test_any_loader_of_pairs_will_do(tmp_path: Path) -> None:
    pairs = [(batch_of(2, seed).image, batch_of(2, seed).target) for seed in range(3)]
    made = bare_trainer(tmp_path, pairs, epochs=2)
    assert made.train().reason == "done"
    assert len(runs.read_lines(made.run_dir / "metrics.jsonl")) == 2


def test_a_listener_that_fails_is_left_out(segnet_data: Path, tmp_path: Path) -> None:
    class Broken:
        def on_event(self, event: events.Event) -> None:
            raise ValueError("no disk")

    heard = Recorder()
    build_trainer(small(segnet_data, tmp_path), listeners=[Broken(), heard]).train()
    notices = heard.of(events.Notice)
    assert [n.message for n in notices] == ["Broken failed and was left out: ValueError: no disk"]
    assert len(heard.of(events.EpochDone)) == 2


def test_a_slow_epoch_names_a_lighter_command(
    make_segnet: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard = Recorder()
    recipe = small(make_segnet(), tmp_path, train__batch_size=1)
    build_trainer(recipe, listeners=[heard]).train()
    assert not heard.of(events.Notice)
    monkeypatch.setattr(pace, "SLOW_EPOCH_SECONDS", 0)
    build_trainer(recipe, listeners=[heard]).train()
    notices = [n.message for n in heard.of(events.Notice)]
    assert notices and "smp-camvid train --arch vanilla" in notices[0]


def test_old_weights_go_and_the_last_stay(segnet_data: Path, tmp_path: Path) -> None:
    made = trained(segnet_data, tmp_path, train__epochs=5, train__save_every=1, train__keep=2)
    kept = sorted(p.stem for p in (made.run_dir / "weights").glob("epoch-*"))
    assert kept == ["epoch-0004", "epoch-0005"]


def test_a_disk_too_small_stops_before_anything_is_written(
    segnet_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = build_trainer(small(segnet_data, tmp_path / "runs"), listeners=[])
    monkeypatch.setattr(runs.shutil, "disk_usage", lambda folder: SimpleNamespace(free=10))
    with pytest.raises(RunError, match="GB are free"):
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


@pytest.mark.parametrize("arch", ["deeplabv3plus", "pan", "upernet"])
def test_a_last_batch_of_one_does_not_crash_batch_norm(
    segnet_data: Path, tmp_path: Path, arch: str
) -> None:
    overrides = [
        *SMALL[3:], ("model.arch", arch), ("model.encoder_name", "tu-test_resnet"),
        ("model.encoder_depth", 5 if arch != "upernet" else 4), ("train.epochs", 1),
        ("data.path", str(segnet_data)), ("train.save_dir", str(tmp_path)), ("data.size", [64, 64]),
    ]  # fmt: skip
    if arch == "upernet":
        overrides.append(("model.decoder_channels", 16))
    recipe = resolve("base", overrides).recipe
    assert build_trainer(recipe, listeners=[]).train().reason == "done"  # 5 frames in twos


def test_class_weights_and_border_weights_reach_the_loss(segnet_data: Path, tmp_path: Path) -> None:
    plain, weighted, border = (
        build_trainer(small(segnet_data, tmp_path, **changes), listeners=[])
        for changes in (
            {},
            {"loss__class_weights": "median"},
            {"loss__class_weights": "median", "loss__border_w0": 10.0},
        )
    )
    of_plain, of_weighted, of_border = (
        made.loss.terms["cross_entropy"].class_weights for made in (plain, weighted, border)
    )
    assert of_plain is None
    assert of_weighted is not None and len(of_weighted) == 11
    batch = next(iter(border.train_loader))
    assert of_border is None and batch.weight is not None
    least = of_weighted[batch.target.where(batch.target != 255, 0)]
    counted = batch.target != 255
    assert bool((batch.weight[counted] >= least[counted] - 1e-5).all())
    assert float(batch.weight[counted].max()) > 10


def test_loss_weights_need_labels_to_count(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"smp_camvid\.loaders"):
        bare_trainer(tmp_path, loss=LossConfig(class_weights="log"))


def test_wrong_options_are_usage_errors(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Did you mean 'epochs'"):
        bare_trainer(tmp_path, epoch=3)
    with pytest.raises(UsageError, match="create_model"):
        Trainer(torch.nn.Conv2d(3, 11, 1), [batch_of(1)], None, save_dir=str(tmp_path))


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


def test_a_synthetic_run_judged_on_camvid_uses_the_standard_split(
    make_kaggle: Callable[..., Path], tmp_path: Path
) -> None:
    stems = {"train": ["SynA_1", "SynA_2"], "val": ["SynA_3", "SynA_4"]}
    drawn = make_kaggle(stems, name="drawn")
    (drawn / "manifest.json").write_text('{"source": "synthetic"}')
    run = trained(drawn, tmp_path, train__epochs=1).run_dir
    camvid = make_kaggle(name="camvid")
    assert evaluate(smp_camvid.load(run), drawn)["protocol"] == "synthetic11@360x480"
    assert evaluate(smp_camvid.load(run), camvid)["protocol"] == "camvid11@360x480"
    with pytest.raises(UsageError, match="twice"):
        evaluate(smp_camvid.load(run), camvid, split="val+val")


def test_a_batch_of_one_is_refused_in_words(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = smp_camvid.create_model("deeplabv3plus", encoder_name="resnet18")
    made = Trainer(model, [batch_of(1)], None, save_dir=str(tmp_path), verbose=0)
    with pytest.raises(TrainingError, match="--batch-size 2"):
        made.train_step(batch_of(1))
