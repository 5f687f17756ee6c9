"""One look at each file of a dataset: can it be read, does its label fit, what does it hold.

A look collects what is wrong and goes on, where training stops at the first bad file; both read
through `pictures` and `LabelDecoder`, so what passes here is what training accepts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from smp_camvid.data.classes import VOID, LabelDecoder
from smp_camvid.data.layouts import Frame, count, first_few
from smp_camvid.data.manifest import compare, read_manifest
from smp_camvid.data.near_duplicates import Fingerprint, fingerprint
from smp_camvid.data.pictures import Picture, read_image, read_label
from smp_camvid.errors import DataError

Severity = Literal["error", "warning", "note"]


@dataclass(frozen=True)
class Finding:
    """Something a user should know about the dataset."""

    severity: Severity
    """error: training or scores go wrong; warning: look at it; note: know it."""
    kind: str
    """pair, unreadable, size, label, classes, duplicate, near-duplicate, count, folders,
    manifest, neighbours, drives, void or sizes."""
    message: str
    files: tuple[Path, ...] = ()
    """What it is about; of a frame that should be there and is not, the name alone."""
    hint: str = ""


@dataclass(frozen=True)
class Look:
    """What a frame and its label turned out to be."""

    frame: Frame
    size: tuple[int, int] | None = None
    """Height and width; None when the frame cannot be read."""
    digest: str = ""
    """Of the decoded pixels: equal for the same picture, however its file was compressed."""
    fingerprint: Fingerprint | None = None
    findings: tuple[Finding, ...] = ()


def look_at(frame: Frame, decoder: LabelDecoder | None) -> Look:
    """Reads a frame and its label whole; without a decoder the label's values are not judged."""
    findings: list[Finding] = []
    image = _read(read_image, frame.image, findings)
    if frame.label is not None:
        _look_at_label(frame, frame.label, image, decoder, findings)
    if image is None:
        return Look(frame, findings=tuple(findings))
    digest = hashlib.blake2b(image.tobytes(), digest_size=20)
    digest.update(str(image.shape).encode())
    size = (image.shape[0], image.shape[1])
    return Look(frame, size, digest.hexdigest(), fingerprint(image), tuple(findings))


def _read(reader: Callable[[Path], Picture], path: Path, findings: list[Finding]) -> Picture | None:
    try:
        return reader(path)
    except DataError as error:
        findings.append(Finding("error", "unreadable", error.message, (path,), error.hint))
        return None


def _look_at_label(
    frame: Frame,
    path: Path,
    image: Picture | None,
    decoder: LabelDecoder | None,
    findings: list[Finding],
) -> None:
    if decoder is None:
        picture = _read(read_image, path, findings)
    else:
        picture = _read(lambda file: read_label(file, decoder.knows), path, findings)
    if picture is None:
        return
    if image is not None and picture.shape[:2] != image.shape[:2]:
        message = (
            f"{path} is {picture.shape[1]}x{picture.shape[0]} pixels, "
            f"its frame {frame.image.name} is {image.shape[1]}x{image.shape[0]}."
        )
        hint = "A label has exactly the size of its frame."
        findings.append(Finding("error", "size", message, (path, frame.image), hint))
    if decoder is None:
        return
    try:
        label = decoder.decode(picture, path)
    except DataError as error:
        findings.append(Finding("error", "label", error.message, (path,), error.hint))
        return
    if (label == VOID).all():
        message = f"{path} is void all over: its frame teaches and counts nothing."
        findings.append(Finding("warning", "void", message, (path,)))


def check_manifest(root: Path) -> list[Finding]:
    """Hashes every file that download listed; nothing to say where it wrote no manifest."""
    manifest = read_manifest(root)
    if manifest is None:
        return []
    found = compare(root, manifest, hashing=True)
    again = "Fetch the dataset again: smp-camvid download --force"
    findings = []
    for name in found.missing:
        message = f"{root / name} was downloaded and is gone."
        findings.append(Finding("error", "manifest", message, (root / name,), again))
    for name in found.changed:
        message = f"{root / name} is not the file that was downloaded: its SHA-256 differs."
        findings.append(Finding("error", "manifest", message, (root / name,), again))
    if found.extra:
        listed = first_few(found.extra)
        added = f"{count(len(found.extra), 'file')} of {root}"
        message = f"{added} did not come with the download ({listed})."
        paths = tuple(root / name for name in found.extra)
        findings.append(Finding("note", "manifest", message, paths))
    return findings
