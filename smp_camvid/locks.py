"""File locks of the system, which lets go of them when their process ends, however it ends."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

if sys.platform == "win32":
    import msvcrt

    def try_lock(handle: int) -> bool:
        """Whether the open file is this process's alone from now until it is closed."""
        with contextlib.suppress(OSError):
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
            return True
        return False
else:
    import fcntl

    def try_lock(handle: int) -> bool:
        """Whether the open file is this process's alone from now until it is closed."""
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        return False


def open_lock(path: Path) -> int:
    """The lock file, made if it is not there."""
    return os.open(path, os.O_RDWR | os.O_CREAT, 0o666)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Waits until no other process is inside the block of the same lock file.

    Where the file system has no locks nobody waits.
    """
    handle = open_lock(path)
    try:
        with contextlib.suppress(OSError):
            while not try_lock(handle):
                time.sleep(0.02)
        yield
    finally:
        os.close(handle)
