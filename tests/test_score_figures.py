"""The figures of `evaluate --figures`: what is drawn is what the document says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import OWN
from judged_roads import picture
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from PIL import Image

from smp_camvid.data.classes import CAMVID11, CAMVID32, ClassTable
from smp_camvid.report.frame_pictures import ERROR_COLORS
from smp_camvid.report.gallery import gallery
from smp_camvid.report.score_figures import (
    class_iou_figure,
    confusion_figure,
    drive_figure,
    reliability_figure,
)
from smp_camvid.report.style import png_bytes


def bars(axes: Axes) -> list[Rectangle]:
    return [patch for patch in axes.patches if isinstance(patch, Rectangle)]


def names_down(axes: Axes) -> list[str]:
    return [label.get_text() for label in axes.get_yticklabels()]


def words(axes: Axes) -> set[str]:
    return {text.get_text() for text in axes.texts}


def test_bars_are_as_long_as_the_classes_iou_worst_first(judged: dict[str, Any]) -> None:
    between = {name: scores["iou_interval"] for name, scores in judged["classes"].items()}
    per_class = judged["per_class"]
    axes = class_iou_figure(per_class, judged["miou"], OWN, "t", between).axes[0]
    order = sorted(per_class, key=lambda name: per_class[name])
    assert names_down(axes) == order and axes.get_ylim()[0] > axes.get_ylim()[1]
    assert [bar.get_width() for bar in bars(axes)] == [per_class[name] for name in order]
    lines = [list(line.get_xdata()) for line in axes.lines]
    for name in order:
        assert between[name] in lines
        assert {f"{per_class[name]:.3f}", "{:.3f} to {:.3f}".format(*between[name])} <= words(axes)
    assert [judged["miou"]] * 2 in lines
    colors = [line.get_color() for line in axes.lines if line.get_marker() == "s"]
    assert colors == [[part / 255 for part in OWN.colors[OWN.names.index(n)]] for n in order]


def test_a_class_that_occurs_nowhere_is_last_and_says_so() -> None:
    axes = class_iou_figure({"Sky": None, "Road": 0.25, "Car": 0.0}, 0.125, CAMVID11).axes[0]
    assert names_down(axes) == ["Car", "Road", "Sky"]
    assert [bar.get_width() for bar in bars(axes)][:2] == [0.0, 0.25]
    assert words(axes) == {"0.000", "0.250", "occurs nowhere"}
    assert axes.get_title(loc="right") == "dotted: mean 0.125 over 2 classes"
    assert "interval" not in axes.get_title(loc="left")


def test_confusion_rows_are_per_cent_of_the_truth() -> None:
    table = ClassTable("dataset", ("a$b$", "c_d^", "[e]"), ((1, 1, 1), (2, 2, 2), (3, 3, 3)))
    matrix = np.array([[3, 1, 0], [0, 9996, 4], [0, 0, 0]], np.int64)
    axes = confusion_figure(matrix, table).axes[0]
    cells = {text.get_position(): text.get_text() for text in axes.texts}
    assert cells == {(0, 0): "75", (1, 0): "25", (1, 1): "100"}
    assert names_down(axes) == ["a$b$  <0.1 %", "c_d^  100.0 %", "[e]  none"]
    assert [label.get_text() for label in axes.get_xticklabels()] == list(table.names)


def test_confusion_leaves_the_void_class_out(tmp_path: Path) -> None:
    figure = confusion_figure(np.eye(32, dtype=np.int64), CAMVID32)
    labels = [label.get_text() for label in figure.axes[0].get_xticklabels()]
    assert len(labels) == 31 and "Void" not in labels
    (tmp_path / "confusion.png").write_bytes(png_bytes(figure))
    with Image.open(tmp_path / "confusion.png") as picture:
        assert 1200 <= picture.width <= 2000


def test_reliability_shows_each_bin_at_its_confidence(judged: dict[str, Any]) -> None:
    calibration = judged["calibration"]
    above, below = reliability_figure(calibration).axes
    bins = [b for b in calibration["bins"] if b["pixels"]]
    assert [bar.get_height() for bar in bars(above)] == [b["accuracy"] for b in bins]
    assert [bar.get_x() for bar in bars(above)] == [b["from"] for b in bins]
    assert list(above.lines[1].get_xdata()) == [b["confidence"] for b in bins]
    assert sum(bar.get_height() for bar in bars(below)) == pytest.approx(1)
    assert f"{calibration['ece']:.3f}" in above.get_title(loc="right")
    empty = [{**b, "pixels": 0, "confidence": None, "accuracy": None} for b in bins]
    nothing = reliability_figure({"ece": None, "bins": empty})
    assert nothing.axes[0].get_title(loc="right") == "nothing was counted" and png_bytes(nothing)


def test_each_drive_has_its_classes_and_its_mean(judged: dict[str, Any]) -> None:
    by_drive = judged["by_drive"]
    axes = drive_figure(by_drive, judged["per_class"]).axes[0]
    order = names_down(axes)
    for column, (drive, scores) in enumerate(by_drive.items()):
        head = axes.get_xticklabels()[column].get_text()
        assert head.startswith(f"{drive}\n4 frames\nmIoU {scores['miou']:.3f}\n")
        cells = {
            t.get_position()[1]: t.get_text() for t in axes.texts if t.get_position()[0] == column
        }
        assert cells == {row: f"{scores['per_class'][name]:.3f}" for row, name in enumerate(order)}


def test_the_gallery_has_four_columns_and_names_only_what_occurs() -> None:
    sheet = np.asarray(gallery([picture(), picture(miou=None)], CAMVID11, "t"))
    assert sheet.shape[1] == 2 * 16 + 4 * 480 + 3 * 8
    row = sheet[98 : 98 + 360]
    frame, truth, prediction, errors = (row[:, 16 + i * 488 :][:, :480] for i in range(4))
    assert (frame == 77).all() and (prediction == CAMVID11.colors[8]).all()
    assert (truth[:, :240] == 0).all() and (truth[:, 240:] == CAMVID11.colors[3]).all()
    assert (errors[:, 240:] == ERROR_COLORS["wrong"]).all()
    assert len(np.unique(errors[:, :240].reshape(-1, 3), axis=0)) == 2  # hatched
    legend = sheet[-44:].reshape(-1, 3)
    shown = [c for c in CAMVID11.colors if (legend == c).all(axis=1).sum() > 100]
    assert shown == [CAMVID11.colors[3], CAMVID11.colors[8]]


def test_a_gallery_can_leave_the_frames_out() -> None:
    whole = np.asarray(gallery([picture()], CAMVID11, "t"))
    without = np.asarray(gallery([picture()], CAMVID11, "t", ("truth", "prediction", "errors")))
    assert without.shape[1] == 2 * 16 + 3 * 480 + 2 * 8
    row, bare = whole[98 : 98 + 360], without[98 : 98 + 360]
    assert (row[:, 16 + 488 : -16] == bare[:, 16:-16]).all()
    assert not (bare == 77).all(axis=2).any()


def test_pixels_taken_for_void_count_in_their_row() -> None:
    table = ClassTable("dataset", ("a", "b", "Void"), ((1, 0, 0), (2, 0, 0), (0, 0, 0)), 2)
    matrix = np.array([[60, 20, 20], [0, 100, 0], [0, 0, 0]])
    axes = confusion_figure(matrix, table).axes[0]
    assert words(axes) == {"60", "20", "100"}
    assert names_down(axes) == ["a  50.0 %", "b  50.0 %"]


def test_a_mean_of_nothing_is_no_line() -> None:
    axes = class_iou_figure({"Sky": None, "Road": None}, None, CAMVID11).axes[0]
    assert words(axes) == {"occurs nowhere"} and "0.000" not in axes.get_title(loc="right")
