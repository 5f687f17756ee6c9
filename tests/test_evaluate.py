"""The document of `evaluate`, against loops over the files that import nothing of ours."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from color_engine import color_segmenter
from conftest import OWN
from PIL import Image
from rich.console import Console
from runs_of_tests import bare_trainer, batch_of

from smp_camvid.data.classes import CAMVID32
from smp_camvid.evaluation import examination
from smp_camvid.evaluation.bootstrap import Bootstrap
from smp_camvid.evaluation.evaluate import evaluate
from smp_camvid.report.evaluation_tables import evaluation_table, ranked
from smp_camvid.report.score_figures import drive_figure

DRIVES = {"north": 7, "south": 5}
STEMS = {
    "train": ["north_000"],
    "val": [f"{d}_{i:03d}" for d, n in DRIVES.items() for i in range(n)],
}
NAMES = ("Lane", "Kerb", "Rest")


@pytest.fixture
def roads(make_own: Callable[..., Path]) -> Path:
    """Twelve val frames of two drives, the fifth of them all void, void pixels in each."""
    root = make_own(STEMS)
    for number, path in enumerate(sorted((root / "masks" / "val").glob("*.png"))):
        label = np.array(Image.open(path))
        label[:5, ::3] = 0
        if number == 4:
            label[:] = 0
        Image.fromarray(label).save(path)
    return root


def read(root: Path, segmenter: Any) -> tuple[list[str], Any, Any, Any]:
    """(stems, truth, prediction, confidence), each `[N, H, W]`, void -1."""
    colors = {(1, 2, 3): 0, (250, 0, 9): 1, (7, 7, 7): 2, (0, 0, 0): -1}
    stems, truth, guess, sure = [], [], [], []
    for path in sorted((root / "images" / "val").glob("*.png")):
        stems.append(path.stem)
        label = np.array(Image.open(root / "masks" / "val" / path.name))
        truth.append([[colors[tuple(int(v) for v in pixel)] for pixel in row] for row in label])
        maps = segmenter.engine.run(np.array(Image.open(path)).transpose(2, 0, 1)[None])[0]
        powers = np.exp(maps.astype(np.float64))
        guess.append(maps.argmax(0))
        sure.append((powers / powers.sum(0)).max(0))
    return stems, np.array(truth), np.array(guess), np.array(sure)


def iou_by_hand(truth: npt.NDArray[Any], guess: npt.NDArray[Any]) -> list[float | None]:
    """Of the three classes; None where neither has one."""
    seen = truth >= 0
    found = []
    for c in range(3):
        both = ((truth == c) & (guess == c)).sum()
        either = ((truth == c) | ((guess == c) & seen)).sum()
        found.append(both / either if either else None)
    return found


def mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


@pytest.mark.parametrize("batch_size", [1, 5])
def test_every_figure_is_what_loops_over_the_files_find(roads: Path, batch_size: int) -> None:
    segmenter = color_segmenter(OWN)
    found = evaluate(
        segmenter, roads, batch_size=batch_size, tolerance=1.5, bootstrap=Bootstrap(2, 60)
    )
    json.dumps(found, allow_nan=False)
    stems, truth, guess, sure = read(roads, segmenter)
    seen, right = truth >= 0, truth == guess
    by_class = iou_by_hand(truth, guess)
    assert list(found["per_class"].values()) == pytest.approx(by_class, abs=1e-9)
    assert found["miou"] == pytest.approx(mean(by_class), abs=1e-9) and 0.2 < found["miou"] < 0.9
    assert found["accuracy"] == pytest.approx(right[seen].mean(), abs=1e-9)
    for t in range(3):
        row = [int(((truth == t) & (guess == p)).sum()) for p in range(4)]
        assert found["confusion"]["pixels"][t] == row
        scores = found["classes"][NAMES[t]]
        assert scores["recall"] == pytest.approx(row[t] / sum(row), abs=1e-9)
        predicted = ((guess == t) & seen).sum()
        assert scores["precision"] == pytest.approx(row[t] / predicted, abs=1e-9)
        assert scores["dice"] == pytest.approx(2 * row[t] / (sum(row) + predicted), abs=1e-9)
        assert scores["pixels"] == sum(row)
    assert found["confusion"]["classes"] == ["Lane", "Kerb", "Rest", "Void"]
    assert sum(row[3] for row in found["confusion"]["pixels"]) > 0  # Void was predicted
    edges = np.linspace(0, 1, 16)
    bins = np.clip(np.searchsorted(edges, sure, side="left") - 1, 0, 14)
    gaps = [
        abs(right[seen & (bins == b)].sum() - sure[seen & (bins == b)].sum()) for b in range(15)
    ]
    assert found["calibration"]["ece"] == pytest.approx(sum(gaps) / seen.sum(), abs=1e-6)
    for drive, number in DRIVES.items():
        mine = [stem.startswith(drive) for stem in stems]
        expected = mean(iou_by_hand(truth[mine], guess[mine]))
        assert found["by_drive"][drive]["miou"] == pytest.approx(expected, abs=1e-9)
        assert found["by_drive"][drive]["frames"] == number
    for i, one in enumerate(found["per_frame"]):
        assert (one["frame"], one["drive"]) == (f"{stems[i]}.png", stems[i].split("_")[0])
        assert one["miou"] == pytest.approx(mean(iou_by_hand(truth[i], guess[i])), abs=1e-9)
    low, high = found["miou_interval"]
    assert low <= found["miou"] <= high and found["intervals"]["blocks"] == 4 + 3


def test_a_frame_of_void_has_no_score_and_no_rank(roads: Path) -> None:
    found = evaluate(color_segmenter(OWN), roads)
    assert found["per_frame"][4]["miou"] is None and found["per_frame"][4]["accuracy"] is None
    assert len(ranked(found["per_frame"])) == 11
    order = [frame["miou"] for frame in ranked(found["per_frame"])]
    assert order == sorted(order)


def test_nothing_but_void_is_no_crash(roads: Path) -> None:
    for path in (roads / "masks" / "val").glob("*.png"):
        Image.fromarray(np.zeros_like(np.array(Image.open(path)))).save(path)
    found = evaluate(color_segmenter(OWN), roads, bootstrap=Bootstrap(1))
    json.dumps(found, allow_nan=False)
    assert (found["miou"], found["classes_counted"]) == (None, 0)
    assert found["miou_interval"] is None and found["calibration"]["ece"] is None
    assert found["boundary"]["f1"] is None
    assert {drive["miou"] for drive in found["by_drive"].values()} == {None}
    with Console(file=io.StringIO(), width=80) as console:
        console.print(evaluation_table(found))
    drive_figure(found["by_drive"], found["per_class"])


def test_labels_of_several_sizes_are_judged_at_their_own(roads: Path) -> None:
    alike = evaluate(color_segmenter(OWN), roads, split="train")
    assert alike["boundary"]["tolerance_px"] == 1.0
    for folder in ("images", "masks"):
        path = roads / folder / "val" / "south_001.png"
        Image.open(path).resize((400, 300), Image.Resampling.NEAREST).save(path)
    found = evaluate(color_segmenter(OWN), roads)
    assert found["boundary"]["tolerance_px"] is None
    assert sum(map(sum, found["confusion"]["pixels"])) > 300 * 400 * 0.8


def test_the_32_classes_have_31_scores(kaggle_data: Path) -> None:
    found = evaluate(color_segmenter(CAMVID32), kaggle_data, bootstrap=Bootstrap(1))
    assert found["protocol"] == "camvid32@360x480"
    assert len(found["classes"]) == 31 and "Void" not in found["classes"]
    assert len(found["confusion"]["classes"]) == 32
    void = CAMVID32.names.index("Void")
    assert not any(found["confusion"]["pixels"][void])
    present = [iou for iou in found["per_class"].values() if iou is not None]
    assert found["miou"] == pytest.approx(np.mean(present)) and len(present) < 31


def test_it_is_said_how_the_model_was_run(roads: Path) -> None:
    plain = evaluate(color_segmenter(OWN), roads)
    assert plain["prediction"] == {"height": None, "device": "cpu", "tta": None, "tile": None}
    other = evaluate(color_segmenter(OWN, tta=(0.5, 1.0), tile=(24, 32)), roads)
    assert other["prediction"]["tta"] == [0.5, 1.0] and other["prediction"]["tile"] == [24, 32]
    assert other["miou"] != plain["miou"]
    assert plain["speed"]["network_images_per_second"] > plain["speed"]["images_per_second"] > 0
    assert plain["speed"]["peak_memory_bytes"] > 10**7


def test_a_validation_pays_for_none_of_it(
    roads: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: Any) -> None:
        raise AssertionError("measured")

    monkeypatch.setattr(examination, "boundary_counts", refuse)
    monkeypatch.setattr(examination, "calibration_counts", refuse)
    trainer = bare_trainer(tmp_path)
    assert math.isfinite(trainer.val_step(batch_of(2)).loss)
    with pytest.raises(AssertionError, match="measured"):
        evaluate(color_segmenter(OWN), roads)
