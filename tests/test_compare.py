"""Several models on the same frames: paired differences, and what cannot be compared."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from color_engine import color_segmenter
from command_line import run
from conftest import OWN
from rich.console import Console
from runs_of_tests import trained

import smp_camvid
from smp_camvid.errors import UsageError
from smp_camvid.evaluation import compare as module
from smp_camvid.evaluation.bootstrap import Bootstrap
from smp_camvid.evaluation.compare import compare
from smp_camvid.evaluation.evaluate import evaluate
from smp_camvid.evaluation.examination import examine
from smp_camvid.evaluation.split import open_split
from smp_camvid.report.compare_tables import comparison_table, markdown_table

STEMS = {"train": ["x_0"], "val": [f"x_{i:02d}" for i in range(13)]}


@pytest.fixture
def three(make_own: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A model, the same one again, and a worse one."""
    monkeypatch.setattr(
        module, "network_facts", lambda *_: {"parameters": 1, "flops": None, "frame_size": [1, 1]}
    )
    models = [color_segmenter(OWN, seed, noise) for seed, noise in ((1, 1), (1, 1), (2, 9))]
    return compare(models, make_own(STEMS), bootstrap=Bootstrap(3, 300, seed=4))


def test_the_models_are_those_of_evaluate(three: dict[str, Any], tmp_path: Path) -> None:
    alone = evaluate(
        color_segmenter(OWN, 2, 9), tmp_path / "own", bootstrap=Bootstrap(3, 300, seed=4)
    )
    found = {key: value for key, value in three["models"][2].items() if key in alone}
    for document in (alone, found):
        del document["speed"]
    assert found == alone
    assert three["definition"] == alone["definition"] and three["frames"] == 13


def test_who_has_seen_the_frames_is_named(three: dict[str, Any]) -> None:
    models = [*three["models"][:2], {**three["models"][2], "trained_on": ["val"]}]
    stream = io.StringIO()
    Console(file=stream, width=80).print(comparison_table({**three, "models": models}))
    assert "beware C" in stream.getvalue() and "beware A" not in stream.getvalue()
    told = markdown_table({**three, "models": models})
    assert "Beware of models/[2].onnx: this model was trained on val" in told
    assert "Beware" not in markdown_table(three)


def test_a_model_does_not_differ_from_itself_and_a_worse_one_does(three: dict[str, Any]) -> None:
    same, worse = three["differences"]
    assert same["miou"] == {"difference": 0.0, "interval": [0.0, 0.0]}
    a, c = three["models"][0], three["models"][2]
    assert worse["miou"]["difference"] == pytest.approx(c["miou"] - a["miou"], abs=1e-12)
    assert worse["miou"]["interval"][1] < 0
    for name, value in worse["per_class"].items():
        assert value["difference"] == pytest.approx(
            c["per_class"][name] - a["per_class"][name], abs=1e-12
        )


def test_the_interval_is_that_of_differences_on_the_same_frames(
    three: dict[str, Any], tmp_path: Path
) -> None:
    rng = np.random.default_rng(4)
    starts = rng.integers(13, size=(300, 5))
    counts = []
    for seed, noise in ((1, 1), (2, 9)):
        segmenter = color_segmenter(OWN, seed, noise)
        exam = examine(segmenter, open_split(segmenter, tmp_path / "own"), "val")
        counts.append(exam.counts[:, :, :3].tolist())
    gaps = []
    for draw in starts:
        chosen = [(s + i) % 13 for s in draw for i in range(3)][:13]
        means = []
        for frames in counts:
            hit, truth, predicted = (
                [sum(frames[f][row][c] for f in chosen) for c in range(3)] for row in range(3)
            )
            ious = [h / (t + p - h) for h, t, p in zip(hit, truth, predicted, strict=True)]
            means.append(sum(ious) / 3)
        gaps.append(means[1] - means[0])
    expected = list(np.quantile(gaps, [0.025, 0.975]))
    assert three["differences"][1]["miou"]["interval"] == pytest.approx(expected, abs=1e-9)
    # Were the frames drawn for each model by itself, the interval would be wider.
    apart = [model["miou_interval"][1] - model["miou_interval"][0] for model in three["models"]]
    assert expected[1] - expected[0] < (apart[0] ** 2 + apart[2] ** 2) ** 0.5


