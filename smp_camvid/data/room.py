"""Whether a dataset fits on its disk, and what to say when it does not."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path

from smp_camvid.errors import DataError


class NoRoomError(DataError):
    """The disk is full, or would be."""


def check_room(target: Path, needed: int) -> None:
    """Raises NoRoomError when the disk `target` will be on has less than `needed` bytes free."""
    place = target.absolute()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if free < needed:
        raise NoRoomError(
            f"{target} needs {in_words(needed)} more, archive and pictures; "
            f"{in_words(free)} are free there.",
            "Make room, or name a folder on another disk with --to.",
        )


def in_words(size: int) -> str:
    """`"1.2 GB"`, `"3.4 MB"`."""
    return f"{size / 1e9:.1f} GB" if size >= 10**9 else f"{size / 1e6:.1f} MB"


def disk_trouble(error: OSError, target: Path) -> DataError:
    """What to raise for an OSError met while `target` was being written."""
    if error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)):
        return NoRoomError(
            f"The disk of {target} is full.",
            "Make room, or name a folder on another disk with --to, and run it again.",
        )
    return DataError(
        f"{target} cannot be written: {error.strerror or error}.",
        "Name another folder with --to.",
    )
