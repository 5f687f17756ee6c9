"""The tables of a GPU from one script: it needs the repository, its packages, and frames.

    python benchmarks/gpu.py [--data CAMVID] [--results DIR] [--write] [--only step,...]
    python benchmarks/gpu.py --device cpu --quick          # a rehearsal without one

On a machine whose copy of the repository is thrown away, --results names a folder to bring home;
`python benchmarks/side_by_side.py DIR/*.json` puts its tables into the document.  Where a command
may run for ten minutes only: --only vanilla, and in another --only step,memory,evaluation,data.
A part that fails is told, and the others run.
"""

from __future__ import annotations

import copy
import itertools
import os
import sys
import tempfile
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import evaluation
import torch
from data_pipeline import wait, wait_row
from frames import draw
from plain_training import PlainLoop
from side_by_side import Spread, alternate, digits, options, publish, spread, times_faster
from train_step import MEAN, STD, loop_of, made_up, network_of, trainer_of

import smp_camvid
from smp_camvid.data.classes import CAMVID11
from smp_camvid.data.loaders import Batch
from smp_camvid.errors import DeviceError
from smp_camvid.models.flops import count_flops
from smp_camvid.models.network import Network
from smp_camvid.training.batch_size import free_cache
from smp_camvid.training.bench import matmul_rate, synchronize
from smp_camvid.training.trainer import Trainer

Size = tuple[int, int]


class Gpu:
    """What is measured, on which device, and how large."""

    def __init__(self, given: Any) -> None:
        self.given, self.device = given, torch.device(given.device)
        self.quick: bool = given.quick
        self.settle = partial(synchronize, self.device)
        seconds = 0.2 if self.quick else 2.0
        kinds = {"bf16": torch.bfloat16, "fp32": None}
        self.matmul = {k: matmul_rate(self.device, v, seconds) for k, v in kinds.items()}

    def alternate(self, ways: dict[str, Callable[[], object]]) -> dict[str, list[float]]:
        """Ten steps count as one: a single one would mostly measure the waiting for it."""
        steps = 1 if self.quick else 10
        repeated = {name: partial(_times, way, steps) for name, way in ways.items()}
        found = alternate(repeated, self.given.repeats, settle=self.settle)
        return {name: [value / steps for value in values] for name, values in found.items()}


def _times(way: Callable[[], object], steps: int) -> None:
    for _ in range(steps):
        way()


def as_in_a_run(step: Callable[[], object]) -> Callable[[], object]:
    """A step with cuDNN trying its kernels, which a run switches on, and the baselines do not."""

    def tried() -> None:
        torch.backends.cudnn.benchmark = True
        step()
        torch.backends.cudnn.benchmark = False

    return tried


