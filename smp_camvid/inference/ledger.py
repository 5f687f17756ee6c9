"""What is done already: inputs held against the records of earlier jobs, and new records made."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from smp_camvid.data.pictures import Picture, read_picture
from smp_camvid.errors import DataError, SmpCamvidError
from smp_camvid.inference import box
from smp_camvid.inference.fetching import fetch, holds_video, read_stdin
from smp_camvid.inference.inputs import STDIN, Input
from smp_camvid.inference.manifest import Manifest, Record


@dataclass
class Task:
    """An input on its way."""

    input: Input
    path: Path
    stamp: dict[str, Any] = field(default_factory=dict)
    """Tells whether the input is the one of a record."""
    record: Record | None = None
    """What an earlier job wrote, if that holds still."""
    error: SmpCamvidError | None = None
    video: bool = False
    notes: tuple[str, ...] = ()

    @property
    def waits(self) -> bool:
        """Whether it is still to do."""
        return self.record is None and self.error is None

    def fail(self, error: SmpCamvidError) -> None:
        if self.waits:
            self.error = error

    def read(self) -> Picture:
        """Raises DataError."""
        picture, self.notes = read_picture(self.path, self.input.shown)
        if not self.input.is_file:
            self.path.unlink(missing_ok=True)
        return picture


@dataclass
class Ledger:
    """The manifest of `out`, read and written for one model and its options."""

    out: Path
    manifest: Manifest
    model: Mapping[str, str]
    """As `identity` has it."""
    kinds: Sequence[str]
    options: Mapping[str, Any]
    """What else changes the result: scale, tile, tta, precision."""
    force: bool = False
    """Nothing counts as done."""

    @property
    def unfinished(self) -> Path:
        return self.manifest.unfinished

    def look_up(self, one: Input) -> Task:
        """The input, with the record that makes work on it needless, or why it cannot be done."""
        task = Task(one, Path(one.name), video=one.is_video)
        try:
            if one.is_file:
                _stamp_file(task)
            else:
                _take(task, self.unfinished)
            task.record = None if self.force else self._earlier(task)
        except SmpCamvidError as error:
            task.error = error
        return task

    def add(self, one: Input, record: Record) -> None:
        self.manifest.add(one.output, record)

    def describe(
        self,
        task: Task,
        files: Mapping[str, Path],
        shares: Mapping[str, float],
        notes: Sequence[str],
    ) -> Record:
        """The record of files that were just written."""
        sizes = {
            kind: [path.relative_to(self.out).as_posix(), path.stat().st_size]
            for kind, path in files.items()
        }
        record = {"input": _place(task.input), **task.stamp, "model": dict(self.model)}
        record |= {"options": dict(self.options), "files": sizes, "shares": dict(shares)}
        return record | ({"notes": list(notes)} if notes else {})

    def _earlier(self, task: Task) -> Record | None:
        """The record that holds still.  Raises DataError where another input's files would go."""
        record = self.manifest.find(task.input.output)
        if record is None or not self._is_there(record):
            return None
        if record.get("input") != _place(task.input):
            raise DataError(
                f"{task.input.shown} would replace the prediction of {record.get('input')} in "
                f"{self.out}.",
                "Name another --out, or replace it with --force.",
            )
        same = (
            all(record.get(key) == value for key, value in task.stamp.items())
            and record.get("model", {}).get("sha256") == self.model["sha256"]
            and record.get("options") == dict(self.options)
            and set(self.kinds) <= set(record["files"])
        )
        return record if same else None

    def _is_there(self, record: Record) -> bool:
        """Whether the files are as they were written: a power cut leaves some empty."""
        try:
            files = record["files"].values()
            return all((self.out / path).stat().st_size == size for path, size in files)
        except (OSError, KeyError, TypeError, ValueError, AttributeError):  # or edited by hand
            return False


def identity(source: str) -> dict[str, str]:
    """A model by name and content: weights under an old name are not the old ones."""
    path = Path(source) if Path(source).is_file() else box.find(source) / "model.safetensors"
    digest = _digest(path) if path.is_file() else ""
    return {"source": source, "sha256": digest}


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _place(one: Input) -> str:
    """The input, wherever the command is given."""
    return str(Path(one.name).absolute()) if one.is_file else one.shown


def _stamp_file(task: Task) -> None:
    try:
        status = task.path.stat()
    except OSError as error:
        raise DataError(f"{task.input.name} cannot be read: {error.strerror}.") from None
    task.stamp = {"size": status.st_size, "mtime_ns": status.st_mtime_ns}


def _take(task: Task, folder: Path) -> None:
    """Makes a file of what is none; it is known by its content, since it has no time."""
    one = task.input
    try:
        task.path = Path(tempfile.mkdtemp(dir=folder)) / "input"
        if one.name == STDIN:
            read_stdin(task.path)
        else:
            fetch(one.name, one.shown, task.path)
        task.stamp = {"size": task.path.stat().st_size, "sha256": _digest(task.path)}
        task.video = holds_video(task.path)
    except OSError as error:
        raise DataError(f"{one.shown} cannot be kept: {error.strerror}.") from None
