"""One optimizer step, and everything it changes: weights, optimizer, scaler, averaged weights."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from smp_camvid.data.loaders import Batch
from smp_camvid.errors import TrainingError
from smp_camvid.evaluation.evaluate import Loss
from smp_camvid.inference.device import Arithmetic
from smp_camvid.models.network import Network
from smp_camvid.recipe import TrainConfig
from smp_camvid.training.averaging import Ema
from smp_camvid.training.distributed import Dist
from smp_camvid.training.freezing import apply_freezing, encoder_frozen
from smp_camvid.training.optim import build_optimizer
from smp_camvid.training.recompute import recompute_activations
from smp_camvid.training.supervision import DeepSupervision


class NotFiniteError(Exception):
    """The loss of a step is not a number; raised before the update, by every process."""

    def __init__(self, loss: float, mine: bool) -> None:
        super().__init__(loss)
        self.loss, self.mine = loss, mine


class Learner:
    """The network in training.  `network` is what is saved; `judged` what scores belong to."""

    def __init__(
        self, network: Network, loss: Loss, config: TrainConfig, arithmetic: Arithmetic, group: Dist
    ) -> None:
        self.network, self.loss, self.config = network, loss, config
        self.arithmetic, self.group = arithmetic, group
        trained: nn.Module = network
        if config.deep_supervision:
            trained = DeepSupervision(network, config.seed)
        self.trained = trained.to(arithmetic.device)
        self.trained.to(memory_format=arithmetic.memory_format)
        if config.sync_batchnorm:
            group.sync_norms(self.trained)
        if config.activation_checkpointing:
            recompute_activations(network)
        self.optimizer = build_optimizer(self.trained, config)
        self.scaler = torch.amp.GradScaler(arithmetic.device.type, enabled=arithmetic.needs_scaler)
        self.ema = Ema(network, config.ema) if config.ema else None
        self._wrapped: nn.Module | None = None
        self._frozen: bool | None = None

    @property
    def judged(self) -> Network:
        """The averaged weights where the recipe has them."""
        return self.network if self.ema is None else self.ema.network

    def begin_epoch(self, epoch: int) -> None:
        """Freezes and thaws the encoder as the recipe says; then other gradients are shared."""
        frozen = encoder_frozen(self.config, epoch)
        if frozen != self._frozen:
            apply_freezing(self.trained, frozen, self.config.freeze_norm)
            self._wrapped, self._frozen = None, frozen

    def set_lr(self, lr: float) -> None:
        """The learning rate of the next step; groups have their factor on it."""
        for group in self.optimizer.param_groups:
            group["lr"] = lr * group["lr_factor"]

    def step(self, batches: Sequence[Batch]) -> tuple[Tensor, Tensor, list[Tensor]]:
        """One update from the summed gradients of `batches`, which are on the device.

        Returns the loss's sums and counts over all processes and each batch's main logits.
        Raises NotFiniteError, the weights untouched.
        """
        if self._frozen is None:
            self.begin_epoch(1)
        self.trained.train()
        apply_freezing(self.trained, bool(self._frozen), self.config.freeze_norm)
        if self._wrapped is None:
            self._wrapped = self.group.wrap(self.trained, batches[0].image)
        counted = [self.loss.count(batch.target, batch.weight) for batch in batches]
        # What the sums are divided by must be known before the first backward pass.
        counts = self.group.add(torch.stack(counted).sum(0))
        self.optimizer.zero_grad(set_to_none=True)
        sums = torch.zeros_like(counts, dtype=torch.float64)
        value = torch.zeros((), dtype=torch.float64, device=counts.device)
        shown = []
        for number, batch in enumerate(batches, start=1):
            last = number == len(batches)
            with nullcontext() if last else self.group.without_sync(self._wrapped):
                logits = self._forward(batch.image)
                part, main = self._value(logits, batch, counts)
                # DistributedDataParallel averages over processes; the loss is a sum over them.
                self.scaler.scale(part * self.group.world).backward()  # type: ignore[no-untyped-call]
            sums += main
            value += part.detach()
            shown.append(logits[0].detach())
        self._check_finite(value)
        self._update()
        return self.group.add(sums), counts, shown

    def _value(self, logits: list[Tensor], batch: Batch, counts: Tensor) -> tuple[Tensor, Tensor]:
        """This batch's share of the step's loss, and the main output's sums for the record."""
        losses = [self.loss(output, batch.target, batch.weight)[0] for output in logits]
        value = self.loss.total(losses[0], counts)
        if len(losses) > 1:
            beside = torch.stack([self.loss.total(sums, counts) for sums in losses[1:]]).mean()
            value = value + self.config.deep_supervision * beside
        return value, losses[0].detach()

    def _forward(self, image: Tensor) -> list[Tensor]:
        """The main logits first, then those of the auxiliary heads."""
        assert self._wrapped is not None
        try:
            with self.arithmetic.autocast():
                logits = self._wrapped(image)
        except ValueError as error:
            if "more than 1 value per channel" not in str(error):
                raise
            raise TrainingError(
                f"A batch of {len(image)} is too small: BatchNorm over one value has no variance.",
                "Use --batch-size 2 or more.",
            ) from error
        return logits if isinstance(logits, list) else [logits]

    def _check_finite(self, value: Tensor) -> None:
        mine = float(value)
        everywhere = float(self.group.add(value.clone()))
        if not math.isfinite(everywhere):
            raise NotFiniteError(everywhere, not math.isfinite(mine))

    def _update(self) -> None:
        self.scaler.unscale_(self.optimizer)
        if self.config.clip_norm:
            nn.utils.clip_grad_norm_(self.trained.parameters(), self.config.clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.ema is not None:
            self.ema.update(self.network)

    # --- what a checkpoint holds --------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        return {
            "model": self.trained.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "ema": self.ema.state_dict() if self.ema is not None else {},
        }

    def load_state_dict(self, parts: dict[str, Any]) -> None:
        self.trained.load_state_dict(parts["model"])
        self.optimizer.load_state_dict(parts["optimizer"])
        if parts["scaler"]:  # empty where the run did not train in fp16
            self.scaler.load_state_dict(parts["scaler"])
        if self.ema is not None:
            self.ema.load_state_dict(parts["ema"])
