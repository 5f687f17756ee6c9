"""manifest.jsonl in the output folder: what became of each input, so that a stopped job goes on.

    predictions/manifest.jsonl              one record a line, sorted by `output`
    predictions/.predict/lock               held while records are gathered
    predictions/.predict/process-x/         of one process: alive (its lock), part.jsonl, and
                                            the files it has not finished
    predictions/.predict/process-x.jsonl    the part of a process that has ended

A process writes records into its own part.  Parts become one manifest when the last process of the
folder ends, or when the next one begins; nobody has to be asked which processes there are, since
the system drops the lock of one that was killed.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from smp_camvid.errors import RunError
from smp_camvid.locks import locked, open_lock, try_lock
from smp_camvid.runs import atomic_path

NAME = "manifest.jsonl"
HOME = ".predict"
_HEAD = b'{"output": '
Record = dict[str, Any]
"""output, input, size and mtime_ns or sha256, model, options, files {kind: [path, bytes]}, shares;
of a video also frames and fps; left {path: bytes}, what earlier jobs wrote besides.  Paths are
below the output folder.  Of what a job was writing when it was killed only output, begun, left."""


@dataclass
class Manifest:
    """The records of an output folder.  Made by `open_manifest`."""

    unfinished: Path
    """A folder of this process alone, on the same disk, for files that are not whole yet."""
    _whole: Path
    _part: IO[bytes]
    _offsets: Mapping[str, int]
    _own: dict[str, int] = field(default_factory=dict)

    def find(self, output: str) -> Record | None:
        """The record of what is written as `output`, by an earlier process or this one."""
        if output in self._own:
            return _record_at(Path(self._part.name), self._own[output])
        offset = self._offsets.get(output)
        return None if offset is None else _record_at(self._whole, offset)

    def add(self, output: str, record: Mapping[str, Any]) -> None:
        """Survives the death of the process, not that of the machine: then it is done again."""
        self._own[output] = self._part.tell()
        self._part.write(json.dumps({"output": output, **record}).encode() + b"\n")


@contextlib.contextmanager
def open_manifest(out: Path) -> Iterator[Manifest]:
    """Opens, or makes, the manifest of an output folder, and gathers what others left there."""
    home = out / HOME
    try:
        home.mkdir(parents=True, exist_ok=True)
        with locked(home / "lock"):
            _gather(out, home)
            folder = Path(tempfile.mkdtemp(dir=home, prefix="process-"))
            alive = open_lock(folder / "alive")
            with contextlib.suppress(OSError):  # no locks here: nobody will take it for dead
                try_lock(alive)
            offsets = dict(_records(out / NAME))
    except OSError as error:
        raise RunError(
            f"Predictions cannot be written to {out}: {error.strerror or error}.",
            "Name another folder with --out.",
        ) from error
    try:
        with (folder / "part.jsonl").open("ab", buffering=0) as part:
            yield Manifest(folder, out / NAME, part, offsets)
    finally:
        with locked(home / "lock"):
            os.close(alive)  # first: Windows removes no open file
            _leave(folder)
            if not any(path.is_dir() for path in home.glob("process-*")):
                _gather(out, home)


def _leave(folder: Path) -> None:
    """Of a process that has ended only its records are kept."""
    part = folder / "part.jsonl"
    if part.is_file() and part.stat().st_size:
        part.replace(folder.with_suffix(".jsonl"))
    shutil.rmtree(folder, ignore_errors=True)


def _gather(out: Path, home: Path) -> None:
    """Makes one manifest of the old one and the parts of all processes that have ended."""
    for stray in home.glob(".*"):  # a manifest that was never finished
        stray.unlink()
    for folder in home.glob("process-*"):
        if folder.is_dir() and _is_dead(folder):
            _leave(folder)
    parts = sorted(home.glob("process-*.jsonl"), key=lambda path: path.stat().st_mtime_ns)
    if not parts:
        return
    _merge([out / NAME, *parts], out / NAME, home)
    for part in parts:
        part.unlink()


def _is_dead(folder: Path) -> bool:
    handle = open_lock(folder / "alive")
    try:
        return try_lock(handle)
    except OSError:  # the file system has no locks
        return False
    finally:
        os.close(handle)


def _merge(sources: Sequence[Path], target: Path, unfinished: Path) -> None:
    """The last record of each output, sorted; in memory are their names only."""
    newest = {
        output: (number, offset)
        for number, path in enumerate(sources)
        for output, offset in _records(path)
    }
    with contextlib.ExitStack() as stack:
        files = {n: stack.enter_context(p.open("rb")) for n, p in enumerate(sources) if p.exists()}
        temporary = stack.enter_context(atomic_path(target, within=unfinished))
        merged = stack.enter_context(temporary.open("wb"))
        for output in sorted(newest):
            number, offset = newest[output]
            files[number].seek(offset)
            merged.write(files[number].readline())


def _records(path: Path) -> Iterator[tuple[str, int]]:
    """(output, offset of its line) of all whole lines; a torn one is left out."""
    if not path.exists():
        return
    decode, offset = json.JSONDecoder().raw_decode, 0
    with path.open("rb") as file:
        for line in file:
            if line.startswith(_HEAD + b'"') and line.endswith(b"}\n"):
                yield decode(line.decode(errors="replace"), len(_HEAD))[0], offset
            offset += len(line)


def _record_at(path: Path, offset: int) -> Record | None:
    with contextlib.suppress(OSError, ValueError), path.open("rb") as file:
        file.seek(offset)
        return dict(json.loads(file.readline()))
    return None
