"""From a source to a dataset in its place: fetch -> test -> unpack -> check -> list -> rename.

All of it happens in the staging folder beside the target (`staging.py`), so that what stands at the
target is a whole dataset at any moment.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias, runtime_checkable

import requests

from smp_camvid.data import archives, http_fetch
from smp_camvid.data.archives import BadArchiveError, Stamp
from smp_camvid.data.arrival import check_arrival
from smp_camvid.data.manifest import own_words, write_manifest
from smp_camvid.data.network_errors import Peer, explain
from smp_camvid.data.part import Part, Resume
from smp_camvid.data.room import NoRoomError, check_room, is_the_disks
from smp_camvid.data.staging import put_in_place
from smp_camvid.data.watching import Watcher
from smp_camvid.errors import DataError, SmpCamvidError


class ArchiveSource(Protocol):
    """A source that is a zip somewhere."""

    server: str
    """Its name in sentences."""
    frames: int | None
    """How many frames the whole dataset has, where that is known."""
    # `size`, `page` and `credentials` may be there too: see `http_fetch.Remote`.

    def open(self, resume: Resume | None) -> requests.Response:
        """The zip as a streamed answer, from `resume` on where the server can do that."""
        ...


@runtime_checkable
class FolderSource(Protocol):
    """A source that writes a dataset itself.  `version`, if it has one, goes into the manifest."""

    def fetch(self, target: Path, on_progress: Callable[[int, int], None]) -> Path:
        """Makes the folder `target`, which is not there yet, and returns it."""
        ...


Maker: TypeAlias = ArchiveSource | FolderSource | Path
"""Who makes the dataset; a path is a zip that the user has already."""


@dataclass(frozen=True)
class Order:
    """What is to be got, and where to."""

    source: str
    maker: Maker
    target: Path
    shown: Path
    """The target as the user named it."""
    watcher: Watcher


@dataclass(frozen=True)
class Delivered:
    """What came."""

    files: int
    splits: dict[str, int]
    """Frames of each split."""
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Unlisted:
    """A dataset in the staging folder that has no manifest yet."""

    version: str
    archive: Mapping[str, Any] | None = None
    stamps: Mapping[str, Stamp] | None = None


def deliver(order: Order, folder: Path, anew: bool) -> Delivered:
    """Makes the dataset in the staging `folder` and puts it in its place.

    `anew`: forget what an earlier call has fetched.
    """
    if order.target.is_mount():
        raise DataError(
            f"{order.shown} is a mount point, which a finished dataset cannot take the place of.",
            f"Name a folder inside: --to {order.shown / 'camvid'}",
        )
    part = Part(folder, order.source)
    if anew:
        part.discard()
    fresh = folder / "fresh"
    made = _fill(order, part, fresh)
    try:
        whole = getattr(order.maker, "frames", None)
        splits, notes = check_arrival(fresh, whole, order.watcher)
    except DataError as error:
        part.discard()
        said = error.message.replace(f"{fresh}", order.source)
        raise DataError(f"What came is no good: {said}", _another_copy(order.maker)) from error
    manifest = write_manifest(fresh, order.source, made.version, made.archive, made.stamps, notes)
    put_in_place(fresh, order.target, folder)
    part.discard()
    return Delivered(len(manifest.files), splits, tuple(notes))


def _another_copy(maker: Maker) -> str:
    """What to do when what came is no good."""
    if isinstance(maker, FolderSource):
        return "Tell whoever made the source."
    if isinstance(maker, Path):
        return "Get another copy, or unpack it yourself and see: smp-camvid data check DIR"
    return http_fetch.peer_of(maker).other_ways


def _fill(order: Order, part: Part, fresh: Path) -> _Unlisted:
    if isinstance(order.maker, FolderSource):
        return _Unlisted(_fetch_folder(order.maker, order, fresh))
    if isinstance(order.maker, Path):
        return _open_zip(order.maker, order, fresh)
    return _fetch_zip(order.maker, order, part, fresh)


def _fetch_folder(maker: FolderSource, order: Order, fresh: Path) -> str:
    """Has the source write `fresh`; returns its version."""
    who = f"The source {order.source!r}"
    try:
        made = Path(maker.fetch(fresh, order.watcher.frames))
    except requests.RequestException as error:  # an OSError too, but not of the disk
        raise explain(error, Peer(order.source)).error() from error
    except SmpCamvidError as error:
        said = error.message.replace(str(fresh), str(order.shown))
        raise DataError(said, error.hint) from error
    except OSError:
        raise
    except Exception as error:
        raise DataError(f"{who} failed: {type(error).__name__}: {error}.") from error
    if made.resolve() != fresh.resolve() or not fresh.is_dir():
        raise DataError(f"{who} wrote to {made} instead of {fresh}.")
    return str(own_words(fresh).get("version", getattr(maker, "version", "")))


def _open_zip(archive: Path, order: Order, fresh: Path, version: str = "") -> _Unlisted:
    """Looks through, tests and unpacks a zip.  Raises BadArchiveError and other DataErrors."""
    contents = archives.look_through(archive)
    check_room(order.shown, contents.size, "its pictures")
    stamp = archives.test(contents, order.watcher)
    try:
        stamps = archives.unpack(contents, fresh, order.watcher)
    except OSError as error:
        if is_the_disks(error):
            raise
        raise BadArchiveError(  # names that this disk does not take, for example
            f"{archive} cannot be unpacked here: {error.strerror or error}.",
            "Get another copy, or unpack it yourself, then point --data at its folder.",
        ) from error
    times = archive.stat().st_mtime_ns
    row = {"size": stamp.size, "sha256": stamp.sha256, "mtime_ns": times}
    return _Unlisted(contents.commit or version or stamp.sha256, row, stamps)


def _fetch_zip(maker: ArchiveSource, order: Order, part: Part, fresh: Path) -> _Unlisted:
    """Fetches until the zip is good, at most twice: a bad one is never kept."""
    called = f"The archive from {maker.server}"

    def room(size: int) -> None:
        # Pictures are packed already, so they take their archive's size once more.
        check_room(order.shown, 2 * size - part.size, "archive and pictures")

    for last in (False, True):
        http_fetch.fetch(maker, part, order.watcher, room)
        try:
            return _open_zip(part.path, order, fresh, part.version)
        except NoRoomError:
            raise  # the archive is good and will be used when there is room
        except BadArchiveError as error:
            part.discard()
            shutil.rmtree(fresh, ignore_errors=True)
            if last:
                raise BadArchiveError(
                    f"{called} came damaged twice.",
                    f"Try again later. {http_fetch.peer_of(maker).other_ways}",
                ) from error
            order.watcher.note(f"{called} is damaged; fetching it once more.")
        except DataError as error:
            part.discard()
            said = error.message.replace(str(part.path), called[0].lower() + called[1:])
            raise type(error)(said, http_fetch.peer_of(maker).other_ways) from error
    raise AssertionError("the second time returns or raises")
