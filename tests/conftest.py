"""Fixtures for all tests: caches away from home, the real frames where there are any, tiny sets."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from command_line import TRAIN, run
from hypothesis import settings
from kaggle_server import Server, serving, zip_of
from PIL import Image

from smp_camvid.data.camvid import standard_stems
from smp_camvid.data.classes import CAMVID11, CAMVID32, ClassTable

# Their fixtures are for the tests of one subject each, which are in several modules.
pytest_plugins = ["downloads", "judged_roads", "logged", "page_server", "page_visit"]

Picture = npt.NDArray[np.uint8]
MakeDataset = Callable[..., Path]

# Machines may be busy: an example may take its time.
settings.register_profile("patient", deadline=None, database=None)
settings.load_profile("patient")


@pytest.fixture(scope="session", autouse=True)
def own_user_folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Nothing a test does reaches the user's caches; subprocesses inherit it."""
    home = tmp_path_factory.mktemp("user")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SMP_CAMVID_CACHE", str(home / "smp-camvid"))
        patch.setenv("XDG_CACHE_HOME", str(home / "cache"))
        patch.setenv("XDG_DATA_HOME", str(home / "data"))
        torch.set_num_threads(2)
        yield


@pytest.fixture(scope="session")
def real_data() -> Path:
    """A folder with the real frames of CamVid; without one the test is skipped."""
    path = Path(os.environ.get("SMP_CAMVID_TEST_DATA") or "data/camvid")
    if not path.is_dir():
        reason = f"no real CamVid frames in {path} (set SMP_CAMVID_TEST_DATA)"
        if os.environ.get("SMP_CAMVID_REQUIRE_DATA") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    return path.resolve()


