"""watch: a run told from the files of its folder is the run that its own listeners hear."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from command_line import PROGRAM, child, run
from pseudo_terminal import END, Program
from runs_of_tests import small
from terminal_window import Window
from told_events import Clock, WindowConsole, epoch_done, events, plain_environment, started  # noqa: F401

from smp_camvid import runs
from smp_camvid.commands.watch import tell
from smp_camvid.data.classes import CAMVID11
from smp_camvid.report.console import ConsoleListener
from smp_camvid.report.following import Follower
from smp_camvid.report.progress_file import PROGRESS, ProgressFile
from smp_camvid.training.events import (
    EpochDone,
    Event,
    RunEnded,
    RunStarted,
    Saved,
    StepDone,
    ValidationStep,
)
from smp_camvid.training.records import rows_of

pytestmark = pytest.mark.usefixtures("plain_environment")

CONTROL = re.compile(r"\x1b|[\x00-\x08\x0b-\x1f]")


def record(folder: Path, told: Iterable[Event], clock: Clock | None = None) -> Path:
    """What a run leaves of these events: config.toml, metrics, timing and progress."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.toml").write_text("[train]\nepochs = 6\nbatch_size = 4\n")
    clock = clock or Clock()
    progress = ProgressFile(folder, clock)
    for event in told:
        clock.now += 10.0  # each is written
        if isinstance(event, EpochDone):
            append(folder, event)
        progress.on_event(event)
    return folder


def append(folder: Path, done: EpochDone) -> None:
    for name, row in zip(("metrics", "timing"), rows_of(done), strict=True):
        runs.append_line(folder / f"{name}.jsonl", row)


def rewrite(folder: Path, **changes: Any) -> None:
    said = json.loads((folder / PROGRESS).read_text())
    (folder / PROGRESS).write_text(json.dumps(said | changes))


def told_of(folder: Path, epochs: int = 6) -> list[Event]:
    return list(events(epochs, run_dir=folder))


# -- the same events ---------------------------------------------------------------------------


def test_the_files_tell_what_the_listeners_heard(tmp_path: Path) -> None:
    folder = tmp_path / "run-1"
    told = told_of(folder)
    follower = Follower(record(folder, told[:-1]))
    news = list(follower.news())
    heard = [event for event in told if isinstance(event, EpochDone)]
    assert [event for event in news if isinstance(event, EpochDone)][:-1] == heard[:-1]
    newest = next(event for event in reversed(news) if isinstance(event, EpochDone))
    assert dataclasses.replace(newest, seconds_left=heard[-1].seconds_left) == heard[-1]
    begun = news[0]
    assert isinstance(begun, RunStarted) and begun.classes == CAMVID11
    kept = {"architecture": (), "parameter_sizes": ()}
    assert begun == dataclasses.replace(started(6, run_dir=folder), **kept)  # type: ignore[arg-type]
    assert Saved(6, folder / "weights" / "last.safetensors") in news
    assert list(follower.news()) == []  # nothing new
    record(folder, told)
    ended = list(follower.news())[-1]
    assert ended == told[-1]


def test_it_goes_on_step_by_step(tmp_path: Path) -> None:
    folder = tmp_path / "run-1"
    told, clock = told_of(folder), Clock()
    record(folder, [], clock)
    progress, follower = ProgressFile(folder, clock), Follower(folder)
    assert list(follower.news()) == []  # nothing is recorded yet
    news: list[Event] = []
    for event in told:
        clock.now += 10.0
        if isinstance(event, EpochDone):
            append(folder, event)
        progress.on_event(event)
        news += follower.news()
    kinds = (StepDone, ValidationStep, Saved)
    assert [e for e in news if isinstance(e, ValidationStep)] == [
        e for e in told if isinstance(e, ValidationStep)
    ]
    assert [type(e) for e in news if not isinstance(e, kinds)] == [
        type(e) for e in told if not isinstance(e, kinds)
    ]
    steps = [e for e in news if isinstance(e, StepDone)]
    assert [(e.epoch, e.step) for e in steps] == [(n, s) for n in range(1, 7) for s in range(1, 5)]
    assert [e.loss for e in steps[:4]] == [None, 0.5, 0.5, 0.5]  # the last one read


