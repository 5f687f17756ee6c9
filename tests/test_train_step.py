"""One optimizer step: what it equals, what it refuses, and how seldom it waits for the device."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from runs_of_tests import SMALL, HostReads, bare_trainer, batch_of, small
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import smp_camvid
from smp_camvid import runs
from smp_camvid.data.loaders import Batch
from smp_camvid.errors import DataError, TrainingError, UsageError
from smp_camvid.recipe import LossConfig, resolve
from smp_camvid.training import learner as learner_module
from smp_camvid.training import trainer as trainer_module
from smp_camvid.training.experiment import build_trainer
from smp_camvid.training.trainer import Trainer


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


def test_any_loader_of_pairs_will_do(tmp_path: Path) -> None:
    pairs = [(batch_of(2, seed).image, batch_of(2, seed).target) for seed in range(3)]
    made = bare_trainer(tmp_path, pairs, epochs=2)
    assert made.train().reason == "done"
    assert len(runs.read_lines(made.run_dir / "metrics.jsonl")) == 2


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
    least = of_weighted[batch.target.where(batch.target != 255, 0).long()]
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


def test_a_batch_of_one_is_refused_in_words(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = smp_camvid.create_model("deeplabv3plus", encoder_name="resnet18")
    made = Trainer(model, [batch_of(1)], None, save_dir=str(tmp_path), verbose=0)
    with pytest.raises(TrainingError, match="--batch-size 2"):
        made.train_step(batch_of(1))


def test_a_step_waits_for_the_device_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loss, and whether it is finite, come back in one piece; sums stay where they are."""
    monkeypatch.setattr(trainer_module, "check_batch", lambda batch, *_: batch)  # on the CPU
    made = bare_trainer(tmp_path, optimizer="sgd", ema=0.9, clip_norm=1.0)  # torch's Adam reads
    for _ in range(2):
        with HostReads() as reads:
            loss = made.train_step(batch_of(2), batch_of(2, seed=1))
        assert reads.count == 1
    with HostReads() as reads:  # the counter counts
        assert float(torch.tensor(loss)) == pytest.approx(loss) and torch.ones(1).tolist() == [1]
    assert reads.count == 2


def test_losses_are_added_up_over_the_epoch_on_the_device(tmp_path: Path) -> None:
    made = bare_trainer(tmp_path, lr=1e-30)
    batches = [batch_of(2), batch_of(2, seed=1, void=0.9)]
    apart = [made.train_step(batch) for batch in batches]
    sums = made.state.loss_sums
    assert sums is not None and sums.device == made.device
    counted = [int((batch.target != 255).sum()) for batch in batches]
    assert sums[1].tolist() == [sum(counted)]
    assert float(made.loss.total(*sums)) == pytest.approx(np.average(apart, weights=counted))


def test_a_device_without_float64_is_asked_for_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert learner_module.widest_float(torch.device("mps")) is torch.float32
    assert learner_module.widest_float(torch.device("cuda")) is torch.float64
    monkeypatch.setattr(learner_module, "widest_float", lambda device: torch.float32)
    made = bare_trainer(tmp_path, deep_supervision=0.5, ema=0.9, clip_norm=1.0)
    with Dtypes() as seen:
        made.train_step(batch_of(2))
    assert torch.float32 in seen.found and torch.float64 not in seen.found


class Dtypes(TorchDispatchMode):
    """The types of all tensors that are computed."""

    def __init__(self) -> None:
        super().__init__()
        self.found: set[torch.dtype] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        leaves = tree_leaves(result)
        self.found |= {leaf.dtype for leaf in leaves if isinstance(leaf, torch.Tensor)}
        return result
