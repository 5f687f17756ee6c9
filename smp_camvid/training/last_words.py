"""What a failing process of a group says: every message once, and by whom it concerns.

One failure ends the whole group, and most are the same in every process.  The processes compare
messages on a notice board: the store that torchrun's agent keeps, which outlives them.
"""

from __future__ import annotations

import contextlib
import hashlib
import time
from typing import Any, Protocol

from smp_camvid import torchrun

SURVIVOR = 3
"""Exit code of a process that ends only because it lost the others; its launcher sees it."""
PATIENCE_SECONDS = 2.0  # for the main process to fail with the same words

_board: Board | None = None


class Board(Protocol):
    """What is used of torch.distributed.Store."""

    def add(self, key: str, amount: int, /) -> int: ...

    def check(self, keys: list[str], /) -> bool: ...


def use_board(board: Any) -> None:
    """From now on the processes of this launch can see what the others said."""
    global _board
    _board = board


def lost_the_group(error: BaseException) -> bool:
    """Whether a message did not get through because another process is gone."""
    of_torch = any(kind.__name__ == "DistError" for kind in type(error).__mro__)
    return of_torch or (isinstance(error, RuntimeError) and "gloo" in str(error).lower())


def last_words(message: str, error: BaseException | None = None) -> str:
    """What this process should say of `message`, its reason to end; empty for nothing."""
    if not torchrun.launched():
        return message
    if error is not None and lost_the_group(error):
        return _of_a_survivor()
    if isinstance(error, KeyboardInterrupt):
        return "" if _note(message) > 1 else message
    if torchrun.rank() == 0:
        _note(message)
        return message
    if _board is None:  # nothing has begun: those of one machine fail alike
        return _named(message) if torchrun.local_rank() == 0 else ""
    return "" if _said(_key(message)) or _note(message) > 1 else _named(message)


def _named(message: str) -> str:
    return f"process {torchrun.rank()}: {message}"


def _of_a_survivor() -> str:
    """Nothing where the process that failed gave its reason; a killed one gave none.

    Our own launcher tells more of it than a survivor knows.
    """
    if torchrun.by_devices() or torchrun.local_rank() != 0 or _said("anything"):
        return ""
    return "Another process of the group was killed or is out of reach; this one ends with it."


def _key(message: str) -> str:
    return hashlib.sha256(message.encode()).hexdigest()


def _note(message: str) -> int:
    """Puts it on the board; returns how many have."""
    with contextlib.suppress(Exception):  # the board may be gone, with the machine it was on
        if _board is not None:
            _board.add("anything", 1)
            return _board.add(_key(message), 1)
    return 1


def _said(key: str) -> bool:
    until = time.monotonic() + PATIENCE_SECONDS
    with contextlib.suppress(Exception):
        while _board is not None and time.monotonic() < until:
            if _board.check([key]):
                return True
            time.sleep(0.05)
    return False
