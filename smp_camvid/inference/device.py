"""Which device, which arithmetic, which memory layout: chosen by what the machine does well."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch

from smp_camvid.errors import DeviceError, UsageError


def resolve_device(name: str = "auto") -> torch.device:
    """`auto` is CUDA when present, else Apple's MPS, else the CPU.

    Raises UsageError for a name that is none, DeviceError for a device that is not there.
    """
    if name == "auto":
        kind = "cuda" if torch.cuda.is_available() else "cpu"
        return torch.device("mps" if kind == "cpu" and torch.backends.mps.is_available() else kind)
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UsageError(
            f"There is no device {name!r}.", "It is auto, cpu, cuda, cuda:1 or mps."
        ) from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise DeviceError(
            f"--device {name}: torch finds no CUDA device here.", "Use --device cpu, or auto."
        )
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise DeviceError(
            f"--device {name}: this machine has {torch.cuda.device_count()} CUDA device(s).",
            "They are counted from cuda:0.",
        )
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise DeviceError(
            "--device mps: this machine has no Apple GPU.", "Use --device cpu, or auto."
        )
    if device.type not in ("cpu", "cuda", "mps"):
        raise UsageError(
            f"--device {name} is not supported.", "It is auto, cpu, cuda, cuda:1 or mps."
        )
    return device


def cpu_multiplies_bf16() -> bool:
    """Whether the CPU has instructions for bf16 (AMX, AVX-512 BF16); emulated, bf16 is slower."""
    probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, probe, lambda: False)() for probe in probes)


@dataclass(frozen=True)
class Arithmetic:
    """How a forward pass computes.  `dtype` None is float32 throughout."""

    device: torch.device
    dtype: torch.dtype | None
    memory_format: torch.memory_format

    def autocast(self) -> AbstractContextManager[Any]:
        return torch.autocast(self.device.type, self.dtype, enabled=self.dtype is not None)

    @property
    def needs_scaler(self) -> bool:
        """Only float16 can underflow in the gradients."""
        return self.dtype is torch.float16

    @property
    def precision(self) -> str:
        """fp32, bf16 or fp16."""
        return {None: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}[self.dtype]

    def __str__(self) -> str:
        layout = "channels_last" if self.memory_format is torch.channels_last else "contiguous"
        return f"{self.device} ({self.precision}, {layout})"


def widest_float(device: torch.device) -> torch.dtype:
    """What is added up over many pixels: float64, which Apple's GPUs do not have."""
    return torch.float32 if device.type == "mps" else torch.float64


def choose_arithmetic(
    device: torch.device, precision: str = "auto", memory_format: str = "auto"
) -> Arithmetic:
    """`auto`: bf16 with channels_last where the hardware multiplies bf16, fp16 on older CUDA
    cards, else float32; in float32 on a CPU the weights stay as they are and the activations
    follow the layout of the batch (docs/performance.md)."""
    if precision == "auto":
        if device.type == "cuda":
            precision = "bf16" if torch.cuda.get_device_capability(device)[0] >= 8 else "fp16"
        else:
            precision = "bf16" if device.type == "cpu" and cpu_multiplies_bf16() else "fp32"
    if precision == "fp16" and device.type == "cpu":
        raise UsageError("--precision fp16 needs a GPU.", "On a CPU use bf16 or fp32.")
    dtype = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    if memory_format == "auto":
        last = device.type == "cuda" or dtype is not None
        memory_format = "channels_last" if last else "contiguous"
    layouts = {"channels_last": torch.channels_last, "contiguous": torch.contiguous_format}
    return Arithmetic(device, dtype, layouts[memory_format])
