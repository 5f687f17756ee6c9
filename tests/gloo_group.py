"""Processes of a gloo group that stay for all tests of a module, and what they are asked to do.

The functions below `Group` run in every process of the group, and in the test's own process as
the group of one they are compared with.
"""

from __future__ import annotations

import dataclasses
import os
import socket
import sys
import traceback
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fork_server import fork_server
from runs_of_tests import HostReads, Recorder

from smp_camvid import recipe
from smp_camvid.data import camvid
from smp_camvid.data.cache import FrameCache
from smp_camvid.data.camvid import open_dataset
from smp_camvid.data.classes import CAMVID11, VOID
from smp_camvid.data.loaders import Batch, eval_loader
from smp_camvid.evaluation.loop import evaluate_batches, judge
from smp_camvid.inference.device import choose_arithmetic
from smp_camvid.models.factory import create_model
from smp_camvid.models.network import Network
from smp_camvid.recipe import LossConfig, TrainConfig
from smp_camvid.training.distributed import Dist, join
from smp_camvid.training.events import Notice
from smp_camvid.training.experiment import build_trainer
from smp_camvid.training.learner import Learner
from smp_camvid.training.objective import build_loss
from smp_camvid.training.trainer import Trainer

CPU = torch.device("cpu")
PATIENCE_SECONDS = 240


class Group:
    """`world` processes; calling it runs a function in all and returns their answers by rank."""

    def __init__(self, world: int) -> None:
        context = fork_server()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.lines: list[Connection] = []
        self.processes = []
        for rank in range(world):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs, rank, world, port), daemon=True)
            process.start()
            self.lines.append(ours)
            self.processes.append(process)

    def __call__(self, task: Callable[..., Any], *args: Any, **kwargs: Any) -> list[Any]:
        for line in self.lines:
            line.send((task, args, kwargs))
        answers = []
        for line in self.lines:
            assert line.poll(PATIENCE_SECONDS), "the group hangs"
            answer, trouble = line.recv()
            assert not trouble, trouble
            answers.append(answer)
        return answers

    def close(self) -> None:
        for line in self.lines:
            line.send(None)
        for process in self.processes:
            process.join(20)
            process.kill()


