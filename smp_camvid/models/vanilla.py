"""The U-Net of Ronneberger, Fischer and Brox, as the paper draws it.

O. Ronneberger, P. Fischer, T. Brox: U-Net: Convolutional Networks for Biomedical Image
Segmentation.  MICCAI 2015, arXiv:1505.04597.  Figure 1 is `VanillaUNet.forward`.

With the defaults of `norm`, `padding`, `base_channels` and `depth` the network is the paper's:
23 convolution layers, 572x572 in, 388x388 out.  Where this file goes beyond or decides what the
paper leaves open:

1. Any number of input channels and classes (the paper: 1 and 2).
2. Dropout "at the end of the contracting path" (section 3.1) is one layer after the lowest
   double convolution; the paper gives neither the number of layers nor the rate.
3. Switches the paper does not have: `norm="batch"` puts a batch normalisation between each 3x3
   convolution and its ReLU (the convolution then has no bias, the normalisation has one);
   `padding="same"` pads the 3x3 convolutions so that the map keeps its size; fewer channels;
   another depth.  Sizes in the comments below are those of the default at 572x572.

The mirrored border and the overlap-tile strategy (section 2, figure 2) are not part of the
network: see `network.py` and `inference/tiling.py`.
"""

from __future__ import annotations

import itertools
import math
from typing import Any, Literal

import torch
from segmentation_models_pytorch.base import SegmentationModel
from torch import Tensor, nn

from smp_camvid.errors import UsageError


def margin(depth: int = 4) -> int:
    """Pixels the unpadded network loses on each side: 92 at depth 4, (572 - 388) / 2.

    Two 3x3 convolutions cost 4 pixels of a map, 4 * 2^level of the picture: once on each level
    going down, once more on all but the lowest going up.
    """
    return 6 * (1 << depth) - 4


def valid_input_size(size: int, depth: int = 4) -> int:
    """The smallest input size >= `size` that the unpadded network takes.

    Every 2x2 pooling must meet an even map (section 2), which leaves 2^depth * k - 4:
    188, 204, ..., 556, 572, ... at depth 4, in other words 16k + 12.
    """
    multiple = 1 << depth
    smallest = 2 * margin(depth) + 1
    return math.ceil((max(size, smallest) + 4) / multiple) * multiple - 4


def crop(x: Tensor, height: int, width: int) -> Tensor:
    """The centre `[B, C, height, width]` of a larger map."""
    top, left = (x.shape[-2] - height) // 2, (x.shape[-1] - width) // 2
    return x[..., top : top + height, left : left + width]


class DoubleConv(nn.Sequential):
    """Two 3x3 convolutions, each followed by a ReLU: the blue arrows of figure 1."""

    def __init__(self, in_channels: int, out_channels: int, norm: str, padding: str) -> None:
        layers: list[nn.Module] = []
        for channels in (in_channels, out_channels):
            pad, bias = int(padding == "same"), norm == "none"
            layers.append(nn.Conv2d(channels, out_channels, 3, padding=pad, bias=bias))
            if norm == "batch":
                layers.append(nn.BatchNorm2d(out_channels))
            layers.append(nn.ReLU(inplace=True))
        super().__init__(*layers)


class ContractingPath(nn.Module):
    """The left side: double convolution, 2x2 max pooling, twice the channels, `depth` times."""

    def __init__(
        self, in_channels: int, channels: list[int], norm: str, padding: str, dropout: float
    ) -> None:
        super().__init__()
        ins = [in_channels, *channels[:-1]]
        self.levels = nn.ModuleList(
            DoubleConv(i, o, norm, padding) for i, o in zip(ins, channels, strict=True)
        )
        self.pool = nn.MaxPool2d(2)
        self.dropout = nn.Dropout(dropout)
        # What smp calls these of its encoders; a picture's size divides by the stride if padded.
        self.out_channels = channels
        self.output_stride = 2 ** (len(channels) - 1)

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = [self.levels[0](x)]  # 572 -> 568, 64 channels
        for level in self.levels[1:]:
            x = self.pool(maps[-1])  # 284, 140, 68, 32
            maps.append(level(x))  # 280, 136, 64, 28
        maps[-1] = self.dropout(maps[-1])  # [B, 1024, 28, 28]
        return maps


class ExpansivePath(nn.Module):
    """The right side: 2x2 up-convolution, crop and concatenate, double convolution."""

    def __init__(self, channels: list[int], norm: str, padding: str) -> None:
        super().__init__()
        down = list(reversed(channels))  # 1024, 512, ..., 64
        pairs = list(itertools.pairwise(down))
        self.ups = nn.ModuleList(nn.ConvTranspose2d(i, o, 2, stride=2) for i, o in pairs)
        self.levels = nn.ModuleList(DoubleConv(2 * o, o, norm, padding) for _, o in pairs)

    def forward(self, maps: list[Tensor]) -> Tensor:
        x = maps[-1]  # [B, 1024, 28, 28]
        for up, level, copied in zip(self.ups, self.levels, reversed(maps[:-1]), strict=True):
            x = up(x)  # 56, 104, 200, 392; half the channels
            copied = crop(copied, x.shape[-2], x.shape[-1])  # from 64, 136, 280, 568
            x = torch.cat([copied, x], dim=1)  # the copied map first, all channels again
            x = level(x)  # 52, 100, 196, 388
        return x  # [B, 64, 388, 388]


