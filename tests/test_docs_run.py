"""What the docs tell people to do is done: the tutorial, the how-tos, the blocks of Python.

Commands run as they are written, in order, in an empty folder that has what the page talks about.
Two things differ: `train` gets the options of QUICK behind its own, and what reaches the network
(ELSEWHERE) is left out, its result having been put in place.
"""

from __future__ import annotations

import csv
import importlib
import json
import re
import shutil
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from command_line import run
from conftest import write_pair, write_segnet
from docs_blocks import ROOT, Block, all_blocks, blocks_of
from PIL import Image
from synthetic_video import make_video

from smp_camvid import registry
from smp_camvid.data import synthetic
from smp_camvid.data.classes import ClassTable

DOCS = ROOT / "docs"
QUICK = [
    "--size", "96x128", "--epochs", "1", "--batch-size", "2", "--workers", "0",
    "--precision", "fp32", "--no-save-plots",
]  # fmt: skip
SMALLER = {"unet-lite0": ["--set", "data.crop=[64,96]"]}
"""What a recipe needs beside QUICK."""
ELSEWHERE = ("python3 -m venv", ". .venv/", "pip install", "smp-camvid download --source segnet")

pytestmark = pytest.mark.slow


def road(size: tuple[int, int] = (90, 120), number: int = 0) -> np.ndarray:
    shot = synthetic.plan(synthetic.SPLITS)[number]
    return synthetic.render(shot, size, seed=0)[0]


def follow(page: str) -> list[str]:
    """Runs the commands of a page from top to bottom; returns those that were run."""
    done = []
    for block in blocks_of(DOCS / page):
        if block.language == "":
            done += [" ".join(words) for words in block.commands if follow_one(words)]
    return done


def follow_one(words: list[str]) -> bool:
    line = " ".join(words)
    if line.startswith(ELSEWHERE):
        return False
    assert words[0] == "smp-camvid", line
    if words[1] == "train":
        words = [*words, *QUICK, *next((v for k, v in SMALLER.items() if k in words), [])]
    result = run(*words[1:])
    assert result.exit_code == 0, f"{line}\n{result.output}"
    return True


@pytest.fixture
def few_scenes(monkeypatch: pytest.MonkeyPatch) -> None:
    """`download --source synthetic` draws ten."""
    monkeypatch.setattr(synthetic, "SPLITS", {"train": 6, "val": 2, "test": 2})


def test_the_tutorial(here: Path, few_scenes: None) -> None:
    Image.fromarray(road()).save("img.png")
    make_video(Path("drive.mp4"), [road(number=n) for n in range(3)])
    write_segnet(here / "data" / "camvid")
    done = follow("tutorial.md")
    assert len(done) >= 14
    for name in (
        "frames.png", "runs/quick-1/report.html", "runs/quick-1/weights/last.safetensors",
        "runs/unet-lite0-1/config.toml", "predictions/img_overlay.png", "with-mine/img_mask.png",
        "with-theirs/img_mask.png", "predictions/drive_overlay.mp4",
    ):  # fmt: skip
        assert Path(name).is_file(), name


def test_the_own_dataset(here: Path) -> None:
    """The folder and the class_dict.csv of the page, then its commands."""
    tree, table = (b.text for b in blocks_of(DOCS / "howto-own-dataset.md") if b.language == "text")
    root = Path(tree.splitlines()[0])
    rows = list(csv.DictReader(table.splitlines()))
    colors = tuple((int(row["r"]), int(row["g"]), int(row["b"])) for row in rows)
    classes = ClassTable("dataset", tuple(row["name"] for row in rows), colors, len(rows) - 1)
    rng = np.random.default_rng(0)
    for split, day in (("train", "monday"), ("val", "tuesday")):
        for number in range(1, 5 if split == "train" else 3):
            name = f"{split}/{day}_{number:04d}"
            pair = (root / "images" / f"{name}.jpg", root / "masks" / f"{name}.png")
            write_pair(*pair, rng, classes, (96, 160), colored=True)
    (root / "class_dict.csv").write_text(table)
    Image.fromarray(road()).save("monday.jpg")
    runs = Path("runs/camvid-lite0-1/weights")
    runs.mkdir(parents=True)
    shutil.copy(ROOT / "smp_camvid/box/camvid-lite0/model.safetensors", runs / "last.safetensors")
    (runs.parent / "config.toml").write_text((ROOT / "recipes" / "camvid-lite0.toml").read_text())
    assert len(follow("howto-own-dataset.md")) == 7
    assert Path("roads.png").is_file() and Path("predictions/monday_mask.png").is_file()
    scores = json.loads(run("evaluate", "--json").stdout)
    assert f"`{scores['protocol']}`" in (DOCS / "howto-own-dataset.md").read_text()


