"""Deep supervision: the decoder's inner maps learn to segment too, each through its own head.

C.-Y. Lee et al.: Deeply-Supervised Nets.  AISTATS 2015, arXiv:1409.5185.
Z. Zhou et al.: UNet++.  DLMIA 2018, arXiv:1807.10165, which supervises its densest row.

The heads exist for training only.  They are no part of the Network, of its weights files or of
a prediction.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from smp_camvid.errors import UsageError
from smp_camvid.models.network import Network
from smp_camvid.models.vanilla import crop


class InnerMap(NamedTuple):
    """A map `[B, channels, h, w]` inside the decoder, which `block` returns, at a stride."""

    block: nn.Module
    channels: int
    stride: int
    """Pixels of the picture from one cell to the next."""


class DeepSupervision(nn.Module):
    """A Network with 1x1 heads on its decoder's inner maps.

    Picture `[B, 3, H, W]` -> list of logits `[B, classes, H, W]`: the network's own first, then,
    in training mode, one for each inner map, coarse to fine.

    The heads start from `seed` alone and draw nothing from torch's generators.  Raises
    UsageError for an architecture without such maps.
    """

    def __init__(self, network: Network, seed: int = 0) -> None:
        super().__init__()
        self.network = network
        generator = torch.Generator().manual_seed(seed)
        maps, classes = inner_maps(network), len(network.table)
        self.heads = nn.ModuleList(_head(inner.channels, classes, generator) for inner in maps)
        self.heads.to(network.mean.device)

    def forward(self, image: Tensor) -> list[Tensor]:
        if not self.training:
            return [self.network(image)]
        maps = inner_maps(self.network)
        with _outputs_of([inner.block for inner in maps]) as outputs:
            logits = [self.network(image)]
        for inner, head, output in zip(maps, self.heads, outputs, strict=True):
            logits.append(self._at_picture_size(head(output), inner.stride, image))
        return logits

    def _at_picture_size(self, logits: Tensor, stride: int, image: Tensor) -> Tensor:
        """Logits `[B, classes, h, w]` of an inner map -> `[B, classes, H, W]`, aligned to `image`.

        The model ran on the picture with a border and put out a map without it.  An inner map of
        unpadded convolutions has lost less than the output: at depth 4 the four maps cover 416,
        400, 392 and 388 pixels of the 572 (52 cells of 8, 100 of 4, 196 of 2, 388 of 1).  All
        are concentric, since each convolution and each crop takes equally from both sides.  So a
        cell becomes stride x stride pixels, the centre is cut out, and from there on it is the
        way of the main output (`Network.forward`): the upper left is the picture, the rest was
        filled up.  Stretching the map to the picture's size instead would shift its outer parts
        by up to 14 pixels.
        """
        height, width = image.shape[-2:]
        margin = self.network.size_policy["margin"]
        output = [self.network.padded_size(size) - 2 * margin for size in (height, width)]
        pixels = (logits.shape[-2] * stride, logits.shape[-1] * stride)
        # In float32: going back, each cell adds up the gradients of all its pixels.
        full = F.interpolate(logits.float(), pixels, mode="bilinear", align_corners=False)
        return crop(full, output[0], output[1])[..., :height, :width]


def _head(channels: int, classes: int, generator: torch.Generator) -> nn.Conv2d:
    with torch.device("meta"):  # its constructor would draw from torch's own generator
        head = nn.Conv2d(channels, classes, 1)
    head.to_empty(device="cpu")
    nn.init.xavier_uniform_(head.weight, generator=generator)  # as smp starts its heads
    assert head.bias is not None
    nn.init.zeros_(head.bias)
    return head


def check_supervisable(arch: str) -> None:
    """Raises UsageError for an architecture without inner maps, with those that have them."""
    if arch not in _INNER_MAPS:
        known = ", ".join(_INNER_MAPS)
        raise UsageError(f"Deep supervision does not fit {arch}.", f"Choose one of {known}, {_OFF}")


def inner_maps(network: Network) -> list[InnerMap]:
    """The decoder's inner maps that can be supervised, coarse to fine; never its output.

    Raises UsageError for an architecture that has none, with those that do.
    """
    arch = str(network.config.get("arch", type(network.model).__name__))
    check_supervisable(arch)
    maps = _INNER_MAPS[arch](network.model)
    if not maps:
        raise UsageError(
            f"Deep supervision has nothing to work on: this {arch} has one decoder level.",
            f"Make it deeper, {_OFF}",
        )
    return maps


def _of_vanilla(model: Any) -> list[InnerMap]:
    levels = list(model.decoder.levels)
    strides = [2**n for n in reversed(range(len(levels)))]  # 8, 4, 2, 1
    return [
        InnerMap(level, level[0].out_channels, stride)
        for level, stride in zip(levels[:-1], strides[:-1], strict=True)
    ]


def _of_unet(model: Any) -> list[InnerMap]:
    blocks = list(model.decoder.blocks)
    strides = [2**n for n in reversed(range(len(blocks)))]  # 16, 8, 4, 2, 1
    return [
        InnerMap(block, block.conv2[0].out_channels, stride)
        for block, stride in zip(blocks[:-1], strides[:-1], strict=True)
    ]


def _of_unetplusplus(model: Any) -> list[InnerMap]:
    """The row of half the picture's size, which smp follows by one block without a copied map.

    In the paper's numbers X(0,1), X(0,2), ...: each sees one level more of the encoder.  Blocks
    are empty where the encoder has no map of that size.
    """
    last = model.decoder.depth - 1
    names = [f"x_{start}_{last}" for start in reversed(range(last + 1))]
    row = [model.decoder.blocks[name] for name in names]
    return [InnerMap(b, b.conv2[0].out_channels, 2) for b in row if not b.is_empty]


_OFF = "or set train.deep_supervision to 0."

_INNER_MAPS: dict[str, Callable[[Any], list[InnerMap]]] = {
    "vanilla": _of_vanilla,
    "unet": _of_unet,
    "unetplusplus": _of_unetplusplus,
}


@contextlib.contextmanager
def _outputs_of(blocks: Sequence[nn.Module]) -> Iterator[list[Tensor]]:
    """What `blocks` return while the context is open, in their order.

    The hooks are gone afterwards: copies of the network must not carry any along.
    """
    outputs: list[Tensor] = [torch.empty(0)] * len(blocks)
    handles = [
        block.register_forward_hook(partial(_keep, outputs, place))
        for place, block in enumerate(blocks)
    ]
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()


def _keep(outputs: list[Tensor], place: int, block: nn.Module, args: Any, output: Tensor) -> None:
    outputs[place] = output
