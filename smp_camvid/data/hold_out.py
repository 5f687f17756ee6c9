"""Leave-one-drive-out: learn from the train split without a drive, judge on that drive.

A frame's drive is what its file name says before the first underscore.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from smp_camvid.data.camvid import CamVid
from smp_camvid.data.layouts import count, first_few
from smp_camvid.errors import UsageError, did_you_mean

_LISTED = 12  # drives an error names


def drives(dataset: CamVid, split: str = "train") -> dict[str, int]:
    """The drives of a split and how many of its frames each has, by name."""
    return dict(sorted(Counter(f.drive for f in dataset.splits.get(split, ())).items()))


def hold_out(dataset: CamVid, drive: str) -> CamVid:
    """The dataset whose train split lacks `drive` and whose val split is that drive's frames.

    The standard val split is out of it, test stays; protocols end in `+held-out-<drive>`.
    Raises UsageError listing the drives when there is no such, or when it is the only one.
    """
    there = drives(dataset)
    listed = first_few((f"{name} ({frames})" for name, frames in there.items()), _LISTED)
    if drive not in there:
        guess = did_you_mean(drive, there)
        raise UsageError(
            f"There is no drive {drive!r} in the train split of {dataset.root}; it has {listed}.",
            guess or "A frame's drive is what its file name says before the first underscore.",
        )
    if len(there) == 1:
        raise UsageError(
            f"{drive} is the only drive in the train split of {dataset.root} "
            f"({count(there[drive], 'frame')}): nothing would be left to learn from.",
            "A frame's drive is what its file name says before the first underscore.",
        )
    return _divided(dataset, drive)


def hold_out_again(dataset: CamVid, recorded: Mapping[str, Any]) -> CamVid:
    """The splits of the run that wrote the metadata `recorded`, where this is data it knows.

    Data of another family, or without the drive, is left as it is; its protocol says so.
    """
    drive = str(recorded.get("hold_out", ""))
    known = recorded.get("family") == dataset.family and drive in drives(dataset)
    return _divided(dataset, drive) if known else dataset


def _divided(dataset: CamVid, drive: str) -> CamVid:
    train = dataset.splits["train"]
    splits = {
        **dataset.splits,
        "train": tuple(frame for frame in train if frame.drive != drive),
        "val": tuple(frame for frame in train if frame.drive == drive),
    }
    return replace(dataset, splits=splits, held_out=drive)
