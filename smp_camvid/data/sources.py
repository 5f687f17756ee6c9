"""One way for a dataset to get here, wherever it is from.

fetch -> test -> unpack -> check -> manifest.json -> rename

A source is an entry point of the group `smp_camvid.sources`: a class without arguments that
either opens an archive or fills a folder itself (`ArchiveSource`, `FolderSource` in delivery.py).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from smp_camvid import registry
from smp_camvid.data.delivery import Order, deliver
from smp_camvid.data.layouts import count, first_few
from smp_camvid.data.manifest import compare, is_same, read_manifest
from smp_camvid.data.part import Part
from smp_camvid.data.room import disk_trouble
from smp_camvid.data.staging import staging, staging_folder
from smp_camvid.data.watching import SILENT, Watcher
from smp_camvid.errors import DataError, UsageError

DEFAULT = "kaggle"


@dataclass(frozen=True)
class Obtained:
    """What `obtain` has to tell."""

    path: Path
    source: str
    files: int
    already: bool
    """Whether it was there before, and nothing was done."""
    splits: dict[str, int]
    """Frames of each split that was written; empty with `already`."""
    notes: tuple[str, ...] = ()
    """What is odd about it, also when it was there before: frames or labels that are missing."""


def default_target(source: str) -> Path:
    """Where a dataset goes: ./data/camvid, but drawn or foreign scenes are never taken for it."""
    camvid = source in ("kaggle", "segnet", "archive")
    return Path("data") / ("camvid" if camvid else source)


def obtain(
    source: str = DEFAULT,
    to: str | Path | None = None,
    archive: str | Path | None = None,
    force: bool = False,
    watcher: Watcher = SILENT,
) -> Obtained:
    """Gets a dataset into a folder, or finds that it is there, whole.

    `archive`: a zip of one's own instead of a source; it is read where it lies.  `force`: replace
    a dataset that an earlier call put there.  The folder holds a whole dataset or is not there,
    whatever happens.  Raises UsageError for an unknown source, DownloadError for the network,
    and DataError for the rest.
    """
    if to is not None and not str(to).strip():
        raise UsageError("--to is empty.", f"It names a folder, such as {default_target(source)}.")
    shown = Path(to).expanduser() if to is not None else None
    if archive is not None:
        source, maker = "archive", _existing_zip(Path(archive).expanduser())
    else:
        maker = registry.load_entry(registry.SOURCES, source)()
    shown = shown or default_target(source)
    order = Order(source, maker, _behind_links(shown), shown, watcher)
    try:
        return _already(order, force) or _make(order, force)
    except OSError as error:
        raise disk_trouble(error, shown) from error


def kept_bytes(source: str, to: str | Path | None) -> int:
    """What an interrupted `obtain` left of an archive that the same call goes on from."""
    shown = Path(to).expanduser() if to is not None else default_target(source)
    part = Part(staging_folder(shown.resolve()), source)
    return part.size if part.complete or part.resume() else 0


def _make(order: Order, force: bool) -> Obtained:
    with staging(order.target, order.shown) as folder:
        # Somebody else may have finished between the first look and the lock.
        found = _already(order, force)
        if found:
            return found
        came = deliver(order, folder, anew=force)
    return Obtained(order.shown, order.source, came.files, False, came.splits, came.notes)


def _behind_links(shown: Path) -> Path:
    """A link to a folder on a bigger disk stays a link."""
    try:
        return shown.resolve()
    except (OSError, RuntimeError) as error:  # RuntimeError: links round in a circle, until 3.12
        raise DataError(
            f"{shown} leads nowhere: a link on the way to it points back at itself.",
            "Remove that link, or name another folder with --to.",
        ) from error


def _existing_zip(path: Path) -> Path:
    what = ""
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "is not there"
    elif not os.access(path, os.R_OK):
        what = "cannot be read: you have no permission"
    if what:
        raise DataError(f"The archive {path} {what}.", "--archive takes a zip file.")
    return path


def _already(order: Order, force: bool) -> Obtained | None:
    """What is there already and good; None to go on.  Raises DataError where that would harm."""
    target, shown = order.target, order.shown
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return None
    if not target.is_dir():
        raise DataError(
            f"{shown} is a file, where the dataset's folder is to be.",
            "Move it away, or name another folder with --to.",
        )
    manifest = read_manifest(target)
    if manifest is None:
        raise DataError(
            f"{shown} is there already, and download did not make it.",
            "Use it as it is with --data, move it away, or name another folder with --to.",
        )
    differences = compare(target, manifest)
    if force:
        if differences.extra:
            raise DataError(
                f"{shown} holds files that download did not put there: "
                f"{first_few(differences.extra)}.",
                "Move them away; --force replaces the whole folder.",
            )
        return None
    same_zip = not isinstance(order.maker, Path) or is_same(order.maker, manifest.archive or {})
    if manifest.source != order.source or not same_zip:
        raise DataError(
            f"{shown} holds the dataset from {manifest.source}"
            f"{' (another zip)' if manifest.source == order.source else ''}.",
            "--force replaces it; --to names another folder.",
        )
    if differences.damage:
        raise DataError(
            f"{shown} is not as it was downloaded; {count(len(differences.damage), 'file')} "
            f"missing or changed: {first_few(differences.damage)}.",
            "To get it again: the same command with --force",
        )
    return Obtained(shown, order.source, len(manifest.files), True, {}, manifest.notes)
