"""Whether the predictions of different inputs keep out of each other's way, and of the inputs'."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from smp_camvid.errors import UsageError
from smp_camvid.inference import video
from smp_camvid.inference.inputs import OURS, Input


def check_outputs(inputs: Sequence[Input], out: Path, kinds: Sequence[str]) -> None:
    """Raises UsageError when two inputs have one name for their files, or a file is an input,
    and for a kind that is not saved of a video."""
    if any(one.is_video for one in inputs):
        video.check_kinds(kinds)
    seen: dict[str, Input] = {}
    for one in inputs:
        other = seen.setdefault(one.output, one)
        if other is not one:
            raise UsageError(
                f"{other.shown} and {one.shown} would both be written as "
                f"{one.file_name(kinds[0])}.",
                "Predict them separately, each with its own --out.",
            )
    del seen
    _check_overwriting(inputs, out.resolve(), kinds)


def _check_overwriting(inputs: Sequence[Input], out: Path, kinds: Sequence[str]) -> None:
    places: dict[Path, Path] = {}  # to resolve every file by itself would take seconds
    endangered = {}
    for one in inputs:
        path = Path(one.name)
        if one.is_file and OURS.fullmatch(path.name):
            place = places.setdefault(path.parent, path.parent.resolve())
            endangered[place / path.name] = one
    for one in inputs if endangered else ():
        for kind in kinds:
            if overwritten := endangered.get(out / one.file_name(kind)):
                raise UsageError(
                    f"The {kind} of {one.shown} would overwrite {overwritten.name}, an input.",
                    "Name another folder with --out.",
                )
