"""A run that another process trains, told from the files of its folder.  No torch here.

config.toml and environment.json say what it is, metrics.jsonl and timing.jsonl what it has done,
progress.json (progress_file.py) where it is.  All but the first may be missing, behind, or torn at
the end; the folder may lie on another machine, whose clock may be wrong.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
import tomllib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from smp_camvid import runs
from smp_camvid.data.classes import CAMVID11, CAMVID32, ClassTable
from smp_camvid.report.machine_use import MachineUse
from smp_camvid.report.progress_file import PROGRESS
from smp_camvid.report.view_state import ViewState
from smp_camvid.training import records
from smp_camvid.training.events import (
    EpochDone,
    Event,
    Notice,
    RunEnded,
    RunStarted,
    Saved,
    StepDone,
    ValidationStep,
)


class Follower:
    """Turns what changed in a run folder since the last look into the events of the run.

    `before` are the epochs that are not told one by one, all but the newest `tail`; `date` puts
    into the view's state what files know and events do not: machine and times.
    """

    def __init__(self, run: Path, tail: int | None = None) -> None:
        self.run, self._tail = run, tail
        self.before: list[EpochDone] = []
        self._said: dict[str, Any] = {}
        self._stamps: dict[str, tuple[int, int]] = {}
        self._changed: dict[str, float] = {}  # by our own clock
        self._began: float | None = None
        self._epochs = self._notices = self._planned = 0
        self._saved: Any = None
        self._step: Any = None

    def news(self) -> Iterator[Event]:
        """The run's beginning first; nothing as long as the run has not recorded anything."""
        moved, alive = self._read(), self._alive()
        moved |= not alive and self._read()  # what it wrote just before its end
        # Both, one after the other: an epoch is a line in each.
        rows = [self._is_changed(name) for name in ("metrics.jsonl", "timing.jsonl")]
        began = self._said.get("began", 0.0)
        if began != self._began and (self._said or "metrics.jsonl" in self._stamps):
            self._began, self._notices, self._saved, self._step = began, 0, None, None
            yield self._started()
            moved, rows = bool(self._said), [True]
        if self._began is None:
            return
        if any(rows):
            yield from self._new_epochs(alive)
        if moved:
            yield from self._new_steps()
        yield from self._ended(alive)

    def date(self, state: ViewState) -> None:
        """What the files know and events do not, by the clock of `state`."""
        said, now = self._said, time.monotonic()
        behind = state.clock() - now
        heard = max(self._changed.values(), default=now)
        state.heard_at = heard + behind
        if self._epochs:
            state.epoch_at = self._changed["metrics.jsonl"] + behind
        if said.get("machine"):
            state.machine = MachineUse(**said["machine"])
        if said.get("saved"):
            # Both by the clock of the machine that trains.
            ago = now - heard + said["time"] - said["saved"]["time"]
            state.saved_at = state.clock() - max(0.0, ago)
        if said:
            state.began_at = state.clock() - (said["time"] - said["began"])

    # -- what changed --------------------------------------------------------------------------

    def _read(self) -> bool:
        """Whether progress.json has changed; what cannot be read just now is as it was."""
        changed = self._is_changed(PROGRESS)
        if changed:
            self._said = _json(self.run / PROGRESS) or self._said
        return changed

    def _is_changed(self, name: str) -> bool:
        try:
            found = (self.run / name).stat()
        except OSError:
            return False
        stamp = (found.st_mtime_ns, found.st_size)
        if self._stamps.get(name) == stamp:
            return False
        age = 0.0 if name in self._stamps else max(0.0, time.time() - found.st_mtime)
        self._stamps[name], self._changed[name] = stamp, time.monotonic() - age
        return True

    def _started(self) -> RunStarted:
        run = _told(self.run, self._said) if self._said else _guessed(self.run)
        epochs = records.history(self.run, run.epochs).epochs
        tail = len(epochs) if self._tail is None else self._tail
        self.before = epochs[: max(0, len(epochs) - tail)]
        self._planned, self._epochs = run.epochs, len(self.before)
        return run

    def _new_epochs(self, alive: bool) -> Iterator[EpochDone]:
        epochs = records.history(self.run, self._planned).epochs
        self._epochs = min(self._epochs, len(epochs))  # a resumed run drops what it does again
        for epoch in epochs[self._epochs :]:
            if epoch is epochs[-1]:
                if not epoch.seconds and alive:
                    return  # its line of timing.jsonl is being written
                age = time.monotonic() - self._changed["metrics.jsonl"]
                epoch = replace(epoch, seconds_left=max(0.0, epoch.seconds_left - age))
            self._epochs += 1
            yield epoch

    def _new_steps(self) -> Iterator[Event]:
        said = self._said
        fresh = said["noticed"] - self._notices
        self._notices = said["noticed"]
        yield from (Notice(message) for message in said["notices"][-fresh:] if fresh)
        if said["saved"] and said["saved"] != self._saved:
            self._saved = said["saved"]
            yield Saved(self._saved["epoch"], self.run / "weights" / self._saved["name"])
        step, validation = said["step"], said["validation"]
        if step and step != self._step and step["epoch"] > self._epochs:
            self._step = step
            yield StepDone(**{**step, "loss": said["loss"]})
        if validation and validation["epoch"] > self._epochs:
            yield ValidationStep(**validation)

    # -- is it still running -------------------------------------------------------------------

    def _alive(self) -> bool:
        """False when the run's process was on this machine and is gone."""
        if self._said.get("host") != socket.gethostname() or os.name != "posix":
            return True
        try:
            os.kill(self._said["pid"], 0)
        except ProcessLookupError:
            return False
        except PermissionError:  # somebody else's
            return True
        return not _buried(self._said["pid"])

    def _ended(self, alive: bool) -> Iterator[RunEnded]:
        if ended := self._said.get("ended"):
            yield RunEnded(run_dir=self.run, confusion=None, **ended)
        elif self._epochs >= self._planned and not self._said:
            yield self._end("done", self._epochs, f"smp-camvid evaluate {self.run}")
        elif not alive:
            yield self._end("killed", self._epochs + 1, f"smp-camvid train --resume {self.run}")

    def _end(self, reason: str, epoch: int, next_command: str) -> RunEnded:
        epochs = records.history(self.run, self._planned).epochs
        best = next((epoch.epoch for epoch in reversed(epochs) if epoch.best), None)
        return RunEnded(reason, self.run, epoch, best, None, next_command)


