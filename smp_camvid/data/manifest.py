"""manifest.json of a downloaded dataset: where it is from, and size and SHA-256 of every file."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from smp_camvid.data.archives import Stamp, stamp
from smp_camvid.runs import write_json

NAME = "manifest.json"
_NOBODYS = frozenset({".DS_Store", "Thumbs.db", "desktop.ini"})  # file browsers leave them


@dataclass(frozen=True)
class Manifest:
    """What download wrote about a folder."""

    source: str
    version: str
    files: Mapping[str, Mapping[str, Any]]
    """Path below the folder -> {"size", "sha256", "mtime_ns"}."""
    archive: Mapping[str, Any] | None = None
    """{"size", "sha256", "mtime_ns"} of the zip it was unpacked from."""
    notes: tuple[str, ...] = ()
    """What was odd about it when it came: missing frames, pictures without a partner."""


@dataclass(frozen=True)
class Differences:
    """How a folder differs from its manifest: paths below the folder, sorted."""

    missing: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    extra: list[str] = field(default_factory=list)

    @property
    def damage(self) -> list[str]:
        """What is not as it was downloaded; files that somebody added are no damage."""
        return self.missing + self.changed


def read_manifest(folder: Path) -> Manifest | None:
    """The manifest of a folder; None where there is none, or one of another kind."""
    try:
        document = json.loads((folder / NAME).read_text(encoding="utf-8"))
        files = document["files"]
        if not all(isinstance(row["size"], int) and row["sha256"] for row in files.values()):
            return None
        source, version = str(document["source"]), str(document["version"])
        notes = tuple(str(note) for note in document.get("notes", ()))
        return Manifest(source, version, files, document.get("archive"), notes)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def write_manifest(
    folder: Path,
    source: str,
    version: str,
    archive: Mapping[str, Any] | None = None,
    stamps: Mapping[str, Stamp] | None = None,
    notes: Sequence[str] = (),
) -> Manifest:
    """Writes manifest.json about all files of `folder`.

    What a source has written there itself under other names is kept.  `stamps`: hashes that are
    known already; the other files are read.
    """
    files = {}
    for name in files_of(folder):
        known = (stamps or {}).get(name) or stamp(folder / name)
        times = (folder / name).stat().st_mtime_ns
        files[name] = {"size": known.size, "sha256": known.sha256, "mtime_ns": times}
    manifest = Manifest(source, version, files, archive, tuple(notes))
    write_json(folder / NAME, {**own_words(folder), **asdict(manifest)})
    return manifest


def own_words(folder: Path) -> dict[str, Any]:
    """The JSON object in a folder's manifest.json, whoever wrote it; empty without one."""
    try:
        document = json.loads((folder / NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return document if isinstance(document, dict) else {}


def compare(folder: Path, manifest: Manifest, hashing: bool = False) -> Differences:
    """Holds a folder against its manifest.

    Without `hashing` a file of the right size and time is taken as good, and only those of
    another time (a copied folder) are read.
    """
    there = set(files_of(folder))
    missing = sorted(set(manifest.files) - there)
    changed = [
        name
        for name, row in sorted(manifest.files.items())
        if name in there and not is_same(folder / name, row, hashing)
    ]
    return Differences(missing, changed, sorted(there - set(manifest.files)))


def is_same(path: Path, row: Mapping[str, Any], hashing: bool = False) -> bool:
    """Whether a file is the one of `row`; read only when its time is another, or to be sure."""
    now = path.stat()
    if now.st_size != row.get("size"):
        return False
    if not hashing and now.st_mtime_ns == row.get("mtime_ns"):
        return True
    return bool(stamp(path).sha256 == row["sha256"])


def files_of(folder: Path) -> Iterator[str]:
    """Paths of all files below a folder, with `/`, but the manifest and file browsers' own."""
    for place, _, names in os.walk(folder):
        for name in names:
            path = Path(place, name).relative_to(folder).as_posix()
            if path != NAME and name not in _NOBODYS:
                yield path
