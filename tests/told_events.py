"""A run as its listeners hear it, made up, and the windows and files that hear it."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from terminal_window import Window

from smp_camvid.data.classes import CAMVID11, ClassTable
from smp_camvid.training.events import (
    EpochDone,
    Event,
    ModelPart,
    Notice,
    RunEnded,
    RunStarted,
    Saved,
    Scores,
    StepDone,
    ValidationStep,
)

RUN = Path("runs/van[bold]illa-1")
SLOW = "[bold]slow[/bold]: an epoch takes 21 minutes; try [red] --size 180x240"

BASES = {1: 0.2, 2: 0.4, 3: 0.3}  # mIoU of an epoch; .8 from the fourth on


@pytest.fixture
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal of no special kind, whatever the tests themselves run in."""
    for name in ("CI", "NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")


class Clock:
    """Time that passes only when told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def started(
    epochs: int = 3, table: ClassTable = CAMVID11, steps: int = 4, run_dir: Path = RUN
) -> RunStarted:
    return RunStarted(
        name=run_dir.name,
        run_dir=run_dir,
        device="cpu (bf16, channels_last)",
        protocol="camvid11@360x480",
        classes=table,
        epochs=epochs,
        first_epoch=1,
        steps_per_epoch=steps,
        batch_size=4,
        train_frames=367,
        val_frames=101,
        parameters=31_032_395,
        architecture=(ModelPart("enc[0]oder", "Contracting", 18_842_048, "4x1024x28x28"),),
        optimizer="Adam, lr 0.0002",
        parameter_sizes=(("encoder.[0].weight", (64, 3, 3, 3), 1728),),
    )


def scores(base: float, table: ClassTable) -> Scores:
    names = table.names
    per_class = {name: base * i / len(names) for i, name in enumerate(names)}
    return Scores(1 / base, base, base, {**per_class, names[-1]: None})


def epoch_done(
    epoch: int, epochs: int = 3, table: ClassTable = CAMVID11, val: bool = True, gpu: bool = False
) -> EpochDone:
    score = scores(BASES.get(epoch, 0.8), table)
    return EpochDone(
        epoch=epoch,
        epochs=epochs,
        train=score,
        val=score if val else None,
        lr=2e-4,
        images_per_second=12.3,
        seconds=61.0,
        seconds_left=61.0 * (epochs - epoch),
        data_wait_seconds=1.0,
        gpu_memory_bytes=3 * 2**30 if gpu else None,
        best=val and epoch in (1, 2, 4),
    )


def events(
    epochs: int = 3,
    table: ClassTable = CAMVID11,
    val: bool = True,
    gpu: bool = False,
    reason: str = "done",
    run_dir: Path = RUN,
) -> Iterator[Event]:
    yield started(epochs, table, run_dir=run_dir)
    yield Notice(SLOW)
    for epoch in range(1, epochs + 1):
        for step in range(1, 5):
            yield StepDone(epoch, step, 4, 0.5 if step == 2 else None, 2e-4, step * 4, step * 1.5)
        if val:
            yield ValidationStep(epoch, 1, 2)
        yield epoch_done(epoch, epochs, table, val, gpu)
        yield Saved(epoch, run_dir / "weights" / "last.safetensors")
    best = {1: 1, 2: 2, 3: 2}.get(epochs, 4) if val else None
    yield RunEnded(reason, run_dir, epochs, best, None, "smp-camvid evaluate 'a [b]'")


class _IntoWindow(io.TextIOBase):
    encoding = "utf-8"

    def __init__(self, window: Window) -> None:
        self.window = window

    def write(self, text: str) -> int:
        self.window.write(text.encode(), newlines=True)
        return len(text)


class WindowConsole(Console):
    """A console whose window can be resized, as a terminal's."""

    def __init__(self, window: Window, **settings: Any) -> None:
        chosen = {"force_terminal": True, "color_system": "truecolor", "markup": False, **settings}
        super().__init__(file=_IntoWindow(window), **chosen)
        self.window = window
        self.resize(window.columns, window.lines)

    def resize(self, columns: int, lines: int) -> None:
        self.window.resize(lines, columns)
        self._width, self._height = columns, lines
