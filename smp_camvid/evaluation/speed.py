"""How fast a model ran and how much memory that took."""

from __future__ import annotations

import sys
import time
from typing import Any

import torch

from smp_camvid.inference.engine import Maps, Size
from smp_camvid.inference.predictor import Segmenter

ENOUGH = 16
"""Frames that tell a speed."""


class Timed:
    """A segmenter that notes how long it takes, on a GPU without waiting for it."""

    def __init__(self, segmenter: Segmenter) -> None:
        self.segmenter = segmenter
        self.table, self.device = segmenter.table, segmenter.device
        kind = torch.device(self.device).type
        self._cuda, self._mps = kind == "cuda", kind == "mps"
        self._notes: list[tuple[int, Any, Any]] = []  # frames, beginning, end
        if self._cuda:
            torch.cuda.reset_peak_memory_stats(self.device)

    def resized_scores(self, frames: Any, size: Size) -> Maps:
        self._last = frames, size
        start = self._now()
        maps = self.segmenter.resized_scores(frames, size)
        self._notes.append((len(frames), start, self._now()))
        return maps

    def images_per_second(self) -> float:
        """Of the network with everything that turns its output into scores.  The first batch, which
        also warms things up, is left out; where that leaves little, the last one runs again."""
        if sum(frames for frames, _, _ in self._notes[1:]) < ENOUGH:
            for _ in range(3):
                self.resized_scores(*self._last)
        notes = self._notes[1:]
        seconds = sum(self._seconds(start, end) for _, start, end in notes)
        return sum(frames for frames, _, _ in notes) / max(seconds, 1e-9)

    def peak_memory(self) -> int | None:
        """Most bytes on the device, None where torch does not know; on a CPU those of the whole
        process since it began."""
        if torch.device(self.device).type == "cpu":
            return peak_of_process()
        own = self._cuda and hasattr(self.segmenter.engine, "network")  # ONNX Runtime takes its own
        return torch.cuda.max_memory_allocated(self.device) if own else None

    def _now(self) -> Any:
        if self._mps:  # it has no events that tell the time between them
            torch.mps.synchronize()
        if not self._cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record(torch.cuda.current_stream(self.device))
        return event

    def _seconds(self, start: Any, end: Any) -> float:
        if not self._cuda:
            return float(end - start)
        end.synchronize()
        return float(start.elapsed_time(end)) / 1000


def peak_of_process() -> int | None:
    """Most bytes of memory this process ever had; None where the system does not say."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
