"""The command line as tests call it: in this process, or as a child of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
from kaggle_server import clean_environment
from PIL import Image
from typer.testing import CliRunner, Result

from smp_camvid.cli import app

PROGRAM = [
    sys.executable,
    "-c",
    # A background job or nohup hands SIGINT down as ignored; these children hear it.
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler);"
    "from smp_camvid.cli import main; main()",
]


TRAIN = [
    "train", "--set", "model.base_channels=4", "--set", "model.depth=2", "--size", "32x48",
    "--epochs", "1", "--batch-size", "2", "--workers", "0", "--precision", "fp32",
]  # fmt: skip
"""A training of a moment."""


def run(*words: str | Path | int) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "80"})


def child(*words: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own, signed in to nothing but what `variables` hold."""
    return subprocess.run(
        [*PROGRAM, *map(str, words)], capture_output=True, text=True, check=False, timeout=60,
        env={**clean_environment(), "COLUMNS": "80", **variables},
    )  # fmt: skip


def refused(result: Result, code: int, *parts: str) -> None:
    """A plain reason on stderr, nothing on stdout, the right code, and no run folder."""
    assert result.exit_code == code, result.output
    for part in parts:
        assert part in result.stderr
    assert "Traceback" not in result.output
    assert result.stdout == ""
    assert not Path("runs").exists() and not Path("predictions").exists()


def array_of(path: str | Path) -> npt.NDArray[np.uint8]:
    with Image.open(path) as picture:
        return np.array(picture)
