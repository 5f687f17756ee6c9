"""Border weights against a reference that looks at all components and all pixels."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from smp_camvid.data.border import BorderWeight, border_weight_map
from smp_camvid.data.classes import VOID


def reference(label: np.ndarray, w0: float, sigma: float, class_weights: list[float]) -> np.ndarray:
    """Equation 2 with scipy: a whole distance map for each 4-connected component."""
    distances = []
    for value in np.unique(label[label != VOID]):
        ids, number = ndimage.label(label == value)
        distances += [ndimage.distance_transform_edt(ids != i) for i in range(1, number + 1)]
    distances += [np.full(label.shape, np.inf)] * 2
    d1, d2 = np.sort(np.stack(distances), axis=0)[:2]
    w_c = np.array([*class_weights, *[0.0] * (256 - len(class_weights))])[label]
    return np.where(label == VOID, 0, w_c + w0 * np.exp(-((d1 + d2) ** 2) / (2 * sigma**2)))


def random_label(seed: int, size: tuple[int, int]) -> np.ndarray:
    rng = np.random.default_rng(seed)
    label = np.full(size, rng.integers(4), np.uint8)
    for value in rng.choice([0, 1, 2, 3, VOID], 14):
        y, x = rng.integers(size[0]), rng.integers(size[1])
        label[y : y + rng.integers(1, 30), x : x + rng.integers(1, 40)] = value
    return label


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("w0", "sigma"), [(10.0, 5.0), (3.0, 1.5)])
def test_agrees_with_the_reference(seed: int, w0: float, sigma: float) -> None:
    label = random_label(seed, (70, 130))
    found = border_weight_map(label, BorderWeight(w0, sigma))
    assert found.dtype == np.float32
    assert np.abs(found - reference(label, w0, sigma, [1.0] * 4)).max() < 1e-6


def test_class_weights_are_the_first_term() -> None:
    label, weights = random_label(9, (40, 50)), (0.5, 2.0, 1.0, 4.0)
    found = border_weight_map(label, BorderWeight(class_weights=weights))
    assert np.abs(found - reference(label, 10, 5, list(weights))).max() < 1e-6


def test_closed_form_on_a_straight_border() -> None:
    label = np.zeros((3, 40), np.uint8)
    label[:, 20:] = 1
    distance = np.r_[np.arange(20, 0, -1), np.arange(1, 21)]
    expected = 1 + 10 * np.exp(-(distance**2) / 50)
    assert np.abs(border_weight_map(label) - expected).max() < 1e-6


def test_diagonal_neighbours_are_two_components() -> None:
    label = np.array([[0, VOID], [VOID, 0]], np.uint8)
    assert border_weight_map(label)[0, 0] == pytest.approx(1 + 10 * np.exp(-2 / 50), abs=1e-6)


def test_one_component_and_void_alone() -> None:
    assert (border_weight_map(np.zeros((9, 9), np.uint8)) == 1).all()
    assert (border_weight_map(np.full((9, 9), VOID, np.uint8)) == 0).all()
    assert (border_weight_map(random_label(1, (20, 20)), BorderWeight(w0=0)) <= 1).all()
