"""The epochs that a run folder has on record: metrics.jsonl and timing.jsonl.  No torch here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from smp_camvid import runs
from smp_camvid.training.events import EpochDone, History, Scores

TIMING = ("images_per_second", "seconds", "data_wait_seconds", "gpu_memory_bytes")
"""The fields of EpochDone that timing.jsonl holds; metrics.jsonl has what the seed determines."""
_UNMEASURED = {**dict.fromkeys(TIMING, 0), "gpu_memory_bytes": None}


def rows_of(done: EpochDone) -> tuple[dict[str, Any], dict[str, Any]]:
    """The line of metrics.jsonl and that of timing.jsonl."""
    metrics = {"epoch": done.epoch, "lr": done.lr, "train": _row(done.train), "val": _row(done.val)}
    return metrics, {"epoch": done.epoch, **{name: getattr(done, name) for name in TIMING}}


def history(run_dir: Path, epochs: int) -> History:
    """The epochs on record of a run of `epochs`; a torn last line is left out."""
    timing = {row["epoch"]: row for row in runs.read_lines(run_dir / "timing.jsonl")}
    best, found = -1.0, []
    for row in runs.read_lines(run_dir / "metrics.jsonl"):
        val = None if row["val"] is None else Scores(**row["val"])
        improved = val is not None and val.miou > best
        best = val.miou if val is not None and improved else best
        measured = {**_UNMEASURED, **timing.get(row["epoch"], {})}
        found.append(
            EpochDone(
                epochs=epochs,
                train=Scores(**row["train"]),
                val=val,
                lr=row["lr"],
                seconds_left=measured["seconds"] * (epochs - row["epoch"]),
                best=improved,
                **{**measured, "epoch": row["epoch"]},
            )
        )
    return History(found)


def _row(scores: Scores | None) -> dict[str, Any] | None:
    return None if scores is None else {**vars(scores), "per_class": dict(scores.per_class)}
