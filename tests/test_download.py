"""`download` with the real kaggle client, against a loopback server that speaks the API."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import run
from downloads import TARGET, left
from kaggle_server import (
    Server,
    assert_whole,
    status,
    without_length,
)

from smp_camvid.data import archives, manifest
from smp_camvid.data.camvid import open_dataset
from smp_camvid.report import progress

pytestmark = pytest.mark.usefixtures("signed_in")


# --- it works --------------------------------------------------------------------------------


def test_the_whole_path(server: Server, original: Path) -> None:
    done = run("download")
    assert done.exit_code == 0, done.output
    assert done.stdout == f"{TARGET}\n"
    assert done.stderr.splitlines() == [
        "note: 8 frames came; CamVid has 701.",
        "8 frames (train 5, val 3) from kaggle, checked.",
    ]
    assert_whole(TARGET, original)
    assert left() == [] and [path.name for path in Path("data").iterdir()] == ["camvid"]
    document = json.loads((TARGET / "manifest.json").read_text())
    assert document["source"] == "kaggle" and document["version"] == '"one"'
    assert document["archive"]["size"] == len(server.archive)
    data = open_dataset(TARGET)
    assert {name: len(frames) for name, frames in data.splits.items()} == {"train": 5, "val": 3}
    asked = [(method, path) for method, path, _ in server.log]
    assert asked == [
        ("POST", "/api/v1/datasets.DatasetApiService/DownloadDataset"),
        ("GET", "/blob/archive.zip"),
    ]


def test_a_second_call_does_nothing_and_reads_no_picture(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("download").exit_code == 0
    before = {path: path.stat().st_mtime_ns for path in TARGET.rglob("*")}
    requests, read = len(server.log), []
    monkeypatch.setattr(manifest, "stamp", lambda path: read.append(path) or archives.stamp(path))
    again = run("download")
    assert again.exit_code == 0 and again.stdout == f"{TARGET}\n"
    assert "is there already" in again.stderr and read == []
    assert len(server.log) == requests
    assert before == {path: path.stat().st_mtime_ns for path in TARGET.rglob("*")}
    next((TARGET / "train").iterdir()).touch()  # the negative control: another time is looked into
    assert run("download").exit_code == 0 and len(read) == 1


def test_what_is_missing_is_told_each_time(server: Server) -> None:
    for _ in range(2):
        done = run("download")
        assert done.exit_code == 0
        assert "note: 8 frames came; CamVid has 701.\n" in done.stderr
        assert "whole" not in done.stderr


def test_an_archive_without_a_known_length(server: Server, original: Path) -> None:
    server.gets = [without_length]
    assert run("download").exit_code == 0
    assert_whole(TARGET, original)


def test_a_link_to_another_disk_stays_a_link(original: Path) -> None:
    Path("big").mkdir()
    Path("data").mkdir()
    TARGET.symlink_to(Path("big/camvid").absolute())
    assert run("download").exit_code == 0
    assert TARGET.is_symlink()
    assert_whole(Path("big/camvid"), original)


def test_a_log_gets_a_line_now_and_then(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "PLAIN_SECONDS", 0)
    said = run("download").stderr
    assert f"downloading: 16.4 kB of {len(server.archive) / 1e3:.1f} kB, " in said
    assert "unpacking: " in said and "/s\n" in said and "\x1b" not in said


@pytest.mark.skipif(sys.platform == "win32", reason="no pseudo-terminals")
def test_a_terminal_gets_a_bar_with_size_speed_and_time_left(server: Server) -> None:
    server.pause = 0.05
    variables = {"TERM": "xterm-256color", "COLUMNS": "80", "CI": ""}
    master, slave = os.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "smp_camvid", "download"],
        stdout=subprocess.PIPE, stderr=slave, env={**os.environ, **variables},
    ) as running:  # fmt: skip
        os.close(slave)
        said = b""
        with contextlib.suppress(OSError):  # the end of a terminal is an error
            while more := os.read(master, 1 << 16):
                said += more
        os.close(master)
        assert running.stdout is not None and running.stdout.read() == f"{TARGET}\n".encode()
    assert running.returncode == 0
    plain = re.sub(r"\x1b\[[0-9;]*m", "", said.decode())
    lines = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\r", "\n", plain).splitlines()
    bars = [line for line in lines if line.startswith("downloading")]
    assert any(re.search(r"kB of [\d.]+ kB, [\d.]+ kB/s 0:00:\d\d", line) for line in bars), bars
    assert max(map(len, lines)) <= 80


# --- what is there already -------------------------------------------------------------------


def test_what_download_did_not_make_is_left_alone(server: Server) -> None:
    TARGET.mkdir(parents=True)
    (TARGET / "mine.txt").write_text("mine")
    for words in ([], ["--force"]):
        done = run("download", *words)
        assert done.exit_code == 1 and "download did not make it" in done.stderr
    assert [path.name for path in TARGET.iterdir()] == ["mine.txt"] and server.log == []


def test_damage_is_named_and_force_mends_it(original: Path, server: Server) -> None:
    assert run("download").exit_code == 0
    victim = next((TARGET / "train").iterdir())
    victim.unlink()
    done = run("download")
    assert done.exit_code == 1 and victim.name in done.stderr and "--force" in done.stderr
    assert run("download", "--force").exit_code == 0
    assert_whole(TARGET, original)
    assert left() == []


def test_force_keeps_files_of_somebody_else(server: Server) -> None:
    assert run("download").exit_code == 0
    (TARGET / "notes.txt").write_text("mine")
    requests = len(server.log)
    done = run("download", "--force")
    assert done.exit_code == 1 and "notes.txt" in done.stderr
    assert (TARGET / "notes.txt").read_text() == "mine" and len(server.log) == requests
    assert run("download").exit_code == 0  # they do no harm to the dataset


def test_a_failed_force_leaves_the_old_dataset(server: Server, original: Path) -> None:
    assert run("download").exit_code == 0
    server.posts = [status(404)]
    done = run("download", "--force")
    assert done.exit_code == 1 and "404" in done.stderr
    assert_whole(TARGET, original)


def test_a_copied_dataset_is_read_once_more_and_is_good(server: Server) -> None:
    assert run("download").exit_code == 0
    shutil.copytree(TARGET, "copy", copy_function=shutil.copy)  # new times
    done = run("download", "--to", "copy")
    assert done.exit_code == 0 and "is there already" in done.stderr
    picture = next((Path("copy") / "val").iterdir())
    content = bytearray(picture.read_bytes())
    content[-20] ^= 1
    picture.write_bytes(content)  # same size
    done = run("download", "--to", "copy")
    assert done.exit_code == 1 and picture.name in done.stderr


def test_places_that_cannot_be(tmp_path: Path) -> None:
    Path("file").write_text("")
    done = run("download", "--to", "file/camvid")
    assert done.exit_code == 1 and "cannot be written" in done.stderr
    done = run("download", "--to", "file")
    assert done.exit_code == 1 and Path("file").read_text() == ""
    assert "file is a file" in done.stderr and "--data" not in done.stderr
    done = run("download", "--to", "n" * 300)
    assert done.exit_code == 1 and "cannot be written: File name too long." in done.stderr
    Path("loop").symlink_to("loop")
    done = run("download", "--to", "loop/camvid")
    assert done.exit_code == 1 and "points back at itself" in done.stderr, done.output
    done = run("download", "--to", "")
    assert done.exit_code == 2 and "--to is empty" in done.stderr
    assert sorted(path.name for path in Path().iterdir()) == ["file", "loop"]