def draw_labels(rng: np.random.Generator, classes: int, size: tuple[int, int]) -> Picture:
    """Random rectangles of class indices `[H, W]`."""
    height, width = size
    label = np.full(size, rng.integers(classes), np.uint8)
    for value in rng.integers(classes, size=12):
        y, x = int(rng.integers(height)), int(rng.integers(width))
        label[y : y + height // 3, x : x + width // 3] = value
    return label


def draw_frame(rng: np.random.Generator, label: Picture, table: ClassTable) -> Picture:
    """A frame that shows its label: class colours and noise."""
    noise = rng.integers(0, 24, (*label.shape, 3))
    return (table.palette[label] * 0.8 + noise).astype(np.uint8)


def write_pair(
    image: Path,
    label: Path,
    rng: np.random.Generator,
    table: ClassTable,
    size: tuple[int, int],
    colored: bool,
) -> None:
    indices = draw_labels(rng, len(table), size)
    for path, array in (
        (image, draw_frame(rng, indices, table)),
        (label, table.palette[indices] if colored else indices),
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(array).save(path)


def write_class_dict(path: Path, table: ClassTable) -> None:
    """As Kaggle has it, with stray spaces after the commas."""
    rows = [f"{n}, {r}, {g}, {b}" for n, (r, g, b) in zip(table.names, table.colors, strict=True)]
    path.write_text("\n".join(["name, r, g, b", *rows, ""]))


OWN = ClassTable(
    "dataset", ("Lane", "Kerb", "Rest", "Void"), ((1, 2, 3), (250, 0, 9), (7, 7, 7), (0, 0, 0)), 3
)


def camvid_stems(counts: Mapping[str, int]) -> dict[str, list[str]]:
    return {split: list(standard_stems(split)[:n]) for split, n in counts.items()}


def own_stems(counts: Mapping[str, int]) -> dict[str, list[str]]:
    return {split: [f"{split}drive_{i:04d}" for i in range(n)] for split, n in counts.items()}


TINY = {"train": 5, "val": 3}


def write_kaggle(
    root: Path,
    stems: Mapping[str, Sequence[str]],
    size: tuple[int, int],
    table: ClassTable = CAMVID32,
) -> Path:
    rng = np.random.default_rng(0)
    for split, names in stems.items():
        for stem in names:
            image = root / split / f"{stem}.png"
            label = root / f"{split}_labels" / f"{stem}_L.png"
            write_pair(image, label, rng, table, size, colored=True)
    write_class_dict(root / "class_dict.csv", table)
    return root


@pytest.fixture
def make_kaggle(tmp_path: Path) -> MakeDataset:
    """Writes a dataset in the Kaggle layout; `stems` maps folder to file stems."""

    def make(
        stems: Mapping[str, Sequence[str]] | None = None,
        size: tuple[int, int] = (48, 64),
        name: str = "kaggle",
        table: ClassTable = CAMVID32,
    ) -> Path:
        return write_kaggle(tmp_path / name, stems or camvid_stems(TINY), size, table)

    return make


def write_segnet(
    root: Path, stems: Mapping[str, Sequence[str]] | None = None, size: tuple[int, int] = (48, 64)
) -> Path:
    """Writes a dataset in the SegNet layout: grey index labels, 11 for void."""
    rng = np.random.default_rng(1)
    for split, names in (stems or camvid_stems(TINY)).items():
        for stem in names:
            label = root / f"{split}annot" / f"{stem}.png"
            write_pair(root / split / f"{stem}.png", label, rng, CAMVID11, size, colored=False)
            indices = np.array(Image.open(label))
            indices[:4] = 11
            Image.fromarray(indices).save(label)
    return root


@pytest.fixture
def make_segnet(tmp_path: Path) -> MakeDataset:
    """`write_segnet` in a folder of the test's own."""
    return partial(write_segnet, tmp_path / "segnet")


@pytest.fixture(scope="module")
def short_segnet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nine tiny frames to train on and three to validate, for all tests of a module."""
    stems = {"train": standard_stems("train")[:9], "val": standard_stems("val")[:3]}
    root = tmp_path_factory.mktemp("segnet")
    return write_segnet(root, {split: list(names) for split, names in stems.items()}, (36, 48))


@pytest.fixture
def make_own(tmp_path: Path) -> MakeDataset:
    """Writes somebody's own roads: images/ and masks/ with train/ and val/, three classes."""

    def make(
        stems: Mapping[str, Sequence[str]] | None = None, size: tuple[int, int] = (40, 56)
    ) -> Path:
        root, rng = tmp_path / "own", np.random.default_rng(2)
        for split, names in (stems or own_stems(TINY)).items():
            for stem in names:
                image = root / "images" / split / f"{stem}.png"
                label = root / "masks" / split / f"{stem}.png"
                write_pair(image, label, rng, OWN, size, colored=True)
        write_class_dict(root / "class_dict.csv", OWN)
        return root

    return make


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder; what a command leaves by relative names is in it."""
    place = tmp_path / "here"
    place.mkdir()
    monkeypatch.chdir(place)
    return place


@pytest.fixture(scope="session")
def a_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run trained on three tiny frames of noise (in data beside runs); tests only read it."""
    root = tmp_path_factory.mktemp("shared")
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for stem in standard_stems(split)[:3]:
            for folder, array in (
                (split, rng.integers(0, 255, (48, 64, 3), np.uint8)),
                (f"{split}annot", rng.integers(0, 12, (48, 64)).astype(np.uint8)),
            ):
                (root / "data" / folder).mkdir(parents=True, exist_ok=True)
                Image.fromarray(array).save(root / "data" / folder / f"{stem}.png")
    done = run(*TRAIN, "--data", root / "data", "--save-dir", root / "runs", "--verbose", 0)
    assert done.exit_code == 0, done.output
    return Path(done.stdout.strip())


@pytest.fixture(scope="session")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight pairs in the Kaggle layout, big enough for an archive to be cut in several places.

    One for all tests: whoever changes something changes a copy.
    """
    root = tmp_path_factory.mktemp("original") / "CamVid"
    return write_kaggle(root, camvid_stems(TINY), (150, 200))


@pytest.fixture(scope="session")
def archive(original: Path) -> bytes:
    """`original` as Kaggle has it."""
    return zip_of(original, "CamVid/")


@pytest.fixture
def server(archive: bytes) -> Iterator[Server]:
    """A loopback server that has the archive."""
    with serving(archive) as state:
        yield state


@pytest.fixture
def kaggle_data(make_kaggle: MakeDataset) -> Path:
    """5 train and 3 val frames, 48x64, Kaggle layout, CamVid's own stems."""
    return make_kaggle()


@pytest.fixture
def segnet_data(make_segnet: MakeDataset) -> Path:
    """5 train and 3 val frames, 48x64, SegNet layout, CamVid's own stems."""
    return make_segnet()


@pytest.fixture
def own_data(make_own: MakeDataset) -> Path:
    """5 train and 3 val frames, 40x56, plain layout, classes Lane, Kerb, Rest and Void."""
    return make_own()
