"""Tiny runs that several test modules make, and listeners that remember and interrupt."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

import smp_camvid
from smp_camvid.data.loaders import Batch
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


class Stopper(Recorder):
    """Sends this process a signal after a number of events of a kind."""

    def __init__(self, kind: type, after: int, sig: signal.Signals = signal.SIGINT) -> None:
        super().__init__()
        self.kind, self.after, self.sig = kind, after, sig

    def on_event(self, event: events.Event) -> None:
        super().on_event(event)
        if isinstance(event, self.kind) and len(self.of(self.kind)) == self.after:
            os.kill(os.getpid(), self.sig)


class HostReads(TorchFunctionMode):
    """Counts what has to wait for the device, were the tensors on one."""

    WAIT = frozenset({
        torch.Tensor.item, torch.Tensor.tolist, torch.Tensor.cpu, torch.Tensor.numpy,
        torch.Tensor.__float__, torch.Tensor.__int__, torch.Tensor.__bool__, torch.Tensor.nonzero,
        torch.bincount,
    })  # fmt: skip

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func in self.WAIT
        return func(*args, **(kwargs or {}))


def small(data: Path, save_dir: Path, **changes: Any) -> Recipe:
    overrides = [*SMALL, ("data.path", str(data)), ("train.save_dir", str(save_dir))]
    dotted = [(key.replace("__", "."), value) for key, value in changes.items()]
    return resolve("vanilla", [*overrides, *dotted]).recipe


def trained(data: Path, save_dir: Path, **changes: Any) -> Trainer:
    made = build_trainer(small(data, save_dir, **changes), listeners=[])
    made.train()
    return made


def batch_of(frames: int, seed: int = 0, void: float = 0.2) -> Batch:
    """Noise `[frames, 3, 16, 16]` with labels of 11 classes, a share of them void."""
    generator = torch.Generator().manual_seed(seed)
    image = torch.randint(0, 256, (frames, 3, 16, 16), generator=generator, dtype=torch.uint8)
    target = torch.randint(0, 11, (frames, 16, 16), generator=generator)
    target[torch.rand(target.shape, generator=generator) < void] = 255
    return Batch(image, target, torch.arange(frames), None)


def bare_trainer(save_dir: Path, loader: Any = None, **options: Any) -> Trainer:
    """A Trainer from Python, without normalisation and dropout, on a loader of any kind."""
    torch.manual_seed(0)
    model = smp_camvid.create_model(
        "vanilla", classes=11, norm="none", padding="same", base_channels=4, depth=2, dropout=0.0
    )
    settings = {"precision": "fp32", "save_dir": str(save_dir), "verbose": 0, "save_plots": False}
    return Trainer(model, loader or [batch_of(2)], None, **{**settings, **options})


def lines(run: Path) -> str:
    return (run / "metrics.jsonl").read_text()