def test_the_table_fits_and_says_which_is_better(three: dict[str, Any]) -> None:
    stream = io.StringIO()
    Console(file=stream, width=80).print(comparison_table(three))
    text = stream.getvalue()
    assert max(map(len, text.splitlines())) <= 80
    models = [line for line in text.splitlines() if re.match(r"[ABC]  +0\.\d{3}", line)]
    assert len(models) == 3
    mean = next(line for line in text.splitlines() if "worse" in line)
    assert f"{three['differences'][1]['miou']['difference']:+.3f}" in mean
    assert "models/[2].onnx" in text and "300 resamples of 5 blocks" in " ".join(text.split())
    signs = [value["interval"] for value in three["differences"][1]["per_class"].values()]
    assert text.count("  worse") == 1 + sum(high < -0.0005 for _, high in signs)
    assert text.count("  better") == sum(low > 0.0005 for low, _ in signs)


def test_markdown_is_one_table_of_the_models(three: dict[str, Any]) -> None:
    three["models"][0]["model"] = "runs/a|b\n"
    lines = markdown_table(three).splitlines()
    table = [line for line in lines if line.startswith("|")]
    assert len(table) == 2 + 3 and lines[: len(table)] == table
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in table} == {8}
    assert r"runs/a\|b" in table[2] and f"{three['models'][2]['miou']:.3f}" in table[4]
    assert "dataset4@native" in lines[-1] and "pooled" in lines[-1]


def test_other_protocols_are_refused_before_a_frame_is_judged(
    make_segnet: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = make_segnet()
    one = trained(data, tmp_path, train__epochs=1).run_dir
    other = trained(data, tmp_path, train__epochs=1, data__score_size="native").run_dir
    models = [smp_camvid.load(run_dir) for run_dir in (one, other)]
    monkeypatch.setattr(module, "examine", None)
    with pytest.raises(UsageError, match=r"camvid11@360x480.*camvid11@native.*--size"):
        compare(models, data)


def test_the_command_compares_runs_and_counts_them(
    segnet_data: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = trained(segnet_data, here, train__epochs=1).run_dir
    two = trained(segnet_data, here, train__epochs=1, model__base_channels=8).run_dir
    done = run("compare", one, two, "--json", "--block", 1, "--split", "train")
    assert done.exit_code == 0, done.output
    document = json.loads(done.stdout)
    small, large = document["models"]
    network = smp_camvid.load(two).engine.network  # type: ignore[attr-defined]
    assert large["parameters"] == sum(p.numel() for p in network.parameters())
    assert large["flops"] > 2 * small["flops"] and small["frame_size"] == [32, 43]
    assert document["differences"][0]["model"] == str(two / "weights" / "last.safetensors")
    alone = json.loads(run("evaluate", two, "--json", "--split", "train", "--block", 1).stdout)
    assert alone["miou"] == large["miou"] and alone["miou_interval"] == large["miou_interval"]
    table = run("compare", one, two)
    assert table.exit_code == 0 and "GFLOP" in table.stdout
    assert run("compare", one, two, "--markdown").stdout.startswith("| model | mIoU |")


def test_wrong_uses_are_refused_in_words(here: Path) -> None:
    for words, said in ((["a"], "two models"), (["a", "b", "--json", "--markdown"], "--json")):
        done = run("compare", *words)
        assert done.exit_code == 2 and said in done.stderr
    assert run("compare", "nowhere", "absent").exit_code == 2  # names that nobody knows
    assert run("compare", "runs/nowhere-1", "runs/absent-1").exit_code == 1
