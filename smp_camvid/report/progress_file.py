"""progress.json of a run folder: where the run is within an epoch, for `watch` to show elsewhere.

It holds what is measured and said, never what the seed determines, and nothing reads it but people
and `watch`.  metrics.jsonl and timing.jsonl have the epochs.
"""

from __future__ import annotations

import dataclasses
import json
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from smp_camvid import runs
from smp_camvid.report.machine_use import MachineMeter
from smp_camvid.training.events import (
    Event,
    Notice,
    Pictures,
    RunEnded,
    RunStarted,
    Saved,
    StepDone,
    ValidationStep,
)

PROGRESS = "progress.json"
WRITE_EVERY_SECONDS = 2.0
WRITE_SHARE = 0.01  # of the time, at most, goes into writing; on a slow disk it is seldom
NOTICES_KEPT = 20
_RUN = (
    "name", "device", "protocol", "epochs", "first_epoch", "steps_per_epoch", "batch_size",
    "train_frames", "val_frames", "parameters", "optimizer", "processes",
)  # fmt: skip


class ProgressFile:
    """Writes progress.json every other second, and at the start and the end of a run."""

    def __init__(self, run_dir: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._path, self._clock = run_dir / PROGRESS, clock
        self._said: dict[str, Any] = {}
        self._meter: MachineMeter | None = None
        self._written, self._cost = 0.0, 0.0

    def on_event(self, event: Event) -> None:
        if isinstance(event, RunStarted):
            self._said = started(event)
            self._meter = MachineMeter(event.device)
        elif not self._said or isinstance(event, Pictures):
            return
        elif isinstance(event, StepDone):
            self._said |= {"step": vars(event), "validation": None}
            if event.loss is not None:
                self._said["loss"] = event.loss
        elif isinstance(event, ValidationStep):
            self._said["validation"] = vars(event)
        elif isinstance(event, Saved):
            self._said["saved"] = {
                "epoch": event.epoch, "name": event.path.name, "time": time.time()
            }  # fmt: skip
        elif isinstance(event, Notice):
            self._said["notices"] = [*self._said["notices"], event.message][-NOTICES_KEPT:]
            self._said["noticed"] += 1
        elif isinstance(event, RunEnded):
            self._said |= {"ended": ended(event), "step": None, "validation": None}
        pause = max(WRITE_EVERY_SECONDS, self._cost / WRITE_SHARE)
        turns = isinstance(event, RunStarted | RunEnded)
        if turns or self._clock() - self._written >= pause:
            self._write()

    def _write(self) -> None:
        began = self._clock()
        self._said |= {"time": time.time()}
        if self._meter:
            self._said["machine"] = dataclasses.asdict(self._meter())
        with runs.atomic_path(self._path, sync=False) as temporary:
            temporary.write_text(json.dumps(self._said), encoding="utf-8")
        self._written = self._clock()
        self._cost = self._written - began


def started(run: RunStarted) -> dict[str, Any]:
    table = run.classes
    colors = [list(color) for color in table.colors]
    return {
        "format": 1,
        "run": {name: getattr(run, name) for name in _RUN},
        "classes": {
            "name": table.name, "names": list(table.names), "colors": colors,
            "void_index": table.void_index,
        },
        "began": time.time(), "host": socket.gethostname(), "pid": os.getpid(),
        "step": None, "validation": None, "loss": None, "saved": None, "notices": [], "noticed": 0,
        "machine": None, "ended": None,
    }  # fmt: skip


def ended(event: RunEnded) -> dict[str, Any]:
    return {
        "reason": event.reason, "epoch": event.epoch, "best_epoch": event.best_epoch,
        "next_command": event.next_command,
    }  # fmt: skip
