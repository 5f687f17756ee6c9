"""From a source to a dataset in its place: fetch -> test -> unpack -> check -> list -> rename.

All of it happens in the staging folder beside the target (`staging.py`), so that what stands at the
target is a whole dataset at any moment.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias, runtime_checkable

import requests

from smp_camvid.data import archives, http_fetch
from smp_camvid.data.archives import BadArchiveError, Contents, Stamp
from smp_camvid.data.layouts import count, find_layout, first_few, pair_frames
from smp_camvid.data.manifest import own_words, write_manifest
from smp_camvid.data.network_errors import explain
from smp_camvid.data.pictures import picture_size
from smp_camvid.data.room import NoRoomError, check_room
from smp_camvid.data.staging import put_in_place
from smp_camvid.data.watching import Watcher
from smp_camvid.errors import DataError, SmpCamvidError


class ArchiveSource(Protocol):
    """A source that is a zip somewhere."""

    server: str
    """Its name in sentences."""
    frames: int | None
    """How many frames the whole dataset has, where that is known."""

    def open(self, resume: http_fetch.Resume | None) -> requests.Response:
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
    part = http_fetch.Part(folder, order.source)
    if anew:
        part.discard()
    fresh = folder / "fresh"
    made = _fill(order, part, fresh)
    try:
        splits, notes = check(fresh)
    except DataError as error:
        part.discard()
        said = error.message.replace(f"{fresh}", order.source)
        raise DataError(f"What came is no good: {said}", error.hint) from error
    manifest = write_manifest(fresh, order.source, made.version, made.archive, made.stamps)
    put_in_place(fresh, order.target, folder)
    part.discard()
    frames, whole = sum(splits.values()), getattr(order.maker, "frames", None)
    if whole and frames != whole:
        notes.append(f"{count(frames, 'frame')} came; CamVid has {whole}.")
    return Delivered(len(manifest.files), splits, tuple(notes))


def _fill(order: Order, part: http_fetch.Part, fresh: Path) -> _Unlisted:
    if isinstance(order.maker, FolderSource):
        return _Unlisted(_fetch_folder(order.maker, order, fresh))
    if isinstance(order.maker, Path):
        contents, archive = _open_zip(order.maker, order)
    else:
        contents, archive = _fetch_zip(order.maker, order, part)
    stamps = archives.unpack(contents, fresh, order.watcher)
    times = contents.archive.stat().st_mtime_ns
    row = {"size": archive.size, "sha256": archive.sha256, "mtime_ns": times}
    return _Unlisted(contents.commit or part.version or archive.sha256, row, stamps)


def _fetch_folder(maker: FolderSource, order: Order, fresh: Path) -> str:
    """Has the source write `fresh`; returns its version."""
    who = f"The source {order.source!r}"
    try:
        made = Path(maker.fetch(fresh, order.watcher.frames))
    except requests.RequestException as error:  # an OSError too, but not of the disk
        raise explain(error, order.source).error() from error
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


def _open_zip(archive: Path, order: Order) -> tuple[Contents, Stamp]:
    contents = archives.look_through(archive)
    check_room(order.shown, contents.size)
    return contents, archives.test(contents, order.watcher)


def _fetch_zip(maker: ArchiveSource, order: Order, part: http_fetch.Part) -> tuple[Contents, Stamp]:
    """Fetches until the zip is good, at most twice: a bad one is never kept."""
    called = f"The archive from {maker.server}"
    for last in (False, True):
        # Pictures are packed already, so they take their archive's size once more.
        http_fetch.fetch(
            maker, part, order.watcher, lambda n: check_room(order.shown, 2 * n + part.size)
        )
        try:
            return _open_zip(part.path, order)
        except NoRoomError:
            raise  # the archive is good and will be used when there is room
        except BadArchiveError as error:
            part.discard()
            if last:
                raise BadArchiveError(
                    f"{called} came damaged twice.",
                    "Try again later, or use --archive with a zip downloaded in a browser.",
                ) from error
            order.watcher.note(f"{called} is damaged; fetching it once more.")
        except DataError as error:
            part.discard()
            said = error.message.replace(str(part.path), called[0].lower() + called[1:])
            raise type(error)(said, "Use another --source.") from error
    raise AssertionError("the second time returns or raises")


def check(folder: Path) -> tuple[dict[str, int], list[str]]:
    """(frames of each split, notes) of a dataset that was just written.

    Raises DataError unless it has a known layout, every label has its frame, and every picture
    opens.  What is odd without making it useless is a note; `data check` looks closer.
    """
    root, _, parts = find_layout(folder)
    splits: dict[str, int] = {}
    bare: list[str] = []
    for part in parts:
        frames = pair_frames(part)
        splits[part.split or "frames"] = len(frames)
        bare += [frame.image.name for frame in frames if frame.label is None]
        for picture in (path for frame in frames for path in (frame.image, frame.label) if path):
            picture_size(picture)
    if not sum(splits.values()):
        raise DataError(f"{root} holds no pictures.")
    notes = [f"{count(len(bare), 'frame')} without a label: {first_few(bare)}."] if bare else []
    return splits, notes
