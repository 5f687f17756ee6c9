"""What is done already: inputs held against the records of earlier jobs, and new records made."""

from __future__ import annotations

import contextlib
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

    def announce(self, one: Input) -> None:
        """Its files are about to be written: what is found of them later is a job's own."""
        left = _left(self.manifest.find(one.output) or {})
        self.manifest.add(one.output, {"begun": True, "left": left})

    def add(self, one: Input, record: Record) -> None:
        before = (self.manifest.find(one.output) or {}).get("left", {})
        left = {path: size for path, size in before.items() if path not in _sizes(record)}
        self.manifest.add(one.output, {**record, **({"left": left} if left else {})})

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
        self._check_own(task.input, record or {})
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

    def _check_own(self, one: Input, record: Record) -> None:
        """Raises DataError where a file would be replaced that no job has left as it is now."""
        if record.get("begun"):
            return
        written = _left(record)
        for kind in self.kinds:
            name = one.file_name(kind)
            path = self.out / name
            # What a power cut took the content of is nobody's loss.
            if path.exists() and path.stat().st_size not in (0, written.get(name)):
                how = "was changed after it was" if name in written else "is there and was not"
                raise DataError(
                    f"{path} {how} written by predict.",
                    "Name another --out, or replace it with --force.",
                )

    def _is_there(self, record: Record) -> bool:
        """Whether the files are as they were written: a power cut leaves some empty."""
        written = _sizes(record)
        try:
            return bool(written) and all(
                (self.out / path).stat().st_size == size for path, size in written.items()
            )
        except (OSError, TypeError):
            return False


def _sizes(record: Record) -> dict[str, int]:
    """File below the output folder -> bytes; nothing where a record was edited by hand."""
    with contextlib.suppress(KeyError, TypeError, ValueError, AttributeError):
        return dict(record["files"].values())
    return {}


def _left(record: Record) -> dict[str, int]:
    """The same of all files that jobs have left there, of other kinds too."""
    left = record.get("left")
    return {**(left if isinstance(left, dict) else {}), **_sizes(record)}


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
