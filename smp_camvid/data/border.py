"""The border weights of the U-Net paper (Ronneberger et al. 2015, section 3, equation 2).

    w(x) = w_c(x) + w0 * exp(-(d1(x) + d2(x))^2 / (2 sigma^2))

d1 and d2 are the distances, in pixels, from x to the nearest and the second nearest component.
Components are the 4-connected regions of one class; void belongs to none.  The paper's
components are cells on a background, here they tile the frame: a pixel lies in its own
component (d1 = 0), and the weight rises towards whatever is next to it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from smp_camvid.data.classes import VOID

# Terms below this are left out, which is what keeps each component's work near the component.
_NEGLIGIBLE = 1e-8

Window = tuple[slice, slice]


@dataclass(frozen=True)
class BorderWeight:
    """The parameters of equation 2."""

    w0: float = 10.0
    sigma: float = 5.0
    """Pixels, at the size of the label."""
    class_weights: tuple[float, ...] | None = None
    """w_c, one for each class; None means 1."""

    @property
    def reach(self) -> float:
        """Distance in pixels beyond which the border term is negligible."""
        if self.w0 <= _NEGLIGIBLE:
            return 0.0
        return self.sigma * math.sqrt(2 * math.log(self.w0 / _NEGLIGIBLE))


def border_weight_map(
    label: npt.NDArray[np.uint8], border: BorderWeight | None = None
) -> npt.NDArray[np.float32]:
    """`[H, W]` class indices -> float32 `[H, W]` weights; 0 on void, which counts nowhere."""
    border = border or BorderWeight()
    nearest = np.full(label.shape, np.inf, np.float32)
    second = nearest.copy()
    for window, component in _components(label, math.ceil(border.reach)):
        distance = cv2.distanceTransform(component, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        near = nearest[window]
        second[window] = np.minimum(second[window], np.maximum(near, distance))
        nearest[window] = np.minimum(near, distance)
    apart = nearest.astype(np.float64) + second
    weights = border.w0 * np.exp(-(apart**2) / (2 * border.sigma**2))
    weights += 1.0 if border.class_weights is None else _weight_table(border.class_weights)[label]
    return np.where(label == VOID, 0, weights).astype(np.float32)


def _components(
    label: npt.NDArray[np.uint8], margin: int
) -> Iterator[tuple[Window, npt.NDArray[np.uint8]]]:
    """Each component as (window around it, uint8 0 inside the component and 1 outside)."""
    for value in np.unique(label[label != VOID]):
        number, ids, stats, _ = cv2.connectedComponentsWithStats(
            (label == value).astype(np.uint8), connectivity=4
        )
        for component in range(1, number):
            x, y, width, height = (int(v) for v in stats[component, :4])
            window = (
                slice(max(0, y - margin), y + height + margin),
                slice(max(0, x - margin), x + width + margin),
            )
            yield window, (ids[window] != component).astype(np.uint8)


def _weight_table(class_weights: tuple[float, ...]) -> npt.NDArray[np.float64]:
    table = np.zeros(256)
    table[: len(class_weights)] = class_weights
    return table
