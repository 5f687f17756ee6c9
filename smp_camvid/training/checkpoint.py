"""checkpoint.pt: everything a run needs to go on, readable without unpickling code."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from smp_camvid.errors import RunError
from smp_camvid.runs import atomic_path

FORMAT = 1


@dataclass
class TrainState:
    """Where a run is.  Saved whole; plain numbers and one small tensor."""

    epoch: int = 0
    """Epochs trained, validated and recorded."""
    batch: int = 0
    """Batches of the epoch after it that are already trained."""
    step: int = 0
    """Optimizer steps so far."""
    best_miou: float = -1.0
    best_epoch: int = 0
    plateau_factor: float = 1.0
    plateau_best: float = math.inf
    plateau_wait: int = 0
    loss_sum: float = 0.0
    """Loss of the unfinished epoch, summed over its counted pixels."""
    loss_count: float = 0.0
    counts: torch.Tensor | None = None
    """Confusion counts of the unfinished epoch."""

    def finish_epoch(self) -> None:
        """One epoch more is done; the next begins at its first batch with empty sums."""
        self.epoch += 1
        self.batch, self.loss_sum, self.loss_count, self.counts = 0, 0.0, 0.0, None

    def note_best(self, miou: float, epoch: int) -> bool:
        """Whether `miou` is the best so far."""
        if miou <= self.best_miou:
            return False
        self.best_miou, self.best_epoch = miou, epoch
        return True

    def note_plateau(self, loss: float, patience: int) -> None:
        """Halves the learning rate after `patience` epochs without a lower validation loss."""
        self.plateau_wait += 1
        if loss < self.plateau_best:
            self.plateau_best, self.plateau_wait = loss, 0
        elif self.plateau_wait >= patience:
            self.plateau_factor, self.plateau_wait = self.plateau_factor / 2, 0


def save_checkpoint(path: Path, state: TrainState, parts: dict[str, Any], recipe: str) -> None:
    """Writes atomically.  `parts` are state_dicts; `recipe` is TOML."""
    # vars, not asdict: a deep copy of the tensor would be wasted.
    document = {
        "format": FORMAT,
        "state": dict(vars(state)),
        "parts": parts,
        "recipe": recipe,
        "rng": random_state(),
    }
    with atomic_path(path) as temporary:
        torch.save(document, temporary)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Raises RunError when the file is missing or not one of ours."""
    if not path.is_file():
        raise RunError(
            f"There is no checkpoint {path} to go on from.",
            "Name a run folder: train --resume runs/NAME-1",
        )
    try:
        document = torch.load(path, map_location="cpu", weights_only=True)
        if document["format"] != FORMAT:
            raise ValueError(f"format {document['format']}")
        names = {field.name for field in dataclasses.fields(TrainState)}
        document["state"] = TrainState(**{k: v for k, v in document["state"].items() if k in names})
    except Exception as error:  # torch raises many kinds for a broken file
        raise RunError(f"{path} is not a checkpoint of this package, or is broken.") from error
    assert isinstance(document, dict)
    return document


def random_state() -> dict[str, Any]:
    """Torch's generators, which dropout draws from; augmentation is a pure function."""
    state: dict[str, Any] = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def restore_random_state(state: dict[str, Any]) -> None:
    torch.set_rng_state(state["cpu"])
    if torch.cuda.is_available() and len(state.get("cuda", [])) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])
