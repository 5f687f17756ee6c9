"""One archive over HTTP into one file: resumed, retried with patience, never taken for a page.

The part lies beside a small JSON file that says which remote object its bytes are of.  Bytes are
appended only when the server proves (If-Range, then Content-Range and ETag of the answer) that it
still has that object; otherwise the file begins anew.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from time import sleep
from typing import Any, Protocol

import requests
import urllib3

from smp_camvid.data.network_errors import Cut, DownloadError, NotAnArchive, Trouble, explain
from smp_camvid.data.watching import Watcher
from smp_camvid.runs import write_json

TIMEOUT = (20.0, 60.0)
"""Seconds until connected, and between two pieces of the body."""
LONGEST_WAIT = 120.0  # a server that asks for more is better asked another day
CHUNK = 1 << 17  # what at most is lost of a connection that is cut
FAILURES = (requests.RequestException, urllib3.exceptions.HTTPError, Cut, NotAnArchive)


@dataclass(frozen=True)
class Resume:
    """What is there of a remote object: its first `offset` bytes."""

    offset: int
    validator: str
    total: int | None

    @property
    def headers(self) -> dict[str, str]:
        return {"Range": f"bytes={self.offset}-", "If-Range": self.validator}


class Remote(Protocol):
    """Where an archive comes from."""

    server: str
    """Its name in sentences: "Kaggle"."""

    def open(self, resume: Resume | None) -> requests.Response:
        """The archive as a streamed answer, from `resume` on where the server can do that."""
        ...


class Part:
    """The file being fetched and the note about what it is of."""

    def __init__(self, folder: Path, source: str) -> None:
        self.path, self._note = folder / "archive.zip", folder / "archive.json"
        try:
            state = json.loads(self._note.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            state = None
        good = isinstance(state, dict) and state.get("source") == source and self.path.is_file()
        self._state: dict[str, Any] = state if good else {"source": source}

    @property
    def size(self) -> int:
        return self.path.stat().st_size if self.path.is_file() else 0

    @property
    def complete(self) -> bool:
        return self._state.get("complete") == self.size > 0

    @property
    def version(self) -> str:
        """What the server calls this state of the archive; empty when it does not say."""
        return str(self._state.get("version") or "")

    def resume(self) -> Resume | None:
        """How to go on; None when nothing is there or nothing proves what it is of."""
        validator, total = self._state.get("validator"), self._state.get("total")
        if not validator or not self.size or (total is not None and self.size >= total):
            return None
        return Resume(self.size, validator, total)

    def begin(self, response: requests.Response) -> None:
        """Empties the file and notes what the answer holds, in an order that a kill may cut."""
        self._note.unlink(missing_ok=True)
        self.path.write_bytes(b"")
        self._state = {
            "source": self._state["source"],
            "validator": validator_of(response),
            "version": response.headers.get("Last-Modified") or response.headers.get("ETag"),
            "total": total_of(response),
        }
        write_json(self._note, self._state)

    def finish(self) -> None:
        self._state["complete"] = self.size
        write_json(self._note, self._state)

    def discard(self) -> None:
        self._note.unlink(missing_ok=True)
        self.path.unlink(missing_ok=True)
        self._state = {"source": self._state["source"]}


def validator_of(response: requests.Response) -> str | None:
    """What If-Range may hold: a strong ETag, else the date of the last change."""
    if "Content-Encoding" in response.headers:
        return None  # ranges count bytes that we never see
    tag = response.headers.get("ETag")
    return tag if tag and not tag.startswith("W/") else response.headers.get("Last-Modified")


def total_of(response: requests.Response) -> int | None:
    length = response.headers.get("Content-Length", "")
    return int(length) if length.isdigit() and "Content-Encoding" not in response.headers else None


def fetch(remote: Remote, part: Part, watcher: Watcher, check_room: Callable[[int], None]) -> None:
    """Makes `part` complete.

    `check_room(n)` raises when the disk has no room for an archive with n bytes to come.  Raises
    DownloadError with one sentence when the server is not worth asking again; what came so far
    stays for the next time.
    """
    failures, best = 0, part.size
    while not part.complete:
        try:
            _one_answer(remote, part, watcher, check_room)
        except FAILURES as error:
            trouble = explain(error, remote.server)
            # Only bytes that were never there before count as progress: a server that always
            # begins anew and always breaks would otherwise be asked for ever.
            failures = 1 if part.size > best else failures + 1
            best = max(best, part.size)
            if failures >= trouble.tries:
                raise _with_what_is_kept(trouble, part) from None
            _wait(trouble, failures, part, watcher)


def _wait(trouble: Trouble, failures: int, part: Part, watcher: Watcher) -> None:
    wait = trouble.first_wait * 2 ** (failures - 1) if trouble.wait is None else trouble.wait
    if wait > LONGEST_WAIT:
        asked = Trouble(f"{trouble.message} It asks to wait {wait:.0f} seconds.", trouble.hint)
        raise _with_what_is_kept(asked, part) from None
    watcher.note(f"{trouble.message} Trying again in {wait:.0f} s.")
    sleep(wait)


def _with_what_is_kept(trouble: Trouble, part: Part) -> DownloadError:
    if part.resume() is None:
        return trouble.error()
    kept = f"{part.size / 1e6:.1f} MB are kept and the same command goes on from there."
    return DownloadError(f"{trouble.message} {kept}", trouble.hint)


def _one_answer(
    remote: Remote, part: Part, watcher: Watcher, check_room: Callable[[int], None]
) -> None:
    """Asks once and writes what comes.  Raises one of FAILURES when that is not all."""
    resume = part.resume()
    with contextlib.closing(remote.open(resume)) as response:
        if response.status_code == 416:  # the part is longer than what the server has by now
            part.discard()
            raise Cut
        response.raise_for_status()
        chunks: Iterator[bytes] = response.iter_content(CHUNK)
        if response.status_code == 206:
            if resume is None or not _continues(response, resume):
                part.discard()
                raise Cut
            total = resume.total
            check_room((total or resume.offset) - resume.offset)
        else:
            first = next(chunks, b"")
            if not first.startswith(b"PK"):  # before the part that is there is thrown away
                raise NotAnArchive if first else Cut
            total = total_of(response)
            check_room(total or 0)
            part.begin(response)
            chunks = _chain(first, chunks)
        _write(chunks, part, total, watcher)
    if total is not None and part.size != total:
        if part.size > total:
            part.discard()
        raise Cut
    part.finish()


def _chain(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield from rest


def _write(chunks: Iterator[bytes], part: Part, total: int | None, watcher: Watcher) -> None:
    done = part.size
    watcher.progress("downloading", done, total)
    # Unbuffered: a killed process loses nothing that came in.
    with part.path.open("ab", buffering=0) as file:
        for chunk in chunks:
            file.write(chunk)
            done += len(chunk)
            watcher.progress("downloading", done, total)


def _continues(response: requests.Response, resume: Resume) -> bool:
    """Whether a 206 answer is the rest of what is there."""
    unit, _, span = response.headers.get("Content-Range", "").partition(" ")
    span, _, total = span.partition("/")
    start = span.partition("-")[0]
    same = validator_of(response) in (None, resume.validator)
    whole = resume.total is None or total in ("*", str(resume.total))
    return unit == "bytes" and start == str(resume.offset) and same and whole
