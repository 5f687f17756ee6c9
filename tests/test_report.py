"""The report's file: its figures are those of evaluate, and whatever it is given stays text."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import math
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from report_made import (
    EPOCHS,
    FRAMES,
    HARM,
    Read,
    colored,
    how,
    read,
    without_networks,
    write_roads,
    write_run,
)

from smp_camvid.evaluation.bootstrap import Bootstrap
from smp_camvid.evaluation.compare import compare
from smp_camvid.evaluation.evaluate import evaluate
from smp_camvid.report import html
from smp_camvid.report.frame_pictures import FramePicture
from smp_camvid.report.html_charts import Chart, Series, nice_ticks, run_charts
from smp_camvid.report.html_gallery import shots
from smp_camvid.report.html_making import make_report
from smp_camvid.report.html_records import RunRecord, read_record

PAGE = Path(html.__file__).parent / "page"
SERVED = Path(html.__file__).parents[1] / "serve" / "page" / "page.css"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("report")
    write_roads(root / "roads")
    write_run(root / "runs" / "one-1")
    write_run(root / "runs" / "<i>two-1", shift=0.5)
    return root


@pytest.fixture(scope="module")
def one(folder: Path) -> Read:
    segmenter = colored(folder / "runs" / "one-1")
    return read(html.render(make_report([segmenter], how(folder / "roads"))))


@pytest.fixture(scope="module", autouse=True)
def uncounted() -> Iterator[None]:
    with without_networks():
        yield


@pytest.fixture(scope="module")
def two(folder: Path) -> Read:
    runs = [(folder / "runs" / "one-1", 1, 30.0), (folder / "runs" / "<i>two-1", 2, 60.0)]
    segmenters = [colored(*run) for run in runs]
    return read(html.render(make_report(segmenters, how(folder / "roads"))))


def without_speed(document: dict[str, Any]) -> dict[str, Any]:
    """What two passes over the same frames agree on."""
    kept = {key: value for key, value in document.items() if key not in ("speed", "models")}
    if "models" in document:
        kept["models"] = [without_speed(model) for model in document["models"]]
    return kept


def at(document: Any, keys: Any) -> Any:
    for key in keys:
        document = document[key]
    return document


def check_figures(page: Read) -> None:
    """Each is the document's value under its keys, whole in `value`, rounded in the text."""
    document = page.document()
    for keys, value, text in page.figures:
        meant = at(document, keys)
        if meant is None:
            assert (value, text) == ("", "–")  # noqa: RUF001
            continue
        assert float(value) == meant, keys
        shown = text.replace(",", "").replace("\N{MINUS SIGN}", "-")
        if shown.endswith(" M"):
            assert shown == f"{meant / 1e6:.2f} M"
        elif keys[-1] == "flops":
            assert shown == f"{meant / 1e9:.1f}"
        else:
            digits = len(shown.partition(".")[2])
            assert math.isclose(float(shown), meant, abs_tol=0.51 * 10**-digits), keys


def test_every_figure_is_one_of_evaluate(one: Read, folder: Path) -> None:
    segmenter = colored(folder / "runs" / "one-1")
    alone = evaluate(segmenter, folder / "roads", bootstrap=Bootstrap(3, 200))
    assert without_speed(one.document()) == json.loads(json.dumps(without_speed(alone)))
    check_figures(one)
    shown = {tuple(keys) for keys, _, _ in one.figures}
    owed = {("miou",), ("accuracy",), ("boundary", "f1"), ("calibration", "ece")}
    for name, row in alone["classes"].items():
        owed |= {("classes", name, key) for key in row if key != "iou_interval"}
        owed |= {("classes", name, "iou_interval", edge) for edge in (0, 1)}
    assert owed <= shown
    assert 0.2 < alone["miou"] < 0.9  # a model that errs: equal figures are no accident of 1.0


def test_every_figure_is_one_of_compare(two: Read, folder: Path) -> None:
    runs = [(folder / "runs" / "one-1", 1, 30.0), (folder / "runs" / "<i>two-1", 2, 60.0)]
    both = compare([colored(*run) for run in runs], folder / "roads", bootstrap=Bootstrap(3, 200))
    assert without_speed(two.document()) == json.loads(json.dumps(without_speed(both)))
    check_figures(two)
    shown = {tuple(keys) for keys, _, _ in two.figures}
    for name in both["differences"][0]["per_class"]:
        assert ("differences", 0, "per_class", name, "difference") in shown
    assert both["differences"][0]["miou"]["interval"][1] < 0
    assert {a["class"] for _, a in two.elements if "verdict" in (a.get("class") or "")} >= {
        "verdict worse"
    }


