"""Ctrl-C and SIGTERM: the first is obeyed between two steps, the second at once.

Schedulers signal all processes of a job, and torchrun passes on to its own what it gets itself:
in a group a signal that arrives together with the first is the same one.
"""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType

import torch

from smp_camvid.training.distributed import Dist

TOGETHER_SECONDS = 1.0


class Interrupted(Exception):  # noqa: N818  # it is no error
    """A signal arrived; raised by `Interrupts.check` between two steps."""


class Interrupts:
    """Notes SIGINT and SIGTERM while `listening()`; outside the main thread it hears nothing."""

    def __init__(self, group: Dist) -> None:
        self._heard, self._heard_at = False, 0.0
        self._group = group

    def check(self, also: bool = False) -> bool:
        """Raises Interrupted in all processes when one of them heard a signal.

        Returns whether `also` holds in the main process: one message for both questions.
        """
        asked = torch.tensor([self._heard, also and self._group.is_main], dtype=torch.int64)
        heard, granted = self._group.add(asked).tolist()
        if heard:
            raise Interrupted
        return bool(granted)

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
        together = TOGETHER_SECONDS if self._group.world > 1 else 0.0
        if self._heard and time.monotonic() - self._heard_at >= together:
            raise KeyboardInterrupt
        if not self._heard:
            self._heard, self._heard_at = True, time.monotonic()
