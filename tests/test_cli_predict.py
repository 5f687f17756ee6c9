"""`predict` with a run's own weights; test_predict.py has the rest of it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from command_line import array_of, run
from PIL import Image

pytestmark = pytest.mark.usefixtures("here")


def test_a_copied_weights_file_needs_no_run(a_run: Path) -> None:
    shutil.copy(a_run / "weights" / "last.safetensors", "mine.safetensors")
    Image.new("RGB", (30, 20)).save("img.png")
    done = run("predict", "img.png", "--model", "mine.safetensors", "--json")
    document = json.loads(done.stdout)
    assert sum(document[0]["shares"].values()) == pytest.approx(1)
    assert array_of(document[0]["files"]["overlay"]).shape == (20, 30, 3)


def pictures() -> dict[str, Image.Image]:
    rng = np.random.default_rng(1)
    rgb = Image.fromarray(rng.integers(0, 255, (33, 47, 3), np.uint8))
    deep = Image.fromarray(rng.integers(0, 65535, (33, 47)).astype(np.uint16))
    return {
        "rgb.png": rgb,
        "grey.png": rgb.convert("L"),
        "rgba.png": rgb.convert("RGBA"),
        "palette.png": rgb.convert("P"),
        "deep.png": deep,
        "photo.jpg": rgb,
        "one.png": Image.new("RGB", (1, 1)),
        "wide.png": Image.new("RGB", (300, 2)),
    }


def test_every_mode_and_size_gives_masks_of_the_input_size(a_run: Path) -> None:
    Path("in/below").mkdir(parents=True)
    for name, picture in pictures().items():
        picture.save(Path("in") / name)
    turned = pictures()["rgb.png"]
    exif = turned.getexif()
    exif[0x0112] = 6  # a quarter turn
    turned.save("in/turned.jpg", exif=exif)
    turned.save("in/below/deeper.png")
    done = run("predict", "in", "--model", a_run, "--recursive", "--scale", "native")
    assert done.exit_code == 0, done.output
    for name, picture in pictures().items():
        for kind in ("mask", "color", "overlay"):
            out = array_of(f"predictions/{Path(name).stem}_{kind}.png")
            assert out.shape[1::-1] == picture.size, name
    assert array_of("predictions/turned_mask.png").shape == (47, 33)
    assert Path("predictions/below/deeper_mask.png").is_file()
