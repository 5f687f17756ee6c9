"""checkpoint.pt: everything a run needs to go on, readable without unpickling code."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from smp_camvid.errors import RunError
from smp_camvid.runs import atomic_path
from smp_camvid.training.distributed import Dist

FORMAT = 2


@dataclass
class TrainState:
    """Where a run is.  Saved whole; plain numbers and two small tensors."""

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
    stop_best: float = -math.inf
    """Best value so far of the metric that early stopping watches, larger is better."""
    stop_epoch: int = 0
    """The epoch it belongs to."""
    stopped: bool = False
    """Early stopping has ended the run."""
    loss_sums: torch.Tensor | None = None
    """Losses of the unfinished epoch, `[2, T]` on the device: sums and counts of each term."""
    counts: torch.Tensor | None = None
    """Confusion counts of the unfinished epoch."""

    def finish_epoch(self) -> None:
        """One epoch more is done; the next begins at its first batch with empty sums."""
        self.epoch += 1
        self.batch, self.loss_sums, self.counts = 0, None, None

    def note_best(self, miou: float, epoch: int) -> bool:
        """Whether `miou` is the best so far."""
        if miou <= self.best_miou:
            return False
        self.best_miou, self.best_epoch = miou, epoch
        return True

    def note_stop(self, value: float, epoch: int, patience: int) -> None:
        """Ends the run after `patience` epochs without a better `value` (larger is better)."""
        if value > self.stop_best:
            self.stop_best, self.stop_epoch = value, epoch
        self.stopped = epoch - self.stop_epoch >= patience

    def note_plateau(self, loss: float, patience: int) -> None:
        """Halves the learning rate after `patience` epochs without a lower validation loss."""
        self.plateau_wait += 1
        if loss < self.plateau_best:
            self.plateau_best, self.plateau_wait = loss, 0
        elif self.plateau_wait >= patience:
            self.plateau_factor, self.plateau_wait = self.plateau_factor / 2, 0


def save_checkpoint(
    path: Path, state: TrainState, parts: dict[str, Any], recipe: str, data: dict[str, Any]
) -> None:
    """Writes atomically and keeps the one before beside it.

    `parts` are state_dicts and, under "rng", `random_state` of each process; `recipe` is TOML;
    `data` is `resuming.facts_of_data`.
    """
    # vars, not asdict: a deep copy of the tensors would be wasted.
    plain = {key: _on_cpu(value) for key, value in vars(state).items()}
    document = {"format": FORMAT, "state": plain, "parts": parts, "recipe": recipe, "data": data}
    document["checksum"] = checksum(document)
    with atomic_path(path, keep_as=previous(path)) as temporary, temporary.open("wb") as file:
        torch.save(document, file)  # to a path, torch would not say why it cannot write


def _on_cpu(value: Any) -> Any:
    return value.cpu() if isinstance(value, torch.Tensor) else value


def previous(path: Path) -> Path:
    """Where the checkpoint before the newest lies."""
    return path.with_name("checkpoint-previous.pt")


def load_checkpoint(path: Path) -> dict[str, Any]:
    """The newest whole checkpoint: `path`, else the one before it; `document["newest"]` is then
    what is wrong with `path`: "broken" or "missing".

    Raises RunError when there is none.
    """
    older = previous(path)
    if not path.is_file() and not older.is_file():
        raise RunError(
            f"There is no checkpoint {path} to go on from.",
            "Name a run folder: train --resume runs/NAME-1",
        )
    newest = ""
    for candidate in (path, older):
        try:
            document = _read(candidate)
        except Exception:  # torch raises many kinds for a broken file
            newest = "broken" if path.is_file() else "missing"
        else:
            document["newest"] = newest
            return document
    trained = any((path.parent / "weights").glob("last*"))
    raise RunError(
        f"{path} is not a checkpoint of this package, or is broken, and so is the one before it.",
        f"Start anew from its weights: smp-camvid train --weights {path.parent}"
        if trained
        else f"Start anew: smp-camvid train --recipe {path.parent / 'config.toml'}",
    )


def _read(path: Path) -> dict[str, Any]:
    document: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    if document["format"] != FORMAT:
        raise ValueError(f"format {document['format']}")
    if document.pop("checksum") != checksum(document):
        raise ValueError("the checksum differs")
    names = {field.name for field in dataclasses.fields(TrainState)}
    document["state"] = TrainState(**{k: v for k, v in document["state"].items() if k in names})
    return document


def checksum(value: Any) -> str:
    """SHA-256 over nested plain values and the bytes of tensors, in order."""
    digest = hashlib.sha256()
    for part in _parts(value):
        digest.update(part)
    return digest.hexdigest()


def _parts(value: Any) -> Iterator[bytes | memoryview]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield repr(key).encode()
            yield from _parts(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _parts(inner)
    elif isinstance(value, torch.Tensor):
        yield f"{value.dtype}{list(value.shape)}".encode()
        yield value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data
    else:
        yield repr(value).encode()


def random_state() -> dict[str, Any]:
    """Torch's generators, which dropout draws from; augmentation is a pure function."""
    state: dict[str, Any] = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def restore_random_state(states: list[dict[str, Any]], group: Dist, step: int) -> None:
    """Each process's own state; with another number of processes, one drawn from `step`."""
    if len(states) != group.world:
        torch.manual_seed(hash((group.rank, step)))
        return
    state = states[group.rank]
    torch.set_rng_state(state["cpu"])
    if torch.cuda.is_available() and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"])
