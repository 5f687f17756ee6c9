"""The overlap-tile strategy: seamless prediction of pictures larger than one pass holds.

Ronneberger et al. 2015, section 2 and figure 2: the picture is cut into output tiles that
touch, each is predicted from a larger input tile that overlaps its neighbours, and what lies
outside the picture is made up by mirroring.

Tiles equal the whole picture, to rounding, only when their offsets are multiples of 2^depth:
max pooling works on a fixed grid, and a tile that starts off the grid pools other pairs of
pixels.  A 572x572 tile therefore advances by 384 pixels and not by the 388 it predicts.

Networks that pad their convolutions see a false border at every edge of a tile instead of
mirrored surroundings; their tiles overlap and are blended, the middle of a tile counting most
(Isensee et al. 2021, nnU-Net, "Inference").

numpy only: PyTorch, ONNX Runtime and the tests share this file.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from smp_camvid.errors import UsageError

Size = tuple[int, int]
Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Tile:
    """The part `[top:bottom, left:right]` of the picture that one pass predicts."""

    top: int
    left: int
    bottom: int
    right: int


def plan_tiles(size: Size, tile_in: Size, tile_out: Size, multiple: int) -> list[Tile]:
    """Tiles that cover a picture of `size` (H, W) exactly once, row by row.

    `tile_in` pixels go into a pass and its inner `tile_out` come out; every offset is a multiple
    of `multiple`.  The tiles of the last row and column end with the picture.  Raises UsageError
    for a tile that predicts fewer than `multiple` pixels, since it could never advance.
    """
    if min(size) < 1 or multiple < 1:
        raise ValueError(f"A picture of {size[0]}x{size[1]} cannot be tiled by {multiple}.")
    tops, lefts = (
        _offsets(length, inner, outer, multiple)
        for length, inner, outer in zip(size, tile_out, tile_in, strict=True)
    )
    row_step, column_step = (extent // multiple * multiple for extent in tile_out)
    return [
        Tile(
            top,
            left,
            size[0] if top == tops[-1] else top + row_step,
            size[1] if left == lefts[-1] else left + column_step,
        )
        for top in tops
        for left in lefts
    ]


def _offsets(length: int, inner: int, outer: int, multiple: int) -> list[int]:
    if inner > outer or (outer - inner) % 2:
        raise ValueError(f"A tile of {outer} cannot have {inner} pixels in its middle.")
    if inner >= length:
        return [0]
    step = inner // multiple * multiple
    if step < 1:
        raise UsageError(
            f"A tile of {outer} pixels predicts {max(inner, 0)} of them; to advance it needs "
            f"at least {multiple}.",
            f"Use a tile of {outer - inner + multiple} or more.",
        )
    count = -(-(length - inner) // step) + 1
    return [index * step for index in range(count)]


def mirror_indices(length: int, before: int, after: int) -> npt.NDArray[np.intp]:
    """Positions in `range(length)` that continue it by mirroring, as often as it takes.

    The outermost pixel is not repeated: 3 pixels with 4 before and 3 after are
    0 1 2 1 | 0 1 2 | 1 0 1.
    """
    period = max(2 * (length - 1), 1)
    position = np.arange(-before, length + after) % period
    return np.minimum(position, period - position)


def mirror_pad(array: Array, top: int, bottom: int, left: int, right: int) -> Array:
    """`[H, W, ...]` with a mirrored border of the given widths; any width, any H, W >= 1."""
    rows = mirror_indices(array.shape[0], top, bottom)
    columns = mirror_indices(array.shape[1], left, right)
    return array[rows[:, None], columns]


def predict_tiled(
    function: Callable[[Array], Array],
    image: Array,
    *,
    tile: Size,
    margin: int,
    multiple: int,
) -> Array:
    """Logits `[C, H, W]` of `image` `[H, W, 3]`, predicted tile by tile.

    `function` takes one `[h, w, 3]` tile of size `tile` and returns `[C, h, w]`, of which the
    outer `margin` pixels are thrown away, or only the inner `[C, h - 2 margin, w - 2 margin]`.
    Memory is that of one tile and of the result.
    """
    height, width = image.shape[:2]
    inner = (tile[0] - 2 * margin, tile[1] - 2 * margin)
    rows = mirror_indices(height, margin, tile[0])
    columns = mirror_indices(width, margin, tile[1])
    result: Array | None = None
    for part in plan_tiles((height, width), tile, inner, multiple):
        row, column = rows[part.top :][: tile[0]], columns[part.left :][: tile[1]]
        logits = function(image[row[:, None], column])
        if logits.shape[-2:] == tile:
            logits = logits[:, margin : margin + inner[0], margin : margin + inner[1]]
        if logits.shape[-2:] != inner:
            raise ValueError(f"A {tile} tile gave {logits.shape[-2:]} and not {inner} pixels.")
        if result is None:
            result = np.empty((logits.shape[0], height, width), logits.dtype)
        keep = logits[:, : part.bottom - part.top, : part.right - part.left]
        result[:, part.top : part.bottom, part.left : part.right] = keep
    assert result is not None  # a picture has at least one tile
    return result


def predict_blended(
    function: Callable[[Array], Array], image: Array, *, tile: Size, multiple: int
) -> Array:
    """Logits `[C, H, W]` of `image` `[H, W, 3]` from tiles that overlap by a quarter or more.

    `function` takes a `[h, w, 3]` part of the picture, as large as `tile` except where the picture
    ends before it, and returns `[C, h, w]`.  Tiles begin at multiples of `multiple`.
    """
    height, width = image.shape[:2]
    result: Array | None = None
    total = np.zeros((height, width), np.float32)
    window = gaussian_window(tile)
    for top in blend_offsets(height, tile[0], multiple):
        for left in blend_offsets(width, tile[1], multiple):
            part = np.s_[top : top + tile[0], left : left + tile[1]]
            logits = function(image[part])
            weight = window[: logits.shape[-2], : logits.shape[-1]]
            if result is None:
                result = np.zeros((logits.shape[0], height, width), np.float32)
            result[:, part[0], part[1]] += logits * weight
            total[part] += weight
    assert result is not None  # a picture has at least one tile
    result /= total
    return result


def blend_offsets(length: int, tile: int, multiple: int) -> list[int]:
    """Where tiles begin so that they cover `length` and overlap by a quarter of a tile or more."""
    if length <= tile:
        return [0]
    step = max(tile * 3 // 4 // multiple, 1) * multiple
    last = -(-(length - tile) // multiple) * multiple
    return [*range(0, last, step), last]


def gaussian_window(tile: Size) -> npt.NDArray[np.float32]:
    """Weight of each pixel of a tile, 1 in the middle; sigma is an eighth of the extent."""
    rows, columns = (
        np.exp(-0.5 * ((np.arange(n) - (n - 1) / 2) / (n / 8)) ** 2).astype(np.float32)
        for n in tile
    )
    window: npt.NDArray[np.float32] = rows[:, None] * columns
    return window
