"""What this machine is and does well.  torch is imported only by `device_facts`."""

from __future__ import annotations

import importlib
import os
import platform
from pathlib import Path
from typing import Any

from smp_camvid.inference.memory import lines_of

_CPUINFO = Path("/proc/cpuinfo")


def cpu_facts() -> dict[str, Any]:
    """Name of the processor, and how many cores this process may use."""
    name = next(
        (line.partition(":")[2].strip() for line in lines_of(_CPUINFO) if "model name" in line),
        platform.processor() or platform.machine(),
    )
    mine = getattr(os, "sched_getaffinity", None)
    cores = len(mine(0)) if mine else os.cpu_count()
    return {"name": name, "cores": cores}


def device_facts() -> dict[str, Any]:
    """What `--device auto --precision auto` means here, and what torch can use.

    Raises whatever importing torch or torchvision raises.
    """
    import torch

    from smp_camvid.inference.device import (
        choose_arithmetic,
        cpu_multiplies_bf16,
        resolve_device,
    )

    # A torchvision that does not fit torch fails at its import: better here than in training.
    importlib.import_module("torchvision")

    def cpu_has(probe: str) -> bool:
        return bool(getattr(torch.cpu, probe, lambda: False)())

    cards = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
    return {
        "chosen": str(choose_arithmetic(resolve_device("auto"))),
        "threads": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "bf16_in_hardware": cpu_multiplies_bf16(),
        "amx": cpu_has("_is_amx_tile_supported"),
        "avx512": cpu_has("_is_avx512_supported"),
        "avx512_bf16": cpu_has("_is_avx512_bf16_supported"),
        "torch_built_for_cuda": torch.version.cuda,
        "cuda": [
            {
                "name": card.name,
                "memory_bytes": card.total_memory,
                "capability": f"{card.major}.{card.minor}",
                "bf16": card.major >= 8,
            }
            for card in cards
        ],
        "mps": torch.backends.mps.is_available(),
    }