def test_a_wrong_figure_would_be_seen(one: Read) -> None:
    changed = Read(figures=list(one.figures), scripts=dict(one.scripts))
    keys, value, _ = changed.figures[0]
    changed.figures[0] = (keys, value, "0.123")
    with pytest.raises(AssertionError):
        check_figures(changed)


def test_the_matrix_is_the_documents_in_per_cent(one: Read) -> None:
    pixels = np.array(one.document()["confusion"]["pixels"])[:4]
    cells = [a for tag, a in one.elements if tag == "td" and "data-pixels" in a]
    assert [int(str(a["data-pixels"])) for a in cells] == pixels.flatten().tolist()


def test_names_stay_text(one: Read, two: Read) -> None:
    for page in (one, two):
        assert sum(tag == "script" for tag, _ in page.elements) == 3
        pictures = [a["src"] or "" for tag, a in page.elements if tag == "img"]
        assert all(src.startswith("data:image/") for src in pictures)
        assert not any(name.startswith("on") for _, a in page.elements for name in a)
        assert not any(tag in ("b", "i") and not a for tag, a in page.elements if tag == "i")
        for name in HARM.names[:4]:
            assert name in page.text  # `{{ 7 * 7 }}` too: a name is no template
        assert 'name = "</pre><script>boom()</script>"' in page.text
    assert "<i>two-1" in two.text


def test_nothing_is_loaded_and_only_our_script_may_run(one: Read) -> None:
    (policy,) = [a["content"] for tag, a in one.elements if "http-equiv" in a and tag == "meta"]
    for source, text in (("script-src", one.scripts["code"]), ("style-src", one.styles)):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{source} 'sha256-{digest}'" in str(policy)
    assert str(policy).startswith("default-src 'none'; img-src data:;")
    for _, attributes in one.elements:
        assert "style" not in attributes  # the policy would not let it
        for name in ("src", "href", "action", "data"):
            assert re.match(r"(#|data:|$)", attributes.get(name) or "")


def test_the_frames_are_the_worst_the_median_and_the_best(one: Read) -> None:
    alts = [str(a["alt"]) for tag, a in one.elements if tag == "img" and a["alt"]]
    frames = sorted(one.document()["per_frame"], key=lambda frame: frame["miou"])
    names = [frame["frame"] for frame in frames]
    middle = names[(FRAMES - 2) // 2 :][:2]
    assert alts == [f"Frame {n}" for n in [*names[:2], *middle, *names[:-3:-1]]]


def test_the_page_and_the_report_have_the_same_colours() -> None:
    def roots(path: Path) -> list[list[tuple[str, str]]]:
        blocks = re.findall(r":root \{(.*?)\}", path.read_text(), re.DOTALL)
        return [re.findall(r"(--[\w-]+|font):\s*([^;]+);", block) for block in blocks[:2]]

    assert roots(PAGE / "theme.css") == roots(SERVED)


@pytest.mark.parametrize(("width", "step"), [(64, 1), (640, 1), (1300, 3)])
def test_large_frames_are_thinned_and_classes_stay_exact(width: int, step: int) -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, (2, 30, width), np.uint8)
    labels[0, :5] = 255
    frame = rng.integers(0, 255, (30, width, 3), np.uint8)
    picture = FramePicture("a.png", "d", 0.5, frame, labels[0], labels[1])
    document = {"per_frame": [{"frame": "b.png"}, {"frame": "a.png"}]}
    (shot,) = shots({"best": ["a.png"]}, [[picture]], document, HARM)
    thin = labels[:, ::step, ::step]
    assert shot.size == thin.shape[1:] and shot.index == 1
    for text, expected in ((shot.truth, thin[0]), (shot.predictions[0], thin[1])):
        assert zlib.decompress(base64.b64decode(text)) == expected.tobytes()
    with Image.open(io.BytesIO(base64.b64decode(shot.jpeg))) as jpeg:
        assert jpeg.size == (shot.size[1], shot.size[0])
    known = thin[0][thin[0] != 255]
    most = int(np.bincount(known).argmax())
    assert shot.words["truth"].startswith(
        f"{HARM.names[most]} {round(100 * (known == most).mean())} %"
    )


