"""One Trainer for both model families.

    for every epoch:                       Trainer.train
        for every batch: train_step        forward, loss, backward, update  (learner.py)
        for every batch: val_step          the loop that `evaluate` runs too
        record, save, tell the listeners

Listeners (report/, or your own) observe; nothing here waits for or obeys them.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from smp_camvid import runs, torchrun
from smp_camvid.data.classes import ClassTable
from smp_camvid.data.loaders import Batch
from smp_camvid.errors import TrainingError, UsageError
from smp_camvid.evaluation.loop import Loss, Result, evaluate_batches, judge
from smp_camvid.evaluation.metrics import ConfusionMatrix, summarize
from smp_camvid.inference.device import choose_arithmetic, resolve_device
from smp_camvid.inference.torch_engine import likeliest
from smp_camvid.models.network import Network
from smp_camvid.recipe import LossConfig, Recipe, TrainConfig, check_section
from smp_camvid.training import events
from smp_camvid.training.batches import (
    as_batch,
    check_batch,
    frame_names,
    length_of,
    move_batch,
    steps_of,
)
from smp_camvid.training.checkpoint import (
    TrainState,
    load_checkpoint,
    random_state,
    restore_random_state,
)
from smp_camvid.training.determinism import Determinism
from smp_camvid.training.distributed import join, own_device
from smp_camvid.training.early_stopping import check_metric, watched
from smp_camvid.training.feed import Feed, Uploaded
from smp_camvid.training.interrupts import Interrupted, Interrupts
from smp_camvid.training.keeper import Keeper
from smp_camvid.training.learner import Learner, NotFiniteError
from smp_camvid.training.listening import Audience, default_listeners
from smp_camvid.training.objective import build_loss
from smp_camvid.training.out_of_memory import training_told
from smp_camvid.training.pace import Pace
from smp_camvid.training.preview import (
    ELSEWHERE,
    as_network,
    made_from_of,
    preview_frames,
    run_recipe,
    run_started,
)
from smp_camvid.training.resuming import (
    check_same_data,
    check_same_run,
    epochs_raised,
    facts_of_data,
    finished_notice,
    resumed_notices,
)
from smp_camvid.training.schedule import lr_at


class Trainer:
    """Trains a model on a loader of (uint8 picture, label) batches and keeps a run folder.

    `model` is what `create_model` returns, or a Network.  `train_loader` and `val_loader` yield
    `Batch`es, or tuples, of RGB 0-255 `[B, 3, H, W]` and labels `[B, H, W]` with void 255; a
    loader of `smp_camvid.loaders` also knows its classes and protocol.  Options are the fields of
    `TrainConfig` (epochs, lr, device, save_dir, ...); `loss` is a LossConfig or a loss module.
    Under torchrun each process makes one, with the loaders of its share.  Nothing is written
    before `train()`.

    Raises UsageError for a wrong option and DeviceError for a missing device.
    """

    def __init__(
        self,
        model: nn.Module,
        train_loader: Iterable[Any],
        val_loader: Iterable[Any] | None = None,
        *,
        loss: LossConfig | Loss | None = None,
        recipe: Recipe | None = None,
        metadata: dict[str, Any] | None = None,
        listeners: Sequence[events.Listener] | None = None,
        **options: Any,
    ) -> None:
        self.config = cfg = check_section(recipe.train if recipe else TrainConfig(), options)
        self.train_loader, self.val_loader = train_loader, val_loader
        network = model if isinstance(model, Network) else as_network(model, train_loader)
        recipe = run_recipe(recipe, network, train_loader, cfg)
        if cfg.stop_after:
            check_metric(cfg.stop_metric, network.table)
        if cfg.batch_size == "auto":
            raise UsageError(
                "The loaders given decide the batch size.", "Build the run from a recipe for auto."
            )
        self._determinism = Determinism(cfg.deterministic)
        self.device = own_device(resolve_device(cfg.device))
        self.group = join(self.device)
        self.arithmetic = choose_arithmetic(self.device, cfg.precision, cfg.memory_format)
        if loss is None or isinstance(loss, LossConfig):
            loss = build_loss(loss or recipe.loss, train_loader, len(network.table))
        self.loss = loss.to(self.device) if isinstance(loss, nn.Module) else loss
        self.learner = Learner(network, self.loss, cfg, self.arithmetic, self.group)
        self.state = TrainState()
        about = made_from_of(train_loader).get("about", {}) if metadata is None else metadata
        described = describe_training(about, val_loader, recipe)
        data = facts_of_data(train_loader, val_loader, str(described["protocol"]))
        self.keeper = Keeper(recipe, self.learner, described, self.group, data)
        self._confusion = ConfusionMatrix(len(self.table), self.device)
        self._feed = Feed(train_loader, cfg.accumulate, self.device)
        self._pace = Pace(network, recipe)
        self._audience = Audience(listeners if self.group.is_main else [])
        self._interrupts = Interrupts(self.group)
        self._resumed: dict[str, Any] | None = None
        self._due = False
        self.notices: list[str] = []
        """Sentences the user should see when the run begins."""

    @property
    def network(self) -> Network:
        """What is trained; its averaged weights, where the recipe has them, are `judged`."""
        return self.learner.network

    @property
    def judged(self) -> Network:
        return self.learner.judged

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        return self.learner.optimizer

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
            reason, result, hopeless = "failed", None, False
            try:
                while not self.finished:
                    result = self._epoch(self.state.epoch + 1)
                reason = "done"
                if self.state.stopped and result is not None:
                    self._audience.notice(self.finished)
            except TrainingError:  # the same steps would come to the same end
                hopeless = True
                raise
            except Interrupted:
                self._save_weights("last", self.state.epoch)
                self._save_checkpoint()
                self.group.barrier()  # torchrun ends the group when one process has ended
                reason = "interrupted"
            except KeyboardInterrupt:  # the second signal: the last checkpoint is what there is
                reason = "interrupted"
                raise
            finally:
                ended = self._ended(reason, result, hopeless)
                self._audience.tell(ended)
                self.keeper.close()
            return ended

    @property
    def finished(self) -> str:
        """A sentence once there is nothing left to train; empty before."""
        return finished_notice(self.state, self.config)

    def train_step(self, *batches: Batch) -> float:
        """One optimizer step over one batch, or several whose gradients add up.

        The loss is divided by all pixels they count, so 2 x 4 frames equal 8.  Returns it.
        Raises TrainingError before the update when it is not finite.
        """
        moved = [b if isinstance(b, Uploaded) else self._ready(b) for b in batches]
        pictures = [batch.image for batch in moved]
        fits = training_told(self.keeper.recipe, self.network, self.arithmetic, pictures)
        try:
            with fits, self._determinism.watching():
                done = self.learner.step(moved, self._feed.meanwhile)
        except NotFiniteError as error:
            raise TrainingError(*self._where_not_finite(error, batches)) from None
        for batch, shown in zip(moved, done.logits, strict=True):
            self._confusion.update(likeliest(shown), batch.target)
        before = self.state.loss_sums
        self.state.loss_sums = done.sums if before is None else before + done.sums
        return done.loss

    def _ready(self, batch: Batch) -> Batch:
        checked = check_batch(batch, len(self.table), self.state.step == 0)
        return move_batch(checked, self.device)

    def val_step(self, batch: Batch) -> Result:
        """One validation batch: its confusion matrix and mean loss.  Weights stay as they are."""
        return evaluate_batches(judge(self.judged), [batch], loss=self.loss)

    def validate(self) -> Result:
        """The whole validation split, through the loop that `evaluate` uses."""
        assert self.val_loader is not None
        epoch, steps = self.state.epoch + 1, length_of(self.val_loader)

        def on_step(step: int, steps: int) -> None:
            self._audience.tell(events.ValidationStep(epoch, step, steps))
            if self.group.world == 1:  # the processes of a group validate unequal numbers
                self._interrupts.check()

        self.group.align(self.judged)
        batches = map(as_batch, self.val_loader)
        run = partial(evaluate_batches, loss=self.loss, on_step=on_step, add=self.group.add)
        return run(judge(self.judged), batches, steps)

    def resume(self, run_dir: str | Path) -> None:
        """Goes on from a run's checkpoint.  Call before `train()`.

        A run killed before its first checkpoint begins anew in its folder.  Raises UsageError
        when the recipe is another than the run's, RunError without a whole checkpoint.  Only the
        main process reads the folder.
        """
        reads = self.group.is_main and not runs.is_untrained(Path(run_dir))
        document = self.group.share(
            load_checkpoint(Path(run_dir) / "checkpoint.pt") if reads else None
        )
        if document is not None:
            check_same_run(document["recipe"], self.keeper.recipe)
            check_same_data(document.get("data"), self.keeper.data)
        self.keeper.open_at(Path(run_dir))
        if document is None:
            return
        self.state = document["state"]
        if epochs_raised(document["recipe"], self.config):
            self.state.stopped = False  # asking for more epochs overrules early stopping
        self.learner.load_state_dict(document["parts"])
        if self.state.loss_sums is not None:
            self.state.loss_sums = self.state.loss_sums.to(self.device)
        if self.state.counts is not None and self.group.is_main:  # those of all processes
            self._confusion.counts = self.state.counts.to(self.device)
        self._resumed = document

    # --- one epoch ----------------------------------------------------------------------------

    def _epoch(self, epoch: int) -> Result | None:
        began, before = time.perf_counter(), self.state.batch
        self.learner.begin_epoch(epoch)
        waited, images = self._train_epoch(epoch)
        speed = images / max(time.perf_counter() - began, 1e-9)
        last = epoch == self.config.epochs
        judged = self.val_loader is not None and (last or epoch % self.config.val_every == 0)
        result = self.validate() if judged else None
        done = self._epoch_done(epoch, result, speed, time.perf_counter() - began, waited)
        best = self._judge(epoch, result)
        # Of a resumed epoch only a share was trained here; those to come are whole.
        share = 1 - before / self.state.batch if self.state.batch > before else 1.0
        done = replace(done, best=best, seconds_left=done.seconds_left / share)
        self.state.finish_epoch()
        self._confusion = ConfusionMatrix(len(self.table), self.device)
        if self.group.is_main:
            self.keeper.record(done)
        self._audience.tell(done)
        last = last or self.state.stopped
        self._save(epoch, best, last)
        if not last:
            self._interrupts.check()
        return result

    def _train_epoch(self, epoch: int) -> tuple[float, int]:
        """Returns the seconds waited for data and the images trained."""
        steps, began = self.steps_per_epoch, time.perf_counter()
        images, skipped = 0, self.state.batch
        last = epoch == self.config.epochs
        for group in self._feed.epoch(epoch, skipped, last, self._ready):
            lr = self._lr_at(self.state.step)
            self.learner.set_lr(lr)
            loss = self.train_step(*group)
            self.state.step += 1
            self.state.batch += len(group)
            images += sum(len(batch.image) for batch in group) * self.group.world
            step = math.ceil(self.state.batch / self.config.accumulate)
            seconds = time.perf_counter() - began
            self._audience.tell(events.StepDone(epoch, step, steps, loss, lr, images, seconds))
            self._audience.notice(
                self._pace.notice(step - skipped // self.config.accumulate, steps, seconds)
            )
            self._audience.notice(self._determinism.notice())
            self._between_steps(step == steps)
        return self._feed.waited, images

    def _between_steps(self, epoch_over: bool) -> None:
        """Where a run can be stopped, and saved in the middle of an epoch."""
        every = self.config.checkpoint_steps
        due = self.state.step % every == 0 if every else self.keeper.overdue
        self._due = self._interrupts.check(also=due)
        if self._due and not epoch_over:  # there it waits for the validation
            self._save_checkpoint()

    def _lr_at(self, step: int) -> float:
        """The learning rate of optimizer step `step`, from 0: nothing to restore but plateau's."""
        return lr_at(self.config, self.steps_per_epoch, step) * self.state.plateau_factor

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps of one pass over the training frames."""
        return steps_of(self.train_loader, self.config.accumulate)

    # --- what an epoch leaves -----------------------------------------------------------------

    def _judge(self, epoch: int, result: Result | None) -> bool:
        """Best-so-far, plateau and early stopping; returns whether this epoch is the best."""
        if result is None:
            return False
        scores = self._scores(result)
        if self.config.schedule == "plateau":
            self.state.note_plateau(result.loss, self.config.patience)
        if self.config.stop_after:
            value = watched(self.config.stop_metric, scores)
            self.state.note_stop(value, epoch, self.config.stop_after)
        return self.state.note_best(scores.miou, epoch)

    def _epoch_done(
        self, epoch: int, result: Result | None, speed: float, seconds: float, waited: float
    ) -> events.EpochDone:
        sums = self.state.loss_sums
        loss = 0.0 if sums is None else float(self.loss.total(*sums))
        self.group.add(self._confusion.counts)
        cuda = self.device.type == "cuda"
        return events.EpochDone(
            epoch=epoch,
            epochs=self.config.epochs,
            train=self._scores(Result(self._confusion.matrix(), loss, 0)),
            val=None if result is None else self._scores(result),
            lr=self._lr_at(self.state.step - 1),
            images_per_second=speed,
            seconds=seconds,
            seconds_left=seconds * (self.config.epochs - epoch),
            data_wait_seconds=waited,
            gpu_memory_bytes=torch.cuda.max_memory_allocated(self.device) if cuda else None,
            best=False,
        )

    def _scores(self, result: Result) -> events.Scores:
        summary = summarize(result.matrix, self.table)
        return events.Scores(result.loss, summary.miou, summary.accuracy, summary.per_class)

    def _save(self, epoch: int, best: bool, last: bool) -> None:
        every = epoch % self.config.save_every == 0
        if best and self.group.is_main:
            self._saved(epoch, self.keeper.best_weights(epoch))
        if every:
            self._save_weights(f"epoch-{epoch:04d}", epoch)
            if self.group.is_main:
                self.keeper.drop_old_weights()
        if self.group.share(every or last or self._due or self.keeper.overdue):
            self._save_weights("last", epoch)
            self._save_checkpoint()
        cfg = self.config
        if (every or last) and (cfg.save_plots or cfg.show_plots or cfg.loggers):
            self._show_pictures(epoch)

    def _show_pictures(self, epoch: int) -> None:
        for split, loader in (("train", self.train_loader), ("val", self.val_loader)):
            if loader is not None and self.group.is_main:
                frames = preview_frames(self.judged, loader)
                self._audience.tell(events.Pictures(epoch, split, frames))

    def _save_weights(self, name: str, epoch: int) -> None:
        if self.group.is_main:
            self._saved(epoch, self.keeper.weights(name, epoch))

    def _saved(self, epoch: int, paths: Iterable[Path]) -> None:
        for path in paths:
            self._audience.tell(events.Saved(epoch, path))

    def _save_checkpoint(self) -> None:
        self.state.counts = self.group.add(self._confusion.counts.clone()).cpu()
        rng = self.group.gather(random_state())
        if self.group.is_main:
            self.keeper.checkpoint(self.state, rng)

    # --- opening and closing ------------------------------------------------------------------

    def _open_run(self) -> None:
        self._determinism.switch()
        self.keeper.check()
        notices = self.notices + resumed_notices(self._resumed, self.config, self.group)
        begins = self._resumed is None and self.state.step == 0
        if begins:
            torch.manual_seed(self.config.seed + self.group.rank)
        elif self._resumed is not None:  # else train() was called again, in a notebook after Ctrl-C
            restore_random_state(self._resumed["parts"]["rng"], self.group, self.state.step)
        self._resumed = None
        if self.keeper.opened:
            notices += self.keeper.reopen(self.state)
        else:
            self.keeper.create()
        if self.group.is_main:
            history = self.keeper.history()
            self._audience.open(default_listeners(self.config, self.run_dir, history))
        self._audience.tell(run_started(self))
        for notice in notices:
            self._audience.notice(notice)
        if begins:
            self._save_checkpoint()  # from here on a killed run can go on

    def _ended(self, reason: str, result: Result | None, hopeless: bool) -> events.RunEnded:
        done = reason == "done"
        verb = "evaluate" if done else "train --resume"
        there = (self.run_dir / "checkpoint.pt").is_file() and not hopeless
        known = there and self.keeper.recipe.data.path != ELSEWHERE
        if reason == "failed" and torchrun.restarts_left() > 0:
            known = False  # torchrun goes on with it by itself
        return events.RunEnded(
            reason=reason,
            run_dir=self.run_dir,
            epoch=self.state.epoch + (not done),
            best_epoch=self.state.best_epoch or None,
            confusion=None if result is None else result.matrix,
            next_command=f"smp-camvid {verb} {self.run_dir}" if known else "",
        )

    def _where_not_finite(self, error: NotFiniteError, batches: Sequence[Batch]) -> tuple[str, str]:
        mine = frame_names(self.train_loader, batches) if error.mine else []
        names = ", ".join(name for names in self.group.gather(mine) for name in names)
        return (
            f"The {error.what} is {error.value} at epoch {self.state.epoch + 1}, batch "
            f"{self.state.batch + 1} ({names}); this step did not change the weights.",
            f"Start a new run with a lower learning rate (--lr {self.config.lr / 10:g}) or --set "
            "train.clip_norm=1; this one would come to the same again.",
        )


def describe_training(
    about: Mapping[str, Any], val_loader: Iterable[Any] | None, recipe: Recipe
) -> dict[str, Any]:
    """What each weights file says of the run; the composition root knows more than a notebook."""
    protocol = getattr(getattr(val_loader, "dataset", None), "protocol", "")
    size = list(recipe.data.size)
    return {"protocol": protocol, "train_size": size, "recipe": recipe.name, **about}
