"""What a model says of one picture, and what counts as a picture.  No torch."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from smp_camvid.data.classes import ClassTable
from smp_camvid.data.pictures import read_image, to_rgb
from smp_camvid.errors import DataError, UsageError

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

Picture = npt.NDArray[np.uint8]
AnyPicture: TypeAlias = "str | Path | Image | Picture | torch.Tensor"
"""What `as_rgb` takes."""


@dataclass(frozen=True)
class Prediction:
    """What a model says of one picture, at the picture's own size."""

    image: Picture
    """RGB `[H, W, 3]`."""
    mask: Picture
    """Class index `[H, W]`."""
    table: ClassTable
    compute_probs: Callable[[], npt.NDArray[np.float32]] = field(repr=False, compare=False)

    @cached_property
    def probs(self) -> npt.NDArray[np.float32]:
        """Class probabilities `[C, H, W]`, summing to 1; computed when first asked for."""
        return self.compute_probs()

    @cached_property
    def color(self) -> Picture:
        """The mask in the classes' colours, `[H, W, 3]`."""
        return self.table.colorize(self.mask)

    def overlay(self, opacity: float = 0.5) -> Picture:
        """The colours laid over the picture, `[H, W, 3]`; `opacity` from 0 to 1.

        Raises UsageError for any other."""
        if not 0 <= opacity <= 1:
            raise UsageError(f"An opacity is from 0 to 1, not {opacity}.")
        # As integers of 16 bits: four times faster than floats, and a tenth of their memory.
        share = round(opacity * 256)
        mixed = self.image * np.uint16(256 - share) + self.color * np.uint16(share) + np.uint16(128)
        return (mixed >> 8).astype(np.uint8)

    def shares(self) -> dict[str, float]:
        """Share of the pixels of each class that occurs, largest first."""
        counts = np.bincount(self.mask.ravel(), minlength=len(self.table))
        order = np.argsort(-counts, kind="stable")
        return {self.table.names[i]: float(counts[i] / counts.sum()) for i in order if counts[i]}


def as_rgb(picture: AnyPicture) -> Picture:
    """Anything that is one picture -> uint8 `[H, W, 3]` RGB.

    A path; a PIL image of any mode, as it stands (files are turned as their EXIF orientation
    says); a uint8 array `[H, W, 3]` or `[H, W]`; a uint8 tensor `[3, H, W]`, `[1, 3, H, W]`
    or, with other than 3 rows, shaped as the arrays.  Raises DataError for anything else.
    """
    if isinstance(picture, str | Path):
        return read_image(picture)
    array = _as_array(picture)
    if array.ndim == 2:
        array = np.repeat(array[..., None], 3, axis=2)
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3 or not array.size:
        raise DataError(
            f"A picture must be a uint8 [H, W, 3] RGB array, not {array.dtype} {list(array.shape)}."
        )
    return array


def _as_array(picture: Any) -> npt.NDArray[Any]:
    if isinstance(picture, np.ndarray):
        return picture
    torch = sys.modules.get("torch")  # who has a tensor has imported it
    if torch is not None and isinstance(picture, torch.Tensor):
        array: npt.NDArray[Any] = picture.detach().cpu().numpy()
        if array.ndim == 4 and len(array) == 1:
            array = array[0]
        channels_first = array.ndim == 3 and array.shape[0] == 3
        return array.transpose(1, 2, 0) if channels_first else array
    if hasattr(picture, "convert"):
        return to_rgb(picture)
    raise DataError(
        f"A {type(picture).__name__} is no picture.",
        "Give a path, a PIL image, a uint8 array [H, W, 3] or a uint8 tensor [3, H, W].",
    )