def test_a_frame_of_void_has_no_score_and_no_figure(one: Read) -> None:
    document = {**one.document(), "miou": None, "miou_interval": None}
    document["per_frame"] = [{**document["per_frame"][0], "miou": None, "accuracy": None}]
    page = read(html.render(html.Report(document, HARM, (RunRecord("r"),))))
    assert (["miou"], "", "–") in page.figures  # noqa: RUF001
    check_figures(page)


# -- records ------------------------------------------------------------------------------------


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run-1")
    (run / "environment.json").unlink()
    (run / "config.toml").write_text("name = [")
    rows = (run / "metrics.jsonl").read_text().splitlines()
    broken = [
        "{",
        '{"epoch": 9}',
        '{"epoch": "x", "lr": 1}',
        "3",
        '{"epoch": 1, "lr": 1, "train": {}}',
    ]
    (run / "metrics.jsonl").write_text("\n".join([rows[0], *broken, *rows[2:]]))
    (run / "timing.jsonl").write_bytes(b"\xff\xfe")
    found = read_record(str(run / "weights" / "last.safetensors"), {})
    assert [row["epoch"] for row in found.epochs] == [1, 3, 4, 5, 6]
    assert found.recipe == "name = [" and found.timing == () and not found.environment
    assert [text.split()[0] for text in found.missing] == [
        "config.toml", "environment.json", "metrics.jsonl:", "timing.jsonl",
    ]  # fmt: skip
    assert "5 damaged lines" in found.missing[2]


def test_a_whole_run_misses_nothing(folder: Path) -> None:
    found = read_record(str(folder / "runs" / "one-1" / "weights" / "last.safetensors"), {})
    assert found.missing == () and len(found.epochs) == EPOCHS == len(found.timing)


@pytest.mark.parametrize("source", ["camvid-lite0", "models/m.onnx"])
def test_weights_outside_a_run_have_no_record(source: str) -> None:
    found = read_record(source, {"arch": "unet"})
    assert found.folder is None and "lies in no run folder" in found.missing[0]


# -- charts -------------------------------------------------------------------------------------


@pytest.mark.parametrize("high", [1e-9, 0.002, 0.9, 1.0, 3.3, 17, 99999.0])
def test_ticks_are_round_and_cover(high: float) -> None:
    ticks = nice_ticks(high)
    steps = np.diff(ticks)
    assert ticks[0] == 0 and ticks[-1] >= high * (1 - 1e-9) and ticks[-2] < high
    np.testing.assert_allclose(steps, steps[0])
    assert 4 <= len(ticks) <= 6
    assert f"{steps[0]:.0e}"[0] in "125" or f"{steps[0]:.1e}".startswith("2.5")


def test_a_gap_parts_a_line() -> None:
    line = Series("a", 0, (1, 2, 3, 5), (0.0, None, 0.5, 1.0))
    chart = Chart("c", "C", (line,), top=1.0)
    assert chart.lines(line) == ["0.0,1000.0", "500.0,500.0 1000.0,0.0"]
    assert chart.dots(line) == [(0.0, 100.0), (50.0, 50.0), (100.0, 0.0)]
    assert chart.x_ticks == [1, 2, 3, 4, 5] and line.last == 1.0


def test_curves_are_the_runs_lines(folder: Path) -> None:
    record = read_record(str(folder / "runs" / "one-1" / "weights" / "last.safetensors"), {})
    loss, miou, *_ = run_charts([record])
    assert loss.series[0].y == tuple(2 / epoch for epoch in range(1, EPOCHS + 1))
    assert (miou.series[1].x, miou.series[1].y) == ((2, 4, 6), (0.25, 0.5, 0.75))
    assert run_charts([RunRecord("nothing")]) == []


def test_a_diverged_loss_is_a_gap(folder: Path) -> None:
    train = {"loss": math.nan, "miou": 0.1, "accuracy": math.inf, "per_class": {}}
    record = RunRecord("r", epochs=({"epoch": 1, "lr": 1.0, "train": train, "val": None},))
    names = [chart.name for chart in run_charts([record])]
    assert names == ["miou", "lr"]
