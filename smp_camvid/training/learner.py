"""One optimizer step, and everything it changes: weights, optimizer, scaler, averaged weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from smp_camvid.data.loaders import Batch
from smp_camvid.errors import TrainingError
from smp_camvid.evaluation.loop import Loss
from smp_camvid.inference.device import Arithmetic, widest_float
from smp_camvid.models.network import Network
from smp_camvid.recipe import TrainConfig
from smp_camvid.training.averaging import Ema
from smp_camvid.training.depthwise import widen_depthwise
from smp_camvid.training.distributed import Dist
from smp_camvid.training.freezing import apply_freezing, encoder_frozen
from smp_camvid.training.optim import build_optimizer
from smp_camvid.training.recompute import recompute_activations
from smp_camvid.training.supervision import DeepSupervision


class NotFiniteError(Exception):
    """Loss or gradient of a step are not finite; raised before the update, by every process.

    `mine`: whether the frames of this process may be why.
    """

    def __init__(self, what: str, value: float, mine: bool) -> None:
        super().__init__(what, value)
        self.what, self.value, self.mine = what, value, mine


class StepResult(NamedTuple):
    """What a step leaves beside the new weights."""

    loss: float
    """The main output's, over all processes."""
    sums: Tensor
    """`[2, T]` on the device: sums and counts of each term, over all processes."""
    logits: list[Tensor]
    """Each batch's main logits."""


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
        if arithmetic.device.type == "cpu" and arithmetic.dtype is torch.bfloat16:
            widen_depthwise(self.trained)
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

    def step(
        self, batches: Sequence[Batch], meanwhile: Callable[[], None] = lambda: None
    ) -> StepResult:
        """One update from the summed gradients of `batches`, which are on the device.

        Waits for the device once, before the update (in fp16 its scaler does too), and calls
        `meanwhile` first.  Raises NotFiniteError, the weights untouched.
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
        sums = torch.zeros_like(counts, dtype=widest_float(counts.device))
        value = sums.new_zeros(())
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
        # In fp16 gradients overflow now and then, and the scaler leaves out such steps.
        norm = None if self.scaler.is_enabled() else self._gradient_norm()
        meanwhile()
        sums, loss = self._checked(sums, counts, value, norm)
        self._update(norm)
        return StepResult(loss, torch.stack([sums, counts.to(sums.dtype)]), shown)

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

    def _checked(
        self, sums: Tensor, counts: Tensor, value: Tensor, norm: Tensor | None
    ) -> tuple[Tensor, float]:
        """The sums of all processes and their loss, when what all minimise is finite.

        `norm`: of the gradient, the same in all processes; None is not looked at.
        """
        together = self.group.add(torch.cat([sums, value[None]]))
        sums, total = together[:-1], self.loss.total(together[:-1], counts)
        norm = value.new_zeros(()) if norm is None else norm
        # Read back in one piece: each time the device is waited for.
        loss, everywhere, mine, length = torch.stack([total, together[-1], value, norm]).tolist()
        if not math.isfinite(everywhere):
            raise NotFiniteError("loss", everywhere, not math.isfinite(mine))
        if not math.isfinite(length):
            raise NotFiniteError("gradient", length, True)
        return sums, loss

    def _gradient_norm(self) -> Tensor:
        found = (parameter.grad for parameter in self.trained.parameters())
        return nn.utils.get_total_norm([grad for grad in found if grad is not None])

    def _update(self, norm: Tensor | None) -> None:
        """`norm`: of the gradient, where it is known already."""
        self.scaler.unscale_(self.optimizer)
        if self.config.clip_norm:
            norm = self._gradient_norm() if norm is None else norm
            nn.utils.clip_grads_with_norm_(self.trained.parameters(), self.config.clip_norm, norm)
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
