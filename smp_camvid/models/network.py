"""What train, evaluate, predict and every export run: pictures of any size in, logits of it out.

`Network` wraps a segmentation model with the two things a user must not get wrong:
normalisation, and sizes the architecture cannot take.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from smp_camvid.data.classes import ClassTable
from smp_camvid.errors import UsageError


class Network(nn.Module):
    """uint8 or float 0-255 RGB `[B, C, H, W]` -> logits `[B, classes, H, W]`, any H, W >= 1.

    `mean` and `std` are those of 0-1 RGB; `normalization` is the name they are known by
    (`pretrained.normalization_for` gives all three).  They are buffers, so that they travel with
    the weights.

    `size_policy` says how a picture gets a size that the model takes, which is `minimum` plus a
    multiple of `multiple`, after `margin` pixels were added on each side:

    * border "mirror" (unpadded convolutions, Ronneberger et al. 2015, section 2): the border is
      mirrored, repeatedly for pictures smaller than it.  The model gives back the inner part.
    * border "zero" (everything else): bottom and right are filled with the mean colour, which is
      0 after normalisation, and cut off again.

    Raises UsageError when model, classes and normalisation do not belong together.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        model: nn.Module,
        mean: Sequence[float],
        std: Sequence[float],
        table: ClassTable,
        normalization: str = "custom",
    ) -> None:
        super().__init__()
        _check_fit(getattr(model, "smp_camvid_config", {}), mean, std, table)
        self.model = model
        self.table = table
        self.normalization = normalization
        self.size_policy = size_policy_of(model)
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(-1, 1, 1))

    def forward(self, image: Tensor) -> Tensor:
        height, width = image.shape[-2:]
        if self.size_policy["border"] == "mirror":
            logits = self.forward_tile(self._mirror(image))
        else:
            x = self.normalize(image)  # [B, C, H, W]
            pad_h, pad_w = self.padded_size(height) - height, self.padded_size(width) - width
            if pad_h or pad_w:
                x = F.pad(x, (0, pad_w, 0, pad_h))  # [B, C, H', W']
            logits = self._run(x)
        return logits[..., :height, :width]

    def forward_tile(self, tile: Tensor) -> Tensor:
        """Logits of a tile that already has a size the model takes, without any border.

        Unpadded models return `margin` pixels less on each side.
        """
        return self._run(self.normalize(tile))

    def normalize(self, image: Tensor) -> Tensor:
        """0-255 -> zero mean and unit variance by the two buffers; float32."""
        scale = 1 / (255 * self.std)
        return (image * scale).sub_(self.mean / self.std)

    def padded_size(self, size: int) -> int:
        """The extent given to the model for a picture of extent `size`."""
        minimum, multiple = self.size_policy["minimum"], self.size_policy["multiple"]
        beyond = max(size + 2 * self.size_policy["margin"] - minimum, 0)
        padded: int = minimum + (beyond + multiple - 1) // multiple * multiple
        return padded

    @property
    def divisor(self) -> int:
        """Sizes that need no padding are multiples of this (unpadded models: apart by this)."""
        return int(self.size_policy["multiple"])

    @property
    def num_parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.parameters())

    @property
    def config(self) -> dict[str, Any]:
        """`{"arch": ..., **options}`: what `create_model` needs to build the model again."""
        return dict(getattr(self.model, "smp_camvid_config", {}))

    def _run(self, x: Tensor) -> Tensor:
        logits = self.model(x)
        if isinstance(logits, tuple):  # smp's aux_params add the output of a classifier
            logits = logits[0]
        expected = tuple(n - 2 * self.size_policy["margin"] for n in x.shape[-2:])
        if tuple(logits.shape[-2:]) != expected:  # an architecture told to upsample less
            logits = F.interpolate(logits, expected, mode="bilinear", align_corners=False)
        return logits  # type: ignore[no-any-return]

    def _mirror(self, image: Tensor) -> Tensor:
        border = self.size_policy["margin"]
        rows, columns = (
            _mirror_indices(size, border, self.padded_size(size) - size - border, image.device)
            for size in image.shape[-2:]
        )
        return image[..., rows[:, None], columns]


def _mirror_indices(size: int, before: int, after: int, device: torch.device) -> Tensor:
    # The same positions as inference/tiling.py; there in numpy, here traceable.
    period = max(2 * (size - 1), 1)
    position = torch.arange(-before, size + after, device=device) % period
    return torch.minimum(position, period - position)


# smp's encoders name their stride; these decoders need more than a multiple of it.
# PAN pools the last map by 2 three times, so eight cells is the least.
_LEAST_CELLS = {"PAN": 8}


def size_policy_of(model: nn.Module) -> dict[str, Any]:
    """The sizes `model` takes: its own `size_policy` if it has one, else read off smp's encoder."""
    own = getattr(model, "size_policy", None)
    if own is not None:
        return dict(own)
    encoder = getattr(model, "encoder", None)
    multiple = int(getattr(encoder, "output_stride", 1))
    if type(model).__name__ == "DPT":
        # each of its stages halves the token grid once more, starting at a quarter
        multiple = max(multiple, 2 ** (len(encoder.output_strides) + 1))  # type: ignore[union-attr]
    minimum = multiple * _LEAST_CELLS.get(type(model).__name__, 1)
    return {"border": "zero", "margin": 0, "multiple": multiple, "minimum": minimum}


def _check_fit(
    config: Mapping[str, Any], mean: Sequence[float], std: Sequence[float], table: ClassTable
) -> None:
    classes, channels = config.get("classes", len(table)), config.get("in_channels", len(mean))
    if classes != len(table):
        raise UsageError(
            f"The model predicts {classes} classes and the class table {table.name!r} "
            f"has {len(table)}.",
            f"Build the model with classes={len(table)}.",
        )
    if not len(mean) == len(std) == channels:
        raise UsageError(
            f"The model takes {channels} channels and the normalisation has {len(mean)} means "
            f"and {len(std)} standard deviations."
        )
    if min(std) <= 0:
        raise UsageError(f"Standard deviations must be positive, not {list(std)}.")
