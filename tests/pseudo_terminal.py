"""A program in a pseudo-terminal, and the window its user looks at."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from terminal_window import Window

UNSET = ("CI", "NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES", "TTY_COMPATIBLE", "TTY_INTERACTIVE")

BEGIN, END = b"\x1b[?2026h", b"\x1b[?2026l"  # around each picture


class Program:
    """`words` run in a window of its own; all it writes is in `written`."""

    def __init__(
        self,
        words: Sequence[str],
        window: Window,
        folder: Path,
        variables: Mapping[str, str] | None = None,
    ) -> None:
        self.window, self.written = window, b""
        self._terminal, inner = pty.openpty()
        self._set_size()
        kept = {name: value for name, value in os.environ.items() if name not in UNSET}
        self._process = subprocess.Popen(
            words, stdin=inner, stdout=inner, stderr=inner, cwd=folder, start_new_session=True,
            env={**kept, "TERM": "xterm-256color", "COLORTERM": "truecolor", **(variables or {})},
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )  # fmt: skip
        os.close(inner)

    def resize(self, columns: int, lines: int) -> None:
        """As when somebody drags the window; the system tells the program with SIGWINCH."""
        self.until(lambda: True)
        self.window.resize(lines, columns)
        self._set_size()

    def press(self, keys: bytes) -> None:
        os.write(self._terminal, keys)

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    def until(self, holds: Callable[[], bool], seconds: float = 120.0) -> None:
        """Shows what the program writes until `holds`, or until it has ended.

        A picture that has begun is shown to its end, as a terminal does at once.
        """
        end = time.monotonic() + seconds
        while not holds() or self.written.count(BEGIN) > self.written.count(END):
            if not self._take(0.2):
                return
            assert time.monotonic() < end, self.window.seen

    def finish(self, seconds: float = 120.0) -> int:
        """Its exit code, once it has ended by itself."""
        self.until(lambda: False, seconds)
        return self._process.wait(seconds)

    def close(self) -> None:
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        with contextlib.suppress(OSError):
            os.close(self._terminal)

    def _set_size(self) -> None:
        size = struct.pack("HHHH", self.window.lines, self.window.columns, 0, 0)
        fcntl.ioctl(self._terminal, termios.TIOCSWINSZ, size)

    def _take(self, seconds: float) -> bool:
        """Shows what has been written; False when nothing will come any more."""
        if not select.select([self._terminal], [], [], seconds)[0]:
            return True
        try:
            data = os.read(self._terminal, 65536)
        except OSError:  # the other side is closed
            data = b""
        self.written += data
        self.window.write(data)
        return bool(data)
