"""`--batch-size auto`: the most frames at a time that fit, and batches that add up to the step.

On a GPU it is tried: a copy of the network takes real training steps of made-up frames.  On a
CPU nothing says no before the machine swaps or kills the process, so there the memory of a step
is counted (step_memory.py) and compared with what is free.
"""

from __future__ import annotations

import copy
import dataclasses
import gc
from collections.abc import Callable
from functools import cached_property

import torch

from smp_camvid import torchrun
from smp_camvid.data.crops import CropPlan
from smp_camvid.data.room import in_words
from smp_camvid.errors import DeviceError, TrainingError, UsageError
from smp_camvid.inference.device import choose_arithmetic, resolve_device
from smp_camvid.inference.memory import free_bytes
from smp_camvid.inference.out_of_memory import is_out_of_memory
from smp_camvid.models.network import Network
from smp_camvid.recipe import Recipe, TrainConfig
from smp_camvid.training.distributed import Dist, own_device
from smp_camvid.training.learner import Learner, NotFiniteError
from smp_camvid.training.objective import build_loss
from smp_camvid.training.out_of_memory import describe_step, remedies
from smp_camvid.training.step_memory import StepMemory, estimate_memory, made_up_batch
from smp_camvid.training.trial_steps import generators_spared

Size = tuple[int, int]
Fits = Callable[[int], bool]
"""Frames in one batch of one process -> whether a training step of them fits."""

SPARE = 0.9
"""Share of the free memory that a batch may fill: others live on the device, and it fragments."""
UNSEEN = 1.25
"""Memory of a step on the CPU over that of its tensors, measured: 1.0 to 1.25 (oneDNN, malloc)."""


def resolve_batch_size(
    recipe: Recipe, network: Network, size: Size, group: Dist, fits: Fits | None = None
) -> tuple[Recipe, str]:
    """A recipe whose `batch_size = "auto"` has become numbers, and a sentence about them.

    `size` is the largest picture of the run (`largest_picture`), `group` the processes that share
    a batch; all of them call it and get the same.  batch_size x accumulate stays the effective
    batch; where no division comes near, the sentence says by how much it changed.  The network,
    its statistics and the random generators stay as they are.  A recipe with a number comes back
    as it is, with an empty sentence.

    Raises DeviceError when not even one frame fits.
    """
    cfg = recipe.train
    if cfg.batch_size != "auto":
        return recipe, ""
    wanted = cfg.effective_batch or TrainConfig().frames_per_batch * cfg.accumulate
    device = own_device(resolve_device(cfg.device))
    with generators_spared(device):
        trial = Trial(recipe, network, size, device)
        share = max(1, round(wanted / group.world))
        most = min(group.gather(largest_that_fits(fits or trial.fits, share)))
    if most == 0:
        raise trial.nothing_fits()
    frames, accumulate = divide(share, most)
    update = {
        "batch_size": frames * group.world,
        "accumulate": accumulate,
        "effective_batch": 0,  # the two numbers say it
    }
    sentence = in_a_sentence(wanted, most, share, frames, accumulate, group.world)
    return recipe.model_copy(update={"train": cfg.model_copy(update=update)}), sentence


def largest_picture(size: Size, plan: CropPlan) -> Size:
    """Height and width of the largest training picture, given the crop `size` of the recipe."""
    if plan.multi_scale is not None:
        factor = plan.multi_scale[1]
        plan = dataclasses.replace(plan, multi_scale=(factor, factor))
    sizes = [plan.crop(size, seed=0, epoch=0, batch=0).size]
    if plan.full_frame_from is not None and plan.frame_size is not None:
        sizes.append(plan.frame_size)
    return max(sizes, key=lambda size: size[0] * size[1])


