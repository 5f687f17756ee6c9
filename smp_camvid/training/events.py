"""What a run tells its listeners.  Listeners observe and never steer.

The Trainer calls `listener.on_event(event)` in order, in the main process, with one of the
dataclasses below.  A listener that raises is reported once and then left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from smp_camvid.data.classes import ClassTable


@dataclass(frozen=True)
class Scores:
    """One pass over a split.  A class in neither truth nor prediction has None in `per_class`."""

    loss: float
    miou: float
    accuracy: float
    per_class: Mapping[str, float | None] = field(default_factory=dict)


@dataclass(frozen=True)
class ModelPart:
    """A row of the architecture table: name, class, parameters, output shape of one batch."""

    name: str
    kind: str
    parameters: int
    output: str = ""


@dataclass(frozen=True)
class RunStarted:
    name: str
    run_dir: Path
    device: str  # "cpu (bf16, channels_last)"
    protocol: str  # "camvid11@360x480"
    classes: ClassTable
    epochs: int
    first_epoch: int  # 1, or where a resumed run goes on
    steps_per_epoch: int
    batch_size: int
    train_frames: int
    val_frames: int
    parameters: int
    architecture: tuple[ModelPart, ...]
    optimizer: str  # one line, e.g. "Adam lr 0.0002 ..."
    parameter_sizes: tuple[tuple[str, tuple[int, ...], int], ...]  # name, shape, count
    processes: int = 1  # that share each batch out


@dataclass(frozen=True)
class StepDone:
    epoch: int  # from 1
    step: int  # from 1, within the epoch
    steps: int
    loss: float | None  # None where reading it would stall the device
    lr: float
    images: int  # images so far in this epoch
    seconds: float  # since the epoch began


@dataclass(frozen=True)
class ValidationStep:
    epoch: int
    step: int
    steps: int


@dataclass(frozen=True)
class EpochDone:
    epoch: int
    epochs: int
    train: Scores  # augmented frames, train mode
    val: Scores | None
    lr: float
    images_per_second: float
    seconds: float
    seconds_left: float
    data_wait_seconds: float
    gpu_memory_bytes: int | None
    best: bool


@dataclass(frozen=True)
class Pictures:
    """A few frames with truth and prediction, made every `save_every` epochs.

    Each list holds (frame uint8 [H,W,3], truth uint8 [H,W], prediction uint8 [H,W]).
    """

    epoch: int
    split: str
    frames: list[tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8], npt.NDArray[np.uint8]]]


@dataclass(frozen=True)
class Saved:
    epoch: int
    path: Path


@dataclass(frozen=True)
class Notice:
    """A sentence the user should see: a slow epoch with its lighter command, a dropped listener."""

    message: str


@dataclass(frozen=True)
class RunEnded:
    reason: str  # "done", "interrupted" or "failed"
    run_dir: Path
    epoch: int  # the last one done, or the one it stopped in
    best_epoch: int | None
    confusion: npt.NDArray[np.int64] | None  # [C, C] of the last validation, rows are truth
    next_command: str


Event = RunStarted | StepDone | ValidationStep | EpochDone | Pictures | Saved | Notice | RunEnded


class Listener(Protocol):
    def on_event(self, event: Event) -> None: ...


@dataclass
class History:
    """All EpochDone events of a run so far, as the plots need them."""

    epochs: list[EpochDone] = field(default_factory=list)
