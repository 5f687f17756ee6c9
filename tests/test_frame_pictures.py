"""Which frames are shown, what is drawn of them, and colours for eyes that miss some."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from color_engine import color_segmenter
from conftest import OWN

from smp_camvid.data.classes import CAMVID11, CAMVID32, VOID, ClassTable
from smp_camvid.evaluation.evaluate import evaluate
from smp_camvid.evaluation.split import open_split
from smp_camvid.report.frame_pictures import (
    ERROR_COLORS,
    chosen_frames,
    colour_blind_palette,
    error_map,
    frame_pictures,
)


def scored(*mious: float | None) -> dict[str, Any]:
    return {"per_frame": [{"frame": f"{i}", "miou": miou} for i, miou in enumerate(mious)]}


def test_best_median_and_worst_are_those_of_the_document() -> None:
    found = chosen_frames(scored(0.5, 0.1, None, 0.9, 0.3, 0.7, 0.2, 0.8, 0.6, 0.4), 2)
    assert found == {"best": ["3", "7"], "median": ["9", "0"], "worst": ["1", "6"]}


def test_equals_stand_in_the_order_of_the_split() -> None:
    found = chosen_frames(scored(*[0.5] * 7), 2)
    assert found == {"best": ["5", "6"], "median": ["2", "3"], "worst": ["0", "1"]}


@pytest.mark.parametrize("count", [0, 1, 3, 8])
@pytest.mark.parametrize("frames", range(9))
def test_few_frames_are_shared_out_and_none_is_there_twice(frames: int, count: int) -> None:
    found = chosen_frames(scored(None, *[i / 10 for i in range(frames)]), count)
    names = [*found["worst"], *found["median"], *found["best"][::-1]]
    assert names == sorted(names) and len(set(names)) == len(names)
    assert len(names) == min(frames, 3 * count) and "0" not in names
    sizes = [len(found[group]) for group in ("worst", "best", "median")]
    assert sizes == sorted(sizes, reverse=True) and sizes[0] - sizes[-1] <= 1


def test_pictures_are_predicted_as_the_score_was(make_own: Callable[..., Path]) -> None:
    stems = {"train": ["a_0"], "val": [f"{drive}_{i}" for drive in "ab" for i in range(3)]}
    segmenter = color_segmenter(OWN)
    # The engine's noise depends on the batch's shape, so evaluate goes one by one as well.
    data = make_own(stems)
    document = evaluate(segmenter, data, size=(20, 28), batch_size=1)
    cache = open_split(segmenter, data, "val", (20, 28))
    names = [frame["frame"] for frame in document["per_frame"]][::-1]
    pictures = frame_pictures(segmenter, cache, names, document)
    assert [picture.name for picture in pictures] == names
    for picture, scores in zip(pictures, document["per_frame"][::-1], strict=True):
        assert (picture.miou, picture.drive) == (scores["miou"], scores["drive"])
        assert picture.frame.shape == (20, 28, 3) and picture.frame.dtype == np.uint8
        assert picture.prediction.dtype == picture.truth.dtype == np.uint8
        seen = picture.truth != VOID
        right = (picture.truth == picture.prediction)[seen].mean()
        assert right == pytest.approx(scores["accuracy"], abs=1e-9) and 0 < right < 1


def test_the_error_map_has_three_looks() -> None:
    truth = np.zeros((16, 24), np.uint8)
    prediction = truth.copy()
    prediction[:, 8:16] = 1
    truth[:, 16:], prediction[:8, 16:] = VOID, VOID
    found = error_map(truth, prediction)
    assert found.shape == (16, 24, 3) and found.dtype == np.uint8
    assert (found[:, :8] == ERROR_COLORS["right"]).all()
    assert (found[:, 8:16] == ERROR_COLORS["wrong"]).all()
    hatched = np.unique(found[:, 16:].reshape(-1, 3), axis=0)
    assert len(hatched) == 2 and ERROR_COLORS["void"] in {tuple(color) for color in hatched}
    grey = found.astype(int).sum(2) / 3
    assert grey[:, 8:16].max() + 60 < min(grey[:, :8].min(), grey[:, 16:].min())


# Viénot, Brettel and Mollon 1999, another simulation than the module's, on linear RGB.
TO_CONES = np.array(
    ((17.8824, 43.5161, 4.11935), (3.45565, 27.1554, 3.86714), (0.0299566, 0.184309, 1.46709))
)
WITHOUT = {
    "none": np.eye(3),
    "red": np.array(((0, 2.02344, -2.52581), (0, 1, 0), (0, 0, 1))),
    "green": np.array(((1, 0, 0), (0.494207, 0, 1.24827), (0, 0, 1))),
}


def lab(colors: npt.NDArray[Any], cones: str) -> npt.NDArray[np.float64]:
    """CIE 1976 L*a*b* of sRGB colours as somebody without these cones has them."""
    part = np.asarray(colors, np.float64) / 255
    linear = np.where(part <= 0.04045, part / 12.92, ((part + 0.055) / 1.055) ** 2.4)
    seen = np.linalg.inv(TO_CONES) @ WITHOUT[cones] @ TO_CONES @ linear.T
    to_xyz = np.array(
        ((0.4124, 0.3576, 0.1805), (0.2126, 0.7152, 0.0722), (0.0193, 0.1192, 0.9505))
    )
    xyz = to_xyz @ seen.clip(0, 1) / to_xyz.sum(1, keepdims=True)
    x, y, z = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz * (29 / 6) ** 2 / 3 + 4 / 29)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], 1)


def nearest(palette: npt.NDArray[Any], cones: str) -> float:
    """The least distance of two colours."""
    seen = lab(palette, cones)
    away = np.linalg.norm(seen[:, None] - seen[None], axis=2)
    return float(away[~np.eye(len(seen), dtype=bool)].min())


@pytest.mark.parametrize("cones", WITHOUT)
@pytest.mark.parametrize("table", [CAMVID11, CAMVID32], ids=["11", "32"])
def test_no_colour_is_taken_for_another(table: ClassTable, cones: str) -> None:
    safe = colour_blind_palette(table)
    with_void = [*range(len(table)), *([VOID] if table.void_index is None else [])]
    own, ours = nearest(table.palette[with_void], cones), nearest(safe[with_void], cones)
    assert ours > own and ours > 8 and (cones == "none" or ours > 4 * own)


def test_the_palette_has_void_black_and_any_number_of_classes() -> None:
    for table in (CAMVID11, CAMVID32):
        safe = colour_blind_palette(table)
        assert safe.shape == (256, 3) and safe.dtype == np.uint8
        unused = [*range(len(table), 256), *([] if table.void_index is None else [30])]
        assert not safe[unused].any()
    many = ClassTable("dataset", tuple(map(str, range(254))), tuple((i, i, i) for i in range(254)))
    assert len(np.unique(colour_blind_palette(many)[:254], axis=0)) == 254


def test_neither_torch_nor_opencv_comes_with_the_module() -> None:
    code = (
        "import sys, smp_camvid.report.frame_pictures;"
        "print(sorted({'torch', 'cv2', 'matplotlib', 'PIL'} & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
