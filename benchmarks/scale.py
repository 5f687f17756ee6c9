"""What several processes cost and give: a training step, and the messages in it.

    python benchmarks/scale.py                                        one process, all cores
    torchrun --nproc-per-node 2 benchmarks/scale.py                   two, which share the cores

For each recipe: a training step on made-up frames of the recipe's crop, the batch shared out, and
one all-reduce as large as its gradients.  Seconds on the clock, and CPU seconds of all processes
together, which other work on the machine changes less; the smallest of the repetitions.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import NamedTuple

import torch

from smp_camvid import recipe
from smp_camvid.data.classes import CAMVID11
from smp_camvid.data.loaders import Batch
from smp_camvid.data.sampling import share_of
from smp_camvid.inference.device import choose_arithmetic, resolve_device
from smp_camvid.recipe import Recipe
from smp_camvid.training.batches import move_batch
from smp_camvid.training.distributed import Dist, join, own_device
from smp_camvid.training.experiment import build_network, crop_of
from smp_camvid.training.learner import Learner
from smp_camvid.training.objective import build_loss


class Cost(NamedTuple):
    """The smallest over some calls."""

    clock: float
    """Seconds in this process."""
    work: float
    """CPU seconds of all processes together."""


def cost_of(what: Callable[[], object], repeat: int, group: Dist, device: torch.device) -> Cost:
    """The first call does not count."""
    clocks, works = [], []
    for _ in range(repeat + 1):
        group.barrier()
        began, worked = time.perf_counter(), time.process_time()
        what()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        clocks.append(time.perf_counter() - began)
        work = torch.tensor(time.process_time() - worked, dtype=torch.float64)
        works.append(float(group.add(work)))
    return Cost(min(clocks[1:]), min(works[1:]))


def learner_of(chosen: Recipe, device: torch.device, group: Dist) -> Learner:
    network = build_network(chosen, CAMVID11, weights_follow=True)
    loss = build_loss(chosen.loss.model_copy(update={"class_weights": "none"}), [], len(CAMVID11))
    cfg = chosen.train
    arithmetic = choose_arithmetic(device, cfg.precision, cfg.memory_format)
    return Learner(network, loss, cfg, arithmetic, group)


def made_up(frames: int, size: tuple[int, int]) -> Batch:
    image = torch.randint(0, 256, (frames, 3, *size), dtype=torch.uint8)
    return Batch(image, torch.randint(0, 11, (frames, *size)), torch.arange(frames), None)


def measure(chosen: Recipe, batch_size: int, repeat: int, device: torch.device) -> str:
    """A line of numbers, the same work in every process."""
    group, size = join(device), crop_of(chosen.data)
    learner = learner_of(chosen, device, group)
    batch = move_batch(made_up(share_of(batch_size, group.world), size), device)
    gradients = torch.zeros(sum(p.numel() for p in learner.trained.parameters()), device=device)
    step = cost_of(lambda: learner.step([batch]), repeat, group, device)
    message = cost_of(lambda: group.add(gradients), repeat, group, device)
    return (
        f"{chosen.name} {size[0]}x{size[1]}, {gradients.numel() / 1e6:.1f} M parameters, "
        f"{group.world} x {len(batch.image)} frames, {torch.get_num_threads()} threads each: "
        f"step {step.clock:.2f} s, {step.work:.2f} CPU s; "
        f"all-reduce {message.clock:.3f} s, {message.work:.3f} CPU s"
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("recipes", nargs="*", default=["unet-lite0", "vanilla"])
    parser.add_argument("--set", action="append", default=[], help="as smp-camvid train has it")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--device", default="auto")
    args = parser.parse_args()
    device = own_device(resolve_device(args.device))
    group = join(device)
    for name in args.recipes:
        chosen = recipe.resolve(name, [recipe.parse_set(text) for text in args.set]).recipe
        line = measure(chosen, args.batch_size, args.repeat, device)
        if group.is_main:
            print(line, flush=True)


if __name__ == "__main__":
    main()
