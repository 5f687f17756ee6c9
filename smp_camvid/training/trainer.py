"""One Trainer for both model families.

    for every epoch:                       Trainer.train
        for every batch: train_step        forward, loss, backward, update
        for every batch: val_step          the loop that `evaluate` runs too
        record, save, tell the listeners

Listeners (report/, or your own) observe; nothing here waits for or obeys them.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import nn

from smp_camvid.data.classes import VOID, ClassTable
from smp_camvid.data.loaders import Batch
from smp_camvid.errors import DataError, TrainingError
from smp_camvid.evaluation.evaluate import Result, evaluate_batches
from smp_camvid.evaluation.metrics import ConfusionMatrix, summarize
from smp_camvid.inference.device import choose_arithmetic, resolve_device
from smp_camvid.inference.predictor import likeliest
from smp_camvid.models.network import Network
from smp_camvid.recipe import LossConfig, Recipe, TrainConfig, check_section
from smp_camvid.training import events
from smp_camvid.training.checkpoint import TrainState, load_checkpoint, restore_random_state
from smp_camvid.training.interrupts import Interrupted, Interrupts
from smp_camvid.training.keeper import Keeper
from smp_camvid.training.listening import Audience, default_listeners
from smp_camvid.training.losses import CrossEntropy
from smp_camvid.training.objective import build_loss
from smp_camvid.training.optim import build_optimizer
from smp_camvid.training.preview import (
    ELSEWHERE,
    as_network,
    made_from_of,
    preview_frames,
    run_recipe,
    run_started,
)
from smp_camvid.training.schedule import lr_factor

SLOW_EPOCH_SECONDS = 600
STEPS_BEFORE_ESTIMATE = 3


class Trainer:
    """Trains a model on a loader of (uint8 picture, label) batches and keeps a run folder.

    `model` is what `create_model` returns, or a Network.  `train_loader` and `val_loader` yield
    `Batch`es, or tuples, of RGB 0-255 `[B, 3, H, W]` and labels `[B, H, W]` with void 255; a
    loader of `smp_camvid.loaders` also knows its classes and protocol.  Options are the fields of
    `TrainConfig` (epochs, lr, device, save_dir, ...); `loss` is a LossConfig or a CrossEntropy.
    Nothing is written before `train()`.

    Raises UsageError for a wrong option and DeviceError for a missing device.
    """

    def __init__(
        self,
        model: nn.Module,
        train_loader: Iterable[Any],
        val_loader: Iterable[Any] | None = None,
        *,
        loss: LossConfig | CrossEntropy | None = None,
        recipe: Recipe | None = None,
        metadata: dict[str, Any] | None = None,
        listeners: Sequence[events.Listener] | None = None,
        **options: Any,
    ) -> None:
        self.config = cfg = check_section(recipe.train if recipe else TrainConfig(), options)
        self.train_loader, self.val_loader = train_loader, val_loader
        self.network = model if isinstance(model, Network) else as_network(model, train_loader)
        recipe = run_recipe(recipe, self.network, train_loader, cfg)
        self.device = resolve_device(cfg.device)
        self.arithmetic = choose_arithmetic(self.device, cfg.precision, cfg.memory_format)
        self.network.to(self.device).to(memory_format=self.arithmetic.memory_format)
        if not isinstance(loss, CrossEntropy):
            loss = build_loss(loss or recipe.loss, train_loader, len(self.table))
        self.loss = loss.to(self.device)
        self.optimizer = build_optimizer(self.network, cfg)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.arithmetic.needs_scaler)
        self.state = TrainState()
        about = made_from_of(train_loader).get("about", {}) if metadata is None else metadata
        self.keeper = Keeper(recipe, self.network, describe_training(about, val_loader, recipe))
        self._confusion = ConfusionMatrix(len(self.table), self.device)
        self._audience = Audience(listeners)
        self._interrupts = Interrupts()
        self._resumed: dict[str, Any] | None = None
        self._estimated = False

    @property
    def table(self) -> ClassTable:
        return self.network.table

    @property
    def run_dir(self) -> Path:
        """The run's folder, once `train()` has begun."""
        return self.keeper.run_dir

    # --- what is public -----------------------------------------------------------------------

    def train(self) -> events.RunEnded:
        """Trains to the last epoch, or to the first SIGINT or SIGTERM (a checkpoint is written).

        Returns the closing event; its `reason` is "done" or "interrupted".
        """
        with self._interrupts.listening():
            self._open_run()
            reason, result = "failed", None
            try:
                while self.state.epoch < self.config.epochs:
                    result = self._epoch(self.state.epoch + 1)
                reason = "done"
            except Interrupted:
                self._save_weights("last", self.state.epoch)
                self._save_checkpoint()
                reason = "interrupted"
            finally:
                ended = self._ended(reason, result)
                self._audience.tell(ended)
            return ended

    def train_step(self, *batches: Batch) -> float:
        """One optimizer step over one batch, or several whose gradients add up.

        The loss is divided by all pixels they count, so 2 x 4 frames equal 8.  Returns it.
        Raises TrainingError before the update when it is not finite.
        """
        self.network.train()
        moved = [self._moved(self._checked(batch)) for batch in batches]
        counts = [self.loss.count(batch.target, batch.weight) for batch in moved]
        count = torch.stack(counts).sum().clamp(min=1e-12)
        self.optimizer.zero_grad(set_to_none=True)
        summed = torch.zeros((), dtype=torch.float64, device=self.device)
        for batch in moved:
            logits = self._forward(batch.image)
            loss_sum, _ = self.loss(logits, batch.target, batch.weight)
            self.scaler.scale(loss_sum / count).backward()
            summed += loss_sum.detach()
            self._confusion.update(likeliest(logits.detach()), batch.target)
        loss = float(summed / count)
        if not math.isfinite(loss):
            raise TrainingError(*self._where_not_finite(loss, batches))
        self._update()
        self.state.loss_sum += float(summed)
        self.state.loss_count += float(count)
        return loss

    def val_step(self, batch: Batch) -> Result:
        """One validation batch: its confusion matrix and mean loss.  Weights stay as they are."""
        return evaluate_batches(self.network, [batch], loss=self.loss)

    def validate(self) -> Result:
        """The whole validation split, through the loop that `evaluate` uses."""
        assert self.val_loader is not None
        epoch = self.state.epoch + 1

        def on_step(step: int, steps: int) -> None:
            self._audience.tell(events.ValidationStep(epoch, step, steps))
            self._interrupts.check()

        batches = map(as_batch, self.val_loader)
        steps = _length(self.val_loader)
        return evaluate_batches(self.network, batches, steps, loss=self.loss, on_step=on_step)

    def resume(self, run_dir: str | Path) -> None:
        """Goes on from a run's checkpoint.  Call before `train()`."""
        document = load_checkpoint(Path(run_dir) / "checkpoint.pt")
        self.keeper.open_at(Path(run_dir))
        self.state = document["state"]
        self.network.load_state_dict(document["parts"]["model"])
        self.optimizer.load_state_dict(document["parts"]["optimizer"])
        if document["parts"]["scaler"]:  # empty where the run did not train in fp16
            self.scaler.load_state_dict(document["parts"]["scaler"])
        if self.state.counts is not None:
            self._confusion.counts = self.state.counts.to(self.device)
        self._resumed = document

    # --- one epoch ----------------------------------------------------------------------------

    def _epoch(self, epoch: int) -> Result | None:
        began = time.perf_counter()
        waited, images = self._train_epoch(epoch)
        speed = images / max(time.perf_counter() - began, 1e-9)
        last = epoch == self.config.epochs
        judged = self.val_loader is not None and (last or epoch % self.config.val_every == 0)
        result = self.validate() if judged else None
        best = self._judge(epoch, result)
        done = self._epoch_done(epoch, result, best, speed, time.perf_counter() - began, waited)
        self.state.finish_epoch()
        self._confusion = ConfusionMatrix(len(self.table), self.device)
        self.keeper.record(done)
        self._audience.tell(done)
        self._save(epoch, best, last)
        if not last:
            self._interrupts.check()
        return result

    def _train_epoch(self, epoch: int) -> tuple[float, int]:
        """Returns the seconds waited for data and the images trained."""
        steps, began = self.steps_per_epoch, time.perf_counter()
        waited, images, skipped = 0.0, 0, self.state.batch
        batches = self._batches(epoch)
        while True:
            asked = time.perf_counter()
            group = list(islice(batches, self.config.accumulate))
            waited += time.perf_counter() - asked
            if not group:
                return waited, images
            lr = self._set_lr()
            loss = self.train_step(*group)
            self.state.step += 1
            self.state.batch += len(group)
            images += sum(len(batch.image) for batch in group)
            step = math.ceil(self.state.batch / self.config.accumulate)
            seconds = time.perf_counter() - began
            self._audience.tell(events.StepDone(epoch, step, steps, loss, lr, images, seconds))
            trained = step - skipped // self.config.accumulate
            self._warn_if_slow(trained, steps, seconds)
            self._interrupts.check()

    def _batches(self, epoch: int) -> Iterator[Batch]:
        """The batches of an epoch that are not trained yet."""
        sampler: Any = getattr(self.train_loader, "sampler", None)
        skip = self.state.batch
        if hasattr(sampler, "set_epoch"):
            sampler.set_epoch(epoch)
        if hasattr(sampler, "start"):  # the sampler skips without loading
            sampler.start(skip)
            skip = 0
        return map(as_batch, islice(iter(self.train_loader), skip, None))

    def _forward(self, image: torch.Tensor) -> torch.Tensor:
        try:
            with self.arithmetic.autocast():
                logits: torch.Tensor = self.network(image)
        except ValueError as error:
            if "more than 1 value per channel" not in str(error):
                raise
            raise TrainingError(
                f"A batch of {len(image)} is too small: BatchNorm over one value has no variance.",
                "Use --batch-size 2 or more.",
            ) from error
        return logits

    def _update(self) -> None:
        self.scaler.unscale_(self.optimizer)
        if self.config.clip_norm:
            nn.utils.clip_grad_norm_(self.network.parameters(), self.config.clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()

    def _set_lr(self) -> float:
        cfg, per_epoch = self.config, self.steps_per_epoch
        warmup = round(cfg.warmup_epochs * per_epoch)
        factor = lr_factor(cfg.schedule, self.state.step, cfg.epochs * per_epoch, warmup)
        lr = cfg.lr * factor * self.state.plateau_factor
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        return lr

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps of one pass over the training frames."""
        length = _length(self.train_loader)
        if not length:
            raise DataError("The train loader has no length; the schedule needs to know it.")
        return math.ceil(length / self.config.accumulate)

    # --- what an epoch leaves -----------------------------------------------------------------

    def _judge(self, epoch: int, result: Result | None) -> bool:
        """Best-so-far and plateau; returns whether this epoch is the best."""
        if result is None:
            return False
        if self.config.schedule == "plateau":
            self.state.note_plateau(result.loss, self.config.patience)
        return self.state.note_best(summarize(result.matrix, self.table).miou, epoch)

    def _epoch_done(
        self, epoch: int, result: Result | None, best: bool, speed: float,
        seconds: float, waited: float,
    ) -> events.EpochDone:  # fmt: skip
        loss = self.state.loss_sum / max(self.state.loss_count, 1e-12)
        cuda = self.device.type == "cuda"
        return events.EpochDone(
            epoch=epoch,
            epochs=self.config.epochs,
            train=self._scores(Result(self._confusion.matrix(), loss, 0)),
            val=None if result is None else self._scores(result),
            lr=float(self.optimizer.param_groups[0]["lr"]),
            images_per_second=speed,
            seconds=seconds,
            seconds_left=seconds * (self.config.epochs - epoch),
            data_wait_seconds=waited,
            gpu_memory_bytes=torch.cuda.max_memory_allocated(self.device) if cuda else None,
            best=best,
        )

    def _scores(self, result: Result) -> events.Scores:
        summary = summarize(result.matrix, self.table)
        return events.Scores(result.loss, summary.miou, summary.accuracy, summary.per_class)

    def _save(self, epoch: int, best: bool, last: bool) -> None:
        every = epoch % self.config.save_every == 0
        if best:
            self._save_weights("best", epoch)
        if every:
            self._save_weights(f"epoch-{epoch:04d}", epoch)
            self.keeper.drop_old_weights()
        if every or last or self.keeper.overdue:
            self._save_weights("last", epoch)
            self._save_checkpoint()
        if (every or last) and (self.config.save_plots or self.config.show_plots):
            for split, loader in (("train", self.train_loader), ("val", self.val_loader)):
                if loader is not None:
                    frames = preview_frames(self.network, loader)
                    self._audience.tell(events.Pictures(epoch, split, frames))

    def _save_weights(self, name: str, epoch: int) -> None:
        self._audience.tell(events.Saved(epoch, self.keeper.weights(name, epoch)))

    def _save_checkpoint(self) -> None:
        self.state.counts = self._confusion.counts.cpu()
        self.keeper.checkpoint(self.state, self.optimizer, self.scaler)

    # --- opening and closing ------------------------------------------------------------------

    def _open_run(self) -> None:
        cfg = self.config
        torch.use_deterministic_algorithms(cfg.deterministic)
        self.keeper.check()
        if self._resumed is not None:
            restore_random_state(self._resumed["rng"])
            self.keeper.reopen(self.state.epoch)
        elif self.keeper.opened:  # train() was called again, in a notebook after Ctrl-C
            self.keeper.reopen(self.state.epoch)
        else:
            torch.manual_seed(cfg.seed)
            self.keeper.create(str(self.arithmetic))
        self._resumed = None
        self._audience.open(default_listeners(cfg, self.run_dir, self.keeper.history()))
        self._audience.tell(run_started(self))

    def _ended(self, reason: str, result: Result | None) -> events.RunEnded:
        done = reason == "done"
        verb = "evaluate" if done else "train --resume"
        there = (self.run_dir / "checkpoint.pt").is_file()
        known = there and self.keeper.recipe.data.path != ELSEWHERE
        return events.RunEnded(
            reason=reason,
            run_dir=self.run_dir,
            epoch=self.state.epoch + (not done),
            best_epoch=self.state.best_epoch or None,
            confusion=None if result is None else result.matrix,
            next_command=f"smp-camvid {verb} {self.run_dir}" if known else "",
        )

    # --- checks and notices -------------------------------------------------------------------

    def _checked(self, batch: Batch) -> Batch:
        """Labels are checked here, on the CPU: a wrong one on a GPU is a device-side assert."""
        image, target, classes = batch.image, batch.target, len(self.table)
        if target.ndim != 3 or image.ndim != 4 or image.shape[1] != 3:
            raise DataError(
                f"A batch must be pictures [B, 3, H, W] and labels [B, H, W], not "
                f"{list(image.shape)} and {list(target.shape)}."
            )
        if self.state.step == 0 and image.is_floating_point() and float(image.max()) <= 1:
            raise DataError(
                "Pictures must be RGB from 0 to 255; these are at most 1.",
                "Leave out the division: the model normalises by itself.",
            )
        wrong = ((target < 0) | (target >= classes)) & (target != VOID)
        if wrong.any():
            frame = int(wrong.flatten(1).any(1).nonzero()[0])
            raise DataError(
                f"Frame {int(batch.index[frame])} has the label {int(target[wrong][0])}; "
                f"{classes} classes are 0 to {classes - 1}, void is {VOID}."
            )
        return batch

    def _moved(self, batch: Batch) -> Batch:
        image, target, index, weight = batch
        return Batch(
            image.to(self.device, non_blocking=True),
            target.to(self.device, non_blocking=True),
            index,
            None if weight is None else weight.to(self.device, non_blocking=True),
        )

    def _where_not_finite(self, loss: float, batches: Sequence[Batch]) -> tuple[str, str]:
        frames = getattr(getattr(self.train_loader, "dataset", None), "frames", None)
        indices = [int(i) for batch in batches for i in batch.index]
        names = ", ".join(frames[i].stem if frames else f"frame {i}" for i in indices)
        return (
            f"The loss is {loss} at epoch {self.state.epoch + 1}, batch {self.state.batch + 1} "
            f"({names}); the weights were not updated.",
            f"Lower the learning rate (--lr {self.config.lr / 10:g}), or --set train.clip_norm=1.",
        )

    def _warn_if_slow(self, step: int, steps: int, seconds: float) -> None:
        """Once, after the first steps: an epoch that will take long gets its lighter command."""
        if self._estimated or step < STEPS_BEFORE_ESTIMATE:
            return
        self._estimated = True
        expected = seconds / step * steps
        if expected > SLOW_EPOCH_SECONDS:
            arch = self.network.config.get("arch")
            lighter = (
                "--arch vanilla --set model.base_channels=16 --size 180x240"
                if arch == "vanilla"
                else "--recipe unet-lite0"
            )
            sentence = f"An epoch will take about {expected / 60:.0f} minutes here."
            if self.keeper.recipe.name != "unet-lite0":
                sentence += f" Lighter: smp-camvid train {lighter}"
            self._audience.tell(events.Notice(sentence))


def as_batch(batch: Any) -> Batch:
    """A Batch, or any (picture, label) pair of tensors as one."""
    if isinstance(batch, Batch):
        return batch
    return Batch(batch[0], batch[1].long(), torch.arange(len(batch[0])), None)


def describe_training(
    about: Mapping[str, Any], val_loader: Iterable[Any] | None, recipe: Recipe
) -> dict[str, Any]:
    """What each weights file says of the run; the composition root knows more than a notebook."""
    protocol = getattr(getattr(val_loader, "dataset", None), "protocol", "")
    size = list(recipe.data.size)
    return {"protocol": protocol, "train_size": size, "recipe": recipe.name, **about}


def _length(loader: Iterable[Any]) -> int:
    return len(loader) if isinstance(loader, Sized) else 0
