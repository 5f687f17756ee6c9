"""A whole validation split, files to mIoU: a plain loop, and ours.

    python benchmarks/evaluation.py [--data CAMVID] [--write]

The model in the box on 101 frames, float32, batches of 4.  The plain loop decodes with cv2,
normalises, pads, runs smp's network in torch, and adds up intersections and unions in numpy.  The
loop of this package is run over the same network in torch, as a training validates, and over the
engine that `evaluate camvid-lite0` takes on a CPU; then `evaluate` whole, with boundaries,
calibration and intervals.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from frames import PlainFrames, draw, opened, plain_transform
from side_by_side import alternate, options, publish, spread, times_faster
from torch.utils.data import DataLoader

from smp_camvid.data.camvid import CamVid
from smp_camvid.data.loaders import eval_loader
from smp_camvid.evaluation.evaluate import evaluate
from smp_camvid.evaluation.loop import evaluate_batches
from smp_camvid.evaluation.metrics import summarize
from smp_camvid.evaluation.split import open_split
from smp_camvid.inference import box
from smp_camvid.inference.predictor import Segmenter, load
from smp_camvid.models.network import Network

BATCH, CLASSES = 4, 11


@torch.no_grad()
def plain(dataset: CamVid, network: Network) -> float:
    """What one writes down; its mIoU is the package's, pooled over the split."""
    device = network.mean.device
    mean, std = network.mean.flatten().tolist(), network.std.flatten().tolist()
    transform = plain_transform([], (360, 480), smaller=False, mean=mean, std=std)
    frames = PlainFrames(dataset, "val", transform)
    model = network.model.eval()
    hit, union = np.zeros(CLASSES), np.zeros(CLASSES)
    for x, target in DataLoader(frames, batch_size=BATCH):
        x = x.to(device)
        pad = [-n % 32 for n in x.shape[-2:]]
        logits = model(F.pad(x, (0, pad[1], 0, pad[0])))[..., : x.shape[-2], : x.shape[-1]]
        found, truth = logits.argmax(1).cpu().numpy(), target.cpu().numpy()
        for index in range(CLASSES):
            there, said = truth == index, (found == index) & (truth != 255)
            hit[index] += np.logical_and(there, said).sum()
            union[index] += np.logical_or(there, said).sum()
    return float(np.mean(hit[union > 0] / union[union > 0]))


def ours(segmenter: Segmenter, data: Path) -> float:
    """The loop of validation and `evaluate`, from the frame cache."""
    cache = open_split(segmenter, data, "val", None)
    batches = eval_loader(cache, batch_size=BATCH)
    return summarize(evaluate_batches(segmenter, batches).matrix, cache.table).miou


def measure(data: Path, device: str, repeats: int) -> dict[str, Any]:
    """Seconds and mIoU of each way; ONNX Runtime only where it is what `evaluate` takes."""
    weights = box.find(box.DEFAULT) / "model.safetensors"
    in_torch = load(weights, device=device, precision="fp32")
    dataset, network = opened(data), in_torch.engine.network  # type: ignore[attr-defined]
    ways: dict[str, Callable[[], float]] = {
        "plain loop, torch": lambda: plain(dataset, network),
        "the package's loop, torch": lambda: ours(in_torch, data),
        "`evaluate`, torch": lambda: evaluate(in_torch, data)["miou"],
    }
    if device == "cpu":
        shipped = load(box.DEFAULT, device="cpu")
        ways["the package's loop, ONNX Runtime"] = lambda: ours(shipped, data)
        ways["`evaluate`, ONNX Runtime"] = lambda: evaluate(shipped, data)["miou"]
    scores: dict[str, float] = {}

    def scored(name: str, way: Callable[[], float]) -> Callable[[], None]:
        return lambda: scores.__setitem__(name, way())

    seconds = alternate({name: scored(name, way) for name, way in ways.items()}, repeats)
    return {"seconds": seconds, "miou": scores, "frames": len(dataset.split("val"))}


def row(name: str, found: dict[str, Any]) -> dict[str, str]:
    seconds = found["seconds"]
    return {
        "": name,
        "seconds": str(spread(seconds[name])),
        "frames/s": str(spread(seconds[name]).rate(found["frames"])),
        "times": str(times_faster(seconds["plain loop, torch"], seconds[name])),
        "mIoU": f"{found['miou'][name]:.4f}",
    }


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--data", type=Path, help="CamVid at 360x480; drawn frames if absent")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        os.environ.setdefault("SMP_CAMVID_CACHE", str(Path(place, "cache")))
        frames = 8 if given.quick else 101
        data = given.data or draw(Path(place, "drawn"), (360, 480), 1, frames)
        found = measure(data, "cpu", given.repeats)
    note = f"{found['frames']} frames of 360x480{'' if given.data else ', drawn'}."
    publish("evaluation", [row(name, found) for name in found["seconds"]], found, given, note)


if __name__ == "__main__":
    main()
