"""Whether a dataset fits on its disk, and what to say when it does not."""

from __future__ import annotations

import errno
from pathlib import Path

from smp_camvid.errors import DataError
from smp_camvid.runs import free_bytes
from smp_camvid.runs import in_words as in_words


class NoRoomError(DataError):
    """The disk is full, or would be."""


def check_room(target: Path, needed: int, what: str) -> None:
    """Raises NoRoomError when the disk `target` will be on has less than `needed` bytes free.

    `what` needs them, in words.
    """
    free = free_bytes(target)
    if free < needed:
        raise NoRoomError(
            f"{target} needs {in_words(needed)} more for {what}; {in_words(free)} are free there.",
            "Make room, or name a folder on another disk with --to.",
        )


_FULL = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))


def is_the_disks(error: OSError) -> bool:
    """Whether the disk or its owner said no, and not what was to be written."""
    return error.errno in (*_FULL, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.EMFILE)


def disk_trouble(error: OSError, target: Path) -> DataError:
    """What to raise for an OSError met while `target` was being written."""
    if error.errno in _FULL:
        return NoRoomError(
            f"The disk of {target} is full.",
            "Make room, or name a folder on another disk with --to, and run it again.",
        )
    return DataError(
        f"{target} cannot be written: {error.strerror or error}.",
        "Name another folder with --to.",
    )