def compiled(trainer: Trainer, batch: Batch, quick: bool) -> dict[str, Callable[[], object]]:
    """The same through torch.compile, which no recipe asks for: does it pay?

    Nothing where this machine cannot compile it.
    """
    # Each for its own size: after a few others torch would make the sizes variables, then give up.
    torch.compiler.reset()
    trainer.learner.begin_epoch(1)
    backend = "eager" if quick else "inductor"  # compiling takes minutes
    trainer.learner._wrapped = torch.compile(
        trainer.learner.trained, backend=backend, dynamic=False
    )
    step = as_in_a_run(lambda: trainer.train_step(batch))
    try:
        step()
    except Exception as error:  # no compiler, or one that fails on this network
        print(f"torch.compile: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
        return {}
    return {"compiled": step}


def pinned(batch: Batch, device: torch.device) -> Batch:
    """As a loader hands it out: labels of one byte, in memory that is copied from directly."""
    batch = batch._replace(target=batch.target.to(torch.uint8))
    if device.type != "cuda":
        return batch
    return batch._replace(image=batch.image.pin_memory(), target=batch.target.pin_memory())


# --- training steps --------------------------------------------------------------------------


def step(gpu: Gpu) -> None:
    """The first notebook's batch of 16 at 224x224, 32 classes: its loop, by hand, ours."""
    names = ("vanilla-4",) if gpu.quick else ("vanilla-64", "unet-lite0", "unet-resnet34")
    size, frames = ((64, 64), 2) if gpu.quick else ((224, 224), 16)
    note = (
        f"{frames} frames of {size[0]}x{size[1]}, 32 classes, each batch uploaded in the step. "
        "Both baselines count mIoU in numpy after each step, as the notebook did."
    )
    found = []
    for name in names:  # what is there is kept, should the next one fail
        found.append(_steps(gpu, name, size, frames))
        free_cache(gpu.device)
        publish("gpu_step", [_step_row(gpu, one) for one in found], found, gpu.given, note)


def _steps(gpu: Gpu, name: str, size: Size, frames: int) -> dict[str, Any]:
    network, batch = network_of(name), pinned(made_up(frames, size), gpu.device)
    x, y = network.normalize(batch.image).contiguous(), batch.target.long()
    if gpu.device.type == "cuda":
        x, y = x.pin_memory(), y.pin_memory()
    flops = count_flops(network, size).step
    device = str(gpu.device)
    amp = torch.float16 if gpu.device.type == "cuda" else torch.bfloat16  # no fp16 on a CPU
    notebook = loop_of(network, device, amp=amp)
    by_hand = loop_of(network, device, amp=torch.bfloat16, channels_last=True)
    ours = trainer_of(copy.deepcopy(network), batch, device=device)
    fast = trainer_of(copy.deepcopy(network), batch, device=device)
    seconds = gpu.alternate(
        {
            "notebook with AMP": lambda: notebook.step(x, y),
            "by hand": lambda: by_hand.step(x, y),
            "ours": as_in_a_run(lambda: ours.train_step(batch)),
            **compiled(fast, batch, gpu.quick),
        }
    )
    return {"model": name, "frames": frames, "size": size, "flops": flops, "seconds": seconds,
            "matmul": gpu.matmul}  # fmt: skip


def _step_row(gpu: Gpu, found: dict[str, Any]) -> dict[str, str]:
    seconds, frames = found["seconds"], found["frames"]
    plain, ours = seconds["notebook with AMP"], seconds["ours"]
    rates = {way: spread(values).rate(frames) for way, values in seconds.items()}
    return {
        "model": found["model"],
        "notebook with AMP, images/s": str(rates["notebook with AMP"]),
        "bf16 and channels_last by hand": str(rates["by hand"]),
        "`train_step`": str(rates["ours"]),
        "with torch.compile": str(rates.get("compiled", "-")),
        "times the notebook": f"**{times_faster(plain, ours)}**",
        "times by hand": str(times_faster(seconds["by hand"], ours)),
        "of the matmul rate": _share(gpu, rates["ours"], found["flops"]),
        "compiled, of the matmul rate": _share(gpu, rates.get("compiled"), found["flops"]),
    }


def _share(gpu: Gpu, rate: Spread | None, flops: int) -> str:
    return "-" if rate is None else f"{rate.median * flops / gpu.matmul['bf16']:.0%}"


def vanilla(gpu: Gpu) -> None:
    """The paper's network: a 388x388 frame is a tile of 572x572; a CamVid frame one of 556x668."""
    sizes = [(60, 60)] if gpu.quick else [(360, 480), (388, 388)]
    batches = [2] if gpu.quick else [8, 16, 32, 4]
    norms = ["batch"] if gpu.quick else ["batch", "none"]
    rate = digits(gpu.matmul["bf16"] / 1e12)
    note = f"Products of 8192x8192 matrices in bf16: {rate} TFLOP/s."
    found = []
    for norm, size, frames in itertools.product(norms, sizes, batches):
        free_cache(gpu.device)
        try:
            found.append(_vanilla(gpu, size, norm, frames))
        except (torch.OutOfMemoryError, DeviceError):
            print(f"{frames} frames of {size[0]}x{size[1]}, norm {norm}: out of memory", flush=True)
            continue
        publish("gpu_vanilla", [_vanilla_row(gpu, one) for one in found], found, gpu.given, note)


def _vanilla_row(gpu: Gpu, found: dict[str, Any]) -> dict[str, object]:
    frames = found["frames"]
    rates = {way: spread(values).rate(frames) for way, values in found["seconds"].items()}
    return {
        "frame": "x".join(map(str, found["size"])),
        "norm": found["norm"],
        "batch": frames,
        "`train_step`, images/s": str(rates["ours"]),
        "with torch.compile": str(rates.get("compiled", "-")),
        "TFLOP an image": digits(found["flops"] / 1e12),
        "of the matmul rate": _share(gpu, rates["ours"], found["flops"]),
        "compiled, of the matmul rate": _share(gpu, rates.get("compiled"), found["flops"]),
    }


def _vanilla(gpu: Gpu, size: Size, norm: str, frames: int) -> dict[str, Any]:
    width = 4 if gpu.quick else 64
    torch.manual_seed(0)
    model = smp_camvid.create_model("vanilla", norm=norm, padding="valid", base_channels=width)
    network = Network(model, MEAN, STD, CAMVID11)
    batch = pinned(made_up(frames, size, len(CAMVID11)), gpu.device)
    ours = trainer_of(copy.deepcopy(network), batch, device=str(gpu.device))
    ways = {"ours": as_in_a_run(lambda: ours.train_step(batch))}
    if gpu.quick or frames == 16:  # compiling takes a minute each
        fast = trainer_of(copy.deepcopy(network), batch, device=str(gpu.device))
        ways |= compiled(fast, batch, gpu.quick)
    seconds = gpu.alternate(ways)
    flops = count_flops(network, size).step
    return {"size": size, "norm": norm, "frames": frames, "flops": flops, "seconds": seconds}


# --- what is around them ---------------------------------------------------------------------


def memory(gpu: Gpu) -> None:
    """Most memory of a step of 8 frames: the notebook's loop, by hand, ours, recomputing."""
    name, size = ("vanilla-4", (64, 64)) if gpu.quick else ("vanilla-64", (224, 224))
    network, batch = network_of(name), made_up(8, size)
    x, device = network.normalize(batch.image).contiguous(), str(gpu.device)
    amp = torch.float16 if gpu.device.type == "cuda" else torch.bfloat16

    def loop(**given: Any) -> Callable[[], object]:
        plain: PlainLoop = loop_of(network, device, **given)
        return lambda: plain.step(x, batch.target)

    def ours(**given: Any) -> Callable[[], object]:
        trainer = trainer_of(copy.deepcopy(network), batch, device=device, **given)
        return as_in_a_run(lambda: trainer.train_step(batch))

    makes: dict[str, Callable[[], Callable[[], object]]] = {
        "notebook with AMP": partial(loop, amp=amp),
        "bf16 and channels_last by hand": partial(loop, amp=torch.bfloat16, channels_last=True),
        "`train_step`": ours,
        "with activation checkpointing": partial(ours, activation_checkpointing=True),
    }
    found = {}
    for way, make in makes.items():
        free_cache(gpu.device)
        run = make()
        seconds = gpu.alternate({way: run})[way]
        peak = torch.cuda.max_memory_allocated(gpu.device) if gpu.device.type == "cuda" else 0
        found[way] = {"bytes": peak, "seconds": seconds}
        del run
    rows = [
        {"": way, "MiB at most": digits(one["bytes"] / 2**20),
         "ms a step": str(spread(one["seconds"]).scaled(1000))}
        for way, one in found.items()
    ]  # fmt: skip
    note = f"{name}, 8 frames of {size[0]}x{size[1]}; weights are in it."
    publish("gpu_memory", rows, found, gpu.given, note)


def judged(gpu: Gpu) -> None:
    """101 val frames end to end."""
    found = evaluation.measure(gpu.given.data, str(gpu.device), gpu.given.repeats)
    rows = [evaluation.row(name, found) for name in found["seconds"]]
    note = f"{found['frames']} frames of 360x480{gpu.given.drawn}."
    publish("gpu_evaluation", rows, found, gpu.given, note)


def data(gpu: Gpu) -> None:
    """The wait for data in real trainings of the vanilla net."""
    cores = len(os.sched_getaffinity(0))
    tiny = [("model.base_channels", 4), ("model.depth", 2), ("data.size", (48, 64))]
    device = [("train.device", str(gpu.device))]
    counts = [1] if gpu.quick else sorted({2, max(2, cores // 2), cores})
    more = device + (tiny if gpu.quick else [("train.batch_size", 16), ("train.lr", 1e-4)])
    found = [wait(gpu.given.data, "vanilla", workers, 3, more) for workers in counts]
    rows = [wait_row(one) for one in found]
    note = f"{cores} cores; batches of 16 at 360x480{gpu.given.drawn}."
    publish("gpu_wait", rows, found, gpu.given, note)


PARTS = {"step": step, "vanilla": vanilla, "memory": memory, "evaluation": judged, "data": data}


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--data", type=Path, help="CamVid at 360x480; drawn frames if absent")
    parser.add_argument("--only", default=",".join(PARTS))
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        os.environ.setdefault("SMP_CAMVID_CACHE", str(Path(place, "cache")))
        train, val = (8, 2) if given.quick else (367, 101)
        given.drawn = "" if given.data else ", drawn"
        given.data = given.data or draw(Path(place, "drawn"), (360, 480), train, val)
        gpu = Gpu(given)
        failed = [name for name in given.only.split(",") if not done(PARTS[name], gpu)]
    if failed:
        raise SystemExit(f"Failed: {', '.join(failed)}.")


def done(part: Callable[[Gpu], None], gpu: Gpu) -> bool:
    """Whether it ran to its end; machine time is dear, so the parts after it have their turn."""
    try:
        part(gpu)
    except Exception:
        traceback.print_exc()
        return False
    return True


if __name__ == "__main__":
    main()
