"""A training that ends itself with SIGKILL at a chosen point; run in a process of its own.

Imported by the fork server of test_killed.py, so that each process starts in a moment.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from smp_camvid import recipe, runs
from smp_camvid.models import weights
from smp_camvid.training import checkpoint, trainer
from smp_camvid.training.experiment import build_trainer

KILLED = -signal.SIGKILL


def die(*_: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class KillAfter:
    """A listener that ends the process at the n-th event of a kind."""

    def __init__(self, kind: str, number: int) -> None:
        self.kind, self.left = kind, number

    def on_event(self, event: object) -> None:
        if type(event).__name__ == self.kind:
            self.left -= 1
            if self.left == 0:
                die()


def nth(number: int, what: Callable[..., Any], instead: Callable[..., Any]) -> Callable[..., Any]:
    """`what`, but its n-th call is `instead`."""
    calls = iter(range(1, 1 << 30))
    return lambda *a, **k: (instead if next(calls) == number else what)(*a, **k)


def half_written(document: Any, file: Any) -> None:
    """As if the machine went down in the middle of the write."""
    _save(document, file)
    file.truncate(file.tell() // 2)
    die()


_save = torch.save


def arm(point: str, number: int, patch: pytest.MonkeyPatch) -> list[Any]:
    """Lays the trap; returns the listeners."""
    if point in ("StepDone", "ValidationStep", "EpochDone"):
        return [KillAfter(point, number)]
    if point == "checkpoint half written":
        patch.setattr(checkpoint.torch, "save", nth(number, torch.save, half_written))
    elif point == "checkpoint not renamed":
        # the old one has its new name, the new one not yet
        calls = nth(number, Path.replace, lambda *_: die())
        replace = Path.replace

        def replacing(self: Path, target: Path) -> Path:
            return (calls if target.name == "checkpoint.pt" else replace)(self, target)

        patch.setattr(Path, "replace", replacing)
    elif point == "weights half written":
        patch.setattr(weights, "atomic_path", nth(number, runs.atomic_path, die))
    else:
        assert point == "metrics written"
        patch.setattr(runs, "append_line", nth(2 * number, runs.append_line, die))
    return []


def run(recipe_file: str, run_dir: str, kill: tuple[str, int] | None, restore: bool = True) -> None:
    """Trains, or goes on in `run_dir`; `restore` False leaves torch's generators as they are."""
    torch.set_num_threads(1)
    # the loader's workers as users have them, not from another server
    multiprocessing.set_start_method("fork", force=True)
    with pytest.MonkeyPatch.context() as patch:
        if not restore:
            patch.setattr(trainer, "restore_random_state", lambda *_: torch.manual_seed(99))
        listeners = arm(*kill, patch) if kill else []
        made = build_trainer(recipe.resolve(recipe_file).recipe, listeners=listeners)
        if run_dir:
            made.resume(run_dir)
        made.train()
