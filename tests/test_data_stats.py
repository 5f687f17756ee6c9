"""`data stats` and `data show`: numbers counted another way, pictures pixel by pixel."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import child, run
from conftest import MakeDataset
from PIL import Image
from rich.console import Console

from smp_camvid import recipe
from smp_camvid.data import samples
from smp_camvid.data.cache import FrameCache
from smp_camvid.data.camvid import open_dataset
from smp_camvid.data.classes import CAMVID11, CAMVID32, MERGE, VOID
from smp_camvid.data.loaders import TrainSet
from smp_camvid.data.preprocess import resize_frame, resize_label
from smp_camvid.data.statistics import collect_statistics
from smp_camvid.report.contact_sheet import OPACITY, contact_sheet
from smp_camvid.report.data_tables import statistics_view, suggested_weights
from smp_camvid.report.printing import has_swatches, print_view
from smp_camvid.report.statistics_figure import statistics_figure
from smp_camvid.training.class_weights import class_weights, count_frequencies

pytestmark = pytest.mark.usefixtures("here")


# --- stats -----------------------------------------------------------------------------------


def test_numbers_equal_those_counted_by_hand(kaggle_data: Path) -> None:
    document = json.loads(run("data", "stats", kaggle_data, "--json").stdout)
    for split in ("train", "val"):
        frames = [np.array(Image.open(p)) for p in (kaggle_data / split).glob("*.png")]
        labels = [np.array(Image.open(p)) for p in (kaggle_data / f"{split}_labels").glob("*.png")]
        pixels = np.concatenate([frame.reshape(-1, 3) for frame in frames]) / 255
        found = document["splits"][split]
        assert found["frames"] == len(frames)
        assert found["mean"] == pytest.approx(pixels.mean(0), abs=1e-5)
        assert found["std"] == pytest.approx(pixels.std(0), abs=1e-5)
        colors = np.concatenate([label.reshape(-1, 3) for label in labels])
        void = (colors == 0).all(1).sum()
        fences = (colors == (64, 64, 128)).all(1).sum()
        assert found["void"] == pytest.approx(void / len(colors), abs=1e-7)
        assert found["classes"]["Fence"] == pytest.approx(fences / (len(colors) - void), abs=1e-7)
        assert list(found["classes"]) == list(MERGE)
        assert sum(found["classes"].values()) == pytest.approx(1)
    assert document["sizes"] == {"48x64": 8}
    assert document["picture"] is None and not list(Path().iterdir())


def test_weights_are_those_of_training(segnet_data: Path) -> None:
    dataset = open_dataset(segnet_data)
    labels = [dataset.load_label(frame) for frame in dataset.split("train")]
    frequencies = count_frequencies(labels, 11)
    weights = suggested_weights(collect_statistics(dataset, ["train", "val"]))
    for name, kind, c in (
        ("log 1.02", "log", 1.02),
        ("log 1.1", "log", 1.1),
        ("median",) * 2 + (0,),
    ):
        expected = class_weights(kind, frequencies, c)  # type: ignore[arg-type]
        assert expected is not None
        np.testing.assert_allclose(weights[name], expected)


def test_drives_and_splits_add_up(make_own: MakeDataset) -> None:
    root = make_own({"train": ["a_1", "a_2", "b_1"], "val": ["b_2", "c_1"]})
    statistics = collect_statistics(open_dataset(root, "dataset"), ["train", "val"])
    assert statistics.drives == ("a", "b", "c") and statistics.splits == ("train", "val")
    assert len(statistics.of(split="train", drive="b")) == 1
    by_drive = sum(frame.counts.sum() for d in "abc" for frame in statistics.of(drive=d))
    assert by_drive == statistics.counts("train").sum() + statistics.counts("val").sum()


@pytest.mark.slow
def test_the_real_frames_have_the_published_numbers(real_data: Path) -> None:
    statistics = collect_statistics(open_dataset(real_data), ["train"])
    mean, std = statistics.mean_std(statistics.frames)
    assert mean == pytest.approx([0.412, 0.425, 0.433], abs=5e-4)
    assert std == pytest.approx([0.307, 0.312, 0.307], abs=5e-4)
    shares = dict(zip(MERGE, statistics.shares(statistics.frames), strict=True))
    assert 100 * shares["Road"] == pytest.approx(33.0, abs=0.05)
    assert 100 * shares["Bicyclist"] == pytest.approx(0.30, abs=0.005)


def test_stats_needs_no_torch(kaggle_data: Path) -> None:
    program = (
        "import sys; sys.argv = ['smp-camvid', 'data', 'stats', '--json', sys.argv[1]]\n"
        "from smp_camvid.cli import main\n"
        "try: main()\nexcept SystemExit as stop: assert not stop.code\n"
        "assert 'numpy' in sys.modules and 'torch' not in sys.modules"
    )
    words = [sys.executable, "-c", program, str(kaggle_data)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_file_in_an_old_encoding(kaggle_data: Path) -> None:
    done = child("data", "stats", kaggle_data, PYTHONIOENCODING="cp1252")
    assert done.returncode == 0, done.stderr
    assert "Bicyclist" in done.stdout and Path("data-stats.png").is_file()


@pytest.mark.parametrize(
    ("encoding", "options", "blocks"),
    [
        ("utf-8", {"color_system": "truecolor"}, True),
        ("utf-8", {"color_system": None}, False),
        ("utf-8", {"color_system": "truecolor", "no_color": True}, False),
        ("cp1252", {"color_system": "truecolor"}, False),
    ],
)
def test_blocks_of_colour_only_where_they_can_be_seen(
    kaggle_data: Path, encoding: str, options: dict[str, Any], blocks: bool
) -> None:
    file = io.TextIOWrapper(io.BytesIO(), encoding)
    console = Console(file=file, force_terminal=True, width=80, **options)
    statistics = collect_statistics(open_dataset(kaggle_data), ["val"])
    print_view(statistics_view(statistics, {}, has_swatches(console)), console)
    file.seek(0)
    assert ("\u2588" in file.read()) == blocks


def test_a_class_that_is_nowhere_has_no_mark(kaggle_data: Path) -> None:
    statistics = collect_statistics(open_dataset(kaggle_data, "32"), ["train", "val"])
    for name in ("train", "val"):
        for frame in statistics.of(split=name):
            frame.counts[[3, 5]] = 0  # Bridge and Car are nowhere
    for frame in statistics.of(split="val"):
        frame.counts[9] = 0  # Fence is in train alone
    statistics.frames[0].counts[12] = 1  # Pedestrian is rarer than the axis begins
    for frame in statistics.frames[1:]:
        frame.counts[12] = 0
    statistics.frames[1].counts[17] += 10**6
    axes = statistics_figure(statistics).axes[0]
    rows = [label.get_text() for label in axes.get_yticklabels()]
    train, val = (line.get_xdata() for line in axes.get_lines()[-2:])
    marked = {
        name: (bool(np.isfinite(t)), bool(np.isfinite(v)))
        for name, t, v in zip(rows, train, val, strict=True)
    }
    names = CAMVID32.names
    assert marked[names[3]] == marked[names[5]] == (False, False)
    assert marked[names[9]] == (True, False) and marked[names[12]] == (True, False)
    assert marked[names[17]] == (True, True)
    nowhere = {rows[round(text.get_position()[1])] for text in axes.texts}
    assert nowhere == {name for name, marks in marked.items() if marks == (False, False)}
    assert axes.get_xticklabels()[0].get_text() == "\u2264 0.01 %"


def test_stats_prints_80_columns_and_draws(kaggle_data: Path) -> None:
    done = run("data", "stats", kaggle_data)
    assert done.exit_code == 0, done.output
    assert max(map(len, done.stdout.splitlines())) <= 80 and "\x1b" not in done.stdout
    assert done.stdout.splitlines()[-1] == "data-stats.png"
    with Image.open("data-stats.png") as picture:
        assert picture.width > 800
    run("data", "stats", kaggle_data, "--split", "val", "--json", "--out", "val.png")
    assert Path("val.png").is_file()


@pytest.mark.parametrize("classes", ["32", "dataset"])
def test_many_classes_and_many_drives(make_kaggle: MakeDataset, classes: str) -> None:
    root = make_kaggle({"train": [f"d{i}_0001" for i in range(12)], "val": ["$v$_0001"]})
    options = ["--classes", classes, "--split-source", "folders"]
    done = run("data", "stats", root, *options)
    assert done.exit_code == 0, done.output
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert "and 7 shorter drives" in done.stdout and "Truck_Bus" in done.stdout


def test_a_split_of_void_alone(kaggle_data: Path) -> None:
    for label in (kaggle_data / "val_labels").glob("*.png"):
        Image.fromarray(np.zeros((48, 64, 3), np.uint8)).save(label)
    statistics = collect_statistics(open_dataset(kaggle_data), ["val"])
    assert statistics.void_share(statistics.frames) == 1
    assert statistics.shares(statistics.frames).sum() == 0
    statistics_figure(statistics)
    assert run("data", "stats", kaggle_data, "--split", "val").exit_code == 0


# --- show ------------------------------------------------------------------------------------


def test_the_sheet_lays_the_label_over_the_frame() -> None:
    image = np.full((270, 360, 3), 100, np.uint8)
    label = np.full((270, 360), 3, np.uint8)
    label[:, 180:] = VOID
    sheet = np.array(contact_sheet([("one", image, label)], CAMVID11, "title"))
    road = (1 - OPACITY) * 100 + OPACITY * np.array(CAMVID11.colors[3])
    assert (sheet[200, 100] == 100).all()
    assert np.abs(sheet[200, 16 + 360 + 2 + 90] - road).max() <= 1
    assert np.abs(sheet[200, 16 + 360 + 2 + 270] - (1 - OPACITY) * 100).max() <= 1


@pytest.mark.parametrize("number", [1, 2, 3, 8])
def test_frames_are_spread_evenly(kaggle_data: Path, number: int) -> None:
    picks = samples.evenly_spaced(open_dataset(kaggle_data), ["train", "val"], number)
    assert len(picks) == number == len({pick.frame.stem for pick in picks})
    assert picks[0].split == "train" and picks[0].index == 0
    if number > 1:
        assert picks[-1].split == "val" and picks[-1].index == 2


def test_augment_shows_the_same_frames(kaggle_data: Path) -> None:
    def shown(*words: str) -> list[dict[str, str]]:
        done = run("data", "show", kaggle_data, "--frames", 6, "--json", *words)
        frames: list[dict[str, str]] = json.loads(done.stdout)["frames"]
        return frames

    assert shown() == shown("--augment") and {f["split"] for f in shown()} == {"train", "val"}


def test_frames_outside_train_are_resized_and_not_augmented(kaggle_data: Path) -> None:
    resolved = recipe.resolve("vanilla", [("data.size", (24, 32))]).recipe
    dataset = open_dataset(kaggle_data)
    picks = samples.evenly_spaced(dataset, ["val"], 3)
    for pick, (image, label) in zip(
        picks, samples.as_trained(dataset, picks, resolved), strict=True
    ):
        assert (image == resize_frame(dataset.load_image(pick.frame), 24)).all()
        assert (label == resize_label(dataset.load_label(pick.frame), (24, 32))).all()


def test_augmented_frames_are_those_of_the_first_epoch(kaggle_data: Path) -> None:
    resolved = recipe.resolve("vanilla", [("data.size", (32, 48)), ("train.seed", 7)]).recipe
    dataset = open_dataset(kaggle_data)
    steps = [step.model_dump() for step in resolved.augment]
    cache = FrameCache.open(dataset, "train", 32, "image")
    trained = TrainSet(cache, size=(32, 48), augment=steps, seed=7)
    picks = samples.evenly_spaced(dataset, ["train"], 3)
    for pick, (image, label) in zip(
        picks, samples.as_trained(dataset, picks, resolved), strict=True
    ):
        sample = trained[1, pick.index]
        assert (sample.image == image).all() and (sample.label == label).all()
    other = samples.as_trained(dataset, picks, resolved, epoch=2)
    assert not all(
        (trained[1, p.index].image == i).all() for p, (i, _) in zip(picks, other, strict=True)
    )


def test_show_writes_the_picture_it_names(kaggle_data: Path) -> None:
    done = run("data", "show", kaggle_data, "--frames", 3)
    assert done.exit_code == 0 and done.stdout == "data-show.png\n", done.output
    document = json.loads(
        run("data", "show", kaggle_data, "--augment", "--out", "new/a.png", "--json").stdout
    )
    assert document["recipe"] == "vanilla" and Path("new/a.png").is_file()


def test_what_cannot_be_done_is_refused(kaggle_data: Path, own_data: Path) -> None:
    for words, code, reason in (
        (["show", kaggle_data, "--out", "a.jpg"], 2, ".png"),
        (["show", kaggle_data, "--augment", "--recipe", "vanila"], 2, "vanilla"),
        (["show", kaggle_data, "--split", "test"], 1, "test"),
        (["stats", own_data], 1, "--classes dataset"),
        (["stats", kaggle_data, "--out", "/proc/none/a.png"], 1, "cannot be written"),
    ):
        done = run("data", *words)
        assert done.exit_code == code and reason in done.stderr, done.output
    assert not list(Path().iterdir())
