"""Loggers in tests: a machine of their own to run on, and their files read back.

Every run of the tests loads this module, so it imports what is heavy only where it is used.
"""

from __future__ import annotations

import os
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from smp_camvid import runs


@pytest.fixture
def beside(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], Any]:
    """Adds a listener to the default ones."""
    from smp_camvid.training import trainer
    from smp_camvid.training.listening import default_listeners

    def add(listener: Any) -> Any:
        def both(*args: Any) -> list[Any]:
            return [*default_listeners(*args), listener]

        monkeypatch.setattr(trainer, "default_listeners", both)
        return listener

    return add


@pytest.fixture
def every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("smp_camvid.report.scalars.EVERY_STEPS", 1)


@pytest.fixture
def temporary() -> Iterator[Path]:
    """A temporary folder of a short name: W&B has its socket there, whose path is at most 108."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


@pytest.fixture
def own_wandb(tmp_path: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """W&B as on a fresh machine; its process and its hooks go with the test."""
    monkeypatch.setenv("TMPDIR", str(temporary))
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    import wandb

    hooks = sys.exit, sys.excepthook
    yield
    wandb.teardown()
    sys.exit, sys.excepthook = hooks


class Ears:
    """A proxy that notices whether anybody asks it for anything, and hangs up."""

    def __init__(self) -> None:
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.heard = threading.Event()
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        while True:
            try:
                connection, _ = self.socket.accept()
            except OSError:
                return
            self.heard.set()
            connection.close()

    def environment(self) -> dict[str, str]:
        address = f"http://127.0.0.1:{self.socket.getsockname()[1]}"
        names = ("http_proxy", "https_proxy", "all_proxy")
        return {form: address for name in names for form in (name, name.upper())}


@pytest.fixture
def ears() -> Iterator[Ears]:
    made = Ears()
    yield made
    made.socket.close()


@pytest.fixture
def machine(tmp_path: Path, temporary: Path) -> dict[str, str]:
    """An environment with empty home, temporary and working folders; others cache elsewhere."""
    for name in ("home", "cwd"):
        (tmp_path / name).mkdir()
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("WANDB_", "XDG_"))}
    return {
        **kept,
        "HOME": str(tmp_path / "home"),
        "TMPDIR": str(temporary),
        "MPLCONFIGDIR": str(tmp_path / "matplotlib"),
    }


def pixels(file: Any) -> bytes:
    with Image.open(file) as picture:
        return picture.convert("RGB").tobytes()


def next_second() -> None:
    """W&B names the folder of a part after the second it began in."""
    time.sleep(1.001 - time.time() % 1)


def tensorboard(run: Path, **options: Any) -> Any:
    """A run's event files, read by TensorBoard itself."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    everything = {"scalars": 0, "images": 0, "tensors": 0}
    return EventAccumulator(str(run / "tensorboard"), everything, **options).Reload()


def curves_of(run: Path) -> dict[str, dict[int, float]]:
    read = tensorboard(run)
    return {tag: {e.step: e.value for e in read.Scalars(tag)} for tag in read.Tags()["scalars"]}


def parts_of(run: Path) -> list[Path]:
    """The .wandb files of a run, which are whole once W&B's own process has ended."""
    import wandb

    wandb.teardown()
    return sorted(run.glob("wandb/offline-run-*/run-*.wandb"))


def places(part: Path) -> list[tuple[str, int]]:
    """(name, step or epoch) of each value, in order."""
    from smp_camvid.report.wandb_records import history_rows

    rows = [*history_rows(part)]
    return [(key, row.get("epoch", row.get("step"))) for row in rows for key in row if "/" in key]


def recorded(run: Path) -> dict[int, dict[str, float]]:
    """metrics.jsonl under the loggers' names: epoch -> name -> value."""
    found: dict[int, dict[str, float]] = {}
    for row in runs.read_lines(run / "metrics.jsonl"):
        values = found[row["epoch"]] = {}
        for split in ("train", "val"):
            values |= {f"{split}/{key}": row[split][key] for key in ("loss", "miou", "accuracy")}
            per_class = row[split]["per_class"].items()
            values |= {f"{split}_iou/{name}": iou for name, iou in per_class if iou is not None}
    return found