class VanillaUNet(SegmentationModel):  # type: ignore[misc]  # smp ships no types
    """`[B, in_channels, H, W]` -> logits `[B, classes, H - 2 margin, W - 2 margin]`.

    H and W must be sizes that `valid_input_size` gives; with `padding="same"` multiples of
    2^depth, and the logits have the size of the input.  Raises UsageError for other sizes and
    for options out of range.
    """

    def __init__(
        self,
        in_channels: int = 3,
        classes: int = 11,
        norm: Literal["none", "batch"] = "none",
        padding: Literal["valid", "same"] = "valid",
        base_channels: int = 64,
        depth: int = 4,
        dropout: float = 0.5,
    ) -> None:
        _check_options(in_channels, classes, norm, padding, base_channels, depth, dropout)
        super().__init__()
        channels = [base_channels * 2**level for level in range(depth + 1)]  # 64, 128, ..., 1024
        self.encoder = ContractingPath(in_channels, channels, norm, padding, dropout)
        self.decoder = ExpansivePath(channels, norm, padding)
        self.segmentation_head = nn.Conv2d(base_channels, classes, 1)
        self.classification_head = None  # smp's base class asks
        self.name = "vanilla"
        self.depth, self.padding = depth, padding
        self.initialize()

    def forward(self, x: Tensor) -> Tensor:
        self.check_input_shape(x)
        maps = self.encoder(x)  # [B, 64, 568, 568] ... [B, 1024, 28, 28]
        x = self.decoder(maps)  # [B, 64, 388, 388]
        logits: Tensor = self.segmentation_head(x)
        return logits  # [B, classes, 388, 388]

    def initialize(self) -> None:
        """Weights from N(0, sqrt(2 / N)), N the incoming nodes of one neuron (section 3).

        N is 9 C for a 3x3 convolution over C channels.  In a 2x2 up-convolution with stride 2
        each output sees one tap of every input channel, so there N is C.  Biases start at zero.
        """
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                up = isinstance(module, nn.ConvTranspose2d)
                incoming = module.in_channels * (1 if up else math.prod(module.kernel_size))
                nn.init.normal_(module.weight, std=math.sqrt(2 / incoming))
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    @property
    def size_policy(self) -> dict[str, Any]:
        """How a picture of any size is brought to a size this network takes: see `network.py`."""
        if self.padding == "same":
            multiple = 2**self.depth
            return {"border": "zero", "margin": 0, "multiple": multiple, "minimum": multiple}
        return {
            "border": "mirror",
            "margin": margin(self.depth),
            "multiple": 2**self.depth,
            "minimum": valid_input_size(1, self.depth),
        }

    def check_input_shape(self, x: Tensor) -> None:
        if torch.compiler.is_compiling() or torch.jit.is_tracing():  # type: ignore[attr-defined, no-untyped-call]
            return  # an exported network may see sizes as symbols
        policy = self.size_policy
        for size in x.shape[-2:]:
            if size < policy["minimum"] or (size - policy["minimum"]) % policy["multiple"]:
                raise UsageError(
                    f"A {x.shape[-2]}x{x.shape[-1]} input does not fit this U-Net: with "
                    f"padding={self.padding!r} and depth {self.depth}, height and width must be "
                    f"{policy['minimum']} plus a multiple of {policy['multiple']}.",
                    "smp_camvid's Network adds the border for pictures of any size.",
                )

    def generate_model_card(self, *args: Any, **kwargs: Any) -> Any:
        """The model card of smp's `save_pretrained`, with the door that knows this class."""
        card = super().generate_model_card(*args, **kwargs)
        card.text = card.text.replace(
            "import segmentation_models_pytorch as smp", "import smp_camvid"
        ).replace("smp.from_pretrained", "smp_camvid.from_pretrained")
        return card


def _check_options(
    in_channels: int,
    classes: int,
    norm: str,
    padding: str,
    base_channels: int,
    depth: int,
    dropout: float,
) -> None:
    counts = {
        "in_channels": in_channels,
        "classes": classes,
        "base_channels": base_channels,
        "depth": depth,
    }
    problems = [
        f"{name} must be a whole number of at least 1, not {value!r}"
        for name, value in counts.items()
        if type(value) is not int or value < 1
    ]
    if not problems and depth > 8:
        problems.append(f"depth must be at most 8, not {depth!r}")
    if norm not in ("none", "batch"):
        problems.append(f"norm must be 'none' or 'batch', not {norm!r}")
    if padding not in ("valid", "same"):
        problems.append(f"padding must be 'valid' or 'same', not {padding!r}")
    if isinstance(dropout, bool) or not isinstance(dropout, int | float) or not 0 <= dropout < 1:
        problems.append(f"dropout must be a rate from 0 to below 1, not {dropout!r}")
    if problems:
        raise UsageError(f"The vanilla U-Net cannot be built: {'; '.join(problems)}.")
