"""What a training step that does not fit into memory is told as."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from smp_camvid.inference.device import Arithmetic
from smp_camvid.inference.out_of_memory import out_of_memory_told
from smp_camvid.models.network import Network
from smp_camvid.recipe import Recipe


@contextmanager
def training_told(
    recipe: Recipe, network: Network, arithmetic: Arithmetic, images: Sequence[torch.Tensor]
) -> Iterator[None]:
    """Turns out of memory in a step over `images`, `[B, 3, H, W]` each, into a DeviceError.

    It says what did not fit and what to change: first what changes nothing but the speed, last
    what changes what is learned.
    """
    largest = max(images, key=lambda image: image.numel(), default=torch.empty(0, 3, 0, 0))

    def words() -> tuple[str, Sequence[str]]:
        doing = describe_step(network, arithmetic, len(largest), largest.shape[-2:])
        return doing, remedies(recipe, arithmetic, batch=len(largest) > 1)

    with out_of_memory_told(arithmetic.device, words):
        yield


def describe_step(
    network: Network, arithmetic: Arithmetic, frames: int, size: Sequence[int]
) -> str:
    """ "a training step of 8 frames of 360x480 (556x668 for the network) through ..." """
    height, width = size
    padded = network.padded_size(height), network.padded_size(width)
    within = "" if padded == (height, width) else f" ({padded[0]}x{padded[1]} for the network)"
    model = network.config.get("arch", type(network.model).__name__)
    millions = network.num_parameters / 1e6
    return (
        f"a training step of {frames} frame{'s' if frames != 1 else ''} of {height}x{width}"
        f"{within} through {model} with {millions:.1f} million parameters in "
        f"{arithmetic.precision}"
    )


def remedies(recipe: Recipe, arithmetic: Arithmetic, batch: bool = True) -> list[str]:
    """What needs less memory, least harm first; what is done already is left out.

    `batch`: whether a smaller batch is one of them.
    """
    cfg, data = recipe.train, recipe.data
    found = []
    if batch and isinstance(cfg.batch_size, int):
        same = f", or --batch-size {cfg.batch_size // 2} --accumulate {2 * cfg.accumulate}"
        found.append(f"--batch-size auto{same if cfg.batch_size % 2 == 0 else ''}")
    if not cfg.activation_checkpointing:
        found.append("--set train.activation_checkpointing=true (slower, the same numbers)")
    if arithmetic.dtype is None:
        found.append("--precision bf16")
    if data.crop is not None:
        smaller = _smaller((min(data.crop[0], data.size[0]), min(data.crop[1], data.size[1])))
        found.append(f"--set data.crop=[{smaller[0]},{smaller[1]}]")
    if data.crop is None or data.full_frame_epochs:
        smaller = _smaller(data.size)
        found.append(f"--size {smaller[0]}x{smaller[1]}")
    return found


def _smaller(size: tuple[int, int]) -> tuple[int, int]:
    """Three quarters of each side, in even numbers."""
    return max(2, size[0] * 3 // 8 * 2), max(2, size[1] * 3 // 8 * 2)
