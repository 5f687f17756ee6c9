"""What a run will be, before it is one: sizes, steps, memory, disk, time and learning rates.

Nothing is trained and no run folder is made; frames that were not decoded before are now.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from smp_camvid import runs
from smp_camvid.data.classes import FIXED_TABLES
from smp_camvid.data.room import in_words
from smp_camvid.errors import DeviceError
from smp_camvid.inference.device import Arithmetic, resolve_device
from smp_camvid.inference.memory import free_bytes
from smp_camvid.models.flops import Flops, count_flops
from smp_camvid.recipe import Recipe, TrainConfig
from smp_camvid.training.batch_size import UNSEEN, Size, Trial, largest_picture, resolve_batch_size
from smp_camvid.training.distributed import Dist
from smp_camvid.training.experiment import build_network, crop_of, crop_plan
from smp_camvid.training.keeper import disk_needed
from smp_camvid.training.learner import Learner
from smp_camvid.training.out_of_memory import remedies
from smp_camvid.training.preview import frames_of
from smp_camvid.training.schedule import lr_at
from smp_camvid.training.step_memory import StepMemory, estimate_memory
from smp_camvid.training.step_time import Timing
from smp_camvid.training.trainer import Trainer

T = TypeVar("T")


@dataclass(frozen=True)
class Data:
    """What the plan knows of the frames; nothing of it without a dataset."""

    protocol: str
    train_frames: int
    val_frames: int
    steps_per_epoch: int


@dataclass(frozen=True)
class Plan:
    """What `train --dry-run` prints."""

    recipe: Recipe
    arithmetic: Arithmetic
    processes: int
    data: Data | None
    picture: Size
    """Height and width of the largest training picture."""
    network_size: Size
    """The same as the network gets it, padded or mirrored."""
    mirrored: bool
    parameters: int
    flops: Flops | None
    """None for a network that cannot be counted without numbers."""
    memory: StepMemory | None
    free_memory: int | None
    disk: int
    free_disk: int
    timing: Timing | None = None

    @property
    def frames(self) -> int:
        """Frames of a batch in one process."""
        return max(1, self.recipe.train.frames_per_batch // self.processes)

    @property
    def needed_memory(self) -> int | None:
        """Bytes of a step, with what kernels take for themselves."""
        if self.memory is None:
            return None
        return int(UNSEEN * self.memory.total(self.frames))

    @property
    def fits(self) -> bool:
        """Whether the memory is there, as far as anyone knows."""
        needed, free = self.needed_memory, self.free_memory
        return needed is None or free is None or needed <= free

    @property
    def steps(self) -> int | None:
        """Optimizer steps of the whole run."""
        return None if self.data is None else self.recipe.train.epochs * self.data.steps_per_epoch

    @property
    def seconds(self) -> float | None:
        """The whole run, validation included; saving is not."""
        if self.timing is None or self.steps is None:
            return None
        judged = -(-self.recipe.train.epochs // self.recipe.train.val_every)
        return self.steps * self.timing.step + judged * self.timing.validation


def make_plan(trainer: Trainer, processes: int = 1) -> Plan:
    """The plan of a run that is ready to start, as far as it is known without a step."""
    data = Data(
        protocol=str(trainer.keeper.metadata["protocol"]),
        train_frames=frames_of(trainer.train_loader),
        val_frames=frames_of(trainer.val_loader),
        steps_per_epoch=trainer.steps_per_epoch,
    )
    return _plan(trainer.keeper.recipe, trainer.learner, data, processes)


def plan_without_data(recipe: Recipe, processes: int = 1) -> Plan | None:
    """What can be known of a run whose dataset is not there; None without even its classes."""
    table = FIXED_TABLES.get(recipe.data.classes)
    if table is None:
        return None
    network = build_network(recipe, table)
    device = resolve_device(recipe.train.device)
    picture = largest_picture(crop_of(recipe.data), crop_plan(recipe))
    recipe, _ = resolve_batch_size(recipe, network, picture, Dist())
    return _plan(recipe, Trial(recipe, network, picture, device).learner, None, processes)


def _plan(recipe: Recipe, learner: Learner, data: Data | None, processes: int) -> Plan:
    network, arithmetic = learner.network, learner.arithmetic
    picture = largest_picture(crop_of(recipe.data), crop_plan(recipe))
    return Plan(
        recipe=recipe,
        arithmetic=arithmetic,
        processes=processes,
        data=data,
        picture=picture,
        network_size=(network.padded_size(picture[0]), network.padded_size(picture[1])),
        mirrored=network.size_policy["border"] == "mirror",
        parameters=network.num_parameters,
        flops=_or_none(lambda: count_flops(learner.trained, picture)),
        memory=_or_none(lambda: estimate_memory(learner, picture)),
        free_memory=free_bytes(arithmetic.device),
        disk=disk_needed(recipe.train, network),
        free_disk=runs.free_bytes(Path(recipe.train.save_dir)),
    )


def _or_none(count: Callable[[], T]) -> T | None:
    # A plugin's network may not run on shapes alone, and raise anything.
    with contextlib.suppress(Exception):
        return count()
    return None


def lr_over(config: TrainConfig, steps_per_epoch: int, points: int) -> list[float]:
    """The learning rate at `points` steps spread over the run, first and last among them.

    That of the plateau schedule, which depends on the scores, stays at its start.
    """
    steps = config.epochs * steps_per_epoch
    points = max(1, min(points, steps))
    at = [round(n * (steps - 1) / max(1, points - 1)) for n in range(points)]
    return [lr_at(config, steps_per_epoch, step) for step in at]


def check_room(plan: Plan) -> None:
    """Raises DeviceError with what to lower when a step needs more memory than is free."""
    if plan.fits:
        return
    assert plan.needed_memory is not None and plan.free_memory is not None
    changes = remedies(plan.recipe, plan.arithmetic, batch=plan.frames > 1)
    raise DeviceError(
        f"A training step needs about {in_words(plan.needed_memory)} of memory, "
        f"{in_words(plan.free_memory)} are free.",
        f"Change, in this order: {'; '.join(changes)}.",
    )
