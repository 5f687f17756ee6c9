"""The synthetic dataset: drawn road scenes in the layout and palette of Kaggle's CamVid.

Its splits behave like CamVid's: val is a stretch of one drive that is also in train, most of test
is a drive never seen in training, in another light; one training drive is at dusk.  The same seed
gives the same bytes, whatever the order the frames are drawn in.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np

from smp_camvid.data.classes import CAMVID32
from smp_camvid.data.room import check_room
from smp_camvid.data.scene import Camera, Picture, Street, draw
from smp_camvid.data.street import lay_out
from smp_camvid.errors import DataError

VERSION = "2"
SPLITS: Mapping[str, int] = {"train": 140, "val": 30, "test": 40}
FRAME_STEP = 4.0  # metres between two annotated frames of a drive, about a second
OnProgress = Callable[[int, int], None]


@dataclass(frozen=True)
class Shot:
    """One frame to draw: where it goes, which drive, and how far down the street."""

    split: str
    drive: str
    number: int
    street: int  # a drive turns into another street every so often

    @property
    def stem(self) -> str:
        return f"{self.drive}_{self.number * 30:06d}"


# Drive -> the share of each split filmed on it; the first is val's.
_DRIVES: Mapping[str, Mapping[str, float]] = {
    "Syn01": {"train": 0.5, "val": 1.0, "test": 0.1},
    "Syn02": {"train": 0.3, "test": 0.1},
    "Syn03": {"train": 0.2, "test": 0.1},
    "Syn04": {"test": 0.7},
}
_WEATHER = {"Syn01": "changing", "Syn02": "clear", "Syn03": "dusk", "Syn04": "low"}
_FRAMES_A_STREET = 6
_STREET_LENGTH = 120.0  # metres: what the last frame of a street still sees


def plan(frames: Mapping[str, int]) -> list[Shot]:
    """All frames, each drive's in the order they are filmed: train, then val, then test."""
    shots: list[Shot] = []
    for drive, shares in _DRIVES.items():
        number = 0
        for split in ("train", "val", "test"):
            last = [d for d, s in _DRIVES.items() if split in s][-1] == drive
            before = sum(s.split == split for s in shots)
            wanted = frames.get(split, 0)
            count = wanted - before if last else round(shares.get(split, 0) * wanted)
            for _ in range(count if split in shares else 0):
                shots.append(Shot(split, drive, number, number // _FRAMES_A_STREET))
                number += 1
    return shots


def render(shot: Shot, size: tuple[int, int], seed: int) -> tuple[Picture, Picture]:
    """RGB `[H, W, 3]` and the label `[H, W]` of the 32 classes."""
    drive = list(_DRIVES).index(shot.drive)
    street = _street(seed, drive, shot.street)
    rng = np.random.default_rng((seed, drive, shot.street, shot.number))
    height, width = size
    sway = np.sin(1.3 * shot.number + drive)  # the car rolls on; bumps and corners do the rest
    camera = Camera(
        size,
        horizon=height * (0.46 + 0.06 * sway + rng.uniform(-0.04, 0.04)),
        center=width * (0.5 + 0.13 * sway + rng.uniform(-0.08, 0.08)),
        height=1.4,
        offset=street.half_road * rng.uniform(0.25, 0.55),
    )
    position = (shot.number % _FRAMES_A_STREET) * FRAME_STEP
    return draw(street, camera, position, rng)


@lru_cache(maxsize=8)
def _street(seed: int, drive: int, number: int) -> Street:
    rng = np.random.default_rng((seed, drive, number))
    return lay_out(rng, _STREET_LENGTH, _WEATHER[list(_DRIVES)[drive]])


def generate(
    root: Path,
    *,
    frames: Mapping[str, int] | None = None,
    size: tuple[int, int] = (360, 480),
    seed: int = 0,
    on_progress: OnProgress | None = None,
) -> Path:
    """Writes the dataset to `root`, whole or not at all; returns it.

    `frames` per split, `size` height and width.  Raises DataError when `root` is there already
    and not empty, or cannot be written.
    """
    root = Path(root)
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise DataError(f"{root} exists and is not empty.", "Name another folder with --to.")
    shots = plan(SPLITS if frames is None else frames)
    try:
        root.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{root.name}.", dir=root.parent) as made:
            drawing = Path(made) / "data"
            _write_all(drawing, shots, size, seed, on_progress)
            if root.exists():
                root.rmdir()
            drawing.rename(root)
    except OSError as error:
        reason = error.strerror or error
        raise DataError(f"The synthetic dataset cannot be written to {root}: {reason}.") from error
    return root


def _write_all(
    root: Path, shots: list[Shot], size: tuple[int, int], seed: int, on_progress: OnProgress | None
) -> None:
    for shot in shots:
        for folder in (shot.split, f"{shot.split}_labels"):
            (root / folder).mkdir(parents=True, exist_ok=True)

    def write(shot: Shot) -> None:
        image, label = render(shot, size, seed)
        _save(root / shot.split / f"{shot.stem}.png", image)
        _save(root / f"{shot.split}_labels" / f"{shot.stem}_L.png", CAMVID32.palette[label])

    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        for done, _ in enumerate(pool.map(write, shots), start=1):
            if on_progress is not None:
                on_progress(done, len(shots))
    rows = [
        f"{n}, {r}, {g}, {b}" for n, (r, g, b) in zip(CAMVID32.names, CAMVID32.colors, strict=True)
    ]
    (root / "class_dict.csv").write_text("\n".join(["name, r, g, b", *rows]) + "\n")
    manifest = {"source": "synthetic", "version": VERSION, "seed": seed, "size": list(size)}
    (root / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")


def _save(path: Path, rgb: Picture) -> None:
    # Light compression: the frames are noise, and drawing should not wait for zlib.
    done, data = cv2.imencode(".png", rgb[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 1])
    assert done
    path.write_bytes(data.tobytes())


class SyntheticSource:
    """The source of `smp-camvid download --source synthetic`."""

    name = "synthetic"
    description = "procedurally drawn road scenes, in seconds, without the network"

    def fetch(self, target: Path, on_progress: OnProgress | None = None) -> Path:
        """Draws the default dataset into `target`."""
        check_room(target, 200_000_000, "its frames")
        return generate(target, on_progress=on_progress)
