"""smp-camvid report: where the file goes, what it is made of when things are missing, refusals."""

from __future__ import annotations

import json
import shutil
import webbrowser
from pathlib import Path

import pytest
from command_line import run
from report_made import read

from smp_camvid.commands import report as module
from smp_camvid.data.camvid import standard_stems


@pytest.fixture
def own_run(a_run: Path, tmp_path: Path) -> Path:
    """A copy of the shared run that a test may damage."""
    return Path(shutil.copytree(a_run, tmp_path / "runs" / "mine-1"))


def data_of(a_run: Path) -> Path:
    return a_run.parents[1] / "data"


def test_the_report_lies_in_the_run_and_says_what_evaluate_says(own_run: Path) -> None:
    done = run("report", own_run, "--frames", 1)
    assert done.exit_code == 0, done.output
    assert done.stdout == f"{own_run / 'report.html'}\n"
    page = read((own_run / "report.html").read_text())
    scored = json.loads(run("evaluate", own_run, "--json").stdout)
    document = page.document()
    assert set(document) == set(scored)
    assert {k: v for k, v in document.items() if k != "speed"} == {
        k: v for k, v in scored.items() if k != "speed"
    }
    assert f"smp-camvid evaluate {own_run} --split val --json" in page.text
    assert f"smp-camvid train --recipe {own_run / 'config.toml'}" in page.text
    assert "What is missing" not in page.text


def test_nothing_named_is_the_newest_run(
    a_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(a_run, "runs/newest-1")
    done = run("report", "--out", "new folder/x.html", "--frames", 0)
    assert done.exit_code == 0, done.output
    page = read(Path("new folder/x.html").read_text())
    assert "newest-1" in page.text and not Path("runs/newest-1/report.html").exists()
    assert not any("data-shot" in attributes for _, attributes in page.elements)


def test_several_runs_are_compared(a_run: Path, own_run: Path, here: Path) -> None:
    done = run("report", a_run, own_run, "--frames", 1)
    assert done.exit_code == 0, done.output
    path = Path(done.stdout.strip())
    assert path == Path(f"report-{a_run.name}-mine-1.html") and path.is_file()
    page = read(path.read_text())
    assert page.document()["differences"][0]["miou"]["difference"] == 0.0
    assert page.document()["models"][0]["parameters"] > 1000
    assert f"smp-camvid compare {a_run} {own_run} --split val --json" in page.text


def test_two_weights_of_a_run_are_told_apart(a_run: Path, here: Path) -> None:
    files = [a_run / "weights" / f"{name}.safetensors" for name in ("last", "best")]
    done = run("report", *files, "--frames", 0)
    assert done.exit_code == 0, done.output
    text = read(Path(done.stdout.strip()).read_text()).text
    assert f"{a_run.name} last" in text and f"{a_run.name} best" in text
    assert "These weights were chosen by val" in text


def test_a_damaged_run_shows_what_there_is(own_run: Path, a_run: Path) -> None:
    (own_run / "config.toml").write_text("[train\n")
    (own_run / "metrics.jsonl").write_text("{torn\n")
    (own_run / "environment.json").unlink()
    done = run("report", own_run, "--data", data_of(a_run), "--frames", 1)
    assert done.exit_code == 0, done.output
    text = read((own_run / "report.html").read_text()).text
    for part in (
        "What is missing",
        "config.toml is damaged",
        "1 damaged line",
        "environment.json is",
    ):
        assert part in text
    assert "[train\n" in text  # as it is
    without = run("report", own_run)  # the recipe cannot say where the frames are
    assert without.exit_code in (0, 1) and "Traceback" not in without.output


def test_weights_alone_and_the_model_in_the_box(a_run: Path, here: Path, tmp_path: Path) -> None:
    alone = Path(
        shutil.copy(a_run / "weights" / "last.safetensors", tmp_path / "alone.safetensors")
    )
    for model, name in ((alone, "alone"), ("camvid-lite0", "camvid-lite0")):
        done = run("report", model, "--data", data_of(a_run), "--size", "48x64", "--frames", 1)
        assert done.exit_code == 0, done.output
        text = read(Path(f"report-{name}.html").read_text()).text
        assert "lies in no run folder" in text and "The weights file says" in text


@pytest.mark.slow
def test_real_frames_stay_below_five_megabytes(real_data: Path, here: Path) -> None:
    """24 frames of val, all of them shown: more than twice what the report shows of the 101."""
    for stem in standard_stems("val")[::4][:24]:
        for folder in ("val", "valannot"):
            link = here / "few" / folder / f"{stem}.png"
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(real_data / folder / f"{stem}.png")
    done = run("report", "camvid-lite0", "--data", "few", "--frames", 8)
    assert done.exit_code == 0, done.output
    file = Path("report-camvid-lite0.html")
    page = read(file.read_text())
    assert sum("data-shot" in attributes for _, attributes in page.elements) == 24
    assert page.document()["protocol"] == "camvid11@360x480" and page.document()["frames"] == 24
    assert "trained on val" in page.text  # the shipped model was
    assert 500_000 < file.stat().st_size < 5_000_000


def test_refusals(a_run: Path, here: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for words, code, part in (
        ([a_run, "--out", tmp_path], 1, "it is a folder"),
        ([a_run, "--out", tmp_path / "file" / "x.html"], 1, "cannot be written"),
        (["nowhere"], 2, "nowhere"),
        ([a_run, "--split", "val+val"], 2, "names a split twice"),
        ([a_run, "--data", tmp_path / "no data"], 1, "no data"),
    ):
        done = run("report", *words)
        assert done.exit_code == code, done.output
        assert part in done.stderr and done.stdout == "" and "Traceback" not in done.output
    assert list(here.iterdir()) == []


def test_a_failure_leaves_the_old_file(own_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (own_run / "report.html").write_text("old")

    def full(path: Path, text: str) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module.runs, "write_text", full)
    done = run("report", own_run, "--frames", 0)
    assert done.exit_code == 1 and "No space left on device" in done.stderr
    assert (own_run / "report.html").read_text() == "old"


def test_the_browser_opens_when_asked(own_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", opened.append)
    assert run("report", own_run, "--frames", 0).exit_code == 0
    assert opened == []
    done = run("report", own_run, "--frames", 0, "--open")
    assert opened == [(own_run / "report.html").absolute().as_uri()]
    assert "No browser could be opened" in done.stderr  # append answers None
