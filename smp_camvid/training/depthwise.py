"""Depthwise convolutions that a CPU computes faster in float32 than in bf16.

oneDNN has no bf16 kernel for the backward pass of a depthwise convolution with a stride, and a
poor one for kernels above 3x3: 2 to 90 times slower than in float32 (docs/performance.md).  They
are 1 % of the operations of a U-Net on EfficientNet-Lite0, and were a third of its step.
"""

from __future__ import annotations

from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn


def widen_depthwise(network: nn.Module) -> None:
    """Lets those convolutions of `network` leave autocast on a CPU while it learns.

    What comes out has the type it would have had, and more of its digits are right.  Modules, their
    names and the state_dict stay as they are; copies of the network behave alike.
    """
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d) and slow_in_bf16(layer):
            # A bound method, which deepcopy binds to the copy of the layer.
            layer.forward = MethodType(_in_float32, layer)  # type: ignore[method-assign]


def slow_in_bf16(layer: nn.Conv2d) -> bool:
    """Whether it is depthwise, and of a kind that has no good kernel."""
    depthwise = layer.groups == layer.in_channels > 1
    return depthwise and (max(layer.stride) > 1 or max(layer.kernel_size) > 3)


def _in_float32(layer: nn.Conv2d, x: Tensor) -> Any:
    forward = type(layer).forward
    if not (torch.is_grad_enabled() and torch.is_autocast_enabled("cpu")):
        return forward(layer, x)
    dtype = torch.get_autocast_dtype("cpu")
    with torch.autocast("cpu", enabled=False):
        return forward(layer, x.float()).to(dtype)
