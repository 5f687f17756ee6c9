"""How much memory there is, and how much of it is free.  torch is imported only for a device."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

_MEMINFO = Path("/proc/meminfo")
_CONTAINER_LIMIT = Path("/sys/fs/cgroup/memory.max")


def memory_facts() -> dict[str, int | None]:
    """Bytes of memory in all and free to use; None where the system does not say.

    A container's limit counts when it is below what the machine has.
    """
    kilobytes = {}
    for line in lines_of(_MEMINFO):
        key, _, value = line.partition(":")
        if value.endswith("kB"):
            kilobytes[key] = int(value.split()[0])
    total = kilobytes["MemTotal"] * 1024 if "MemTotal" in kilobytes else _pages()
    free = kilobytes["MemAvailable"] * 1024 if "MemAvailable" in kilobytes else None
    limit = next(iter(lines_of(_CONTAINER_LIMIT)), "")
    if limit.isdigit() and total is not None and int(limit) < total:
        total = int(limit)
        free = None if free is None else min(free, total)
    return {"total_bytes": total, "available_bytes": free}


def free_bytes(device: torch.device) -> int | None:
    """What this process could still take on `device`; None where nobody knows."""
    import torch

    if device.type == "cuda":
        # What torch holds and has not given out is as good as free.
        held = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + held
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
    return memory_facts()["available_bytes"]


def _pages() -> int | None:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):  # Windows has no sysconf
        return None


def lines_of(path: Path) -> list[str]:
    """The lines of a file of the system; none where it is not there or not readable."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
