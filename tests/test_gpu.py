"""What only a CUDA device can show: `pytest -m gpu`."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import smp_camvid
from smp_camvid import runs
from smp_camvid.data.loaders import Batch
from smp_camvid.evaluation.evaluate import evaluate
from smp_camvid.recipe import resolve
from smp_camvid.training.batches import batches_of, move_batch
from smp_camvid.training.experiment import build_trainer
from smp_camvid.training.feed import Feed

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
]


def settings(data: Path, save_dir: Path, precision: str) -> list[tuple[str, object]]:
    return [
        ("model.base_channels", 8), ("model.depth", 2), ("data.size", [48, 64]),
        ("data.path", str(data)), ("train.epochs", 3), ("train.batch_size", 2),
        ("train.device", "cuda"), ("train.precision", precision), ("train.verbose", 0),
        ("train.save_dir", str(save_dir)), ("train.workers", 2),
    ]  # fmt: skip


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_run_on_cuda_is_judged_alike_on_both_devices(
    segnet_data: Path, tmp_path: Path, precision: str
) -> None:
    recipe = resolve("vanilla", settings(segnet_data, tmp_path, precision)).recipe
    run = build_trainer(recipe, listeners=[]).train().run_dir
    recorded = runs.read_lines(run / "metrics.jsonl")[-1]["val"]["miou"]
    for device in ("cuda", "cpu"):
        found = evaluate(smp_camvid.load(run, device=device), segnet_data)["miou"]
        assert found == pytest.approx(recorded, abs=1e-3)
    assert runs.read_lines(run / "timing.jsonl")[-1]["gpu_memory_bytes"] > 0


def test_an_interrupted_run_goes_on_on_cuda(segnet_data: Path, tmp_path: Path) -> None:
    recipe = resolve("vanilla", settings(segnet_data, tmp_path, "bf16")).recipe
    first = build_trainer(
        recipe.model_copy(update={"train": recipe.train.model_copy(update={"epochs": 1})}),
        listeners=[],
    )
    run = first.train().run_dir
    second = build_trainer(recipe, listeners=[])
    second.resume(run)
    assert second.train().reason == "done"
    assert [row["epoch"] for row in runs.read_lines(run / "metrics.jsonl")] == [1, 2, 3]


def test_batches_uploaded_ahead_are_those_of_the_cpu(segnet_data: Path, tmp_path: Path) -> None:
    recipe = resolve("vanilla", settings(segnet_data, tmp_path, "bf16")).recipe
    trainer = build_trainer(recipe, listeners=[])
    device = trainer.device
    feed = Feed(trainer.train_loader, 1, device)

    def ready(batch: Batch) -> Batch:
        torch.cuda._sleep(20_000_000)  # an upload that takes its time
        return move_batch(batch, device)

    busy = torch.randn(2048, 2048, device=device)
    passes = [list(batches_of(trainer.train_loader, epoch, 0)) for epoch in (1, 2)]
    for epoch, expected in enumerate(passes, start=1):
        found = []
        for (batch,) in feed.epoch(epoch, 0, epoch == 2, ready):
            found.append((batch.image.clone(), batch.target.clone()))
            for _ in range(20):  # a step during which the next batch is uploaded
                busy = (busy @ busy).clamp(-1, 1)
            feed.meanwhile()
        for (image, target), batch in zip(found, expected, strict=True):
            assert torch.equal(image.cpu(), batch.image)
            assert torch.equal(target.cpu(), batch.target.long())
