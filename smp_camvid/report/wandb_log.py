"""Weights & Biases, offline: the run's record is in `wandb/` of its folder until `wandb sync`.

Nothing leaves the machine, whatever an account or a settings file says, unless WANDB_MODE says so.
A resumed run adds a part with the same id; `wandb sync` joins the parts in their order.  W&B
numbers rows by itself, so a row carries its place: the optimizer step, or the epoch.  What an
earlier part holds is not written again.  W&B writes blocks of 32 KiB: a run that is killed can lose
its last steps there, while its epochs come back from the run's own record.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import wandb

from smp_camvid.report import scalars
from smp_camvid.report.sheets import prediction_sheet
from smp_camvid.report.wandb_records import history_rows
from smp_camvid.training.events import (
    EpochDone,
    Event,
    History,
    Pictures,
    RunEnded,
    RunStarted,
    StepDone,
)

PROJECT = "smp-camvid"
_AXES = {"step": ["step/*"], "epoch": ["train*", "val*", "machine/*", "pictures/*"]}
_EXIT_CODES = {"done": 0, "interrupted": 130}
_SETTINGS: dict[str, Any] = {
    "console": "off", "silent": True, "symlink": False,
    # environment.json has what these would collect
    "disable_code": True, "disable_git": True, "save_code": False,
    "x_disable_machine_info": True, "x_disable_meta": True, "x_disable_stats": True,
    "x_save_requirements": False,
}  # fmt: skip


class WandbLogger:
    """Writes one part of a W&B run; epochs on record that no earlier part holds come first."""

    def __init__(self, run_dir: Path, history: History) -> None:
        parts = sorted(run_dir.glob("wandb/*run-*/run-*.wandb"))
        self._logged = {place for part in parts for place in _places(part)}
        self._started: RunStarted | None = None
        self._thinned = scalars.Thinned()
        # Random, because names of run folders repeat within an account's project.
        new_id = f"{run_dir.name}-{secrets.token_hex(4)}"
        self._run = _open(run_dir, parts[-1].stem.removeprefix("run-") if parts else new_id)
        with _letting_go(self._run):
            for done in history.epochs:
                self._log("epoch", done.epoch, scalars.of_epoch(done))

    def on_event(self, event: Event) -> None:
        with _letting_go(self._run):
            self._hear(event)

    def _hear(self, event: Event) -> None:
        if isinstance(event, RunStarted):
            self._started = event
        elif isinstance(event, StepDone) and self._thinned.takes(event):
            self._log("step", scalars.global_step(event), scalars.of_step(event))
        elif isinstance(event, EpochDone):
            self._log("epoch", event.epoch, scalars.of_epoch(event))
        elif isinstance(event, Pictures):
            self._draw(event)
        elif isinstance(event, RunEnded):
            self._run.finish(exit_code=_EXIT_CODES.get(event.reason, 1))

    def _draw(self, event: Pictures) -> None:
        assert self._started is not None, "RunStarted comes before Pictures"
        sheet = prediction_sheet(event.frames, self._started.classes, f"epoch {event.epoch}")
        self._log("epoch", event.epoch, {f"pictures/{event.split}": wandb.Image(np.asarray(sheet))})

    def _log(self, axis: str, at: int, values: Mapping[str, Any]) -> None:
        new = {key: value for key, value in values.items() if (key, at) not in self._logged}
        if new:
            self._run.log({axis: at, **new})


def _places(part: Path) -> Iterator[tuple[str, int]]:
    """(name, step or epoch) of everything that an earlier part holds."""
    for row in history_rows(part):
        at = row.get("epoch", row.get("step", 0))
        yield from ((key, at) for key in row)


def _open(run_dir: Path, run_id: str) -> wandb.Run:
    with (run_dir / "config.toml").open("rb") as file:
        recipe = tomllib.load(file)
    # Names with an x may go in any version of W&B.
    known = {key: value for key, value in _SETTINGS.items() if key in wandb.Settings.model_fields}
    known["mode"] = os.environ.get("WANDB_MODE", "offline")
    with _environment(WANDB_ERROR_REPORTING="false", WANDB_CACHE_DIR=str(run_dir)):
        run = wandb.init(
            dir=run_dir,
            id=run_id,
            name=run_dir.name,
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            resume="allow",
            reinit="create_new",
            config=recipe,
            settings=wandb.Settings(**known),
        )
    for axis, groups in _AXES.items():
        run.define_metric(axis, hidden=True)
        for group in groups:
            run.define_metric(group, step_metric=axis)
    run.define_metric("val/miou", step_metric="epoch", summary="max")
    return run


@contextlib.contextmanager
def _environment(**values: str) -> Iterator[None]:
    """What W&B's own process is told while it starts; the user's values stand."""
    before = dict(os.environ)
    for name, value in values.items():
        os.environ.setdefault(name, value)
    try:
        yield
    finally:
        for name in values:
            if name not in before:
                del os.environ[name]


@contextlib.contextmanager
def _letting_go(run: wandb.Run) -> Iterator[None]:
    """A failure closes the part; where W&B's own process is gone, its farewell at exit as well."""
    try:
        yield
    except BaseException as failure:
        with contextlib.suppress(Exception, SystemExit):
            if isinstance(failure, ConnectionError):
                wandb.teardown()
            else:
                run.finish(exit_code=1)
        raise