def _buried(pid: int) -> bool:
    """Whether the process has ended and its parent has not asked how (Linux tells)."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return False
    return state == "Z"


def _json(path: Path) -> dict[str, Any]:
    """The document; empty where it cannot be read just now."""
    with contextlib.suppress(OSError, json.JSONDecodeError):
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return found
    return {}


def _told(run: Path, said: dict[str, Any]) -> RunStarted:
    """As progress.json has it; all epochs on record are told, so the first is 1."""
    table = said["classes"]
    colors = tuple((red, green, blue) for red, green, blue in table["colors"])
    classes = ClassTable(table["name"], tuple(table["names"]), colors, table["void_index"])
    return RunStarted(
        **{**said["run"], "first_epoch": 1},
        run_dir=run, classes=classes, architecture=(), parameter_sizes=(),
    )  # fmt: skip


def _guessed(run: Path) -> RunStarted:
    """Without a progress.json: a run of a script's own listeners, or of an older version."""
    train = tomllib.loads((run / "config.toml").read_text(encoding="utf-8")).get("train", {})
    rows = runs.read_lines(run / "metrics.jsonl")
    names = tuple(next((row["val"]["per_class"] for row in rows if row["val"]), {}))
    known = (table for table in (CAMVID11, CAMVID32) if table.names == names)
    device = _json(run / "environment.json").get("device", "")
    return RunStarted(
        name=run.name, run_dir=run, device=device, protocol="",
        classes=next(known, ClassTable("dataset", names, ())),
        epochs=train.get("epochs", len(rows)), first_epoch=1, steps_per_epoch=0,
        batch_size=train.get("batch_size", 0), train_frames=0, val_frames=0, parameters=0,
        architecture=(), optimizer="", parameter_sizes=(),
    )  # fmt: skip
