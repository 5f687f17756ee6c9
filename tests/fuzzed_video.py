"""Damages a video in many ways and segments each, in a process of its own: a crash is seen there.

    python fuzzed_video.py VIDEO FOLDER COUNT SEED

prints a JSON line for each mutant, and before them one for the video as it is: what became of it,
how many frames came out, seconds, and the most memory the process has had so far, in MiB.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from smp_camvid.data.classes import CAMVID11
from smp_camvid.errors import DataError
from smp_camvid.inference.prediction import Prediction
from smp_camvid.inference.video import segment_video


class Bands:
    """Stands in for a network, which sees only decoded frames: the class is the brightness."""

    def predict_many(self, images: Iterable[Any], batch_size: int = 1) -> Iterator[Prediction]:
        for image in images:
            yield Prediction(image, image[..., 1] // 24, CAMVID11, lambda: np.zeros((1, 1, 1)))


def box(data: bytes, name: bytes) -> tuple[int, int]:
    """Where an MP4 box begins and ends; all of the file where there is none."""
    at = data.find(name) - 4
    return (at, at + int.from_bytes(data[at : at + 4], "big")) if at >= 0 else (0, len(data))


def mutant(data: bytes, rng: np.random.Generator) -> tuple[str, bytes]:
    """One damaged copy, and what was done to it."""
    how = rng.choice(["moov", "mdat", "anywhere", "cut", "hole"])
    damaged = bytearray(data)
    if how == "cut":
        return how, data[: int(rng.integers(1, len(data)))]
    if how == "hole":
        at = int(rng.integers(len(data)))
        del damaged[at : at + int(rng.integers(1, 2000))]
        return how, bytes(damaged)
    begin, end = box(data, how.encode()) if how != "anywhere" else (0, len(data))
    for at in rng.integers(begin + 8, max(begin + 9, min(end, len(data))), rng.choice([1, 3, 20])):
        # Sizes and counts hold zeros: extremes hurt more than neighbours.
        damaged[at] = rng.choice([0, 1, 127, 128, 255, int(rng.integers(256))])
    return how, bytes(damaged)


def outcome(path: Path, folder: Path) -> dict[str, Any]:
    start = time.monotonic()
    try:
        done = segment_video(Bands(), path, folder, "clip", ["mask", "overlay"])  # type: ignore[arg-type]
        became: dict[str, Any] = {"became": "done", "frames": done.frames, "notes": done.notes}
        became["damaged"] = done.damaged
    except DataError as error:
        became = {"became": "refused", "frames": 0, "notes": [str(error)]}
    became["seconds"] = time.monotonic() - start
    became["mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    became["left"] = sorted(p.name for p in folder.glob(".*")) if folder.exists() else []
    return became


def main(source: Path, folder: Path, count: int, seed: int) -> None:
    data, rng = source.read_bytes(), np.random.default_rng(seed)
    print(json.dumps({"how": "whole", **outcome(source, folder)}), flush=True)
    for number in range(count):
        how, damaged = mutant(data, rng)
        path = folder.parent / (f"mutant{number}{source.suffix}")
        path.write_bytes(damaged)
        print(json.dumps({"how": how, "file": str(path)}), file=sys.stderr, flush=True)
        print(json.dumps({"how": how, **outcome(path, folder)}), flush=True)
        path.unlink()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
