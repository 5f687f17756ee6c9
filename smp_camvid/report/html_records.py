"""What a run folder has on record; a file that is gone or damaged costs the report only itself.

No torch here.
"""

from __future__ import annotations

import contextlib
import json
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

Found = TypeVar("Found")
Row = dict[str, Any]
SCORES = ("loss", "miou", "accuracy")


@dataclass(frozen=True)
class RunRecord:
    """What is known of how a model came to be.  `missing` says, in sentences, what is not."""

    name: str
    folder: Path | None = None
    recipe: str = ""
    """The text of config.toml."""
    environment: Mapping[str, Any] = field(default_factory=dict)
    epochs: tuple[Row, ...] = ()
    """Lines of metrics.jsonl, one for each epoch, in order."""
    timing: tuple[Row, ...] = ()
    weights: Mapping[str, Any] = field(default_factory=dict)
    """What the weights file says of itself."""
    missing: tuple[str, ...] = ()


def read_record(source: str, weights: Mapping[str, Any]) -> RunRecord:
    """Of the model loaded from `source` (`Segmenter.source`), whose file says `weights`."""
    folder = _folder_of(Path(source))
    if folder is None:
        name = Path(source).stem if Path(source).suffix else source
        why = f"{source} lies in no run folder: curves, recipe and environment are not known."
        return RunRecord(name, weights=weights, missing=(why,))
    missing: list[str] = []

    def read(name: str, how: Callable[[Path], Found], empty: Found) -> Found:
        try:
            return how(folder / name)
        except FileNotFoundError:
            missing.append(f"{name} is missing from {folder}.")
        except (OSError, ValueError, TypeError, KeyError) as error:
            missing.append(f"{name} of {folder} cannot be read: {_first_line(error)}.")
        return empty

    record = RunRecord(
        name=folder.name,
        folder=folder,
        recipe=read("config.toml", lambda path: _recipe(path, missing), ""),
        environment=read("environment.json", _environment, {}),
        epochs=read("metrics.jsonl", lambda path: _rows(path, is_epoch, missing), ()),
        timing=read("timing.jsonl", lambda path: _rows(path, is_timing, missing), ()),
        weights=weights,
    )
    return RunRecord(**{**vars(record), "missing": tuple(missing)})


def _folder_of(weights: Path) -> Path | None:
    """The run's folder, also where its config.toml is gone but other traces of a run are there."""
    if not weights.is_file():  # a shipped model's name
        return None
    folder = weights.absolute().parent.parent
    traces = ("config.toml", "metrics.jsonl", "environment.json")
    in_run = weights.parent.name == "weights" and any((folder / name).is_file() for name in traces)
    return weights.parent.parent if in_run else None


def _recipe(path: Path, missing: list[str]) -> str:
    text = path.read_text(encoding="utf-8")
    try:
        tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        missing.append(f"{path.name} is damaged ({_first_line(error)}); it is shown as it is.")
    return text


def _environment(path: Path) -> Row:
    found = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(found, dict):
        raise TypeError("it holds no table")
    return found


def _rows(path: Path, is_whole: Callable[[Any], bool], missing: list[str]) -> tuple[Row, ...]:
    """The whole lines by epoch; says in `missing` how many others there are."""
    rows: dict[int, Row] = {}
    damaged = 0
    for line in path.read_text(encoding="utf-8").splitlines():
        row = None
        with contextlib.suppress(json.JSONDecodeError):
            row = json.loads(line)
        if row is not None and is_whole(row):
            rows.setdefault(row["epoch"], row)
        else:
            damaged += 1
    if damaged:
        missing.append(f"{path.name}: {damaged} damaged line{'s' * (damaged > 1)} left out.")
    return tuple(rows[epoch] for epoch in sorted(rows))


def is_epoch(row: Any) -> bool:
    """Whether a line of metrics.jsonl has what the curves need."""
    if not (isinstance(row, dict) and _is_number(row.get("epoch")) and _is_number(row.get("lr"))):
        return False
    val = row.get("val")
    return _has_scores(row.get("train")) and (val is None or _has_scores(val))


def is_timing(row: Any) -> bool:
    """Whether a line of timing.jsonl has what the curves need."""
    return isinstance(row, dict) and all(
        _is_number(row.get(key)) for key in ("epoch", "images_per_second")
    )


def _has_scores(scores: Any) -> bool:
    return (
        isinstance(scores, dict)
        and all(_is_number(scores.get(key)) for key in SCORES)
        and isinstance(scores.get("per_class", {}), dict)
        and all(v is None or _is_number(v) for v in scores.get("per_class", {}).values())
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _first_line(error: Exception) -> str:
    text = getattr(error, "strerror", None) or str(error).strip().partition("\n")[0]
    return (text or type(error).__name__).rstrip(".")
