"""What `predict` says of each input: a line, or a member of a JSON list."""

from __future__ import annotations

import json
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import typer

from smp_camvid.report.job_progress import JobView

if TYPE_CHECKING:
    from smp_camvid.inference.job import Outcome


class Teller:
    """Tells outcomes as they come, so that a million of them do not wait in memory."""

    def __init__(self, view: JobView, out: Path, as_json: bool) -> None:
        self.failed = self.skipped = 0
        self._view, self._out, self._as_json = view, out, as_json
        self._separator = "[\n"

    def __enter__(self) -> Teller:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._as_json:  # a whole document after an interruption too
            typer.echo("[]" if self._separator == "[\n" else "\n]")

    def tell(self, outcome: Outcome) -> None:
        name = outcome.input.shown
        if outcome.record is None:
            self.failed += 1
            self._view.note(f"smp-camvid: {outcome.error}")
            self._add({"input": name, "error": str(outcome.error)})
            return
        self.failed += bool(outcome.record.get("damaged"))
        self.skipped += outcome.skipped
        for note in outcome.record.get("notes", ()):
            self._view.note(f"{name}: {note}")
        document = describe(outcome, self._out)
        self._add(document)
        if not self._as_json:
            self._view.say(in_words(document))

    def tell_skipped(self, inputs: int) -> None:
        """How many were done by an earlier job."""
        if self.skipped:
            which = "It is" if inputs == 1 else f"{self.skipped} of {inputs} inputs are"
            self._view.note(f"{which} done already in {self._out}; --force does it again.")

    def _add(self, document: dict[str, Any]) -> None:
        if self._as_json:
            typer.echo(self._separator + json.dumps(document, indent=2), nl=False)
            self._separator = ",\n"


def describe(outcome: Outcome, out: Path) -> dict[str, Any]:
    """input, model, files, shares; frames and fps of a video; notes and skipped, if any."""
    record = outcome.record
    assert record is not None
    files = {kind: str(out / path) for kind, (path, _) in record["files"].items()}
    document = {
        "input": outcome.input.shown,
        "model": record["model"]["source"],
        "files": files,
        "shares": record["shares"],
    }
    document |= {key: record[key] for key in ("frames", "fps", "notes") if key in record}
    return document | ({"skipped": True} if outcome.skipped else {})


def in_words(document: dict[str, Any]) -> str:
    shares = ", ".join(f"{name} {share:.1%}" for name, share in document["shares"].items())
    name, files = document["input"], ", ".join(document["files"].values())
    return f"{_one_line(name)}: {shares}\n  -> {_one_line(files)}"


def _one_line(name: str) -> str:
    return name.replace("\n", "\\n")
