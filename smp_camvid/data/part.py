"""The part of an archive that is here, and the small JSON file that says what it is a part of."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests

from smp_camvid.runs import write_json


@dataclass(frozen=True)
class Resume:
    """What is there of a remote object: its first `offset` bytes."""

    offset: int
    validator: str
    total: int | None

    @property
    def headers(self) -> dict[str, str]:
        return {"Range": f"bytes={self.offset}-", "If-Range": self.validator}


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
        of = state.get("source") if isinstance(state, dict) else None
        self._is_anothers = of not in (None, source)  # which may still go on from it

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
        self._is_anothers = False
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

    def drop_if_useless(self) -> None:
        """Away with bytes of no use: a server that cannot go on sends all of them again."""
        if not (self.complete or self.resume() or self._is_anothers):
            self.discard()

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
    known = length.isascii() and length.isdigit() and "Content-Encoding" not in response.headers
    return int(length) if known else None
