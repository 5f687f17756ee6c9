"""Inputs that are no files yet: an address that the user named, the standard input.

What comes is counted, so that it fills neither disk nor memory, and judged by decoding it later.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from smp_camvid.errors import DataError

if TYPE_CHECKING:
    import requests

MAX_BYTES = 2**31
"""Of one input: a picture has less, a video of hours in HD too."""
MAX_SECONDS = 1800.0
"""An address gets so long: the timeouts of a connection end no server that drips."""
_CHUNK = 2**17
_STILLS = (b"avif", b"avis", b"heic", b"heix", b"hevc", b"mif1", b"msf1")


def read_stdin(path: Path) -> None:
    """Writes the standard input to `path`."""
    if _is_terminal():
        raise DataError("- is the standard input, and nothing is piped into it.", "cat FILE | ...")
    _write(iter(lambda: sys.stdin.buffer.read(_CHUNK), b""), path, "The standard input")


def _is_terminal() -> bool:
    return sys.stdin.isatty()


def fetch(url: str, shown: str, path: Path) -> None:
    """Writes what is at an http(s) address to `path`; `shown` is the address in messages.

    Raises DataError in words: no network, not there, too large, too slow.
    """
    import requests
    import urllib3

    from smp_camvid.data.http_fetch import TIMEOUT
    from smp_camvid.data.network_errors import Peer, explain

    try:
        with requests.get(url, stream=True, timeout=TIMEOUT) as response:
            response.raise_for_status()
            _check_size(response, shown)
            _write(_in_time(response.iter_content(_CHUNK), shown), path, shown)
    except requests.exceptions.InvalidURL:
        raise DataError(f"{shown} is no address.") from None
    except requests.exceptions.InvalidSchema:
        raise DataError(f"{shown} leads to an address that is not http or https.") from None
    except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
        trouble = explain(error, Peer(urlsplit(shown).hostname or shown, what="file"))
        raise DataError(f"{shown}: {trouble.message}", trouble.hint.strip()) from None


def _check_size(response: requests.Response, shown: str) -> None:
    """Before anything is fetched, where the server says."""
    length = response.headers.get("Content-Length", "")
    if length.isdigit() and int(length) > MAX_BYTES:
        raise _too_large(shown)


def _in_time(chunks: Iterable[bytes], shown: str) -> Iterator[bytes]:
    end = time.monotonic() + MAX_SECONDS
    for chunk in chunks:
        if time.monotonic() > end:
            raise DataError(f"{shown} took longer than {MAX_SECONDS / 60:.0f} minutes.")
        yield chunk


def _write(chunks: Iterable[bytes], path: Path, shown: str) -> None:
    size = 0
    with path.open("wb") as file:
        for chunk in chunks:
            size += len(chunk)
            if size > MAX_BYTES:
                raise _too_large(shown)
            file.write(chunk)
    if not size:
        raise DataError(f"{shown} is empty.")


def _too_large(shown: str) -> DataError:
    return DataError(
        f"{shown} has more than {MAX_BYTES / 1e9:.1f} GB and was not taken.",
        "Fetch it yourself and name the file.",
    )


def holds_video(path: Path) -> bool:
    """By the first bytes, for what has no suffix."""
    with path.open("rb") as file:
        head = file.read(16)
    return (
        (head[4:8] == b"ftyp" and head[8:12] not in _STILLS)  # MP4, MOV
        or (head[:4] == b"RIFF" and head[8:12] == b"AVI ")
        or head.startswith((b"\x1aE\xdf\xa3", b"FLV", b"OggS", b"\0\0\1\xba", b"\x30\x26\xb2\x75"))
        or (head[:1] == b"\x47" and not head.startswith(b"GIF"))  # MPEG-TS
    )
