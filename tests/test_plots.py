"""The pictures of a run: written whole, of a readable size, showing the right numbers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from smp_camvid.data.classes import CAMVID11, VOID, ClassTable
from smp_camvid.report.plots import PlotListener, curves
from smp_camvid.report.sheets import prediction_sheet
from smp_camvid.training.events import (
    EpochDone,
    History,
    Pictures,
    RunEnded,
    RunStarted,
    Scores,
)

Triple = tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8], npt.NDArray[np.uint8]]


def epoch(number: int, val: bool = True, loss: float = 1.0) -> EpochDone:
    score = Scores(loss / number, 0.1 * number, 0.2, {"Sky": None, "Road": 0.9})
    return EpochDone(
        number, 5, score, score if val else None, 1e-3, 9.0, 1.0, 1.0, 0.1, None, number == 2
    )


def started(run_dir: Path, table: ClassTable = CAMVID11) -> RunStarted:
    return RunStarted(
        "a $x$ [b]", run_dir, "cpu", "camvid11@360x480", table, 5, 1, 4, 4, 8, 4, 10, (), "Adam", ()
    )


def frame(height: int = 36, width: int = 48) -> Triple:
    rng = np.random.default_rng(0)
    truth = np.full((height, width), 3, np.uint8)
    truth[:, : width // 2] = VOID
    prediction = np.full((height, width), 8, np.uint8)
    return rng.integers(0, 255, (height, width, 3), np.uint8), truth, prediction


def test_curves_have_train_above_val_with_the_numbers_of_the_history() -> None:
    history = History([epoch(i) for i in range(1, 6)])
    axes = curves(history, "a run").axes
    assert [a.get_title(loc="left") for a in axes] == [
        "train loss", "train mIoU", "train pixel accuracy",
        "val loss", "val mIoU", "val pixel accuracy",
    ]  # fmt: skip
    np.testing.assert_allclose(axes[4].lines[0].get_ydata(), [0.1, 0.2, 0.3, 0.4, 0.5])
    assert list(axes[4].lines[0].get_xdata()) == [1, 2, 3, 4, 5]
    assert "best 0.200, epoch 2" in [text.get_text() for text in axes[4].texts]
    assert axes[0].get_title(loc="right") == "last 0.200"
    nothing = curves(History([epoch(1, val=False, loss=float("nan"))])).axes
    assert [a.get_title(loc="right") for a in nothing[::3]] == ["last no number", "not measured"]


@pytest.mark.parametrize(
    "history",
    [
        History([]),
        History([epoch(1)]),
        History([epoch(1, val=False), epoch(2, val=False)]),
        History([epoch(1, val=False), epoch(2)]),
        History([epoch(1, loss=float("nan"))]),
        History([epoch(1 + i, loss=float("nan") if i % 3 else 1.0) for i in range(1000)]),
    ],
)
def test_curves_of_few_or_strange_epochs_can_be_drawn(history: History, tmp_path: Path) -> None:
    curves(history).savefig(tmp_path / "curves.png")
    with Image.open(tmp_path / "curves.png") as picture:
        assert picture.width >= 1200


def test_sheet_shows_the_class_colours_and_names_only_what_occurs() -> None:
    one = np.asarray(prediction_sheet([frame()], CAMVID11, "title"))
    two = prediction_sheet([frame(), frame(20, 48)], CAMVID11, "title")
    assert one.shape[1] == two.width == 1488
    assert two.height - one.shape[0] == 200 + 8  # the second row, 480 px a tile, and its gap
    truth, prediction = one[100, 504:984], one[100, 992:1472]
    np.testing.assert_array_equal(truth[0], (0, 0, 0))
    np.testing.assert_array_equal(truth[-1], CAMVID11.colors[3])
    assert (prediction == CAMVID11.colors[8]).all()
    legend = one[-44:].reshape(-1, 3)
    shown = [color for color in CAMVID11.colors if (legend == color).all(axis=1).sum() > 100]
    assert shown == [CAMVID11.colors[3], CAMVID11.colors[8]]


def test_sheet_without_frames_or_title_is_a_picture() -> None:
    assert prediction_sheet([], CAMVID11).height > 0


def test_sheet_takes_labels_of_another_size_than_the_frame() -> None:
    picture, _, _ = frame(72, 96)
    _, truth, prediction = frame(36, 48)
    assert prediction_sheet([(picture, truth, prediction)], CAMVID11).width == 1488


def test_listener_writes_what_a_run_directory_has(tmp_path: Path) -> None:
    listener = PlotListener(tmp_path, every=2)
    listener.on_event(started(tmp_path))
    for number in range(1, 6):
        listener.on_event(epoch(number))
        if number == 2:
            listener.on_event(Pictures(2, "val", [frame()]))
    before_the_end = {path.name for path in (tmp_path / "plots").iterdir()}
    assert before_the_end == {"curves.png", "epoch-0002-curves.png", "epoch-0004-curves.png"}
    listener.on_event(RunEnded("done", tmp_path, 5, 2, np.eye(11, dtype=np.int64), ""))
    files = sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file())
    assert files == [
        "images/epoch-0002-val.png",
        "plots/class-iou.png",
        "plots/confusion.png",
        "plots/curves.png",
        "plots/epoch-0002-curves.png",
        "plots/epoch-0004-curves.png",
        "plots/epoch-0005-curves.png",
    ]
    for file in files:
        with Image.open(tmp_path / file) as picture:
            picture.load()
    newest = (tmp_path / "plots/epoch-0005-curves.png").read_bytes()
    assert (tmp_path / "plots/curves.png").read_bytes() == newest


def test_listener_without_validation_or_epochs(tmp_path: Path) -> None:
    listener = PlotListener(tmp_path, every=10, show=True)  # no notebook here: shows nothing
    listener.on_event(started(tmp_path))
    listener.on_event(RunEnded("interrupted", tmp_path, 1, None, None, ""))
    assert not list(tmp_path.iterdir())
    listener.on_event(epoch(1, val=False))
    listener.on_event(RunEnded("interrupted", tmp_path, 1, None, None, ""))
    assert not (tmp_path / "plots/confusion.png").exists()
    assert not (tmp_path / "plots/class-iou.png").exists()
    assert (tmp_path / "plots/curves.png").exists()


def test_neither_torch_nor_matplotlib_is_imported_with_the_modules() -> None:
    code = (
        "import sys, smp_camvid.report.console, smp_camvid.report.plots;"
        "print(sorted({'torch', 'matplotlib', 'IPython'} & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
