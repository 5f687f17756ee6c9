"""What `evaluate` prints and writes: every figure of the document, in 80 columns."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from color_engine import color_segmenter
from command_line import run
from rich.console import Console
from runs_of_tests import trained

import smp_camvid
from smp_camvid.commands.evaluate import write_csv
from smp_camvid.data.classes import CAMVID32, ClassTable
from smp_camvid.evaluation import examination
from smp_camvid.evaluation.bootstrap import Bootstrap
from smp_camvid.evaluation.evaluate import evaluate
from smp_camvid.report.evaluation_tables import evaluation_table

CONTROL = re.compile(r"\x1b|[\x00-\x08\x0b-\x1f]")


def printed(result: dict[str, Any], **how: Any) -> str:
    stream = io.StringIO()
    Console(file=stream, width=80).print(evaluation_table(result, **how))
    return stream.getvalue()


@pytest.fixture
def result(make_kaggle: Callable[..., Path]) -> dict[str, Any]:
    """Of eleven frames in two drives; long names, one with markup in it, and an absent class."""
    names = ["Sk[b]y[/b]", "Nowhere", "Void", *(f"{n}-with-a-long-name" for n in range(3))]
    colors = tuple(CAMVID32.colors[i] for i in (0, 3, 30, 8, 9, 10))
    table = ClassTable("dataset", tuple(names), colors, 2)
    stems = [f"{drive}_{i}" for drive, n in (("a", 6), ("b", 5)) for i in range(n)]
    there = ClassTable("dataset", table.names, (colors[0], colors[0], *colors[2:]), 2)
    data = make_kaggle({"train": ["a_9"], "val": stems}, table=there)
    lines = [f"{n},{r},{g},{b}" for n, (r, g, b) in zip(names, colors, strict=True)]
    (data / "class_dict.csv").write_text("\n".join(lines))
    far = ClassTable("dataset", table.names, (colors[0], (9999, 0, 0), *colors[2:]), 2)
    return evaluate(color_segmenter(far, noise=8), data, bootstrap=Bootstrap(2, 200))


def test_the_table_is_worst_first_and_says_by_which_measure(result: dict[str, Any]) -> None:
    text = printed(result, definitions=True)
    assert not CONTROL.search(text)
    assert max(map(len, text.splitlines())) <= 80
    table = text[text.index("class ") : text.index("mean IoU")]
    shown = re.findall(r"^(\S+)  +(\d\.\d{3}|-) ", table, re.MULTILINE)
    assert len(shown) == 5 and shown[-1] == ("Nowhere", "-")
    scores = [float(value) for _, value in shown[:-1]]
    assert scores == sorted(scores)
    ious = [iou for iou in result["per_class"].values() if iou is not None]
    assert sorted(f"{iou:.3f}" for iou in ious) == [value for _, value in shown[:-1]]
    for part in (
        "models/[0].onnx", "dataset6@native", "pooled", "11 (val)", "4 of 5 counted", "Sk[b]y[/b]",
        f"{result['miou']:.3f}", f"{result['miou_interval'][0]:.3f}", "images/s", "not there",
        f"{result['boundary']['f1']:.3f}  within 1 px", f"{result['calibration']['ece']:.3f}",
        "2 frames)", "worst frames", "macro-imagewise", "PaddleSeg",
    ):  # fmt: skip
        assert part in text, part
    assert re.search(r"^a +6 +0\.\d{3}", text, re.MULTILINE)  # by drive
    assert "macro-imagewise" not in printed(result)
    frames = [line for line in printed(result, frames=2).splitlines() if ".png" in line]
    assert len(frames) == 2 and "worst frames" not in printed(result, frames=0)


def test_what_a_class_is_taken_for_is_the_largest_other_share(result: dict[str, Any]) -> None:
    text = printed(result)
    confusion = result["confusion"]
    row = confusion["pixels"][0]
    share, other = max((n, i) for i, n in enumerate(row) if i != 0)
    line = next(line for line in text.splitlines() if line.startswith("Sk[b]y"))
    assert line.rstrip().endswith(f"{share / sum(row):.0%}")
    assert confusion["classes"][other][:8] in line


@pytest.mark.parametrize(
    ("trained_on", "judged", "of", "seen"),
    [
        ("train", "val", "camvid11", ()),
        ("train+val", "val", "camvid11", ("val",)),
        ("train", "train+val", "camvid11", ("train",)),
        ("train+val", "val+test", "camvid32", ()),  # other labels, of who knows which frames
    ],
)
def test_a_model_judged_on_what_it_was_trained_on_is_told_apart(
    result: dict[str, Any], trained_on: str, judged: str, of: str, seen: tuple[str, ...]
) -> None:
    meta = {"train_split": trained_on, "protocol": f"{of}@180x240"}
    assert examination._trained_on(meta, judged, "camvid11@360x480") == seen
    assert examination._trained_on({}, judged, "camvid11@360x480") == ()
    assert result["trained_on"] == []
    words = " ".join(printed({**result, "trained_on": list(seen)}).split())
    assert ("this model was trained on" in words) == bool(seen)
    if seen:
        assert f"beware this model was trained on {seen[0]}: the score is" in words


def test_a_run_judged_on_train_says_so(segnet_data: Path, tmp_path: Path) -> None:
    run_dir = trained(segnet_data, tmp_path).run_dir
    for split, seen in (("train", ["train"]), ("val", [])):
        found = evaluate(smp_camvid.load(run_dir), segnet_data, split=split)
        assert found["trained_on"] == seen


def test_too_few_frames_for_an_interval_are_said(result: dict[str, Any]) -> None:
    assert "--block" not in printed(result)
    few = {**result, "miou_interval": None, "intervals": Bootstrap(20).describe(["a"] * 11)}
    assert "11 frames make 1 block," in " ".join(printed(few).split())


def test_the_csv_has_every_figure_of_a_class(result: dict[str, Any], tmp_path: Path) -> None:
    write_csv(tmp_path / "scores.csv", result)
    with (tmp_path / "scores.csv").open(newline="") as file:
        rows = {row["class"]: row for row in csv.DictReader(file)}
    assert [*rows] == [*result["classes"], "mean"]
    for name, scores in result["classes"].items():
        for key in ("iou", "precision", "recall", "dice", "boundary_f1", "pixels"):
            written = rows[name][key]
            assert (float(written) if written else None) == scores[key]
        edges = [float(rows[name][key]) for key in ("iou_low", "iou_high") if rows[name][key]]
        assert (edges or None) == scores["iou_interval"]
    assert float(rows["mean"]["iou"]) == result["miou"]


def test_the_options_reach_the_measures(segnet_data: Path, here: Path) -> None:
    run_dir = trained(segnet_data, here, train__epochs=1).run_dir
    words = ("evaluate", run_dir, "--block", 1, "--tolerance", 3, "--split", "train")
    document = json.loads(run(*words, "--json").stdout)
    assert document["intervals"]["blocks"] == 5 and document["boundary"]["tolerance_px"] == 3.0
    assert document["miou_interval"] is not None
    done = run(*words, "--frames", 1, "--definitions")
    assert done.exit_code == 0, done.output
    assert f"{document['miou']:.3f}" in done.stdout and "absent-0" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80
