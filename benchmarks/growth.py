"""How speed and memory grow with the frame, the batch, the width of the net and the dataset.

    python benchmarks/growth.py [--only frame,batch,width,dataset] [--write]

Each point in a process of its own: training steps of the vanilla U-Net (batch 4, 180x240,
16 channels unless that is what grows), and for the dataset one pass of samples through cache and
augmentation, in one process.  Docs get one picture each.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import torch
from frames import base_steps, draw, endless, opened
from matplotlib.ticker import NullLocator
from memory import resident
from side_by_side import DOCUMENT, digits, in_fresh_process, options, publish
from train_step import MEAN, STD, made_up, trainer_of

import smp_camvid
from smp_camvid.data.cache import FrameCache
from smp_camvid.data.classes import CAMVID11
from smp_camvid.data.loaders import train_loader
from smp_camvid.evaluation.speed import peak_of_process
from smp_camvid.models.network import Network

SIZE, BATCH, WIDTH = (180, 240), 4, 16
PICTURES = DOCUMENT.parent / "pictures"
GROWS: dict[str, tuple[str, list[int], list[int]]] = {
    "frame": ("frame height, pixels (width 4/3 of it)", [48, 96, 192, 288, 384, 576], [32, 48]),
    "batch": ("frames in a batch", [1, 2, 4, 8, 16, 32], [1, 2]),
    "width": ("base channels", [4, 8, 16, 32, 64], [2, 4]),
    "dataset": ("training frames", [100, 300, 1000, 3000, 10000, 20000], [20, 60]),
}
"""What grows -> its axis, its points, its points with --quick."""


def training(size: tuple[int, int], frames: int, width: int, repeats: int) -> dict[str, float]:
    """Images a second (median step) and bytes of a step."""
    torch.manual_seed(0)
    model = smp_camvid.create_model("vanilla", norm="batch", padding="same", base_channels=width)
    batch = made_up(frames, size, len(CAMVID11))
    network = Network(model, MEAN, STD, CAMVID11)
    trainer = trainer_of(network, batch, device="cpu")
    before, seconds = resident(), []
    for number in range(repeats + 1):
        began = time.perf_counter()
        trainer.train_step(batch)
        if number:
            seconds.append(time.perf_counter() - began)
    peak = peak_of_process() or 0
    # The fastest: what others do on the machine only ever adds to it.
    return {"images_per_second": frames / min(seconds), "bytes": peak - before}


def dataset(root: str, count: int, repeats: int) -> dict[str, float]:
    """Frames a second out of the cache and augmented, bytes of the process, what opening takes."""
    split = opened(Path(root))
    began = time.perf_counter()
    FrameCache.open(split, "train", SIZE[0], "image")
    decoded = time.perf_counter() - began
    began = time.perf_counter()
    cache = FrameCache.open(split, "train", SIZE[0], "image")
    again = time.perf_counter() - began
    before = resident()
    loader = train_loader(cache, size=SIZE, augment=base_steps(), batch_size=8, seed=0)
    batches, rates = endless(loader), []
    for _ in range(repeats):
        began = time.process_time()
        seen = sum(len(batch.image) for batch in islice(batches, 12))
        rates.append(seen / (time.process_time() - began))
    return {"images_per_second": max(rates), "bytes": (peak_of_process() or 0) - before,
            "decoding_seconds": decoded, "opening_seconds": again,
            "cache_bytes": cache.images.size + cache.labels.size, "frames": count}  # fmt: skip


def point(what: str, value: int, repeats: int, place: Path) -> dict[str, float]:
    if what == "dataset":
        data = draw(place / f"frames-{value}", SIZE, value)
        return dict(in_fresh_process(dataset, str(data), value, repeats))
    size = (value, value * 4 // 3) if what == "frame" else SIZE
    frames = value if what == "batch" else BATCH
    width = value if what == "width" else WIDTH
    return dict(in_fresh_process(training, size, frames, width, repeats))


def picture(what: str, values: list[int], found: list[dict[str, float]]) -> Path:
    """Images a second above, memory below, over what grows; both axes logarithmic."""
    figure, (above, below) = plt.subplots(2, 1, figsize=(5.2, 5), sharex=True, layout="tight")
    above.plot(values, [one["images_per_second"] for one in found], "o-", color="#0072b2")
    above.set_ylabel("images/s" if what != "dataset" else "augmented frames/s, one core")
    below.plot(values, [one["bytes"] / 2**20 for one in found], "o-", color="#d55e00")
    if what == "dataset":
        sizes = [one["cache_bytes"] / 2**20 for one in found]
        below.plot(values, sizes, "s--", color="#009e73", label="cache on the disk")
        below.lines[0].set_label("process")
        below.legend()
    below.set_ylabel("MiB of a step" if what != "dataset" else "MiB")
    below.set_xlabel(GROWS[what][0])
    for axes in (above, below):
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.grid(alpha=0.3, which="both")
    if what == "dataset":  # level: a logarithmic axis would show its noise
        above.set_yscale("linear")
        above.set_ylim(bottom=0)
    above.set_xticks(values, [f"{value:,}" for value in values], fontsize=8)
    above.xaxis.set_minor_locator(NullLocator())
    below.xaxis.set_minor_locator(NullLocator())
    path = PICTURES / f"growth-{what}.png"
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path


def work_per_image(what: str) -> Callable[[int], float]:
    """How much one image is, up to a factor: pixels, or channels squared."""
    return {"frame": lambda v: v * v, "width": lambda v: v * v}.get(what, lambda v: 1)


def row(what: str, value: int, found: dict[str, float], first: dict[str, float], least: int) -> Any:
    """`pace`: work a second, of which the first point has 1."""
    work = work_per_image(what)
    pace = found["images_per_second"] * work(value)
    pace /= first["images_per_second"] * work(least)
    more = ""
    if what == "dataset":
        more = (
            f"decoding {digits(found['decoding_seconds'])} s once, then opened in "
            f"{digits(found['opening_seconds'])} s; {digits(found['cache_bytes'] / 2**20)} MiB"
        )
    return {
        "grows": what,
        "": f"{value:,}",
        "images/s": digits(found["images_per_second"]),
        "work a second, the first being 1": digits(pace),
        "MiB": digits(found["bytes"] / 2**20),
        "cache": more,
    }


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--only", default=",".join(GROWS))
    given = parser.parse_args()
    measured: dict[str, Any] = {}
    rows = []
    with tempfile.TemporaryDirectory() as place:
        os.environ["SMP_CAMVID_CACHE"] = str(Path(place, "cache"))
        for what in given.only.split(","):
            values = GROWS[what][2 if given.quick else 1]
            found = [point(what, value, given.repeats, Path(place)) for value in values]
            measured[what] = dict(zip(values, found, strict=True))
            rows += [row(what, v, one, found[0], values[0])
                     for v, one in zip(values, found, strict=True)]  # fmt: skip
            if given.write:
                picture(what, values, found)
    publish(
        "growth", rows, measured, given, f"Else {SIZE[0]}x{SIZE[1]}, {BATCH} frames, 16 channels."
    )


if __name__ == "__main__":
    main()
