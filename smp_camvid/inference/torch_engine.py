"""A network run by PyTorch: what trained it judges it, on whatever device there is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from smp_camvid.inference.device import Arithmetic, choose_arithmetic, resolve_device
from smp_camvid.inference.engine import Maps, Picture, Size
from smp_camvid.inference.out_of_memory import judging_told
from smp_camvid.models.network import Network

_WHOLE_LIMIT = 2**28  # numbers; above it the class of a pixel is found one map at a time


class TorchMath:
    """`MapMath` for tensors, on the device they are on."""

    @torch.inference_mode()
    def resize(self, maps: Maps, size: Size) -> Maps:
        if tuple(maps.shape[-2:]) == size:
            return maps
        # Channels last: resizing a cropped view of another layout is 20 times slower on a CPU.
        maps = maps.contiguous(memory_format=torch.channels_last)
        return F.interpolate(maps, size, mode="bilinear", align_corners=False)

    @torch.inference_mode()
    def softmax(self, maps: Maps) -> Maps:
        return maps.softmax(1)

    @torch.inference_mode()
    def log(self, maps: Maps) -> Maps:
        return maps.clamp(min=1e-12).log()

    @torch.inference_mode()
    def mirror(self, maps: Maps) -> Maps:
        return maps.flip(-1)

    @torch.inference_mode()
    def likeliest(self, maps: Maps, size: Size) -> Picture:
        if maps.shape[0] * maps.shape[1] * size[0] * size[1] <= _WHOLE_LIMIT:
            found = likeliest(self.resize(maps, size))
        else:
            found = self._likeliest_by_class(maps, size)
        mask: Picture = found.to(torch.uint8).cpu().numpy()
        return mask

    def to_numpy(self, maps: Maps) -> npt.NDArray[np.float32]:
        array: npt.NDArray[np.float32] = maps.cpu().numpy()
        return array

    def _likeliest_by_class(self, maps: Maps, size: Size) -> torch.Tensor:
        best = self.resize(maps[:, :1], size).clone()
        found = torch.zeros_like(best, dtype=torch.uint8)
        for index in range(1, maps.shape[1]):
            scores = self.resize(maps[:, index : index + 1], size)
            found.masked_fill_(scores > best, index)
            torch.maximum(best, scores, out=best)
        return found[:, 0]


def likeliest(logits: torch.Tensor) -> torch.Tensor:
    """`[B, C, H, W]` -> int64 `[B, H, W]`, the first of equals."""
    # Ten times faster than argmax on a CPU.
    return logits.max(1).indices


def inference_arithmetic(device: torch.device, precision: str = "fp32") -> Arithmetic:
    """How a trained network runs: `auto` is float32 on a CPU, where a mask should be the same on
    every machine, and on a GPU what that multiplies fast.  Scores are counted in float32."""
    if precision == "auto" and device.type == "cpu":
        precision = "fp32"
    return choose_arithmetic(device, precision)


class TorchEngine:
    """A `Network` as an `Engine`.  The network stays where it is, and is put into eval mode."""

    def __init__(
        self,
        network: Network,
        metadata: Mapping[str, Any] | None = None,
        source: str = "",
        precision: str = "fp32",
    ) -> None:
        self.network = network.eval()
        self.table = network.table
        self.metadata = metadata or {}
        self.source = source
        self.size_policy = network.size_policy
        self.arithmetic = inference_arithmetic(network.mean.device, precision)
        self.device = str(self.arithmetic.device)
        self.math = TorchMath()

    def run(self, images: Any) -> Maps:
        return self._forward(self.network, images)

    def run_tile(self, images: Any) -> Maps:
        return self._forward(self.network.forward_tile, images)

    @torch.inference_mode()
    def _forward(self, function: Any, images: Any) -> Maps:
        image = torch.as_tensor(images).to(self.arithmetic.device, non_blocking=True)
        with judging_told(image), self.arithmetic.autocast():
            return function(image).float()


def open_engine(
    network: Network, metadata: Mapping[str, Any], source: str, device: str, precision: str
) -> TorchEngine:
    """`network` moved to a device and wrapped, in the layout its arithmetic is fastest in."""
    where = resolve_device(device)
    layout = inference_arithmetic(where, precision).memory_format
    network.to(where).to(memory_format=layout)
    return TorchEngine(network, metadata, source, precision)
