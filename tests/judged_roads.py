"""Somebody's own roads with scores of them, for tests of what is drawn."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from color_engine import color_segmenter
from conftest import OWN, write_class_dict, write_pair

from smp_camvid.data.classes import VOID
from smp_camvid.evaluation.bootstrap import Bootstrap
from smp_camvid.evaluation.evaluate import evaluate
from smp_camvid.report.frame_pictures import FramePicture


@pytest.fixture(scope="session")
def judged(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Of eight frames in two drives of somebody's own roads."""
    root, rng = tmp_path_factory.mktemp("roads"), np.random.default_rng(0)
    for split, stems in {
        "train": ["a_0"],
        "val": [f"{d}_{i}" for d in "ab" for i in range(4)],
    }.items():
        for stem in stems:
            pair = (root / folder / split / f"{stem}.png" for folder in ("images", "masks"))
            write_pair(*pair, rng, OWN, (40, 56), colored=True)
    write_class_dict(root / "class_dict.csv", OWN)
    return evaluate(color_segmenter(OWN, noise=3), root, bootstrap=Bootstrap(1, 50))


def picture(**changes: Any) -> FramePicture:
    truth = np.full((36, 48), 3, np.uint8)
    truth[:, :24] = VOID
    plain = {
        "name": "a.png", "drive": "a", "miou": 0.5, "frame": np.full((36, 48, 3), 77, np.uint8),
        "truth": truth, "prediction": np.full((36, 48), 8, np.uint8),
    }  # fmt: skip
    return FramePicture(**{**plain, **changes})
