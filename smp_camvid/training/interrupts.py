"""Ctrl-C and SIGTERM: the first is obeyed between two steps, the second at once."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType


class Interrupted(Exception):  # noqa: N818  # it is no error
    """A signal arrived; raised by `Interrupts.check` between two steps."""


class Interrupts:
    """Notes SIGINT and SIGTERM while `listening()`; outside the main thread it hears nothing."""

    def __init__(self) -> None:
        self._heard = False

    def check(self) -> None:
        if self._heard:
            raise Interrupted

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        self._heard = False
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {sig: signal.signal(sig, self._note) for sig in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for sig, handler in before.items():
                signal.signal(sig, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self._heard:
            raise KeyboardInterrupt
        self._heard = True
