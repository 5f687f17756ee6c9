"""A training step: the first notebook's loop, the same with two flags set by hand, and ours.

    python benchmarks/train_step.py [--models vanilla-64,unet-resnet34] [--write]

The same weights to begin with, the same frames (224x224, batch 4, 32 classes), the same threads.
Ours is `Trainer.train_step` as it runs in `smp-camvid train`: labels checked, frames normalised,
loss, gradient checked, update, confusion matrix.  The other loops get frames that somebody has
normalised for them.
"""

from __future__ import annotations

import copy
import json
from typing import Any

import torch
from plain_training import PENALTY, PlainLoop
from side_by_side import alternate, options, publish, spread, times_faster

import smp_camvid
from smp_camvid.data.classes import CAMVID32
from smp_camvid.data.loaders import Batch
from smp_camvid.models.network import Network
from smp_camvid.models.pretrained import CAMVID_NORMALIZATION
from smp_camvid.training.trainer import Trainer

SIZE, FRAMES = (224, 224), 4


def _same(width: int) -> dict[str, Any]:
    return {"norm": "batch", "padding": "same", "base_channels": width, "dropout": 0.0}


MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    **{f"vanilla-{width}": ("vanilla", _same(width)) for width in (4, 16, 32, 64)},
    "unet-lite0": ("unet", {"encoder_name": "tu-tf_efficientnet_lite0"}),
    "unet-resnet34": ("unet", {"encoder_name": "resnet34"}),
    "deeplabv3plus-resnet34": ("deeplabv3plus", {"encoder_name": "resnet34"}),
}
_, MEAN, STD = CAMVID_NORMALIZATION


def network_of(name: str) -> Network:
    arch, chosen = MODELS[name]
    torch.manual_seed(0)
    model = smp_camvid.create_model(arch, classes=len(CAMVID32), **chosen)
    return Network(model, MEAN, STD, CAMVID32)


def made_up(frames: int, size: tuple[int, int], classes: int = len(CAMVID32)) -> Batch:
    """Noise, with a strip of void."""
    generator = torch.Generator().manual_seed(0)
    image = torch.randint(0, 256, (frames, *size, 3), dtype=torch.uint8, generator=generator)
    target = torch.randint(0, classes, (frames, *size), generator=generator)
    target[:, :8] = 255
    return Batch(image.permute(0, 3, 1, 2), target, torch.arange(frames), None)


def trainer_of(network: Network, batch: Batch, **given: Any) -> Trainer:
    """Ours, ready for steps; the penalty on squared weights is Adam's weight decay."""
    known = {"optimizer": "adam", "lr": 2e-4, "weight_decay": 2 * PENALTY, "verbose": 0}
    return Trainer(network, [batch], **{**known, **given})


def loop_of(network: Network, device: str, **given: Any) -> PlainLoop:
    """The plain loop over a copy of the same weights."""
    model, classes = copy.deepcopy(network.model), len(network.table)
    return PlainLoop(model, classes, torch.device(device), **given)


def measure(name: str, repeats: int, size: tuple[int, int], frames: int) -> dict[str, Any]:
    network, batch = network_of(name), made_up(frames, size)
    x, y = network.normalize(batch.image).contiguous(), batch.target
    notebook = loop_of(network, "cpu")
    by_hand = loop_of(network, "cpu", amp=torch.bfloat16, channels_last=True)
    ours = trainer_of(copy.deepcopy(network), batch, device="cpu")
    seconds = alternate(
        {
            "notebook": lambda: notebook.step(x, y),
            "by hand": lambda: by_hand.step(x, y),
            "ours": lambda: ours.train_step(batch),
        },
        repeats,
    )
    return {"model": name, "arithmetic": str(ours.arithmetic), "seconds": seconds,
            "frames": frames, "size": size}  # fmt: skip


def row(found: dict[str, Any]) -> dict[str, str]:
    seconds, frames = found["seconds"], found["frames"]
    plain, hand, ours = (seconds[way] for way in ("notebook", "by hand", "ours"))
    return {
        "model": found["model"],
        "notebook loop, ms": str(spread(plain).scaled(1000)),
        "bf16 and channels_last by hand, ms": str(spread(hand).scaled(1000)),
        "`train_step`, ms": str(spread(ours).scaled(1000)),
        "images/s": str(spread(ours).rate(frames)),
        "times the notebook": f"**{times_faster(plain, ours)}**",
        "times by hand": str(times_faster(hand, ours)),
    }


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--models", default=",".join(n for n in MODELS if n != "vanilla-4"))
    given = parser.parse_args()
    names = ["vanilla-4"] if given.quick else given.models.split(",")
    size = (64, 64) if given.quick else SIZE
    found = []
    for name in names:
        found.append(measure(name, given.repeats, size, FRAMES))
        print(json.dumps(row(found[-1])), flush=True)
    note = f"{FRAMES} frames of {size[0]}x{size[1]}, 32 classes; ours: {found[0]['arithmetic']}."
    publish("train_step", [row(one) for one in found], found, given, note)


if __name__ == "__main__":
    main()
