"""What a segmenter runs a network with: PyTorch or ONNX Runtime, behind one small interface.

Maps are arrays `[B, C, H, W]` of scores, float32, of the engine's own kind (numpy or torch), so
that what a GPU computed stays there until it is a mask.  `MapMath` is the little that differs
between the kinds; everything else of prediction is written once, in `predictor.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, cast

import cv2
import numpy as np
import numpy.typing as npt

from smp_camvid.data.classes import ClassTable

Picture = npt.NDArray[np.uint8]
Size = tuple[int, int]
Maps = Any
"""`[B, C, H, W]` float32, a numpy array or a torch tensor."""


class MapMath(Protocol):
    """Operations on maps that numpy and torch spell differently."""

    def resize(self, maps: Maps, size: Size) -> Maps:
        """Bilinear, pixel centres at halves, no averaging on the way down."""

    def softmax(self, maps: Maps) -> Maps:
        """Over the classes."""

    def log(self, maps: Maps) -> Maps:
        """Natural logarithm; what is below 1e-12 counts as that."""

    def mirror(self, maps: Maps) -> Maps:
        """Left and right exchanged."""

    def likeliest(self, maps: Maps, size: Size) -> Picture:
        """The class of every pixel at `size`, uint8 `[B, *size]`; of equals the first."""

    def to_numpy(self, maps: Maps) -> npt.NDArray[np.float32]:
        """In the memory of the host."""


class Engine(Protocol):
    """A network ready to run."""

    @property
    def table(self) -> ClassTable: ...

    @property
    def metadata(self) -> Mapping[str, Any]:
        """What the weights file says of itself: train_size, protocol, recipe, ..."""

    @property
    def source(self) -> str:
        """What was loaded, in the user's words: a path, or the name of a shipped model."""

    @property
    def device(self) -> str:
        """For example cpu or cuda:0."""

    @property
    def size_policy(self) -> Mapping[str, Any]:
        """border, margin, multiple, minimum; see `models.network.Network`."""

    @property
    def math(self) -> MapMath: ...

    def run(self, images: Any) -> Maps:
        """uint8 RGB `[B, 3, h, w]`, numpy or torch, any h, w >= 1 -> logits `[B, C, h, w]`."""

    def run_tile(self, images: Any) -> Maps:
        """The same for a tile of a size the policy allows, `margin` pixels less on each side
        where the network needs no made-up border."""


class NumpyMath:
    """`MapMath` for arrays, by OpenCV where that is faster than numpy."""

    def resize(self, maps: Maps, size: Size) -> Maps:
        if maps.shape[-2:] == size:
            return maps
        return np.stack([[_resize(plane, size) for plane in frame] for frame in maps])

    def softmax(self, maps: Maps) -> Maps:
        powers = np.exp(maps - maps.max(1, keepdims=True))
        return powers / powers.sum(1, keepdims=True)

    def log(self, maps: Maps) -> Maps:
        return np.log(np.maximum(maps, 1e-12))

    def mirror(self, maps: Maps) -> Maps:
        return maps[..., ::-1]

    def likeliest(self, maps: Maps, size: Size) -> Picture:
        return np.stack([_likeliest(frame, size) for frame in maps])

    def to_numpy(self, maps: Maps) -> npt.NDArray[np.float32]:
        array: npt.NDArray[np.float32] = maps
        return array


def _likeliest(maps: Maps, size: Size) -> Picture:
    """`[C, h, w]` -> `[H, W]`, one class at a time: a huge picture never has all its maps."""
    best = _resize(maps[0], size).copy()
    mask = np.zeros(size, np.uint8)
    for index in range(1, len(maps)):
        scores = _resize(maps[index], size)
        np.copyto(mask, np.uint8(index), where=scores > best)
        np.maximum(best, scores, out=best)
    return mask


def _resize(plane: npt.NDArray[np.float32], size: Size) -> npt.NDArray[np.float32]:
    if plane.shape == size:
        return plane
    plane = np.ascontiguousarray(plane)
    resized = cv2.resize(plane, (size[1], size[0]), interpolation=cv2.INTER_LINEAR)
    return cast("npt.NDArray[np.float32]", resized)
