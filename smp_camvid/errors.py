"""What the package raises when something outside it is wrong.

Every error carries the reason in one sentence and, in `hint`, the next command
to try.  The command line prints both on stderr and exits with `exit_code`;
library users catch `SmpCamvidError`.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class SmpCamvidError(Exception):
    """Base of all errors meant for the user.  Exit code 1: data, file or device said no."""

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".strip()


class DataError(SmpCamvidError):
    """The dataset, or one file of it, is missing, broken or not what was asked for."""


class WeightsError(SmpCamvidError):
    """A weights file is missing, broken, unsafe or does not fit the model."""


class DeviceError(SmpCamvidError):
    """The device asked for is not there."""


class RunError(SmpCamvidError):
    """A run directory cannot be read, created or written."""


class TrainingError(SmpCamvidError):
    """Training had to stop: a non-finite loss, out of memory."""


class InterruptedRun(SmpCamvidError):  # noqa: N818  # nothing went wrong
    """SIGINT or SIGTERM ended a run after it wrote a checkpoint.  Exit code 130."""

    exit_code = 130


class UsageError(SmpCamvidError):
    """A wrong option, unknown name or invalid recipe.  Exit code 2."""

    exit_code = 2


def visible(text: str) -> str:
    """`text` without control characters: files have any names, and terminals obey some of them."""
    return "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in text)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`"Did you mean 'unet'?"` when something known is close to `name`, else the empty string."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"Did you mean {close[0]!r}?" if close else ""
