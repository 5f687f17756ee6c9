"""The one way frames and labels change size, shared by train, evaluate and predict."""

from __future__ import annotations

from typing import cast

import cv2
import numpy as np
import numpy.typing as npt

Picture = npt.NDArray[np.uint8]


def resize_frame(image: Picture, height: int | None) -> Picture:
    """uint8 `[h, w, 3]` -> `[height, round(w * height / h), 3]`, aspect kept.

    None keeps the size.  Areas are averaged on the way down, bilinear on the way up.
    """
    h, w = image.shape[:2]
    if height is None or height == h:
        return image
    width = max(1, round(w * height / h))
    interpolation = cv2.INTER_AREA if height < h else cv2.INTER_LINEAR
    return cast(Picture, cv2.resize(image, (width, height), interpolation=interpolation))


def resize_label(label: Picture, size: tuple[int, int]) -> Picture:
    """uint8 `[h, w]` class indices -> `size` (height, width), each pixel one of the old ones."""
    if label.shape == size:
        return label
    # INTER_NEAREST samples pixel corners and so shifts the label by half a pixel.
    resized = cv2.resize(label, (size[1], size[0]), interpolation=cv2.INTER_NEAREST_EXACT)
    return cast(Picture, resized)
