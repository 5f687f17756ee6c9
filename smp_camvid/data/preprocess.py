"""The one way frames and labels change size, shared by train, evaluate and predict."""

from __future__ import annotations

import math
from typing import cast

import cv2
import numpy as np
import numpy.typing as npt

Picture = npt.NDArray[np.uint8]
Size = tuple[int, int]

ENLARGED_PIXELS = 2**21
"""A frame is enlarged up to so many: a strip of 1x4000 would become 360 rows of a million."""


def frame_size(size: Size, height: int | None) -> Size:
    """The size of a frame of `size` brought to `height`, aspect kept; None keeps it."""
    h, w = size
    if height is None or height == h:
        return size
    factor = height / h
    if factor > 1 and height * w * factor > ENLARGED_PIXELS:
        factor = max(1.0, math.sqrt(ENLARGED_PIXELS / (h * w)))
        height = round(h * factor)
    return height, max(1, round(w * factor))


def resize_frame(image: Picture, height: int | None) -> Picture:
    """uint8 `[h, w, 3]` -> `[*frame_size((h, w), height), 3]`.

    Areas are averaged on the way down, bilinear on the way up.
    """
    h, w = image.shape[:2]
    return resize_picture(image, frame_size((h, w), height))


def resize_picture(image: Picture, size: Size) -> Picture:
    """uint8 `[h, w, 3]` -> `[*size, 3]`, as `resize_frame` does it."""
    if image.shape[:2] == size:
        return image
    interpolation = cv2.INTER_AREA if size[0] < image.shape[0] else cv2.INTER_LINEAR
    return cast(Picture, cv2.resize(image, (size[1], size[0]), interpolation=interpolation))


def resize_label(label: Picture, size: Size) -> Picture:
    """uint8 `[h, w]` class indices -> `size` (height, width), each pixel one of the old ones."""
    if label.shape == size:
        return label
    # INTER_NEAREST samples pixel corners and so shifts the label by half a pixel.
    resized = cv2.resize(label, (size[1], size[0]), interpolation=cv2.INTER_NEAREST_EXACT)
    return cast(Picture, resized)
