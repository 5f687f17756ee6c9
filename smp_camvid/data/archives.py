"""A zip that nobody has vouched for: looked through, tested, and only then unpacked."""

from __future__ import annotations

import hashlib
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from smp_camvid.data.watching import SILENT, Watcher
from smp_camvid.errors import DataError

MOST_FILES = 100_000
MOST_BYTES = 20 * 10**9
MOST_RATIO = 100  # pictures are compressed already; CamVid's zip unpacks to about its own size
LONGEST_NAME = 255  # bytes of one part of a path: what file systems take
CHUNK = 1 << 20

_WANTED = frozenset(
    {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".csv", ".txt", ".md", ".json"}
)
_LABELS = ("train_labels", "trainannot")
_PLAIN_LABELS = ("labels", "masks", "annotations")
_READABLE = frozenset(
    {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA}
)
_DEFLATE64 = 9
_ENCRYPTED = 0x1  # the first of a member's flag bits
_DAMAGE = (
    zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, struct.error, UnicodeError,
    ValueError, OverflowError,
)  # fmt: skip


class BadArchiveError(DataError):
    """The archive is damaged or not a zip: another copy may be good."""


class UnsafeArchiveError(DataError):
    """The archive wants to do what no dataset does: another copy will want it too."""


class LockedArchiveError(DataError):
    """The archive has a password, or is packed in a way that Python does not know."""


@dataclass(frozen=True)
class Member:
    """A file of the archive and the path below the dataset's folder that it will get."""

    info: zipfile.ZipInfo
    path: PurePosixPath


@dataclass(frozen=True)
class Contents:
    """What of an archive is the dataset."""

    archive: Path
    members: tuple[Member, ...]
    commit: str
    """The commit that an archive made by git names; else empty."""

    @property
    def size(self) -> int:
        """Bytes when unpacked."""
        return sum(member.info.file_size for member in self.members)


@dataclass(frozen=True)
class Stamp:
    """Size and SHA-256 of a file."""

    size: int
    sha256: str


