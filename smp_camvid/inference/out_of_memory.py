"""Out of memory, on whatever device: recognised, and told together with what to lower."""

from __future__ import annotations

import contextlib
import re
import traceback
from collections.abc import Callable, Iterator, Sequence

import torch

from smp_camvid.errors import DeviceError

_SIGNS = (
    "out of memory",  # CUDA and MPS
    "can't allocate memory",  # torch's allocator for the CPU
    "not enough memory",  # the same on Windows
    "_STATUS_ALLOC_FAILED",  # cuBLAS and cuDNN, which take memory of their own
)

Words = Callable[[], tuple[str, Sequence[str]]]
"""What was being done, as in "judging 8 frames", and what to change about it, likeliest first."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out; torch has a class for it on CUDA only."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in _SIGNS)


@contextlib.contextmanager
def out_of_memory_told(device: torch.device, words: Words) -> Iterator[None]:
    """Turns an out-of-memory error of the block into a DeviceError; `words` is asked only then."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        # The dead frames hold what was computed so far: a notebook would never get it back.
        traceback.clear_frames(error.__traceback__)
        doing, remedies = words()
        raise DeviceError(
            f"{_name_of(device)} is out of memory: {doing} does not fit{_asked_for(error)}.",
            f"Change, in this order: {'; '.join(remedies)}.",
        ) from error


@contextlib.contextmanager
def judging_told(image: torch.Tensor) -> Iterator[None]:
    """`out_of_memory_told` around a forward pass of pictures `[B, 3, H, W]`."""
    frames, (height, width) = len(image), image.shape[-2:]
    fewer = [f"--batch-size {frames // 2}"] if frames > 1 else []
    many = f"{frames} frames" if frames > 1 else "one frame"

    def words() -> tuple[str, Sequence[str]]:
        return f"judging {many} of {height}x{width} at once", [*fewer, "--device cpu"]

    with out_of_memory_told(image.device, words):
        yield


def _name_of(device: torch.device) -> str:
    return "This machine" if device.type == "cpu" else f"Device {device}"


def _asked_for(error: BaseException) -> str:
    """ ", with 2.50 GiB more asked for" where the message says how much."""
    found = re.search(r"tried to allocate ([\d.]+) ?(\w+)", str(error), re.IGNORECASE)
    if not found:
        return ""
    amount, unit = found.groups()
    if unit == "bytes":
        amount, unit = f"{float(amount) / 2**30:.2f}", "GiB"
    return f" ({amount} {unit} more were asked for)"
