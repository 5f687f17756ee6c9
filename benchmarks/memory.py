"""Memory of a training step of 8 frames: the plain loop, ours, ours with activation checkpointing.

    python benchmarks/memory.py [--write]

Each in a process of its own: the most memory that process ever had, less what it had before the
first step.  What recomputing costs in time is measured apart, alternating.
"""

from __future__ import annotations

import copy
import os
import resource
from pathlib import Path
from typing import Any

import torch
from plain_training import PlainLoop
from side_by_side import (
    alternate,
    digits,
    in_fresh_process,
    options,
    publish,
    times_faster,
)
from train_step import made_up, network_of, trainer_of

from smp_camvid.evaluation.speed import peak_of_process
from smp_camvid.training.step_memory import estimate_memory

FRAMES, STEPS = 8, 3
WAYS = ("notebook", "by hand", "ours", "checkpointing")


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def memory_of(way: str, name: str, size: tuple[int, int]) -> dict[str, int]:
    """Bytes of a step, in this process."""
    network, batch = network_of(name), made_up(FRAMES, size)
    if way in ("ours", "checkpointing"):
        trainer = trainer_of(
            network, batch, device="cpu", activation_checkpointing=way == "checkpointing"
        )
        before = resident()
        for _ in range(STEPS):
            trainer.train_step(batch)
        counted = estimate_memory(trainer.learner, size).total(FRAMES)
    else:
        amp = torch.bfloat16 if way == "by hand" else None
        cpu = torch.device("cpu")
        loop = PlainLoop(network.model, 32, cpu, amp=amp, channels_last=amp is not None)
        x = network.normalize(batch.image).contiguous()
        before = resident()
        for _ in range(STEPS):
            loop.step(x, batch.target)
        counted = 0
    peak = peak_of_process() or 0
    return {"step": peak - before, "process": peak, "counted": counted}


def price_of(name: str, size: tuple[int, int], repeats: int) -> dict[str, list[float]]:
    """Seconds of a step without and with recomputing."""
    network, batch = network_of(name), made_up(FRAMES, size)
    plain = trainer_of(copy.deepcopy(network), batch, device="cpu")
    again = trainer_of(network, batch, device="cpu", activation_checkpointing=True)
    ways = {"kept": lambda: plain.train_step(batch), "again": lambda: again.train_step(batch)}
    return alternate(ways, repeats)


def row(found: dict[str, Any]) -> dict[str, str]:
    step = {way: found["memory"][way]["step"] / 2**20 for way in WAYS}
    price = times_faster(found["price"]["again"], found["price"]["kept"])
    return {
        "model": found["model"],
        "notebook loop, MiB": digits(step["notebook"]),
        "bf16 and channels_last by hand": digits(step["by hand"]),
        "`train_step`": digits(step["ours"]),
        "of the notebook's": f"**{step['ours'] / step['notebook']:.0%}**",
        "with activation checkpointing": digits(step["checkpointing"]),
        "of ours without": f"{step['checkpointing'] / step['ours']:.0%}",
        "its price in time": f"x {price}",
        "counted by `--dry-run`": digits(found["memory"]["ours"]["counted"] / 2**20),
    }


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--models", default="vanilla-64,unet-lite0,unet-resnet34")
    given = parser.parse_args()
    size = (64, 64) if given.quick else (224, 224)
    found = []
    for name in ["vanilla-4"] if given.quick else given.models.split(","):
        memory = {way: in_fresh_process(memory_of, way, name, size) for way in WAYS}
        price = in_fresh_process(price_of, name, size, given.repeats)
        found.append({"model": name, "size": size, "memory": memory, "price": price})
        print(row(found[-1]), flush=True)
    note = (
        f"{FRAMES} frames of {size[0]}x{size[1]}: MiB above what the process had before its first "
        "step; weights and imports are not in it, gradients and the optimizer's are."
    )
    publish("memory", [row(one) for one in found], found, given, note)


if __name__ == "__main__":
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    main()
