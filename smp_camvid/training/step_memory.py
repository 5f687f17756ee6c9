"""How much memory a training step takes, without taking it.

The network runs forward and backward on torch's meta device, where tensors have a shape and no
numbers.  What is alive at each moment is added up as it would be on a real device; the loss,
whose shapes depend on the labels, runs really, over one made-up frame.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from smp_camvid.data.loaders import Batch
from smp_camvid.models.flops import FRAMES, meta_twin, run_twin
from smp_camvid.training.learner import Learner
from smp_camvid.training.supervision import DeepSupervision


class LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's own
    """Follows every storage that comes and goes while it is active; views count once.

    `known` tensors are there already and never counted.
    """

    def __init__(self, known: Iterable[Tensor] = ()) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._known = {id(tensor.untyped_storage()) for tensor in known}
        self._alive: dict[int, int] = {}  # the storage's id -> its number
        self._changes: list[tuple[int, int]] = []  # number, bytes gained or lost

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        tree_map_only(Tensor, self._note, result)
        return result

    def peak(self, without: Iterable[Tensor] = ()) -> int:
        """Most bytes alive at one time, those of the tensors `without` left out."""
        numbers = {self._alive.get(id(tensor.untyped_storage())) for tensor in without}
        now = most = 0
        for number, change in self._changes:
            if number not in numbers:
                now += change
                most = max(most, now)
        return most

    def _note(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key = id(storage)  # torch keeps the Python object as long as the storage lives
        if key in self._known or key in self._alive:
            return
        number, size = len(self._changes), storage.nbytes()
        self._alive[key] = number
        self._changes.append((number, size))
        weakref.finalize(storage, self._forget, key, number, size)

    def _forget(self, key: int, number: int, size: int) -> None:
        self._alive.pop(key, None)
        self._changes.append((number, -size))


@dataclass(frozen=True)
class StepMemory:
    """Bytes of a training step, in one process."""

    weights: int
    gradients: int
    optimizer: int
    """What the optimizer keeps for each weight: momentum, or two moments."""
    copies: int
    """Averaged weights (EMA), and the copies in lower precision that a forward pass makes."""
    frame: int
    """What one frame adds: activations kept for the backward pass, and what it computes with."""

    def total(self, frames: int) -> int:
        fixed = self.weights + self.gradients + self.optimizer + self.copies
        return fixed + frames * self.frame


def estimate_memory(learner: Learner, size: tuple[int, int]) -> StepMemory:
    """Memory of a step of `learner` over pictures of `size` (height, width).

    Agrees with the tensors of a real step; beside them kernels take some memory of their own.
    """
    trained, dtype = learner.trained, learner.arithmetic.dtype
    parameters = sum(p.numel() for p in trained.parameters())
    learned = sum(p.numel() for p in trained.parameters() if p.requires_grad)
    moments = 1 if isinstance(learner.optimizer, torch.optim.SGD) else 2
    average = 0 if learner.ema is None else 4 * parameters
    outputs = 1 + len(trained.heads) if isinstance(trained, DeepSupervision) else 1
    return StepMemory(
        weights=4 * parameters,
        gradients=4 * learned,
        optimizer=4 * learned * moments,
        copies=average + (0 if dtype is None else 2 * parameters),
        frame=_network_bytes(trained, size, dtype) + outputs * _loss_bytes(learner, size),
    )


def made_up_batch(learner: Learner, frames: int, size: tuple[int, int], weighted: bool) -> Batch:
    """Noise with labels of noise, on the learner's device; no generator moves."""
    device = learner.arithmetic.device
    generator = torch.Generator().manual_seed(0)
    image = torch.randint(0, 256, (frames, *size, 3), dtype=torch.uint8, generator=generator)
    target = torch.randint(0, len(learner.network.table), (frames, *size), generator=generator)
    weight = torch.ones(frames, *size, device=device) if weighted else None
    return Batch(
        image.permute(0, 3, 1, 2).to(device), target.to(device), torch.arange(frames), weight
    )


def _network_bytes(trained: nn.Module, size: tuple[int, int], dtype: torch.dtype | None) -> int:
    twin = meta_twin(trained)
    if dtype is not None:
        twin.to(dtype)  # autocast does not know the meta device
    live = LiveBytes([*twin.parameters(), *twin.buffers()])
    with live:
        torch.autograd.backward(run_twin(twin, size))
    gradients = [p.grad for p in twin.parameters() if p.grad is not None]
    return live.peak(without=gradients) // FRAMES


def _loss_bytes(learner: Learner, size: tuple[int, int]) -> int:
    """Of the loss of one frame; the logits themselves are the network's."""
    batch = made_up_batch(learner, 1, size, weighted=True)
    classes = len(learner.network.table)
    logits = torch.zeros(1, classes, *size, device=batch.image.device, requires_grad=True)
    live = LiveBytes()
    with live:
        sums, counts = learner.loss(logits, batch.target, batch.weight)
        torch.autograd.backward(learner.loss.total(sums, counts))
    return live.peak()
