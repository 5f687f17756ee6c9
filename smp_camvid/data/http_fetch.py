"""One archive over HTTP into one file: resumed, retried with patience, never taken for a page.

Bytes are appended to the part only when the server proves (If-Range, then Content-Range and ETag of
the answer) that it still has the object that the part is of; otherwise the file begins anew.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from time import sleep
from typing import Protocol

import requests
import urllib3

from smp_camvid.data.network_errors import (
    Cut,
    DownloadError,
    NotAnArchive,
    Peer,
    Trouble,
    explain,
)
from smp_camvid.data.part import Part, Resume, total_of, validator_of
from smp_camvid.data.watching import Watcher

TIMEOUT = (20.0, 60.0)
"""Seconds until connected, and between two pieces of the body."""
LONGEST_WAIT = 120.0  # a server that asks for more is better asked another day
CHUNK = 1 << 17  # what at most is lost of a connection that is cut
FAILURES = (requests.RequestException, urllib3.exceptions.HTTPError, Cut, NotAnArchive)


class Remote(Protocol):
    """Where an archive comes from.

    It may also have `size`, about how many bytes there are, for a server that does not say;
    `page`, where a browser gets them; and `credentials`, what it signed in with, by name.
    """

    server: str
    """Its name in sentences: "Kaggle"."""

    def open(self, resume: Resume | None) -> requests.Response:
        """The archive as a streamed answer, from `resume` on where the server can do that."""
        ...


def fetch(remote: Remote, part: Part, watcher: Watcher, check_room: Callable[[int], None]) -> None:
    """Makes `part` complete.

    `check_room(n)` raises when the disk has no room for an archive of n bytes.  Raises
    DownloadError with one sentence when the server is not worth asking again; what came so far
    stays for the next time where the server can go on from it.
    """
    part.drop_if_useless()
    try:
        _until_complete(remote, part, watcher, check_room)
    finally:
        part.drop_if_useless()


def _until_complete(
    remote: Remote, part: Part, watcher: Watcher, check_room: Callable[[int], None]
) -> None:
    failures, best = 0, part.size
    while not part.complete:
        try:
            _one_answer(remote, part, watcher, check_room)
        except FAILURES as error:
            trouble = explain(error, peer_of(remote))
            # Only bytes that were never there before count as progress: a server that always
            # begins anew and always breaks would otherwise be asked for ever.
            failures = 1 if part.size > best else failures + 1
            best = max(best, part.size)
            if failures >= trouble.tries:
                raise _with_what_is_kept(trouble, part) from None
            _wait(trouble, failures, part, watcher)


def peer_of(remote: Remote) -> Peer:
    return Peer(remote.server, getattr(remote, "page", ""), getattr(remote, "credentials", ""))


def _wait(trouble: Trouble, failures: int, part: Part, watcher: Watcher) -> None:
    # Never sooner than asked, and never at once: a server that says 0 is asked ever more rarely.
    wait = max(trouble.first_wait * 2 ** (failures - 1), trouble.wait or 0.0)
    if wait > LONGEST_WAIT:
        message = f"{trouble.message} It asks to wait {wait:.0f} seconds."
        asked = Trouble(message, "Run the same command again after that.")
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
            check_room(total or _size_of(remote))
        else:
            first = next(chunks, b"")
            if not first.startswith(b"PK"):  # before the part that is there is thrown away
                raise NotAnArchive if first else Cut
            total = total_of(response)
            check_room(total or _size_of(remote))
            part.begin(response)
            chunks = _chain(first, chunks)
        _write(chunks, part, total, watcher)
    if total is not None and part.size != total:
        if part.size > total:
            part.discard()
        raise Cut
    part.finish()


def _size_of(remote: Remote) -> int:
    return int(getattr(remote, "size", None) or 0)


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
