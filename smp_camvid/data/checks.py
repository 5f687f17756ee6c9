"""`data check`: everything that is wrong with a dataset at once, with the files it is about.

Errors are what makes training stop or a score wrong: a broken pair, a size, a colour, a value,
the same picture in two splits.  Warnings are worth a look, notes are worth knowing.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smp_camvid.data.camvid import (
    Classes,
    SplitSource,
    family_of,
    locate,
    read_classes,
)
from smp_camvid.data.classes import LabelDecoder
from smp_camvid.data.inspection import Finding, Look, Severity, check_manifest, look_at
from smp_camvid.data.layouts import SPLITS, Frame, find_layout, first_few
from smp_camvid.data.near_duplicates import SIMILAR, Fingerprint, most_similar
from smp_camvid.data.pictures import holds_indices
from smp_camvid.data.split_checks import (
    Splits,
    by_folder,
    by_standard,
    counts,
    in_time,
    labels_missing,
    paired,
    shared_drives,
)
from smp_camvid.data.threads import OnProgress, threaded
from smp_camvid.errors import DataError, UsageError


@dataclass(frozen=True)
class Check:
    """What `check_dataset` found."""

    root: Path
    layout: str
    family: str
    classes: str
    split_source: str
    """"standard" or "folders"."""
    splits: Mapping[str, Sequence[Frame]]
    findings: tuple[Finding, ...]
    """Errors first, then warnings, then notes."""
    seconds: float

    def count(self, severity: Severity) -> int:
        return sum(finding.severity == severity for finding in self.findings)

    def passed(self, strict: bool = False) -> bool:
        """No error, and when `strict` no warning either."""
        return not self.count("error") and not (strict and self.count("warning"))

    def drives(self) -> dict[str, dict[str, int]]:
        """Split -> drive -> number of frames."""
        return {
            split: dict(sorted(Counter(frame.drive for frame in frames).items()))
            for split, frames in self.splits.items()
        }

    def document(self) -> dict[str, Any]:
        """What `data check --json` prints."""
        return {
            "root": str(self.root),
            "layout": self.layout,
            "family": self.family,
            "classes": self.classes,
            "split_source": self.split_source,
            "frames": {split: len(frames) for split, frames in self.splits.items()},
            "drives": self.drives(),
            "errors": self.count("error"),
            "warnings": self.count("warning"),
            "notes": self.count("note"),
            "findings": [
                {
                    "severity": finding.severity,
                    "kind": finding.kind,
                    "message": finding.message,
                    "files": [str(path) for path in finding.files],
                    "hint": finding.hint,
                }
                for finding in self.findings
            ],
            "seconds": round(self.seconds, 2),
        }


def parse_splits(text: str | None) -> tuple[str, ...]:
    """`"train+val"` -> ("train", "val"); None is all three.  Raises UsageError."""
    names = tuple(text.split("+")) if text else SPLITS
    for name in names:
        if name not in SPLITS:
            raise UsageError(
                f"--split {text!r} is not known.", "It is train, val or test, or some joined by +."
            )
    return names


def check_dataset(
    path: str | Path | None = None,
    classes: Classes = "11",
    split_source: SplitSource = "standard",
    splits: Sequence[str] = SPLITS,
    on_progress: OnProgress | None = None,
) -> Check:
    """Looks at every file of the chosen splits.  Writes nothing.

    Raises DataError only where there is no dataset to look at.
    """
    began = time.monotonic()
    root, layout, folders = find_layout(locate(path))
    findings = check_manifest(root)
    listed = [(folder.split, frame) for folder, frame in paired(folders, findings)]
    family = family_of(root, [frame for _, frame in listed]) if listed else "dataset"
    standard = family == "camvid" and split_source == "standard"
    every = (
        by_standard(root, listed, findings)
        if standard
        else by_folder(root, listed, findings, family)
    )
    found = {name: every[name] for name in splits if every[name]}
    if not found:
        raise _nothing_to_look_at(root, splits, every, findings)
    findings += labels_missing(found)
    findings += counts(root, found, splits, family, layout, standard)
    decoder = _decoder(root, classes, found, findings)
    looks = _look_at_all(found, decoder, on_progress)
    for seen in looks.values():
        findings += [finding for look in seen for finding in look.findings]
    findings += [*_copies(looks), *_near_copies(looks), *_sizes(looks)]
    findings += [*in_time(found), *shared_drives(found)]
    order = ("error", "warning", "note")
    findings.sort(key=lambda finding: order.index(finding.severity))  # stable: kinds stay together
    source = "standard" if standard else "folders"
    seconds = time.monotonic() - began
    return Check(root, layout, family, classes, source, found, tuple(findings), seconds)


def _nothing_to_look_at(
    root: Path, splits: Sequence[str], every: Splits, findings: Sequence[Finding]
) -> DataError:
    for finding in findings:  # a folder that cannot be read, for one
        if finding.kind == "unreadable":
            return DataError(finding.message, finding.hint)
    there = [name for name, frames in every.items() if frames]
    return DataError(
        f"{root} has no frames in {' or '.join(splits)}.",
        f"It has some in {' and '.join(there)}: --split {'+'.join(there)}"
        if there
        else "Get some: smp-camvid download",
    )


def _decoder(
    root: Path, classes: Classes, splits: Splits, findings: list[Finding]
) -> LabelDecoder | None:
    """None, with one finding in place of one for each label, when the classes cannot be had."""
    try:
        _, decoder = read_classes(root, classes)
    except DataError as error:
        findings.append(Finding("error", "classes", error.message, (root,), error.hint))
        return None
    labels = [frame.label for frames in splits.values() for frame in frames if frame.label]
    if decoder.reads_indices or not labels:
        return decoder
    try:
        indices = holds_indices(labels[0], decoder.knows)
    except DataError:
        return decoder  # unreadable, which its look will say
    if not indices:
        return decoder
    refusal = decoder.no_indices(labels[0])
    findings.append(Finding("error", "classes", refusal.message, (labels[0],), refusal.hint))
    return None


def _look_at_all(
    splits: Splits, decoder: LabelDecoder | None, on_progress: OnProgress | None
) -> dict[str, list[Look]]:
    everything = [frame for frames in splits.values() for frame in frames]
    looks = threaded(lambda frame: look_at(frame, decoder), everything, on_progress)
    found = iter(list(looks))
    return {name: [next(found) for _ in frames] for name, frames in splits.items()}


def _copies(looks: Mapping[str, Sequence[Look]]) -> Iterator[Finding]:
    """The same picture, pixel by pixel, in two files."""
    first: dict[str, tuple[str, Look]] = {}
    for split, seen in looks.items():
        for look in seen:
            if not look.digest:
                continue
            other, before = first.setdefault(look.digest, (split, look))
            if before is look:
                continue
            paths = (look.frame.image, before.frame.image)
            if other == split:
                message = f"{paths[0]} is the same picture as {paths[1]}."
                yield Finding("warning", "duplicate", message, paths)
            else:
                message = f"{paths[0]} ({split}) is the same picture as {paths[1]} ({other})."
                hint = "A score on frames that were learned from says nothing; remove one."
                yield Finding("error", "duplicate", message, paths, hint)


def _near_copies(looks: Mapping[str, Sequence[Look]]) -> Iterator[Finding]:
    """For each frame the most similar one of the splits before its own, if similar enough."""
    before: list[tuple[Look, Fingerprint]] = []
    for seen in looks.values():
        here = [(look, look.fingerprint) for look in seen if look.fingerprint is not None]
        nearest = most_similar([mark for _, mark in here], [mark for _, mark in before])
        for (look, _), (index, similarity) in zip(here, nearest, strict=False):
            other, _ = before[index]
            if similarity < SIMILAR or look.digest == other.digest:
                continue
            paths = (look.frame.image, other.frame.image)
            message = f"{paths[0]} is nearly {paths[1]}: similarity {similarity:.3f}."
            hint = f"Frames from {SIMILAR} on are a copy, or the same view a moment later."
            yield Finding("warning", "near-duplicate", message, paths, hint)
        before += here


def _sizes(looks: Mapping[str, Sequence[Look]]) -> Iterator[Finding]:
    """Frames of another size than most."""
    frames: dict[tuple[int, int], list[Path]] = {}
    for look in (look for seen in looks.values() for look in seen):
        if look.size is not None:
            frames.setdefault(look.size, []).append(look.frame.image)
    if len(frames) < 2:
        return
    (size, most), *others = sorted(frames.items(), key=lambda item: -len(item[1]))
    odd = (f"{len(p)} of {w}x{h} ({first_few(f.name for f in p)})" for (h, w), p in others)
    message = f"Frames have {len(frames)} sizes: {len(most)} of {size[1]}x{size[0]}, "
    message += f"{first_few(odd)}."
    yield Finding("note", "sizes", message, tuple(path for _, p in others for path in p))
