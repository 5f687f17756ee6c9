"""Every shipped recipe trains: its own model, loss, augmentation and schedule, made small."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from smp_camvid import recipe
from smp_camvid.recipe import resolve
from smp_camvid.runs import read_lines
from smp_camvid.training.experiment import build_trainer

TINY_ENCODER = [("model.encoder_name", "tu-test_resnet"), ("model.encoder_weights", "none")]
# their last epochs take whole frames, and here the first epoch is the last
CROPS = [("data.crop", [32, 48]), ("data.full_frame_epochs", 0), ("train.batch_size", 2)]
SMALLER: dict[str, list[tuple[str, Any]]] = {
    "base": [("model.arch", "unet"), *TINY_ENCODER],
    "vanilla": [("model.base_channels", 4)],
    "ronneberger-2015": [("model.base_channels", 4)],
    "notebook": [("model.base_channels", 4)],
    "unet-scratch": [("model.encoder_name", "resnet18")],
    # its ImageNet weights come from a model hub, which tests do not ask
    "unet-resnet34": TINY_ENCODER,
    "unet-lite0": [("data.crop", [32, 48])],
    "camvid-lite0": CROPS,
    "camvid-vanilla": [("model.base_channels", 4), ("train.batch_size", 2)],
    "camvid-unet-scratch": [("model.encoder_name", "resnet18"), *CROPS],
    "camvid-lite2": CROPS,
    "quick": [("model.base_channels", 4)],
}


def test_no_recipe_is_forgotten() -> None:
    assert set(SMALLER) == set(recipe.recipe_names())


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(SMALLER))
def test_it_trains(name: str, kaggle_data: Path, tmp_path: Path) -> None:
    overrides = [
        *SMALLER[name], ("data.path", str(kaggle_data)), ("data.size", [48, 64]),
        ("train.epochs", 1), ("train.workers", 0), ("train.verbose", 0),
        ("train.save_dir", str(tmp_path / "runs")), ("train.save_plots", False),
    ]  # fmt: skip
    made = build_trainer(resolve(name, overrides).recipe, listeners=[])
    assert made.train().reason == "done"
    (row,) = read_lines(made.run_dir / "metrics.jsonl")
    assert row["train"]["loss"] > 0 and 0 <= row["val"]["miou"] <= 1
    expected = "camvid32@360x480" if name == "notebook" else "camvid11@360x480"
    assert made.keeper.metadata["protocol"] == expected
