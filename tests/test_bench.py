"""`smp-camvid bench`, and the scripts in benchmarks/ that write docs/performance.md."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import side_by_side
from command_line import refused, run

from smp_camvid.data import synthetic

ROOT = Path(__file__).parents[1]
TINY = [
    "--recipe", "quick", "--size", "48x64", "--batch-size", "2", "--seconds", "0.1",
    "--set", "model.base_channels=4", "--set", "model.depth=2", "--device", "cpu",
]  # fmt: skip


def test_bench_as_json() -> None:
    done = run("bench", *TINY, "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert list(found) == [
        "machine", "settings", "matmul", "training", "prediction", "data", "peak_memory_bytes",
        "seconds",
    ]  # fmt: skip
    settings, training = found["settings"], found["training"]
    assert (settings["recipe"], settings["batch_size"]) == ("quick", 2)
    assert settings["size"] == [48, 64]
    step = training["seconds_per_step"]
    assert 0 < step["low"] <= step["median"] <= step["high"]
    # the figures follow from each other
    assert training["images_per_second"] == pytest.approx(2 / step["median"])
    rate = training["flops_per_image"] * training["images_per_second"]
    assert training["flops_per_second"] == pytest.approx(rate)
    share = rate / found["matmul"]["flops_per_second"]
    assert training["share_of_matmul"] == pytest.approx(share)
    assert [one["engine"] for one in found["prediction"]] == ["torch", "onnxruntime"]
    assert min(one["images_per_second"] for one in found["prediction"]) > 0
    assert found["data"]["augmented_per_second"] > 0 < found["data"]["decoded_per_second"]


def test_bench_in_words() -> None:
    done = run("bench", *TINY, "--batch-size", "3")
    assert done.exit_code == 0, done.output
    for part in ("machine", "training", "prediction", "data", "3 frames of 48x64", "camvid-lite0"):
        assert part in done.stdout
    assert "nan" not in done.stdout and "None" not in done.stdout


def test_what_does_not_fit_is_refused_before_it_is_tried() -> None:
    refused(run("bench", *TINY, "--batch-size", "100000000"), 1, "Lower --batch-size")


def test_bench_refuses_what_train_refuses() -> None:
    refused(run("bench", "--recipe", "nothing"), 2, "nothing")
    refused(run("bench", "--size", "large"), 2, "--size")
    refused(run("bench", "--set", "train.lr=-1"), 2, "train.lr")


# --- the scripts -----------------------------------------------------------------------------


def test_ways_alternate_and_the_first_round_is_not_counted() -> None:
    now, order = [0.0], []

    def way(name: str, seconds: float) -> None:
        order.append(name)
        now[0] += seconds * (100 if order.count(name) == 1 else 1)

    found = side_by_side.alternate(
        {"slow": lambda: way("slow", 6.0), "fast": lambda: way("fast", 2.0)},
        2,
        clock=lambda: now[0],
    )
    assert order == ["slow", "fast"] * 3
    assert found == {"slow": [6.0, 6.0], "fast": [2.0, 2.0]}
    assert side_by_side.times_faster([6.0, 8.0, 9.0], [2.0, 2.0, 1.0]) == (4.0, 3.0, 9.0)
    assert side_by_side.spread([2.0, 8.0, 4.0]).rate(16) == (4.0, 2.0, 8.0)


def test_tables_take_the_place_of_the_old_ones() -> None:
    before = "a\n<!-- table: x -->\nold\n<!-- end: x -->\nb\n"
    after = side_by_side.between(before, "x", "new")
    assert after == "a\n<!-- table: x -->\n\nnew\n\n<!-- end: x -->\nb\n"
    assert side_by_side.between(after, "x", "new") == after
    with pytest.raises(SystemExit):
        side_by_side.between(before, "y", "new")


def test_every_table_has_a_place_and_shows_what_is_kept() -> None:
    scripts = [path.read_text() for path in (ROOT / "benchmarks").glob("*.py")]
    published = {name for text in scripts for name in re.findall(r'publish\(\s*"(\w+)"', text)}
    document = side_by_side.DOCUMENT.read_text()
    assert set(re.findall(r"<!-- table: (\w+) -->", document)) == published
    for path in side_by_side.RESULTS.glob("*.json"):
        kept = json.loads(path.read_text())
        assert kept["table"] in document, f"{path.name} and the document differ"
        assert not kept["quick"]
        assert not re.search(r"/(home|root|tmp|Users|work)/", path.read_text())


GPU_TABLES = {"gpu_step", "gpu_vanilla", "gpu_memory", "gpu_wait"}


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("script", "words"),
    [("train_step", ()), ("gpu", ("--device", "cpu", "--only", "step,vanilla,memory,data"))],
)
def test_scripts_run(script: str, words: tuple[str, ...], tmp_path: Path) -> None:
    data = synthetic.generate(tmp_path / "data", frames={"train": 1, "val": 1}, size=(24, 32))
    words = (*words, "--data", str(data)) if script == "gpu" else words
    done = subprocess.run(
        [sys.executable, ROOT / "benchmarks" / f"{script}.py", "--quick", "--repeats", "1",
         "--results", tmp_path, *words],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    tables = {"train_step"} if script == "train_step" else GPU_TABLES
    assert {path.stem for path in tmp_path.glob("*.json")} == tables
    for path in tmp_path.glob("*.json"):
        assert json.loads(path.read_text())["table"] in done.stdout