@pytest.mark.parametrize("columns", [80, 120])
def test_watching_shows_the_view_of_the_training(tmp_path: Path, columns: int) -> None:
    folder = tmp_path / "run-1"
    told = [event for event in told_of(folder) if not isinstance(event, RunEnded)]
    told += [StepDone(7, 2, 4, 0.4, 1e-4, 8, 3.0)]
    clock, window = Clock(), Window(columns, 40)
    listener = ConsoleListener(WindowConsole(window), clock=clock, meter=None)
    for event in told:
        clock.now += 10.0
        listener.on_event(event)
    watched = Window(columns, 40)
    second = ConsoleListener(WindowConsole(watched), clock=Clock(), meter=None)
    assert tell(Follower(record(folder, told), tail=3), second) is None
    second.draw(now=True)
    view, other = (shown.seen[shown.cursor.y + 1 :] for shown in (window, watched))
    of_time = ("memory", "saved", "last sign", "lr ", "waited", "run  ")
    compared = [row for row in view if not row.startswith(of_time)]
    assert compared == [row for row in other if not row.startswith(of_time)] and len(compared) > 8
    assert any(row.startswith("last sign of life 0:0") for row in other)
    assert any(row.startswith("memory ") for row in other)  # as measured where it trains
    rows = [row for row in watched.everything if re.search(r"^[★ ] +\d+  \d", row)]
    assert [row.split()[-12] for row in rows] == ["4", "5", "6"]
    listener.close()
    second.close()


# -- files that are behind, torn or gone -------------------------------------------------------


def test_torn_lines_are_waited_for(tmp_path: Path) -> None:
    folder = tmp_path / "run-1"
    record(folder, told_of(folder, 2)[:-1])
    metrics, timing = (json.dumps(row) for row in rows_of(epoch_done(3)))
    follower = Follower(folder)
    assert sum(isinstance(event, EpochDone) for event in follower.news()) == 2
    for name, text, epochs in (
        ("metrics", metrics[:40], 0), ("metrics", metrics[40:] + "\n", 0),
        ("timing", timing[:20], 0), ("timing", timing[20:] + "\n", 1),
    ):  # fmt: skip
        with (folder / f"{name}.jsonl").open("a") as file:
            file.write(text)
        assert sum(isinstance(event, EpochDone) for event in follower.news()) == epochs
    (folder / PROGRESS).write_text('{"format": 1, "ru')  # as a disk without renames shows it
    assert list(follower.news()) == []


def test_a_run_that_goes_on_begins_anew_and_drops_rows(tmp_path: Path) -> None:
    folder = tmp_path / "run-1"
    told = told_of(folder)
    record(folder, told[:-1])
    follower = Follower(folder, tail=1)
    list(follower.news())
    assert [epoch.epoch for epoch in follower.before] == [1, 2, 3, 4, 5]
    for name in ("metrics.jsonl", "timing.jsonl"):
        runs.truncate_lines(folder / name, 2)
    record(folder, [dataclasses.replace(told[0], first_epoch=3)])  # type: ignore[type-var]
    news = list(follower.news())
    assert isinstance(news[0], RunStarted) and [e.epoch for e in follower.before] == [1]
    assert [event.epoch for event in news if isinstance(event, EpochDone)] == [2]


def test_without_a_progress_file_the_rest_is_told(tmp_path: Path) -> None:
    folder = record(tmp_path / "run-1", told_of(tmp_path / "run-1"))
    (folder / PROGRESS).unlink()
    (folder / "environment.json").write_text('{"device": "cpu (fp32)"}')
    news = list(Follower(folder).news())
    begun, ended = news[0], news[-1]
    assert isinstance(begun, RunStarted) and isinstance(ended, RunEnded)
    assert (begun.epochs, begun.device, begun.classes.names) == (6, "cpu (fp32)", CAMVID11.names)
    assert (ended.reason, ended.epoch, ended.best_epoch) == ("done", 6, 4)
    done = run("watch", folder)
    assert done.exit_code == 0 and "epoch 6/6" in done.stdout


def finished_process() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


@pytest.mark.parametrize("once", [[], ["--once"]])
def test_a_killed_run_is_recognised_on_its_own_machine(tmp_path: Path, once: list[str]) -> None:
    folder = record(tmp_path / "run-1", told_of(tmp_path / "run-1", 2)[:-1])
    rewrite(folder, pid=finished_process())
    done = run("watch", folder, *once)
    assert done.exit_code == 1
    assert "killed  in epoch" in done.stdout
    assert f"smp-camvid train --resume {folder}" in done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="Linux tells the state of a process")
def test_a_killed_run_that_nobody_reaped_is_recognised_too(tmp_path: Path) -> None:
    folder = record(tmp_path / "run-1", told_of(tmp_path / "run-1", 2)[:-1])
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        rewrite(folder, pid=process.pid)
        assert run("watch", folder, "--once").exit_code == 0
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        done = run("watch", folder)
    assert done.exit_code == 1
    assert "killed  in epoch" in done.stdout


def test_a_run_elsewhere_is_told_by_its_silence(tmp_path: Path) -> None:
    folder = record(tmp_path / "run-1", told_of(tmp_path / "run-1", 2)[:-1])
    rewrite(folder, pid=finished_process(), host="another-" + socket.gethostname())
    ago = time.time() - 600
    for name in (PROGRESS, "metrics.jsonl", "timing.jsonl"):
        os.utime(folder / name, (ago, ago))
    done = run("watch", folder, "--once")
    assert done.exit_code == 0
    assert re.search(r"last sign of life 10:0\d ago, last epoch 10:0\d ago", done.stdout)


