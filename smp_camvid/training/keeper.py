"""What a run leaves on the disk: configuration, metrics, weights, checkpoint."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from smp_camvid import runs
from smp_camvid.errors import RunError, WeightsError
from smp_camvid.models.network import Network
from smp_camvid.models.weights import save_weights
from smp_camvid.recipe import Recipe, TrainConfig
from smp_camvid.training import records
from smp_camvid.training.checkpoint import TrainState, save_checkpoint
from smp_camvid.training.distributed import Dist
from smp_camvid.training.events import EpochDone, History
from smp_camvid.training.learner import Learner
from smp_camvid.training.run_lock import RunLock

SAVE_AT_LEAST_EVERY_SECONDS = 60
SAVE_AT_MOST_SHARE = 30  # a checkpoint's seconds times this pass before the next


class Keeper:
    """Writes one run folder; every file whole or not at all."""

    def __init__(
        self,
        recipe: Recipe,
        learner: Learner,
        metadata: dict[str, Any],
        group: Dist,
        data: dict[str, Any],
    ) -> None:
        self.recipe, self.learner, self.metadata, self.group = recipe, learner, metadata, group
        self.data = data
        self.run_dir = Path()
        self.opened = False
        self._saved_at, self._cost = 0.0, 0.0
        self._lock = RunLock()

    def check(self) -> None:
        """Raises RunError when the save folder cannot be written or its disk is too full."""
        if not self.group.is_main:
            return
        folder = self.run_dir if self.opened else Path(self.recipe.train.save_dir)
        runs.check_writable(folder)
        runs.check_disk(folder, disk_needed(self.recipe.train, self.learner.network))

    def create(self) -> None:
        """A new numbered folder with the recipe and the environment."""
        if self.group.is_main:
            run_dir = runs.create_run(Path(self.recipe.train.save_dir), self.recipe.name)
            runs.write_text(run_dir / "config.toml", self.recipe.to_toml())
            runs.write_json(run_dir / "environment.json", self._environment())
            self._lock.take(run_dir)
            self.open_at(run_dir)
        self.open_at(self.group.share(self.run_dir))
        self._saved_at = time.monotonic()

    def open_at(self, run_dir: Path) -> None:
        """The folder that this run writes to."""
        self.run_dir, self.opened = run_dir, True

    def reopen(self, state: TrainState) -> list[str]:
        """A run that goes on from `state`: lines it will write again are dropped.

        config.toml is written anew, since the number of epochs may have been raised.  Returns
        what the user should know of the folder.  Raises RunError while another process trains.
        """
        self._saved_at = time.monotonic()
        if not self.group.is_main:
            return []
        if not (self.run_dir / "environment.json").is_file():  # killed before it was written
            runs.write_json(self.run_dir / "environment.json", self._environment())
        self._lock.take(self.run_dir)
        for folder in (self.run_dir, self.run_dir / "weights"):
            runs.sweep(folder)
        runs.truncate_lines(self.run_dir / "timing.jsonl", state.epoch)
        gaps = runs.truncate_lines(self.run_dir / "metrics.jsonl", state.epoch)
        here = self.recipe.train.model_copy(update={"save_dir": str(self.run_dir.parent)})
        kept = self.recipe.model_copy(update={"train": here})  # the run stays in its folder
        runs.write_text(self.run_dir / "config.toml", kept.to_toml())
        where = {"epoch": state.epoch, "batch": state.batch, "step": state.step}
        runs.append_line(self.run_dir / "resumed.jsonl", {**where, **self._environment()})
        lost = ", ".join(map(str, gaps))
        return [f"metrics.jsonl has no whole line of epoch {lost}; it stays so."] if gaps else []

    def _environment(self) -> dict[str, Any]:
        environment = runs.describe_environment(str(self.learner.arithmetic))
        return {**environment, **self.group.launch()}

    def close(self) -> None:
        """Training is over: another process may go on in the folder."""
        self._lock.release()

    def history(self) -> History:
        """The epochs that are on record, as the plots need them."""
        return records.history(self.run_dir, self.recipe.train.epochs)

    def record(self, done: EpochDone) -> None:
        """metrics.jsonl holds what the seed determines, timing.jsonl what the clock says."""
        metrics, timing = records.rows_of(done)
        with self._writing():
            runs.append_line(self.run_dir / "metrics.jsonl", metrics)
            runs.append_line(self.run_dir / "timing.jsonl", timing)

    def weights(self, name: str, epoch: int) -> list[Path]:
        """weights/<name>.safetensors, carrying what rebuilds the model, and its average if any."""
        written = [self._weights(self.learner.network, name, epoch)]
        if self.learner.ema is not None:
            written.append(self._weights(self.learner.ema.network, f"{name}-ema", epoch))
        return written

    def best_weights(self, epoch: int) -> list[Path]:
        """weights/best.safetensors: those that the score belongs to."""
        return [self._weights(self.learner.judged, "best", epoch)]

    def _weights(self, network: Network, name: str, epoch: int) -> Path:
        path = self.run_dir / "weights" / f"{name}.safetensors"
        with self._writing():
            save_weights(network, path, {**self.metadata, "epoch": epoch})
        return path

    def drop_old_weights(self) -> None:
        """Keeps the newest `keep` of the weights of every n epochs."""
        keep = self.recipe.train.keep
        epochs = sorted({_epoch_name(path) for path in self._epoch_weights()})
        for path in self._epoch_weights():
            if keep and _epoch_name(path) not in epochs[-keep:]:
                path.unlink()

    def _epoch_weights(self) -> list[Path]:
        return sorted((self.run_dir / "weights").glob("epoch-*.safetensors"))

    def checkpoint(self, state: TrainState, rng: list[dict[str, Any]]) -> None:
        """checkpoint.pt; the one before stays until this one is whole, and after it."""
        began = time.monotonic()
        parts = {**self.learner.state_dict(), "rng": rng}
        with self._writing():
            save_checkpoint(
                self.run_dir / "checkpoint.pt", state, parts, self.recipe.to_toml(), self.data
            )
        self._saved_at = time.monotonic()
        self._cost = self._saved_at - began

    @property
    def overdue(self) -> bool:
        """Long enough since the last checkpoint; a slow disk is not asked more than it can bear."""
        pause = max(SAVE_AT_LEAST_EVERY_SECONDS, SAVE_AT_MOST_SHARE * self._cost)
        return time.monotonic() - self._saved_at > pause

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """What the disk refuses, in words; the files before are as they were."""
        try:
            yield
        except (OSError, RuntimeError, WeightsError) as error:  # torch's writer raises the second
            go_on = f"Free some space, then: smp-camvid train --resume {self.run_dir}"
            raise RunError(
                f"The run stopped because {self.run_dir} cannot be written "
                f"({reason_of(error)}); its last checkpoint is whole.",
                go_on,
            ) from error


def _epoch_name(path: Path) -> str:
    """epoch-0010 of epoch-0010.safetensors and epoch-0010-ema.safetensors."""
    return path.stem.removesuffix("-ema")


def reason_of(error: BaseException) -> str:
    """The system's word for what went wrong, however deep it lies."""
    causes: list[BaseException] = [error]
    while (cause := causes[-1].__cause__ or causes[-1].__context__) is not None:
        causes.append(cause)
    system = [cause for cause in causes if isinstance(cause, OSError) and cause.strerror]
    return str(system[-1].strerror if system else str(error).splitlines()[0])


def disk_needed(config: TrainConfig, network: Network) -> int:
    """Bytes a run may come to hold: weights, their averages, and the checkpoints."""
    weights = network.num_parameters * 4
    averaged = 2 if config.ema else 1
    # last and those of every n epochs, each with its average; best; one in the making
    kept = min(config.keep or config.epochs, config.epochs // config.save_every)
    copies = averaged * (1 + kept) + 2
    # weights, their average, and two moments; the newest, the one before, one in the making
    checkpoints = 3 * (averaged + 2)
    return (copies + checkpoints) * weights
