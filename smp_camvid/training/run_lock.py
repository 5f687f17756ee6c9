"""One process at a time trains in a run folder."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import IO

from smp_camvid.errors import RunError

if sys.platform != "win32":
    import fcntl


class RunLock:
    """A lock of the system on environment.json, which ends with its process however that ends.

    A record lock, not `locks.locked`: the workers that load frames are forked and outlive a
    killed run by seconds, with every lock they inherit, and these they do not.  It is lost when
    this process closes the file anywhere else, so nothing in training reads it.  Windows, and
    file systems without locks, have none.
    """

    def __init__(self) -> None:
        self._file: IO[bytes] | None = None

    def take(self, run_dir: Path) -> None:
        """Raises RunError when another process has it."""
        self.release()
        with contextlib.suppress(OSError):
            self._file = (run_dir / "environment.json").open("r+b")
        if self._file is None or sys.platform == "win32":
            return
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            self.release()
            raise RunError(
                f"{run_dir} is being trained by another process.",
                "Wait until that has ended, or stop it.",
            ) from None
        except OSError:  # no locks here
            pass

    def release(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
