"""What a folder may hold besides pictures, and what the library may be handed besides arrays."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from color_predict import load_colors
from command_line import run
from PIL import Image

from smp_camvid.errors import DataError, UsageError, visible
from smp_camvid.inference import predictor
from smp_camvid.inference.inputs import find_inputs
from smp_camvid.inference.prediction import as_rgb
from smp_camvid.inference.predictor import Segmenter, load
from smp_camvid.report import job_progress


@pytest.fixture(autouse=True)
def colors(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predictor, "load", load_colors)


def noise(seed: int = 0, size: tuple[int, int] = (9, 12)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)


def write(path: str, seed: int = 0) -> None:
    Path(path).parent.mkdir(exist_ok=True)
    Image.fromarray(noise(seed)).save(path)


# --- folders ----------------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes with names")
def test_links_to_nowhere_are_told_of_and_pipes_are_left_alone() -> None:
    write("roads/a.png")
    Path("roads/loop.png").symlink_to("loop.png")
    Path("roads/lost.png").symlink_to("gone.png")
    Path("roads/folder.png").mkdir()
    os.mkfifo("roads/pipe.png")
    done = run("predict", "roads")
    assert done.exit_code == 1
    assert Path("predictions/a_mask.png").is_file()
    said = [line for line in done.stderr.splitlines() if line.startswith("smp-camvid:")]
    assert len(said) == 3 and "loop.png" in said[0] and "lost.png" in said[1]
    assert said[2] == "smp-camvid: 2 of 3 inputs failed."
    assert [one.name for one in find_inputs(["roads/*.png"])] == [
        one.name for one in find_inputs(["roads"])
    ]


def test_the_second_of_a_stem_keeps_its_suffix() -> None:
    for name, seed in (("set/a.bmp", 1), ("set/a.png", 2), ("set/b.png", 3)):
        write(name, seed)
    assert run("predict", "set", "--save", "mask").exit_code == 0
    made = sorted(path.name for path in Path("predictions").glob("*.png"))
    assert made == ["a.png_mask.png", "a_mask.png", "b_mask.png"]
    for name, seed in (("a", 1), ("a.png", 2)):
        mask = np.asarray(Image.open(f"predictions/{name}_mask.png"))
        assert np.array_equal(mask, load_colors()(noise(seed)).mask)
    again = run("predict", "set", "--save", "mask")
    assert "3 of 3 inputs are done already" in again.stderr


def test_what_predict_has_not_written_is_not_replaced() -> None:
    write("lab/a.png")
    Path("lab/a_color.png").write_bytes(b"drawn by hand")
    refused = run("predict", "lab", "--out", "lab")
    assert refused.exit_code == 1 and not Path("lab/a_mask.png").exists()
    assert "a_color.png is there and was not written by predict" in refused.stderr
    assert Path("lab/a_color.png").read_bytes() == b"drawn by hand"
    assert run("predict", "lab", "--out", "lab", "--force").exit_code == 0
    Path("lab/a_mask.png").write_bytes(b"corrected by hand")
    changed = run("predict", "lab", "--out", "lab")
    assert changed.exit_code == 1 and "a_mask.png was changed after" in changed.stderr
    Path("lab/a_mask.png").write_bytes(b"")  # a power cut
    assert run("predict", "lab", "--out", "lab").exit_code == 0
    assert Path("lab/a_mask.png").stat().st_size > 0


def test_what_a_job_had_begun_is_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    write("a.png")
    with monkeypatch.context() as patched:
        patched.setattr("smp_camvid.inference.ledger.Ledger.add", lambda *words: 1 / 0)
        assert run("predict", "a.png").exit_code == 1
    assert Path("predictions/a_mask.png").is_file()  # without a record
    assert run("predict", "a.png").exit_code == 0
    (line,) = Path("predictions/manifest.jsonl").read_text().splitlines()
    assert '"files"' in line and '"begun"' not in line and '"left"' not in line


def test_predictions_elsewhere_are_no_inputs_either() -> None:
    write("roads/a.png")
    assert run("predict", "roads/a.png", "--out", "roads/made").exit_code == 0
    assert [one.name for one in find_inputs(["roads"], recursive=True)] == ["roads/a.png"]
    assert [one.name for one in find_inputs(["roads/**/*.png"])] == ["roads/a.png"]
    write("roads/made/b.png")  # is no prediction
    names = [one.name for one in find_inputs(["roads"], recursive=True)]
    assert names == ["roads/a.png", "roads/made/b.png"]


def test_a_folder_that_cannot_be_listed_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    write("roads/a.png")
    write("roads/closed/b.png")
    scan = os.scandir

    def guarded(path: Any = ".") -> Any:
        if isinstance(path, Path) and path.name == "closed":
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", guarded)
    done = run("predict", "roads", "--recursive")
    assert done.exit_code == 1 and Path("predictions/a_mask.png").is_file()
    assert "roads/closed" in done.stderr and "1 of 2 inputs failed." in done.stderr


def test_a_folder_in_the_place_of_a_file_is_named() -> None:
    write("a.png")
    Path("predictions/a_mask.png").mkdir(parents=True)
    done = run("predict", "a.png", "--force")
    assert done.exit_code == 1 and "predictions/a_mask.png cannot be written" in done.stderr


def test_a_picture_named_twice_is_one_input() -> None:
    write("a.png")
    assert [one.name for one in find_inputs(["a.png", "./a.png", str(Path("a.png"))])] == ["a.png"]


def test_a_picture_of_many_tiles_gives_signs_of_life(monkeypatch: pytest.MonkeyPatch) -> None:
    write("a.png")
    monkeypatch.setattr(job_progress, "PLAIN_SECONDS", 0.0)
    done = run("predict", "a.png", "--scale", "native", "--tile", "4x4")
    assert done.exit_code == 0 and "tiles: 1, " in done.stderr
    assert "tiles" not in run("predict", "a.png", "--force").stderr


@pytest.mark.parametrize("rank", ["x", "", "2"])
def test_nonsense_in_the_environment_is_no_traceback(
    rank: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write("a.png")
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setenv("WORLD_SIZE", "2")
    done = run("predict", "a.png")
    assert done.exit_code == (2 if rank else 0)
    assert not rank or f"RANK={rank} and WORLD_SIZE=2" in done.stderr


def test_names_reach_the_terminal_without_what_it_would_obey() -> None:
    write("set/\x1b[31mred\nline.png")
    Path("set/\x1b]0;title.png").write_bytes(b"no picture")
    done = run("predict", "set")
    assert done.exit_code == 1
    assert "\x1b" not in done.output and "\\x1b[31mred\\nline" in done.stdout
    assert "\\x1b]0;title.png" in done.stderr


def test_only_letters_and_lines_are_visible() -> None:
    assert visible("Straße 東京\n") == "Straße 東京\n"
    assert visible("\x1b[0m\t\x9b\udcff\r") == "\\x1b[0m\\t\\x9b\\udcff\\r"


@pytest.mark.parametrize("word", ["nothing", "camvid-lite"])
def test_an_unknown_model_is_a_wrong_option(word: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predictor, "load", load)
    write("a.png")
    done = run("predict", "a.png", "--model", word)
    assert done.exit_code == 2 and f"There is no model {word}." in done.stderr
    assert "camvid-lite0" in done.stderr
    assert run("predict", "a.png", "--model", "runs/none-1").exit_code == 1


# --- the library ------------------------------------------------------------------------------


def test_tensors_are_channels_first_however_narrow() -> None:
    narrow = noise(0, (7, 3))
    tensor = torch.from_numpy(narrow.transpose(2, 0, 1).copy())
    for given in (narrow, tensor, tensor[None], Image.fromarray(narrow)):
        assert np.array_equal(as_rgb(given), narrow)


def test_a_pil_image_stays_as_it_stands_and_a_file_is_turned() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(noise()).save("turned.png", exif=exif)
    with Image.open("turned.png") as picture:
        assert load_colors()(picture).mask.shape == (9, 12)
    assert load_colors()("turned.png").mask.shape == (12, 9)


def test_many_pictures_may_be_of_any_kind() -> None:
    write("a.png", 1)
    many: list[Any] = ["a.png", Path("a.png"), Image.fromarray(noise(1)), noise(1)]
    masks = [found.mask for found in load_colors().predict_many(many, batch_size=3)]
    assert len(masks) == 4 and all(np.array_equal(mask, masks[0]) for mask in masks)
    with pytest.raises(DataError, match="is no picture"):
        list(load_colors().predict_many([3]))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda: load("camvid-lite0", precision="half"), "precision 'half'"),
        (lambda: load("camvid-lite0", tile=64), "height and a width"),
        (lambda: load("camvid-lite0", tile=(64, 0)), "height and a width"),
        (lambda: load("camvid-lite0", tta="yes"), "scales above 0"),
        (lambda: load("camvid-lite0", tta=(1, 9)), "scales above 0"),
        (lambda: load_colors()(noise()).overlay(1.5), "opacity"),
        (lambda: load_colors()(noise()).overlay(-0.1), "opacity"),
    ],
)
def test_wrong_wishes_are_refused_in_words(wrong: Callable[[], Segmenter], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        wrong()
