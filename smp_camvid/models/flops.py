"""How much a network computes, counted on shapes alone (torch's meta device)."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

FRAMES = 2  # BatchNorm over a 1x1 map has no variance with one


@dataclass(frozen=True)
class Flops:
    """Floating-point operations for one frame; a multiplication with its addition counts two."""

    forward: int
    step: int
    """Forward and backward: nearly three times forward, once each for the layer's output, for
    the gradient of its input and for that of its weights."""


def count_flops(trained: nn.Module, size: tuple[int, int]) -> Flops:
    """Operations of the convolutions and matrix products for one picture of `size`.

    Normalisation, activations and resampling are left out: they are memory traffic.
    """
    twin = meta_twin(trained)
    with FlopCounterMode(display=False) as forward:
        run_twin(twin, size)
    # torch's own count leaves out that the channels of a depthwise convolution are apart.
    backward = {torch.ops.aten.convolution_backward: _backward_flops}
    with FlopCounterMode(display=False, custom_mapping=backward) as step:
        torch.autograd.backward(run_twin(twin, size))
    return Flops(forward.get_total_flops() // FRAMES, step.get_total_flops() // FRAMES)


def meta_twin(trained: nn.Module) -> nn.Module:
    """A copy in train mode whose tensors have shapes and no numbers."""
    return copy.deepcopy(trained).to("meta").train()


def run_twin(twin: nn.Module, size: tuple[int, int]) -> Tensor:
    """`FRAMES` pictures of `size` through a twin -> one number to call backward on."""
    image = torch.empty(FRAMES, 3, *size, dtype=torch.uint8, device="meta")
    outputs = twin(image)
    logits: list[Tensor] = outputs if isinstance(outputs, list) else [outputs]
    return torch.stack([output.float().sum() for output in logits]).sum()


def _backward_flops(
    grad_out: Sequence[int], x: Sequence[int], weight: Sequence[int], *rest: Any, **ignored: Any
) -> int:
    """Of a convolution's gradients, given shapes: as many as forward for each that is asked for."""
    transposed, wanted = rest[4], rest[7]
    places = math.prod((x if transposed else grad_out)[2:])
    gradients = int(wanted[0]) + int(wanted[1])  # of x and of the weight
    return 2 * x[0] * places * math.prod(weight) * gradients