def _serve(line: Connection, rank: int, world: int, port: int) -> None:
    torch.set_num_threads(1)
    os.environ |= {
        "RANK": str(rank), "WORLD_SIZE": str(world), "LOCAL_RANK": str(rank),
        "LOCAL_WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
        "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    if sys.platform == "linux":  # else the name of the machine decides, which may not resolve
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    while (asked := line.recv()) is not None:
        task, args, kwargs = asked
        try:
            line.send((task(*args, **kwargs), ""))
        except BaseException:
            line.send((None, traceback.format_exc()))


# --- optimizer steps --------------------------------------------------------------------------


def global_batch(step: int, frames: int) -> Batch:
    """Frames of noise; how much of each is void differs widely, one frame is all void."""
    rng = np.random.default_rng((7, step))
    target = rng.integers(0, 11, (frames, 16, 16)).astype(np.int64)
    for number, share in enumerate(rng.uniform(0, 1, frames)):
        target[number][rng.uniform(size=(16, 16)) < share] = VOID
    target[step % frames] = VOID
    image = rng.integers(0, 255, (frames, 3, 16, 16), dtype=np.uint8)
    return Batch(torch.from_numpy(image), torch.from_numpy(target), torch.arange(frames), None)


def share_of(batch: Batch, group: Dist) -> Batch:
    mine = slice(group.rank, None, group.world)
    return Batch(batch.image[mine], batch.target[mine], batch.index[mine], None)


def build(
    model: dict[str, Any], loss: dict[str, Any], options: dict[str, Any], group: Dist
) -> Learner:
    arguments = dict(model)
    torch.manual_seed(3)
    bare = create_model(arguments.pop("arch"), in_channels=3, classes=11, **arguments)
    network = Network(bare, (0.4, 0.4, 0.4), (0.3, 0.3, 0.3), CAMVID11, "camvid")
    config = TrainConfig(**{"optimizer": "sgd", "lr": 0.002, "precision": "fp32", **options})
    built = build_loss(LossConfig(**loss), [], 11)
    return Learner(network, built, config, choose_arithmetic(CPU, "fp32"), group)


def train(
    model: dict[str, Any],
    loss: dict[str, Any],
    options: dict[str, Any],
    steps: int = 20,
    frames: int = 5,
    deaf: str = "",
) -> dict[str, Any]:
    """Weights and losses after `steps`; `deaf` leaves out an all-reduce: counts or gradients."""
    group = join(CPU)
    if deaf == "counts":
        group.add = lambda tensor: tensor  # type: ignore[method-assign]
    if deaf == "gradients":
        group.wrap = lambda module, image: module  # type: ignore[method-assign]
    learner = build(model, loss, options, group)
    values, per_step = [], learner.config.accumulate
    for step in range(steps):
        if step % 10 == 0:
            learner.begin_epoch(step // 10 + 1)
        learner.set_lr(learner.config.lr)
        numbers = range(step * per_step, (step + 1) * per_step)
        batches = [share_of(global_batch(number, frames), group) for number in numbers]
        values.append(learner.step(batches).loss)
    state = learner.trained.state_dict()
    return {"weights": {k: v.numpy() for k, v in state.items()}, "losses": values}


def host_reads(model: dict[str, Any], loss: dict[str, Any], options: dict[str, Any]) -> list[int]:
    """How often each of three optimizer steps reads from the device; the first one builds."""
    group = join(CPU)
    learner = build(model, loss, options, group)
    counts = []
    for step in range(3):
        batch = share_of(global_batch(step, 4), group)
        with HostReads() as reads:
            learner.step([batch, batch])
        counts.append(reads.count)
    return counts


def statistics_before_and_after_aligning(model: dict[str, Any]) -> list[Any]:
    group = join(CPU)
    learner = build(model, {}, {"ema": 0.5}, group)
    for step in range(3):
        learner.step([share_of(global_batch(step, 4), group)])
    found = []
    for _ in range(2):
        found.append([buffer.clone().numpy() for buffer in learner.judged.buffers()])
        group.align(learner.judged)
    return found


def parameters_sent(
    model: dict[str, Any], loss: dict[str, Any], options: dict[str, Any]
) -> tuple[int, int, int]:
    """Tensors that DistributedDataParallel sends, that got a gradient, that could learn."""
    learner = build(model, loss, options, join(CPU))
    learner.step([share_of(global_batch(0, 4), learner.group)])
    wrapped: Any = learner._wrapped
    learning = [p for p in learner.trained.parameters() if p.requires_grad]
    reached = sum(p.grad is not None for p in learning)
    return wrapped._get_ddp_logging_data()["num_parameter_tensors"], reached, len(learning)


# --- evaluation -------------------------------------------------------------------------------


def evaluate_first(data: Path, frames: int) -> tuple[Any, float, int]:
    """Matrix, loss and number of frames over the first `frames` of val, in batches of two."""
    group = join(CPU)
    dataset = open_dataset(data)
    cache = FrameCache.open(dataset, "val", 32, (32, 48))
    cache = dataclasses.replace(cache, frames=cache.frames[:frames])
    learner = build(SMALL, {}, {}, group)
    loader = eval_loader(cache, batch_size=2, rank=group.rank, world=group.world)
    loss = build_loss(LossConfig(dice=1.0, ohem=1.0), [], 11)
    found = evaluate_batches(judge(learner.network), loader, loss=loss, add=group.add)
    return found.matrix, found.loss, found.frames


# --- whole runs -------------------------------------------------------------------------------

SMALL = {"arch": "vanilla", "base_channels": 4, "depth": 2, "padding": "same", "dropout": 0.0}


def run(recipe_file: str) -> tuple[str, int]:
    """Trains a recipe; returns the run's folder and how many frames this process decoded."""
    decoded = []
    with pytest.MonkeyPatch.context() as patch:
        load = camvid.CamVid.load_image

        def counted(*args: Any) -> Any:
            decoded.append(1)
            return load(*args)

        patch.setattr(camvid.CamVid, "load_image", counted)
        trainer = build_trainer(recipe.resolve(recipe_file).recipe, listeners=[])
        ended = trainer.train()
    return str(ended.run_dir), len(decoded)


def resume(recipe_file: str, run_dir: str) -> list[str]:
    """Goes on with a run; returns what the user is told."""
    ear = Recorder()
    trainer = build_trainer(
        recipe.resolve(recipe_file).recipe, listeners=[ear], weights_follow=True
    )
    trainer.resume(run_dir)
    trainer.train()
    return [notice.message for notice in ear.of(Notice)]


def nan_in_one_process(save_dir: str, rank: int, at: int) -> tuple[str, bool]:
    """Trains with a NaN planted in one batch of one process: the error, are weights as before."""
    group = join(CPU)
    batches = []
    for step in range(4):
        mine = share_of(global_batch(step, 4), group)
        image = mine.image.float()
        if (group.rank, step) == (rank, at):
            image[0, 0, 0, 0] = torch.nan
        batches.append(Batch(image, mine.target, mine.index + 100 * step, None))
    learner = build(SMALL, {}, {}, group)
    trainer = Trainer(
        learner.network, batches, epochs=1, batch_size=4, save_dir=save_dir, listeners=[],
        precision="fp32", device="cpu", save_plots=False,
    )  # fmt: skip
    before: list[Any] = []

    def step_of(inner: Callable[..., Any], *given: Any) -> Any:
        before[:] = [value.clone() for value in trainer.network.state_dict().values()]
        return inner(*given)

    message = ""
    with ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        patch.setattr(trainer.learner, "step", partial(step_of, trainer.learner.step))
        try:
            trainer.train()
        except Exception as error:
            message = f"{type(error).__name__}: {error}"
    after = trainer.network.state_dict().values()
    return message, all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