# -- the command -------------------------------------------------------------------------------


def test_it_is_quick_and_plain_where_nobody_looks(tmp_path: Path) -> None:
    folder = record(tmp_path / "run-1", told_of(tmp_path / "run-1"))
    done = child("watch", folder)
    assert done.returncode == 0 and not CONTROL.search(done.stdout) and not done.stderr
    rows = [line for line in done.stdout.splitlines() if line.startswith("epoch ")]
    assert [row.split()[1] for row in rows] == [f"{epoch}/6" for epoch in range(1, 7)]
    assert "done    6 of 6 epochs" in done.stdout


def test_it_imports_no_torch(tmp_path: Path) -> None:
    folder = record(tmp_path / "run-1", told_of(tmp_path / "run-1"))
    code = (
        f"import sys; sys.argv = ['smp-camvid', 'watch', {str(folder)!r}]\n"
        "from smp_camvid.cli import main\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code\n"
        "heavy = {'torch', 'torchvision', 'timm', 'cv2', 'albumentations', 'matplotlib'}\n"
        "sys.exit(str(heavy & set(sys.modules)) if heavy & set(sys.modules) else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "done " in done.stdout


def test_the_newest_run_is_meant_when_none_is_named(here: Path) -> None:
    assert "no run under ./runs" in run("watch").stderr
    for name in ("run-1", "run-2"):
        record(Path("runs", name), told_of(Path("runs", name), 2))
    tried = Path("runs", "run-find-lr-1")  # a range test is no run
    tried.mkdir()
    (tried / "config.toml").touch()
    os.utime(Path("runs", "run-2", PROGRESS), (1, 1))
    os.utime(Path("runs", "run-2", "metrics.jsonl"), (1, 1))
    done = run("watch")
    assert done.exit_code == 0 and done.stdout.startswith("run run-1 on cpu")


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    done = run("watch", tmp_path)
    assert done.exit_code == 1 and "not a run folder" in done.stderr
    (tmp_path / "config.toml").touch()
    done = run("watch", tmp_path, "--once")
    assert done.exit_code == 1 and "recorded nothing yet" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_ends_it_and_leaves_a_clean_window(tmp_path: Path, number: int) -> None:
    folder = record(tmp_path / "run-1", told_of(tmp_path / "run-1")[:-1])
    window = Window(100, 30)
    program = Program([*PROGRAM, "watch", str(folder)], window, tmp_path)
    try:
        program.until(lambda: any("6/6 best" in row for row in window.seen))
        program.resize(80, 30)
        shown = program.written.count(END)
        program.until(lambda: program.written.count(END) > shown)  # then it sleeps for a while
        program.signal(number)
        assert program.finish() == 130
    finally:
        program.close()
    assert window.everything[-1] == "smp-camvid: Interrupted." and not window.cursor.hidden
    assert [row for row in window.everything if "━" in row] == []


def test_once_leaves_the_view_in_the_window(tmp_path: Path) -> None:
    folder = record(tmp_path / "run-1", told_of(tmp_path / "run-1")[:-1])
    window = Window(100, 30)
    program = Program([*PROGRAM, "watch", str(folder), "--once"], window, tmp_path)
    try:
        assert program.finish() == 0
    finally:
        program.close()
    text = "\n".join(window.everything)
    assert text.count("IoU of the classes") == 1 and text.count("last sign of life") == 1
    assert not window.cursor.hidden and not window.broken


# -- a real run --------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_run_is_watched_while_it_trains(kaggle_data: Path, here: Path) -> None:
    Path("recipe.toml").write_text(small(kaggle_data, Path("runs"), train__epochs=6).to_toml())
    words = ["train", "--recipe", "recipe.toml", "--verbose", "1"]
    training = subprocess.Popen([*PROGRAM, *words], stderr=subprocess.PIPE, text=True)
    try:
        while runs.newest_begun() is None:
            assert training.poll() is None
            time.sleep(0.1)
        watching = child("watch", "runs/vanilla-1")
        _, log = training.communicate(timeout=60)
    finally:
        training.kill()
    assert watching.returncode == training.returncode == 0, watching.stderr

    def told(text: str) -> list[str]:
        """Each epoch up to the time that is left, and the end without how long it took."""
        lines = [re.sub(r"\S+, \S+ left|\S+$", "", line) for line in text.splitlines()]
        return [line for line in lines if line.startswith(("epoch ", "done", "best", "last"))]

    assert told(watching.stdout) == told(log) and len(told(log)) == 9
