"""The hidden folder beside a dataset in which it is made, and how it takes its place at once.

    data/camvid                  the dataset, whole or not there
    data/.camvid.download/       lock, archive.zip with archive.json, fresh/, old/

Only one process at a time holds it.  What a killed one left in it is cleared, except
the archive, which is resumed.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from smp_camvid.errors import DataError
from smp_camvid.locks import try_lock

KEPT = ("lock", "archive.zip", "archive.json")


class BusyError(DataError):
    """Another process is making the same dataset."""


def staging_folder(target: Path) -> Path:
    """Beside the target, so that a rename is enough to put the dataset in its place."""
    return target.parent / f".{target.name}.download"


@contextlib.contextmanager
def staging(target: Path, shown: Path) -> Iterator[Path]:
    """Holds the staging folder of `target` and yields its folder; at the end only an archive stays.

    `shown`: the target as the user named it.

    Raises BusyError when another process holds it, DataError when it cannot be made.
    """
    folder = staging_folder(target)
    made = [parent for parent in folder.parents if not parent.exists()]
    try:
        handle = _hold(folder, shown)
    except OSError as error:
        _remove_empty(made)
        raise DataError(
            f"{shown} cannot be written: {error.strerror or error}.",
            "Name another folder with --to.",
        ) from error
    try:
        _clear(folder, target)
        yield folder
    finally:
        _clear(folder, target)
        _leave(folder, handle)
        _remove_empty(made)


def put_in_place(fresh: Path, target: Path, folder: Path) -> None:
    """Renames the finished dataset to `target`; a dataset that is there makes room for it."""
    old = folder / "old"
    try:
        if target.is_dir():
            target.rename(old)
        try:
            fresh.rename(target)
        except OSError:
            if old.is_dir():
                old.rename(target)
            raise
    except OSError as error:
        raise DataError(
            f"The dataset is ready but cannot be moved to {target}: {error.strerror or error}.",
            "Name another folder with --to.",
        ) from error


def _clear(folder: Path, target: Path) -> None:
    """Away with half-made things; a dataset put aside comes back if nothing replaced it."""
    old = folder / "old"
    if old.is_dir() and not target.exists():
        old.rename(target)
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        elif path.name not in KEPT:
            path.unlink(missing_ok=True)


def _hold(folder: Path, shown: Path) -> int:
    lock = folder / "lock"
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            handle = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
        except FileNotFoundError:  # its last holder removed the folder just now
            continue
        if not try_lock(handle):
            os.close(handle)
            raise BusyError(
                f"Another download is writing {shown} right now.",
                "Let it finish, then run the same command again to check the result.",
            )
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(handle), lock.stat()):
                return handle
        os.close(handle)  # the holder before removed the file between our open and our lock


def _leave(folder: Path, handle: int) -> None:
    """Removes what nobody needs while the lock is still held, then lets go."""
    if sys.platform == "win32":
        os.close(handle)  # an open file cannot be removed there
    with contextlib.suppress(OSError):
        (folder / "lock").unlink()
        folder.rmdir()  # unless an archive is kept in it
    if sys.platform != "win32":
        os.close(handle)


def _remove_empty(folders: list[Path]) -> None:
    for folder in folders:  # innermost first
        with contextlib.suppress(OSError):
            folder.rmdir()
