"""A decoded frame of any pixel format, range, depth and orientation -> upright 8-bit RGB."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt
from av.video.reformatter import ColorPrimaries, Colorspace, ColorTrc, VideoReformatter

if TYPE_CHECKING:
    from av import VideoFrame

Picture = npt.NDArray[np.uint8]

HDR = (ColorTrc.SMPTE2084.value, ColorTrc.ARIB_STD_B67.value)
TO_SDR: dict[str, Any] = {
    "dst_color_trc": ColorTrc.BT709,
    "dst_color_primaries": ColorPrimaries.BT709,
    "dst_colorspace": Colorspace.ITU709,
}


class Upright:
    """Frames of one video -> uint8 RGB `[H, W, 3]`, all of the first one's size.

    HDR (PQ, HLG) and BT.2020 are brought to BT.709, with light above its white clipped.  Alpha is
    dropped, interlaced lines stay as they are, so does the shape of the pixels.
    """

    def __init__(self) -> None:
        self.on_its_side = False
        """Whether the first frame was turned by a quarter."""
        self.scaled = 0
        self._size: tuple[int, int] | None = None
        # One for all frames: the tables for HDR take seconds to make.
        self._reformatter = VideoReformatter()

    def __call__(self, frame: VideoFrame) -> Picture:
        size = (frame.width, frame.height)
        wide = frame.color_trc in HDR or frame.color_primaries == ColorPrimaries.BT2020
        rgb = self._reformatter.reformat(
            frame, *(self._size or size), "rgb24", **(TO_SDR if wide else {})
        )
        image = cast(Picture, rgb.to_ndarray())
        self.scaled += size != (self._size or size)
        matrix = frame.side_data.get("DISPLAYMATRIX")
        turned = image
        if matrix is not None:
            turned = turn(image, np.frombuffer(bytes(cast(bytes, matrix)), np.int32))
        if self._size is None:
            self._size = size
            self.on_its_side = turned.shape != image.shape
        return turned


def turn(image: Picture, matrix: npt.NDArray[np.int32]) -> Picture:
    """Turns and mirrors by quarters as a display matrix (ISO/IEC 14496-12, 6.2.2) says.

    With the matrix a b u c d v x y w, pixel (x, y) is shown at (a x + c y, b x + d y).
    """
    a, b, _, c, d = (int(value) for value in matrix[:5])
    if abs(a) < abs(b):
        image, a, d = image.swapaxes(0, 1), c, b
    return np.ascontiguousarray(image[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1])
