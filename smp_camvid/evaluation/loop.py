"""The one evaluation loop: the Trainer's validation, `evaluate` and `compare` all run it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from smp_camvid.data.classes import ClassTable
from smp_camvid.data.loaders import Batch
from smp_camvid.evaluation.metrics import ConfusionMatrix, Matrix
from smp_camvid.inference.device import widest_float
from smp_camvid.inference.engine import Maps, Size
from smp_camvid.inference.predictor import Segmenter
from smp_camvid.inference.torch_engine import TorchEngine, likeliest
from smp_camvid.models.network import Network

OnStep = Callable[[int, int], None]
Collect = Callable[[torch.Tensor, torch.Tensor, Batch], None]
"""Given the scores `[B, C, H, W]`, the classes found `[B, H, W]` and the batch with its target, on
the device: what else is to be measured."""


class Judged(Protocol):
    """What is evaluated: a `Segmenter`, or something around it."""

    @property
    def table(self) -> ClassTable: ...

    @property
    def device(self) -> str: ...

    def resized_scores(self, frames: Any, size: Size) -> Maps: ...


class Loss(Protocol):
    """A weighted sum of T terms; sums and counts of several batches add up before `total`."""

    def __call__(
        self, logits: torch.Tensor, target: torch.Tensor, weight: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits `[B, C, H, W]`, target `[B, H, W]` -> sums `[T]` and counts `[T]`."""

    def count(self, target: torch.Tensor, weight: torch.Tensor | None = None) -> torch.Tensor:
        """The counts `[T]`, which need no logits."""

    def total(self, sums: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
        """The value: every term's mean times its weight, added up."""


@dataclass(frozen=True)
class Result:
    """What a pass over a split found."""

    matrix: Matrix
    loss: float
    frames: int


def judge(network: Network) -> Segmenter:
    """`network` as a Segmenter, where it is and as it is: what validation runs."""
    return Segmenter(TorchEngine(network))


@torch.inference_mode()
def evaluate_batches(
    segmenter: Judged,
    batches: Iterable[Batch],
    steps: int = 0,
    *,
    loss: Loss | None = None,
    collect: Collect | None = None,
    on_step: OnStep | None = None,
    add: Callable[[torch.Tensor], torch.Tensor] = lambda tensor: tensor,
) -> Result:
    """Runs a model over the batches, as `predict` would, on the device it is on.

    Scores are brought to the labels' size; the loss is that of all batches together.  `steps` is
    only told to `on_step`.  `add` sums a tensor over the processes that share the split.
    """
    device = torch.device(segmenter.device)
    confusion = ConfusionMatrix(len(segmenter.table), device)
    empty = torch.zeros((1, 1, 1), dtype=torch.long, device=device)
    terms = 1 if loss is None else len(loss.count(empty))
    sums = torch.zeros((2, terms), dtype=widest_float(device), device=device)  # losses, counts
    frames = torch.zeros((), dtype=torch.long)
    for step, batch in enumerate(batches, start=1):
        target = batch.target.to(device, non_blocking=True).long()
        size = (target.shape[-2], target.shape[-1])
        logits = torch.as_tensor(segmenter.resized_scores(batch.image, size), device=device)
        found = likeliest(logits)
        confusion.update(found, target)
        if collect is not None:
            collect(logits, found, batch._replace(target=target))
        if loss is not None:
            sums += torch.stack(loss(logits, target))
        frames += len(batch.image)
        if on_step is not None:
            on_step(step, steps)
    add(confusion.counts)
    add(sums)
    value = 0.0 if loss is None else float(loss.total(sums[0], sums[1]))
    return Result(confusion.matrix(), value, int(add(frames)))
