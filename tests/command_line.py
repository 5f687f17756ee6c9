"""The command line as tests call it: in this process, or as a child of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from kaggle_server import clean_environment
from typer.testing import CliRunner, Result

from smp_camvid.cli import app

PROGRAM = [
    sys.executable,
    "-c",
    # A background job or nohup hands SIGINT down as ignored; these children hear it.
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler);"
    "from smp_camvid.cli import main; main()",
]


def run(*words: str | Path | int) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "80"})


def child(*words: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own, signed in to nothing but what `variables` hold."""
    return subprocess.run(
        [*PROGRAM, *map(str, words)], capture_output=True, text=True, check=False, timeout=60,
        env={**clean_environment(), "COLUMNS": "80", **variables},
    )  # fmt: skip
