"""The class weights' formulas, and the frequencies they come from."""

from __future__ import annotations

import math

import numpy as np
import pytest

from smp_camvid.data.camvid import open_dataset
from smp_camvid.data.classes import CAMVID11, VOID
from smp_camvid.training.class_weights import Frequencies, class_weights, count_frequencies

LABELS = [
    np.array([[0, 0, 0, 1], [0, 0, 0, VOID]], np.uint8),  # 7 pixels: six of 0, one of 1
    np.array([[0, 2, 2, 2], [2, VOID, VOID, VOID]], np.uint8),  # 5 pixels: one of 0, four of 2
]


def test_frequencies() -> None:
    found = count_frequencies(LABELS, 4)
    assert found.share == pytest.approx((7 / 12, 1 / 12, 4 / 12, 0))
    assert found.share_where_present == pytest.approx((7 / 12, 1 / 7, 4 / 5, 0))


def test_formulas() -> None:
    found = count_frequencies(LABELS, 4)
    assert class_weights("none", found) is None
    log = class_weights("log", found, 1.1)
    assert log is not None and log.dtype == np.float32
    expected = [1 / math.log(1.1 + p) for p in (7 / 12, 1 / 12, 4 / 12)]
    assert log.tolist() == pytest.approx([*expected, 0], rel=1e-6)
    median = class_weights("median", found)
    middle = 7 / 12  # of 1/7, 7/12, 4/5
    assert median is not None
    expected = [1, middle * 7, middle / (4 / 5)]
    assert median.tolist() == pytest.approx([*expected, 0], rel=1e-6)


def test_rare_classes_weigh_more() -> None:
    camvid = (0.175, 0.242, 0.010, 0.330, 0.047, 0.101, 0.012, 0.012, 0.061, 0.0067, 0.0030)
    frequencies = Frequencies(camvid, camvid)
    log, median = class_weights("log", frequencies), class_weights("median", frequencies)
    assert log is not None and median is not None
    for weights in (log, median):
        assert (int(weights.argmax()), int(weights.argmin())) == (10, 3)
    assert median.max() / median.min() == pytest.approx(0.330 / 0.0030)
    assert log.max() / log.min() < 4


@pytest.mark.slow
def test_real_frequencies(real_data) -> None:  # type: ignore[no-untyped-def]
    dataset = open_dataset(real_data)
    labels = (dataset.load_label(frame) for frame in dataset.split("train"))
    found = count_frequencies(labels, len(CAMVID11))
    published = (17.5, 24.2, 1.0, 33.0, 4.7, 10.1, 1.2, 1.2, 6.1, 0.67, 0.30)
    assert np.allclose(np.array(found.share) * 100, published, atol=0.06)