@pytest.fixture
def installed_plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The package of docs/howto-plugin.md, as pip would have installed it."""
    parts = [b for b in blocks_of(DOCS / "howto-plugin.md") if b.language in ("toml", "python")]
    project = tomllib.loads(parts[0].text)["project"]
    place = tmp_path / "site-packages"
    info = place / f"{project['name']}-{project['version']}.dist-info"
    info.mkdir(parents=True)
    (place / "roadnet.py").write_text("\n\n".join(b.text for b in parts[1:]))
    name = f"Name: {project['name']}\nVersion: {project['version']}\n"
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\n{name}")
    lines = []
    for group, entries in project["entry-points"].items():
        lines += [f"[{group}]", *(f"{key} = {value}" for key, value in entries.items())]
    (info / "entry_points.txt").write_text("\n".join(lines))
    monkeypatch.syspath_prepend(str(place))
    importlib.invalidate_caches()
    yield place
    sys.modules.pop("roadnet", None)


def test_the_plugin(installed_plugin: Path, here: Path) -> None:
    assert not {
        **registry.broken_plugins(registry.MODELS),
        **registry.broken_plugins(registry.SOURCES),
    }
    synthetic.generate(Path("data/camvid"), frames={"train": 4, "val": 2}, size=(96, 128))
    done = follow("howto-plugin.md")
    assert len(done) >= 5
    losses = sorted(Path("runs").glob("*/losses.txt"))
    assert len(losses) == 1 and re.fullmatch(r"1 \d+\.\d{4}\n", losses[0].read_text())
    Image.fromarray(road()).save("img.png")
    assert run("predict", "img.png").exit_code == 0  # rebuilt from its weights


# --- the blocks of Python --------------------------------------------------------------------

SHORTER = {"epochs=50": "epochs=1", "size=(180, 240)": "size=(36, 48)"}


@pytest.fixture(scope="module")
def workplace(a_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the blocks name: a dataset, runs, exported models, pictures and a predicted video."""
    place = tmp_path_factory.mktemp("workplace")
    write_segnet(place / "data" / "camvid", size=(36, 48))
    shutil.copytree(a_run, place / "runs" / "vanilla-1")
    Image.fromarray(road()).save(place / "img.png")
    make_video(place / "drive.mp4", [road(number=n) for n in range(3)])
    for words in (
        ("export", a_run, "--out", place / "vanilla-1.onnx"),
        ("export", a_run, "--format", "pt2", "--out", place / "camvid-lite0.pt2"),
        ("predict", place / "drive.mp4", "--model", a_run, "--out", place / "predictions"),
    ):
        done = run(*words)
        assert done.exit_code == 0, done.output
    return place


BLOCKS = [b for b in all_blocks("python") if b.page.name != "howto-plugin.md"]  # run above


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_a_block_of_python(
    block: Block,
    workplace: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    import torch

    monkeypatch.chdir(workplace)
    code = block.text
    for shown, shorter in SHORTER.items():
        code = code.replace(shown, shorter)
    names = {"frames": [road(), road(number=1)], "image": torch.zeros(1, 3, 64, 64)}
    exec(compile(code, str(block), "exec"), names)
    promised = re.findall(r"^print\(.*\)  # (.+)$", code, re.MULTILINE)
    if promised:
        assert capsys.readouterr().out.splitlines() == promised
