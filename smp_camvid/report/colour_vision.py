"""Colours that stay apart for eyes without the red or the green cones.

Confusion of colours is simulated as in Machado, Oliveira and Fernandes, "A physiologically-based
model for simulation of color vision deficiency", IEEE TVCG 2009 (severity 1), and measured as
distance in Oklab (Ottosson 2020), whose first axis is lightness.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from smp_camvid.data.classes import ClassTable

Colors = npt.NDArray[np.float64]

_NO_RED = (
    (0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216),
    (-0.003882, -0.048116, 1.051998),
)  # fmt: skip
_NO_GREEN = (
    (0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413),
    (-0.011820, 0.042940, 0.968881),
)  # fmt: skip
_VISIONS = np.array([np.eye(3), _NO_RED, _NO_GREEN])
_LEVELS = np.linspace(0, 255, 18).round()
_DARKEST = 0.4  # of 1: Oklab makes more of the differences between blacks than a screen does


def colour_blind_palette(table: ClassTable) -> npt.NDArray[np.uint8]:
    """uint8 `[256, 3]`, indexed by label: a colour for each class that no other is mistaken for.

    Each class gets the colour most like its own that is left of a set chosen to lie far apart, in
    normal vision and without red or green cones.  Void and unused entries are black, which the
    set keeps away from too.
    """
    palette = np.zeros((256, 3), np.uint8)
    apart = _far_apart(len(table))
    wanted = _oklab(np.array(table.colors, np.float64))
    gaps = np.linalg.norm(wanted[:, None] - _oklab(apart)[None], axis=2)
    for _ in table.names:
        one, color = np.unravel_index(gaps.argmin(), gaps.shape)
        palette[one] = apart[color]
        gaps[one], gaps[:, color] = np.inf, np.inf
    if table.void_index is not None:
        palette[table.void_index] = 0
    return palette


def _far_apart(count: int) -> Colors:
    """`count` colours `[count, 3]`, 0-255: each time the one farthest from all before and black."""
    grid = np.stack(np.meshgrid(*[_LEVELS] * 3, indexing="ij"), -1).reshape(-1, 3)
    seen = np.stack([_oklab(grid, vision) for vision in _VISIONS])
    least = np.where(seen[0, :, 0] < _DARKEST, 0, np.inf)
    chosen = [0]  # black
    for _ in range(count):
        away = np.linalg.norm(seen - seen[:, chosen[-1:]], axis=2).min(0)
        least = np.minimum(least, away)
        chosen.append(int(least.argmax()))
    return grid[chosen[1:]]


def _oklab(colors: Colors, vision: npt.ArrayLike = _VISIONS[0]) -> Colors:
    """Colours of sRGB, 0-255 `[..., 3]` -> Oklab, as an eye of that `vision` has it."""
    part = np.asarray(colors, np.float64) / 255
    linear = np.where(part <= 0.04045, part / 12.92, ((part + 0.055) / 1.055) ** 2.4)
    linear = (linear @ np.transpose(vision)).clip(0, 1)
    cones: Colors = np.cbrt(linear @ _TO_CONES.T) @ _TO_LAB.T
    return cones


_TO_CONES = np.array(
    ((0.4122214708, 0.5363325363, 0.0514459929),
     (0.2119034982, 0.6806995451, 0.1073969566),
     (0.0883024619, 0.2817188376, 0.6299787005))
)  # fmt: skip
_TO_LAB = np.array(
    ((0.2104542553, 0.7936177850, -0.0040720468),
     (1.9779984951, -2.4285922050, 0.4505937099),
     (0.0259040371, 0.7827717662, -0.8086757660))
)  # fmt: skip
