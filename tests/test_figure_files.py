"""`evaluate --figures`: which files there are, that they repeat, and what the command says."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import matplotlib
import pytest
from command_line import array_of, run
from conftest import OWN
from judged_roads import picture

from smp_camvid.data.classes import ClassTable
from smp_camvid.report.figure_files import draw_figures, title_of
from smp_camvid.report.score_figures import class_iou_figure
from smp_camvid.report.style import svg_bytes


@pytest.mark.parametrize("form", ["png", "svg"])
def test_the_same_scores_are_the_same_files(judged: dict[str, Any], form: str) -> None:
    frames = {"worst": [picture()], "best": [], "median": []}
    first = draw_figures(judged, OWN, frames, [form])
    # Neither the user's style nor what was drawn before may show.
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "black", "svg.hashsalt": "x"}):
        again = draw_figures(judged, OWN, frames, [form])
    assert first == again
    assert [*first] == [
        *(f"{name}.{form}" for name in ("class-iou", "confusion", "reliability", "drives")),
        "frames-worst.png",
    ]
    other = {**judged, "miou": judged["miou"] + 0.1}
    assert draw_figures(other, OWN, {}, [form])[f"class-iou.{form}"] != first[f"class-iou.{form}"]


def test_text_stays_text_in_an_svg_and_markup_is_escaped() -> None:
    table = ClassTable("dataset", ("<script>$x$", "b"), ((1, 2, 3), (4, 5, 6)))
    made = svg_bytes(
        class_iou_figure({"<script>$x$": 0.5, "b": 0.25}, 0.3, table, "a & b")
    ).decode()
    assert "&lt;script>$x$" in made.replace("&gt;", ">") and "a &amp; b" in made
    assert "<script" not in made and not re.search(r"\d{4}-\d\d-\d\d", made)


def test_one_drive_has_no_figure_by_drive(judged: dict[str, Any]) -> None:
    one = {**judged, "by_drive": {"a": judged["by_drive"]["a"]}}
    assert "drives.png" not in draw_figures(one, OWN, {})


def test_the_title_has_the_run_and_not_the_folders_above_it(judged: dict[str, Any]) -> None:
    found = {**judged, "model": "/home/me/runs/vanilla-1/weights/last.safetensors"}
    assert title_of(found) == "vanilla-1/weights/last.safetensors on val, dataset4@native"


def test_the_command_names_what_it_draws(a_run: Path, here: Path) -> None:
    done = run("evaluate", a_run, "--figures", "pictures", "--frames", 1)
    assert done.exit_code == 0, done.output
    names = [
        "class-iou",
        "confusion",
        "reliability",
        "frames-best",
        "frames-median",
        "frames-worst",
    ]
    there = {f"pictures/{path.name}" for path in Path("pictures").iterdir()}
    named = [line for line in done.stdout.splitlines() if line.startswith("pictures/")]
    assert set(named) == there and len(named) == len(there)
    assert {f"pictures/{name}.png" for name in names} <= there
    assert array_of("pictures/frames-worst.png").shape[1] == 1976


def test_the_document_names_the_files(a_run: Path, here: Path) -> None:
    how = ("--figures", "p", "--figure-format", "both", "--frames", 0, "--json")
    found = json.loads(run("evaluate", a_run, *how).stdout)
    assert sorted(found["figures"]) == sorted(str(path) for path in Path("p").iterdir())
    assert {"p/confusion.png", "p/confusion.svg"} <= set(found["figures"])
    assert not any("frames" in name for name in found["figures"])
    assert "figures" not in json.loads(run("evaluate", a_run, "--json").stdout)


def test_what_cannot_be_drawn_is_said_at_once(a_run: Path, here: Path) -> None:
    Path("taken").write_text("a file")
    done = run("evaluate", a_run, "--figures", "taken")
    assert done.exit_code == 1 and "taken cannot be made" in done.stderr and not done.stdout
    done = run("evaluate", a_run, "--figure-format", "gif")
    assert done.exit_code == 2 and "png, svg or both" in done.stderr and not done.stdout


def test_drawing_leaves_pyplot_alone(tmp_path: Path) -> None:
    code = (
        "import sys, numpy as np\n"
        "from smp_camvid.data.classes import CAMVID11\n"
        "from smp_camvid.report.score_figures import confusion_figure\n"
        "from smp_camvid.report.style import png_bytes\n"
        "assert 'matplotlib' not in sys.modules\n"
        "png_bytes(confusion_figure(np.eye(11, dtype=int), CAMVID11))\n"
        "print('matplotlib.pyplot' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "False"
