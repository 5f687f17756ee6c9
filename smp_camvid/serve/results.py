"""What was computed for the page: the newest results, found only by ids that cannot be guessed."""

from __future__ import annotations

import gzip
import io
import secrets
import threading
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from smp_camvid.inference.prediction import Prediction

VIEW_SIDE = 2048
"""Pixels of the longer side of what the page draws; downloads have the picture's own size."""


@dataclass(frozen=True)
class Result:
    """A prediction and, ready to be sent, what the page draws of it."""

    prediction: Prediction
    view_size: tuple[int, int]
    """Height and width of the two that follow."""
    view_picture: bytes
    """JPEG."""
    view_classes: bytes
    """Class indices, a byte a pixel, row by row, as gzip: exact where a browser that blurs what
    scripts read of pictures (against fingerprinting) would spoil a PNG."""

    @property
    def pixels(self) -> int:
        return self.prediction.mask.size


def result_of(prediction: Prediction) -> Result:
    """Keeps the picture and its mask; the probabilities, which are far larger, go."""
    height, width = prediction.mask.shape
    factor = min(1.0, VIEW_SIDE / max(height, width))
    size = max(1, round(width * factor)), max(1, round(height * factor))
    picture = Image.fromarray(prediction.image).resize(
        size, Image.Resampling.BICUBIC, reducing_gap=2.0
    )
    classes = Image.fromarray(prediction.mask).resize(size, Image.Resampling.NEAREST)
    return Result(
        replace(prediction, compute_probs=_not_kept),
        (size[1], size[0]),
        encode(picture, "JPEG", quality=90),
        gzip.compress(classes.tobytes(), compresslevel=1),
    )


def _not_kept() -> npt.NDArray[np.float32]:
    raise AssertionError("the page does not keep probabilities")


def png(array: npt.NDArray[np.uint8], **options: Any) -> bytes:
    """uint8 `[H, W]` or `[H, W, 3]` -> PNG; `options` are Pillow's."""
    return encode(Image.fromarray(array), "PNG", **options)


def encode(image: Image.Image, format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


class Results:
    """The newest `most` results of at most `most_pixels` in all; the newest one always stays."""

    def __init__(self, most: int = 8, most_pixels: int = 60_000_000) -> None:
        self._most, self._most_pixels = most, most_pixels
        self._kept: dict[str, Result] = {}
        self._lock = threading.Lock()

    def add(self, result: Result) -> str:
        """-> the id under which `get` has it."""
        id = secrets.token_urlsafe(16)
        with self._lock:
            self._kept[id] = result
            while len(self._kept) > 1 and self._is_too_much():
                del self._kept[next(iter(self._kept))]
        return id

    def get(self, id: str) -> Result | None:
        return self._kept.get(id)

    def _is_too_much(self) -> bool:
        pixels = sum(result.pixels for result in self._kept.values())
        return len(self._kept) > self._most or pixels > self._most_pixels
