"""How hard a run works its machine: memory and load of the GPU, or of the computer without one."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

from smp_camvid.inference.memory import memory_facts

MEASURE_EVERY_SECONDS = 2.0


@dataclass(frozen=True)
class MachineUse:
    """Bytes used and there, and load: of the GPU if `gpu`, else of the whole computer.

    Load is the share of time that the GPU is busy, or of a computer the processes that want to
    run for each core (the mean of a minute).  None is what the system does not say.
    """

    gpu: bool
    used_bytes: int | None
    total_bytes: int | None
    load: float | None


class MachineMeter:
    """Measures the device of a run, at most every other second.  It never imports torch."""

    def __init__(self, device: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._device = device.split()[0] if device.startswith("cuda") else ""
        self._clock = clock
        self._last: MachineUse | None = None
        self._measured_at = 0.0
        self._has_load = True

    def __call__(self) -> MachineUse:
        now = self._clock()
        if self._last is None or now - self._measured_at >= MEASURE_EVERY_SECONDS:
            self._measured_at = now
            self._last = self._gpu() or _computer()
        return self._last

    def _gpu(self) -> MachineUse | None:
        torch = sys.modules.get("torch")
        if torch is None or not self._device:
            return None
        try:
            free, total = torch.cuda.mem_get_info(self._device)
        except RuntimeError:  # a device in trouble is the run's to report
            return None
        return MachineUse(True, total - free, total, self._gpu_load(torch.cuda))

    def _gpu_load(self, cuda) -> float | None:  # type: ignore[no-untyped-def]  # torch.cuda
        if self._has_load:
            try:
                return float(cuda.utilization(self._device)) / 100
            except Exception:  # no pynvml, no right to ask, a driver without it: none is fatal
                self._has_load = False
        return None


def _computer() -> MachineUse:
    facts = memory_facts()
    total, free = facts["total_bytes"], facts["available_bytes"]
    used = None if total is None or free is None else total - free
    load = None
    with contextlib.suppress(AttributeError, OSError):  # Windows has no load average
        load = os.getloadavg()[0] / (os.cpu_count() or 1)
    return MachineUse(False, used, total, load)
