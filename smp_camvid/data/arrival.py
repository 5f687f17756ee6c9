"""Whether what a source delivered is a dataset, before it gets its place and its manifest."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from smp_camvid.data.camvid import family_of, standard_stems
from smp_camvid.data.layouts import (
    SPLITS,
    Folder,
    Frame,
    count,
    find_layout,
    first_few,
    pair_folder,
)
from smp_camvid.data.pictures import read_image
from smp_camvid.data.threads import threaded
from smp_camvid.data.watching import SILENT, Watcher
from smp_camvid.errors import DataError


def check_arrival(
    folder: Path, whole: int | None = None, watcher: Watcher = SILENT
) -> tuple[dict[str, int], list[str]]:
    """(frames of each split, notes) of a dataset that was just written.

    Every picture is decoded.  Raises DataError for one that cannot be, for an unknown layout and
    for no pictures at all.  What is odd and can be mended is a note, and so are missing frames:
    CamVid has 701, other datasets `whole` where that is known.
    """
    root, _, folders = find_layout(folder)
    splits: dict[str, int] = {}
    frames: list[Frame] = []
    notes: list[str] = []
    for part in folders:
        paired, odd = _pairs(part)
        splits[part.split or "frames"] = len(paired)
        frames += paired
        notes += odd
    if not frames:
        raise DataError(f"{root} holds no pictures.")
    _decode([path for f in frames for path in (f.image, f.label) if path], watcher)
    notes += _shortfall(root, frames, whole)
    return splits, notes


def _pairs(folder: Folder) -> tuple[tuple[Frame, ...], list[str]]:
    pairing = pair_folder(folder)
    for first, second in pairing.twins:
        raise DataError(f"{first.parent} holds both {first.name} and {second.name}.")
    bare = [frame.image.name for frame in pairing.frames if frame.label is None]
    orphans = [path.name for path in pairing.orphans]
    odd = (("frame", "label", bare), ("label", "frame", orphans))
    return pairing.frames, [
        f"{count(len(names), one)} without a {other}: {first_few(names)}."
        for one, other, names in odd
        if names
    ]


def _decode(paths: Sequence[Path], watcher: Watcher) -> None:
    sizes = [path.stat().st_size for path in paths]
    done, total = 0, sum(sizes)
    for size, _ in zip(sizes, threaded(_decodes, paths), strict=True):
        done += size
        watcher.progress("checking", done, total)


def _decodes(path: Path) -> None:
    read_image(path)


def _shortfall(root: Path, frames: Sequence[Frame], whole: int | None) -> Iterator[str]:
    name = "the whole dataset"
    if family_of(root, frames) == "camvid":
        name, whole = "CamVid", sum(len(standard_stems(split)) for split in SPLITS)
    if whole is not None and len(frames) != whole:
        yield f"{count(len(frames), 'frame')} came; {name} has {whole}."
