"""The exponential moving average of the weights, which often judges better than the weights."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from smp_camvid.models.network import Network


def decay_at(update: int, decay: float) -> float:
    """The share of the average that stays in update number `update`, which counts from 0.

    min(decay, (1 + n) / (10 + n)): the first weights, which know nothing, are forgotten soon.
    """
    return min(decay, (1 + update) / (10 + update))


class Ema:
    """A copy of a network that follows it: avg <- d avg + (1 - d) value after each optimizer step.

    Floating-point parameters and buffers, BatchNorm's statistics among them, are averaged and
    integer buffers copied.  torch.optim.swa_utils.AveragedModel is not used: it rounds
    averaged integer buffers down, and waits for the GPU in every update.

    `network` is a Network in eval mode to judge and save; `updates` counts the updates so far.
    """

    def __init__(self, network: Network, decay: float) -> None:
        self.network = copy.deepcopy(network).eval().requires_grad_(False)
        self.decay, self.updates = decay, 0

    @torch.no_grad()
    def update(self, network: Network) -> None:
        """One step towards the weights of `network`.  Nothing is read back from the device."""
        averages, values = [], []
        for average, value in zip(_tensors(self.network), _tensors(network), strict=True):
            if average.is_floating_point():
                averages.append(average)
                values.append(value)
            else:
                average.copy_(value)
        torch._foreach_lerp_(averages, values, 1 - decay_at(self.updates, self.decay))
        self.updates += 1

    def state_dict(self) -> dict[str, Any]:
        """`{"updates": int, "network": its state_dict}`, tensors and plain numbers only."""
        return {"updates": self.updates, "network": self.network.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.network.load_state_dict(state["network"])
        self.updates = int(state["updates"])


def _tensors(module: nn.Module) -> list[Tensor]:
    return [*module.parameters(), *module.buffers()]
