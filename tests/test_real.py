"""The two commands of the README on real frames: a few of them, so that it takes a minute."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from smp_camvid.cli import app
from smp_camvid.data.camvid import standard_stems

pytestmark = pytest.mark.slow

VANILLA = ["--arch", "vanilla", "--set", "model.base_channels=16", "--size", "180x240"]
LITE0 = [
    "--arch", "unet", "--encoder", "tu-tf_efficientnet_lite0", "--encoder-weights", "imagenet",
    "--size", "180x240",
]  # fmt: skip
OWED = [
    "config.toml", "environment.json", "metrics.jsonl", "timing.jsonl", "checkpoint.pt",
    "weights/best.safetensors", "weights/last.safetensors", "weights/epoch-0002.safetensors",
    "plots/curves.png", "plots/confusion.png", "plots/class-iou.png", "plots/epoch-0002-curves.png",
    "images/epoch-0002-train.png", "images/epoch-0002-val.png",
]  # fmt: skip


@pytest.fixture
def few_frames(real_data: Path, tmp_path: Path) -> Path:
    """16 train and 4 val frames of CamVid, linked."""
    for split, every in (("train", 23), ("val", 26)):
        for stem in standard_stems(split)[::every]:
            for folder in (split, f"{split}annot"):
                link = tmp_path / "few" / folder / f"{stem}.png"
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(real_data / folder / f"{stem}.png")
    return tmp_path / "few"


@pytest.mark.parametrize("words", [VANILLA, LITE0], ids=["vanilla", "lite0"])
def test_train_evaluate_predict_on_real_frames(
    few_frames: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    run = CliRunner()
    common = ["--data", str(few_frames), "--epochs", "2", "--save-every", "2", "--batch-size", "4"]
    done = run.invoke(app, ["train", *words, *common])
    assert done.exit_code == 0, done.output
    folder = Path(done.stdout.strip())
    assert [name for name in OWED if not (folder / name).is_file()] == []
    scored = run.invoke(app, ["evaluate", "--json"])
    document = json.loads(scored.stdout)
    recorded = json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])["val"]
    assert document["miou"] == pytest.approx(recorded["miou"], abs=1e-5)
    assert document["protocol"] == "camvid11@360x480" and document["frames"] == 4
    predicted = run.invoke(app, ["predict", str(few_frames / "val")])
    assert predicted.exit_code == 0, predicted.output
    hit, total = 0, 0
    for frame in sorted((few_frames / "val").glob("*.png")):
        with Image.open(tmp_path / "predictions" / f"{frame.stem}_mask.png") as mask:
            guess = np.array(mask)
        with Image.open(few_frames / "valannot" / frame.name) as label:
            truth = np.array(label)
        hit += int(((guess == truth) & (truth != 11)).sum())
        total += int((truth != 11).sum())
    assert document["accuracy"] == pytest.approx(hit / total, abs=1e-5)
