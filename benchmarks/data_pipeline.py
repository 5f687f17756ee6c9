"""Training frames a second and core: cv2.imread with albumentations, and ours; the wait for them.

    python benchmarks/data_pipeline.py [--data CAMVID] [--write]

Both make batches of 8 at 360x480 with the steps of the recipe `base` (scale, mirror, colours, pad,
crop), in one thread, and normalise them.  Seconds are CPU seconds, so what else the machine does
counts little.  The wait is that of real trainings, from their timing.jsonl.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import torch
from frames import MEAN, STD, PlainFrames, base_steps, draw, endless, opened, plain_transform
from side_by_side import alternate, digits, options, publish, spread, times_faster
from torch.utils.data import DataLoader

from smp_camvid import runs
from smp_camvid.data.cache import FrameCache
from smp_camvid.data.camvid import CamVid
from smp_camvid.data.loaders import train_loader
from smp_camvid.recipe import resolve
from smp_camvid.training.experiment import build_trainer

SIZE, BATCH = (360, 480), 8


def measure(name: str, dataset: CamVid, smaller: bool, batches: int, repeats: int) -> Any:
    began = time.process_time()
    cache = FrameCache.open(dataset, "train", SIZE[0], "image")
    built = time.process_time() - began
    steps = base_steps()
    plain_set = PlainFrames(dataset, "train", plain_transform(steps, SIZE, smaller))
    plain = endless(DataLoader(plain_set, batch_size=BATCH, shuffle=True))
    ours = endless(train_loader(cache, size=SIZE, augment=steps, batch_size=BATCH, seed=0))
    mean = torch.tensor(MEAN).view(-1, 1, 1) * 255
    factor = 1 / (255 * torch.tensor(STD).view(-1, 1, 1))

    def normalised() -> None:  # what the network does with a batch on the device
        for batch in islice(ours, batches):
            (batch.image - mean) * factor

    ways = {"plain": lambda: list(islice(plain, batches)), "ours": normalised}
    seconds = alternate(ways, repeats, clock=time.process_time)
    return {"frames": name, "batches": batches, "seconds": seconds,
            "decoded_once_seconds": built, "decoded_frames": len(cache)}  # fmt: skip


def row(found: Any) -> dict[str, str]:
    frames, seconds = found["batches"] * BATCH, found["seconds"]
    return {
        "frames": found["frames"],
        "cv2.imread and albumentations, frames/s": str(spread(seconds["plain"]).rate(frames)),
        "ours, frames/s": str(spread(seconds["ours"]).rate(frames)),
        "times": f"**{times_faster(seconds['plain'], seconds['ours'])}**",
    }


def wait(data: Path, recipe: str, workers: int, epochs: int, given: list[Any]) -> dict[str, Any]:
    """A real training; the wait for data in its last epoch, the first having the workers' start.

    The wait is timed around the steps of training alone: validation is not in it.
    """
    with tempfile.TemporaryDirectory() as folder:
        chosen = resolve(recipe, [
            ("data.path", str(data)), ("data.split_source", opened(data).split_source),
            ("train.save_dir", folder), ("train.workers", workers), ("train.epochs", epochs),
            ("train.val_every", epochs), ("train.save_plots", False), ("train.verbose", 0), *given,
        ]).recipe  # fmt: skip
        trainer = build_trainer(chosen, listeners=[])
        trainer.train()
        lines = runs.read_lines(trainer.run_dir / "timing.jsonl")
        steps = trainer.steps_per_epoch
        frames = steps * chosen.train.frames_per_batch
    last = lines[-1]
    return {"recipe": recipe, "workers": workers, "steps": steps, "epoch": last,
            "share": last["data_wait_seconds"] / (frames / last["images_per_second"])}  # fmt: skip


def wait_row(found: dict[str, Any]) -> dict[str, str]:
    return {
        "recipe": found["recipe"],
        "workers": str(found["workers"]),
        "images/s": digits(found["epoch"]["images_per_second"]),
        "wait for data, s an epoch": digits(found["epoch"]["data_wait_seconds"]),
        "share of the epoch": f"{found['share']:.1%}",
    }


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--data", type=Path, help="CamVid at 360x480; drawn frames if absent")
    parser.add_argument("--only", choices=["frames", "wait"], default="")
    given = parser.parse_args()
    batches, drawn = (1, 12) if given.quick else (6, 50)
    torch.set_num_threads(torch.get_num_threads())
    with tempfile.TemporaryDirectory() as place:
        os.environ.setdefault("SMP_CAMVID_CACHE", str(Path(place, "cache")))
        data = given.data or draw(Path(place, "small"), SIZE, drawn, 4)
        if given.only != "wait":
            told = "CamVid" if given.data else "drawn"
            kinds = [
                (f"360x480 PNG, {told}", opened(data), False),
                ("720x960 PNG, drawn", opened(draw(Path(place, "large"), (720, 960), drawn)), True),
            ]
            threads = torch.get_num_threads()
            torch.set_num_threads(1)
            cv2.setNumThreads(1)
            found = [
                measure(name, dataset, smaller, batches, given.repeats)
                for name, dataset, smaller in kinds
            ]
            torch.set_num_threads(threads)
            built = "; ".join(
                f"{digits(one['decoded_frames'] / one['decoded_once_seconds'])} frames/s"
                for one in found
            )
            note = f"One thread, CPU seconds. Decoding once, into the cache: {built}."
            publish("data_pipeline", [row(one) for one in found], found, given, note)
        if given.only != "frames":
            runs_ = [("unet-lite0", workers, []) for workers in (0, 1, 2)]
            if given.quick:
                little = [("model.base_channels", 4), ("data.size", [48, 64]), ("train.lr", 1e-4)]
                runs_ = [("quick", 1, little)]
            waits = [wait(data, name, n, 1 if given.quick else 2, more) for name, n, more in runs_]
            print(json.dumps(waits[0]))
            publish("data_wait", [wait_row(one) for one in waits], waits, given)


if __name__ == "__main__":
    main()
