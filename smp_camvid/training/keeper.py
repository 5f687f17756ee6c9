"""What a run leaves on the disk: configuration, metrics, weights, checkpoint."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch

from smp_camvid import runs
from smp_camvid.models.network import Network
from smp_camvid.models.weights import save_weights
from smp_camvid.recipe import Recipe
from smp_camvid.training.checkpoint import TrainState, save_checkpoint
from smp_camvid.training.events import EpochDone, History, Scores

SAVE_AT_LEAST_EVERY_SECONDS = 60
_TIMING = ("images_per_second", "seconds", "data_wait_seconds", "gpu_memory_bytes")


class Keeper:
    """Writes one run folder; every file whole or not at all."""

    def __init__(self, recipe: Recipe, network: Network, metadata: dict[str, Any]) -> None:
        self.recipe, self.network, self.metadata = recipe, network, metadata
        self.run_dir = Path()
        self.opened = False
        self._saved_at = 0.0

    def check(self) -> None:
        """Raises RunError when the save folder cannot be written or its disk is too full."""
        cfg = self.recipe.train
        folder = self.run_dir if self.opened else Path(cfg.save_dir)
        runs.check_writable(folder)
        weights = self.network.num_parameters * 4
        # last, best and one in the making, and those of every n epochs
        copies = 3 + min(cfg.keep or cfg.epochs, cfg.epochs // cfg.save_every)
        checkpoints = 2 * 3 * weights  # the old and the new one: weights and two moments each
        runs.check_disk(folder, copies * weights + checkpoints)

    def create(self, device: str) -> None:
        """A new numbered folder with the recipe and the environment."""
        self.open_at(runs.create_run(Path(self.recipe.train.save_dir), self.recipe.name))
        runs.write_text(self.run_dir / "config.toml", self.recipe.to_toml())
        runs.write_json(self.run_dir / "environment.json", runs.describe_environment(device))
        self._saved_at = time.monotonic()

    def open_at(self, run_dir: Path) -> None:
        """The folder that this run writes to."""
        self.run_dir, self.opened = run_dir, True

    def reopen(self, epoch: int) -> None:
        """A run that goes on after `epoch`: lines it will write again are dropped.

        config.toml is written anew, since the number of epochs may have been raised.
        """
        for name in ("metrics.jsonl", "timing.jsonl"):
            runs.truncate_lines(self.run_dir / name, epoch)
        runs.write_text(self.run_dir / "config.toml", self.recipe.to_toml())
        self._saved_at = time.monotonic()

    def history(self) -> History:
        """The epochs that are on record, as the plots need them."""
        metrics = runs.read_lines(self.run_dir / "metrics.jsonl")
        timing = {row["epoch"]: row for row in runs.read_lines(self.run_dir / "timing.jsonl")}
        best, epochs = -1.0, []
        for row in metrics:
            val = None if row["val"] is None else Scores(**row["val"])
            improved = val is not None and val.miou > best
            best = val.miou if val is not None and improved else best
            measured = {**dict.fromkeys(_TIMING, 0), **timing.get(row["epoch"], {})}
            epochs.append(
                EpochDone(
                    epochs=self.recipe.train.epochs,
                    train=Scores(**row["train"]),
                    val=val,
                    lr=row["lr"],
                    seconds_left=0,
                    best=improved,
                    **{**measured, "epoch": row["epoch"]},
                )
            )
        return History(epochs)

    def record(self, done: EpochDone) -> None:
        """metrics.jsonl holds what the seed determines, timing.jsonl what the clock says."""
        runs.append_line(
            self.run_dir / "metrics.jsonl",
            {"epoch": done.epoch, "lr": done.lr, "train": _row(done.train), "val": _row(done.val)},
        )
        timing = {name: getattr(done, name) for name in _TIMING}
        runs.append_line(self.run_dir / "timing.jsonl", {"epoch": done.epoch, **timing})

    def weights(self, name: str, epoch: int) -> Path:
        """weights/<name>.safetensors, carrying what rebuilds the model."""
        path = self.run_dir / "weights" / f"{name}.safetensors"
        save_weights(self.network, path, {**self.metadata, "epoch": epoch})
        return path

    def drop_old_weights(self) -> None:
        """Keeps the newest `keep` of the weights of every n epochs."""
        keep = self.recipe.train.keep
        if keep:
            for path in sorted((self.run_dir / "weights").glob("epoch-*"))[:-keep]:
                path.unlink()

    def checkpoint(
        self, state: TrainState, optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler
    ) -> None:
        parts = {
            "model": self.network.state_dict(),
            "optimizer": optimizer.state_dict(),
            "scaler": scaler.state_dict(),
        }
        save_checkpoint(self.run_dir / "checkpoint.pt", state, parts, self.recipe.to_toml())
        self._saved_at = time.monotonic()

    @property
    def overdue(self) -> bool:
        """Long enough since the last checkpoint; short epochs do not each pay for a write."""
        return time.monotonic() - self._saved_at > SAVE_AT_LEAST_EVERY_SECONDS


def _row(scores: Scores | None) -> dict[str, Any] | None:
    return None if scores is None else {**vars(scores), "per_class": dict(scores.per_class)}