def look_through(archive: Path) -> Contents:
    """Finds the dataset in a zip, in the Kaggle, SegNet or plain layout, at any depth.

    Raises BadArchiveError; LockedArchiveError; UnsafeArchiveError for paths that lead out of the
    folder or cannot be made, links and absurd sizes; DataError when there is no dataset in it.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            infos, comment = opened.infolist(), opened.comment
    except OSError as error:
        raise DataError(f"{archive} cannot be read: {error.strerror or error}.") from error
    except _DAMAGE as error:
        raise _damaged(archive, error) from error
    named = [(info, _safe_path(archive, info)) for info in infos if not info.is_dir()]
    root = _dataset_root(archive, [path for _, path in named])
    members = tuple(
        Member(info, path.relative_to(root))
        for info, path in named
        if path.is_relative_to(root) and _is_wanted(path.relative_to(root))
    )
    _refuse_the_locked(archive, members)
    _refuse_the_absurd(archive, members)
    return Contents(archive, members, comment.decode("ascii", "ignore").strip())


def test(contents: Contents, watcher: Watcher = SILENT) -> Stamp:
    """Reads every byte of the dataset against its checksum.  Raises BadArchiveError."""
    done, total = 0, contents.size
    try:
        with zipfile.ZipFile(contents.archive) as opened:
            for member in contents.members:
                for piece in _read(opened, member):
                    done += len(piece)
                    watcher.progress("testing", done, total)
    except (*_DAMAGE, RuntimeError) as error:  # RuntimeError: a header says encrypted
        raise _damaged(contents.archive, error) from error
    return stamp(contents.archive)


def unpack(contents: Contents, folder: Path, watcher: Watcher = SILENT) -> dict[str, Stamp]:
    """Writes the dataset into `folder`, which is made; path -> what was written."""
    stamps, done, total = {}, 0, contents.size
    folder.mkdir(parents=True)
    with zipfile.ZipFile(contents.archive) as opened:
        for member in contents.members:
            path = folder / member.path
            path.parent.mkdir(parents=True, exist_ok=True)
            digest = hashlib.sha256()
            with path.open("xb") as file:
                for piece in _read(opened, member):
                    file.write(piece)
                    digest.update(piece)
                    done += len(piece)
                    watcher.progress("unpacking", done, total)
            stamps[str(member.path)] = Stamp(member.info.file_size, digest.hexdigest())
    return stamps


def stamp(path: Path) -> Stamp:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
        return Stamp(file.tell(), digest.hexdigest())


def _read(opened: zipfile.ZipFile, member: Member) -> Iterator[bytes]:
    with opened.open(member.info) as file:  # stops at the size that the member has declared
        while piece := file.read(CHUNK):
            yield piece


def _damaged(archive: Path, error: Exception) -> BadArchiveError:
    # The text of the error is left out where it holds Python's own words for a member.
    said = str(error).rstrip(".")
    detail = f" ({said})" if said and "<" not in said else ""
    return BadArchiveError(
        f"{archive} is damaged or not a zip archive{detail}.", "Download it again."
    )


def _safe_path(archive: Path, info: zipfile.ZipInfo) -> PurePosixPath:
    name = info.filename.replace("\\", "/")  # as some Windows tools write them
    path = PurePosixPath(name)
    outside = path.is_absolute() or ".." in path.parts or ":" in name or not path.parts
    if outside or any(ord(letter) < 32 for letter in name):
        raise UnsafeArchiveError(
            f"{archive} was not unpacked: it holds {info.filename!r}, a path that leads out of "
            "the dataset's folder.",
            "Get the archive from where you trust it.",
        )
    return path


def _is_wanted(path: PurePosixPath) -> bool:
    hidden = any(part.startswith(".") for part in path.parts)  # .DS_Store, ._x.png
    ours = path.parts[0].lower() == "manifest.json"  # which is written here, in its place
    return not hidden and not ours and path.suffix.lower() in _WANTED


def _dataset_root(archive: Path, paths: Iterable[PurePosixPath]) -> PurePosixPath:
    """The folder, nearest to the top, that holds frames and labels side by side."""
    folders = {parent for path in paths if "__MACOSX" not in path.parts for parent in path.parents}
    roots = {
        folder.parent
        for folder in folders
        if (folder.name in _LABELS and folder.with_name("train") in folders)
        or (folder.name in _PLAIN_LABELS and folder.with_name("images") in folders)
    }
    nearest = sorted(roots, key=lambda folder: (len(folder.parts), folder))
    if not nearest:
        raise DataError(
            f"There is no dataset in {archive}: neither train/ with train_labels/ (Kaggle), nor "
            "train/ with trainannot/ (SegNet), nor images/ with labels/ or masks/.",
            "Give the zip of CamVid as it was downloaded.",
        )
    if len(nearest) > 1 and len(nearest[0].parts) == len(nearest[1].parts):
        raise DataError(
            f"There are several datasets in {archive}: {nearest[0]}, {nearest[1]}.",
            "Unpack the one you want and point --data at it.",
        )
    return nearest[0]


def _refuse_the_locked(archive: Path, members: tuple[Member, ...]) -> None:
    for member in members:
        if member.info.flag_bits & _ENCRYPTED:
            why = "is protected by a password"
        elif member.info.compress_type not in _READABLE:
            number = member.info.compress_type
            kind = "Deflate64" if number == _DEFLATE64 else f"method {number}"
            why = f"is packed with {kind}, which cannot be read here"
        else:
            continue
        raise LockedArchiveError(
            f"{archive} {why}.", "Unpack it yourself, then point --data at its folder."
        )


def _refuse_the_absurd(archive: Path, members: tuple[Member, ...]) -> None:
    def refuse(reason: str) -> UnsafeArchiveError:
        hint = "Get the archive from where you trust it."
        return UnsafeArchiveError(f"{archive} was not unpacked: {reason}.", hint)

    seen: set[str] = set()
    for member in members:
        kind = stat.S_IFMT(member.info.external_attr >> 16)
        if kind not in (0, stat.S_IFREG):
            raise refuse(f"{member.path} in it is a link or a device, not a file")
        if str(member.path).lower() in seen:  # one file on the disks of macOS and Windows
            raise refuse(f"it holds {member.path} twice")
        seen.add(str(member.path).lower())
        if any(len(part.encode()) > LONGEST_NAME for part in member.path.parts):
            raise refuse(f"{str(member.path)[:40]}... in it has a longer name than a file can have")
    for member in members:
        for parent in member.path.parents:
            if str(parent).lower() in seen:
                raise refuse(f"{parent} is a file and a folder in it")
    size = sum(member.info.file_size for member in members)
    packed = archive.stat().st_size
    if len(members) > MOST_FILES or size > min(MOST_BYTES, MOST_RATIO * packed):
        raise refuse(f"its {packed:,} bytes claim to hold {len(members):,} files of {size:,} bytes")
