"""Which frame belongs to which split, which label to which frame, and what does not add up."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from smp_camvid.data.camvid import standard_stems
from smp_camvid.data.inspection import Finding
from smp_camvid.data.layouts import SPLITS, Folder, Frame, count, first_few, pair_folder
from smp_camvid.data.near_duplicates import neighbours
from smp_camvid.errors import DataError

# What the folders of the two public copies hold; `standard_stems` has the standard split.
FOLDER_COUNTS: Mapping[str, Mapping[str, int]] = {
    "kaggle": {"train": 369, "val": 100, "test": 232},
    "segnet": {"train": 367, "val": 101, "test": 233},
}

Splits = dict[str, list[Frame]]


def paired(folders: Sequence[Folder], findings: list[Finding]) -> Iterator[tuple[Folder, Frame]]:
    for folder in folders:
        try:
            pairing = pair_folder(folder)
        except DataError as error:
            findings.append(
                Finding("error", "unreadable", error.message, (folder.images,), error.hint)
            )
            continue
        for path in pairing.orphans:
            message = f"{path} has no frame in {folder.images}."
            findings.append(Finding("error", "pair", message, (path,), _PAIRS))
        for first, second in pairing.twins:
            message = f"{first.parent} holds both {first.name} and {second.name}."
            findings.append(Finding("error", "pair", message, (first, second)))
        yield from ((folder, frame) for frame in pairing.frames)


_PAIRS = "The label of x.png is x_L.png or x.png, in the label folder."


def by_standard(
    root: Path, listed: Sequence[tuple[str | None, Frame]], findings: list[Finding]
) -> Splits:
    """Frames by the standard split; those that are in no list of it stay with their folder."""
    splits: Splits = {name: [] for name in SPLITS}
    split_of = {stem: name for name in SPLITS for stem in standard_stems(name)}
    seen: dict[str, Frame] = {}
    moved: dict[tuple[str, str], list[Frame]] = {}
    for folder, frame in listed:
        split, first = split_of.get(frame.stem), seen.setdefault(frame.stem, frame)
        if first is not frame:
            message = f"{frame.image} is there a second time, after {first.image}."
            hint = "A frame belongs to one split; remove one of the two."
            paths = (frame.image, first.image)
            findings.append(Finding("error", "duplicate", message, paths, hint))
        elif split is None:
            message = f"{frame.image} is in no list of CamVid's standard split."
            hint = "Remove it, or go by the folders: --split-source folders"
            findings.append(Finding("error", "folders", message, (frame.image,), hint))
            splits[folder or "train"].append(frame)
        else:
            splits[split].append(frame)
            if folder not in (None, split):
                moved.setdefault((str(folder), split), []).append(frame)
    findings += [_moved(*pair, frames) for pair, frames in moved.items()]
    return splits


def _moved(folder: str, split: str, frames: Sequence[Frame]) -> Finding:
    names = first_few(frame.image.name for frame in frames)
    message = (
        f"{count(len(frames), 'frame')} of the standard {split} split "
        f"{'lies' if len(frames) == 1 else 'lie'} in the folder {folder} ({names})."
    )
    hint = "The standard split is used; --split-source folders scores higher and on other frames."
    return Finding("warning", "folders", message, tuple(f.image for f in frames), hint)


def by_folder(
    root: Path,
    listed: Sequence[tuple[str | None, Frame]],
    findings: list[Finding],
    family: str = "dataset",
) -> Splits:
    """Frames by their folder, which for the family "camvid" may not be the standard split."""
    splits: Splits = {name: [] for name in SPLITS}
    for folder, frame in listed:
        splits[folder or "train"].append(frame)
    if any(folder is None for folder, _ in listed):
        message = f"{root} does not say which frames to learn from by its folders."
        hint = "Sort images/ and labels/ into train/ and val/; keep frames of one drive together."
        findings.append(Finding("error", "folders", message, (root,), hint))
    elif family == "camvid":
        findings += _not_standard(splits)
    return splits


def _not_standard(splits: Splits) -> Iterator[Finding]:
    split_of = {stem: name for name in SPLITS for stem in standard_stems(name)}
    other = [f for name, frames in splits.items() for f in frames if split_of.get(f.stem) != name]
    if not other:
        return
    message = (
        f"The folders are not CamVid's standard split: {count(len(other), 'frame')} "
        f"{'lies' if len(other) == 1 else 'lie'} elsewhere "
        f"({first_few(frame.image.name for frame in other)})."
    )
    hint = "Scores on it are higher and are marked +folders; --split-source standard is the other."
    yield Finding("warning", "folders", message, tuple(frame.image for frame in other), hint)


def labels_missing(splits: Splits) -> Iterator[Finding]:
    for name, frames in splits.items():
        bare = [frame for frame in frames if frame.label is None]
        if name == "test" and bare and len(bare) == len(frames):
            message = f"No frame of {name} has a label: it can be predicted and not scored."
            yield Finding("warning", "pair", message, tuple(frame.image for frame in bare))
            continue
        for frame in bare:
            message = f"{frame.image} has no label."
            yield Finding("error", "pair", message, (frame.image,), _PAIRS)


def counts(
    root: Path, splits: Splits, names: Sequence[str], family: str, layout: str, standard: bool
) -> Iterator[Finding]:
    for name in names:
        have = splits.get(name, [])
        if standard:
            stems = {frame.stem for frame in have}
            missing = [stem for stem in standard_stems(name) if stem not in stems]
            if missing:
                message = (
                    f"{name} holds {len(standard_stems(name)) - len(missing)} of its "
                    f"{len(standard_stems(name))} frames (missing: {first_few(missing)})."
                )
                names_alone = tuple(Path(f"{stem}.png") for stem in missing)
                yield Finding("warning", "count", message, names_alone)
            continue
        known = FOLDER_COUNTS.get(layout, {}).get(name) if family == "camvid" else None
        if known is not None and known != len(have):
            message = f"The folder {name} holds {len(have)} frames; the public copy has {known}."
            yield Finding("warning", "count", message, (root / name,))
        elif not have and name != "test":
            use = "learn from" if name == "train" else "validate on"
            message = f"{name} holds no frames: nothing to {use}."
            yield Finding("warning", "count", message, (root,))


def in_time(splits: Splits) -> Iterator[Finding]:
    pairs = neighbours(splits.items())
    if not pairs:
        return
    gap, split, frame, other_split, other = pairs[0]
    message = (
        f"{count(len(pairs), 'pair')} of frames that follow each other in their drive "
        f"{'is' if len(pairs) == 1 else 'are'} in different splits; the nearest are {gap} frame "
        f"numbers apart: {frame.stem} ({split}) and {other.stem} ({other_split})."
    )
    files = tuple(path for pair in pairs for path in (pair[2].image, pair[4].image))
    hint = "They look alike and lift a score; CamVid's own standard split has such pairs too."
    yield Finding("note", "neighbours", message, files, hint)


def shared_drives(splits: Splits) -> Iterator[Finding]:
    learned = {frame.drive for frame in splits.get("train", [])}
    everywhere = learned | {f.drive for frames in splits.values() for f in frames}
    for name, frames in splits.items():
        shared = [frame for frame in frames if frame.drive in learned]
        if name == "train" or not shared or len(everywhere) == 1:
            continue
        drives = first_few(sorted({frame.drive for frame in shared}))
        some = "All" if len(shared) == len(frames) else f"{len(shared)} of the"
        message = (
            f"{some} {len(frames)} frames of {name} are from drives that train "
            f"has too ({drives}): scores there say little about a road never seen."
        )
        yield Finding("note", "drives", message, tuple(frame.image for frame in shared))