def largest_that_fits(fits: Fits, cap: int) -> int:
    """The largest number up to `cap` that fits, found by doubling and then bisecting; 0 if none.

    What fits in any number fits in a smaller one.
    """
    low, high = 0, 1  # low fits, high is tried next
    while fits(high):
        low = high
        if low == cap:
            return low
        high = min(2 * high, cap)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def divide(share: int, most: int) -> tuple[int, int]:
    """(frames at a time, batches a step) whose product is `share`, at most `most` at a time.

    Where the best divisor is less than half of what fits, as 1 is for 7 frames of which 6 fit,
    the product is the nearest that fills the device: 4 x 2.
    """
    exact = max(n for n in range(1, most + 1) if share % n == 0)
    if 2 * exact >= min(most, share):
        return exact, share // exact
    batches = -(-share // most)
    return min(most, (2 * share + batches) // (2 * batches)), batches


def in_a_sentence(
    wanted: int, most: int, share: int, frames: int, accumulate: int, world: int
) -> str:
    """What the user is told of the numbers found."""
    fit = f"{most} frames fit" if most > 1 else "one frame fits"
    fit = "all frames of a step fit" if most == share else fit
    where = f" in each of {world} processes" if world > 1 else ""
    effective = frames * accumulate * world
    kept = f"{effective} frames a step as before"
    if effective != wanted:
        kept = f"{effective} frames a step, since {wanted} cannot be divided so well"
    return (
        f"Batch size auto: {fit} at once{where}, so --batch-size {frames * world} "
        f"--accumulate {accumulate}: {kept}."
    )


class Trial:
    """A copy of the network in training, on which batch sizes are tried."""

    def __init__(self, recipe: Recipe, network: Network, size: Size, device: torch.device) -> None:
        self.recipe, self.size = recipe, size
        cfg = recipe.train
        arithmetic = choose_arithmetic(device, cfg.precision, cfg.memory_format)
        # The values of class weights change nothing here, and counting them takes a while.
        plain = recipe.loss.model_copy(update={"class_weights": "none"})
        loss = build_loss(plain, [], len(network.table)).to(device)
        self.learner = Learner(copy.deepcopy(network), loss, cfg, arithmetic, Dist())

    @property
    def fits(self) -> Fits:
        """On the CPU what the memory of a step is counted to be, elsewhere what happens."""
        return self.counts if self.learner.arithmetic.device.type == "cpu" else self.survives

    def counts(self, frames: int) -> bool:
        """Whether the tensors of a step of `frames`, and what comes with them, find room."""
        free = free_bytes(self.learner.arithmetic.device)
        # The weights are there already; other processes of this machine do the same as this one.
        needed = UNSEEN * (self.memory.total(frames) - self.memory.weights)
        return free is None or needed <= SPARE * free / torchrun.local_world()

    @cached_property
    def memory(self) -> StepMemory:
        """What a step takes.  Raises UsageError for a network that cannot be counted."""
        try:
            return estimate_memory(self.learner, self.size)
        except Exception as error:  # a plugin's may not run without numbers
            raise UsageError(
                f"The memory of this network cannot be counted ({error}).",
                "Name a number: --batch-size 2",
            ) from error

    def survives(self, frames: int) -> bool:
        """Whether a step of `frames` runs, and leaves a little of the device."""
        device = self.learner.arithmetic.device
        free = free_bytes(device)
        before = _held(device)
        ran = self._runs(frames)
        taken = _held(device, peak=True) - before
        self.learner.optimizer.zero_grad(set_to_none=True)
        free_cache(device)
        return ran and (free is None or taken <= SPARE * free)

    def _runs(self, frames: int) -> bool:
        # What the step computed dies with this call, so that the next one finds the room free.
        weighted = bool(self.recipe.loss.border_w0)
        try:
            self.learner.step([made_up_batch(self.learner, frames, self.size, weighted)])
        except (TrainingError, NotFiniteError):
            return True  # too few frames for BatchNorm, or noise that overflows: it had the room
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            return False
        return True

    def nothing_fits(self) -> DeviceError:
        """What to raise when one frame is too much."""
        arithmetic = self.learner.arithmetic
        step = describe_step(self.learner.network, arithmetic, 1, self.size)
        free = free_bytes(arithmetic.device)
        room = "" if free is None else f": {in_words(free)} are free"
        return DeviceError(
            f"Not one frame fits: {step} is too large for {arithmetic.device}{room}.",
            f"Change, in this order: {'; '.join(remedies(self.recipe, arithmetic, batch=False))}.",
        )


def free_cache(device: torch.device) -> None:
    """What dead tensors held goes back to the device."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    elif device.type == "mps":
        torch.mps.empty_cache()


def _held(device: torch.device, peak: bool = False) -> int:
    """Bytes torch holds of the device, now or at most since the last `free_cache`."""
    if device.type != "cuda":
        return 0
    read = torch.cuda.max_memory_reserved if peak else torch.cuda.memory_reserved
    return read(device)
