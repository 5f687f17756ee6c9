"""Tiny runs that several test modules make, and a listener that remembers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from smp_camvid.recipe import Recipe, resolve
from smp_camvid.training import events
from smp_camvid.training.experiment import build_trainer
from smp_camvid.training.trainer import Trainer

SMALL = [
    ("model.base_channels", 4), ("model.depth", 2), ("model.padding", "same"),
    ("data.size", [32, 48]), ("train.epochs", 2), ("train.batch_size", 2),
    ("train.workers", 0), ("train.verbose", 0),
    ("train.save_plots", False), ("train.precision", "fp32"), ("train.lr", 1e-2),
]  # fmt: skip


class Recorder:
    """A listener that keeps what it hears."""

    def __init__(self) -> None:
        self.heard: list[events.Event] = []

    def on_event(self, event: events.Event) -> None:
        self.heard.append(event)

    def of(self, kind: type) -> list[Any]:
        return [event for event in self.heard if isinstance(event, kind)]


def small(data: Path, save_dir: Path, **changes: Any) -> Recipe:
    overrides = [*SMALL, ("data.path", str(data)), ("train.save_dir", str(save_dir))]
    dotted = [(key.replace("__", "."), value) for key, value in changes.items()]
    return resolve("vanilla", [*overrides, *dotted]).recipe


def trained(data: Path, save_dir: Path, **changes: Any) -> Trainer:
    made = build_trainer(small(data, save_dir, **changes), listeners=[])
    made.train()
    return made


def lines(run: Path) -> str:
    return (run / "metrics.jsonl").read_text()
