"""Reports of models without training, on roads with names that mean harm; and how they are read."""

from __future__ import annotations

import contextlib
import csv
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from color_engine import color_segmenter
from conftest import write_pair

from smp_camvid.data.classes import ClassTable
from smp_camvid.evaluation import compare
from smp_camvid.evaluation.bootstrap import Bootstrap
from smp_camvid.inference.predictor import Segmenter
from smp_camvid.report.html_making import How

HARM = ClassTable(
    "dataset",
    (
        "<script>boom()</script>", "\"'><img src=x onerror=boom()>", "Lane & {{ 7 * 7 }}", "Kerb",
        "Void",
    ),
    ((1, 2, 3), (250, 0, 9), (7, 120, 7), (90, 90, 250), (0, 0, 0)),
    4,
)  # fmt: skip
FRAMES = 13
EPOCHS = 6


def write_roads(root: Path, table: ClassTable = HARM, frames: int = FRAMES) -> Path:
    """`images/` and `masks/` of train and val with class_dict.csv; some pixels are void."""
    rng = np.random.default_rng(3)
    for split, count in (("train", 1), ("val", frames)):
        for i in range(count):
            name = f"x<b>{split}_{i:02d}.png"
            image, label = root / "images" / split / name, root / "masks" / split / name
            write_pair(image, label, rng, table, (40, 56), colored=True)
    with (root / "class_dict.csv").open("w", newline="") as file:
        rows = [(n, *color) for n, color in zip(table.names, table.colors, strict=True)]
        csv.writer(file).writerows([("name", "r", "g", "b"), *rows])
    return root


def write_run(folder: Path, table: ClassTable = HARM, shift: float = 0.0) -> Path:
    """A run folder as training leaves it, by hand; val was scored every second epoch."""
    (folder / "weights").mkdir(parents=True)
    (folder / "weights" / "last.safetensors").touch()
    (folder / "config.toml").write_text('name = "</pre><script>boom()</script>"\n')
    environment = {
        "python": "3.11",
        "versions": {"torch": "<b>2"},
        "command": ["x", "train", "a b"],
    }
    (folder / "environment.json").write_text(json.dumps(environment))
    metrics = [{"epoch": e, "lr": 0.1 / e, **scores(e, table, shift)} for e in range(1, EPOCHS + 1)]
    timing = [{"epoch": e, "images_per_second": 10.0 + e} for e in range(1, EPOCHS + 1)]
    for name, rows in (("metrics.jsonl", metrics), ("timing.jsonl", timing)):
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def scores(epoch: int, table: ClassTable, shift: float) -> dict[str, Any]:
    of_class = {n: epoch / 10 for i, n in enumerate(table.names) if i != table.void_index}
    train = {"loss": 2 / epoch + shift, "miou": epoch / 10, "accuracy": 0.9, "per_class": of_class}
    return {"train": train, "val": {**train, "miou": epoch / 8} if epoch % 2 == 0 else None}


def colored(run: Path, seed: int = 1, noise: float = 30.0) -> Segmenter:
    """A model that errs, as if it came from that run."""
    made = color_segmenter(HARM, seed, noise)
    made.engine.source = str(run / "weights" / "last.safetensors")  # type: ignore[misc]
    return made


@contextlib.contextmanager
def without_networks() -> Iterator[None]:
    """These models have no network whose operations could be counted."""
    facts = {"parameters": 5_200_000, "flops": None, "frame_size": [40, 56]}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compare, "network_facts", lambda *_: facts)
        yield


def how(data: Path) -> How:
    return How(data, bootstrap=Bootstrap(3, 200), frames=2)


@dataclass
class Read(HTMLParser):
    """What a report's file holds: elements with their attributes, figures with their texts."""

    elements: list[tuple[str, dict[str, str | None]]] = field(default_factory=list)
    figures: list[tuple[Sequence[str | int], str, str]] = field(default_factory=list)
    """Keys, value, text."""
    scripts: dict[str, str] = field(default_factory=dict)
    styles: str = ""
    text: str = ""

    def __post_init__(self) -> None:
        super().__init__()
        self._open: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._open.append((tag, dict(attrs)))
        self.elements.append(self._open[-1])
        if tag == "data":
            self.figures.append(
                (json.loads(dict(attrs)["data-key"] or ""), dict(attrs)["value"] or "", "")
            )

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open.pop()[0] != tag:
            pass

    def handle_data(self, data: str) -> None:
        tag, attributes = self._open[-1] if self._open else ("", {})
        if tag == "script":
            self.scripts[attributes.get("id") or "code"] = data
        elif tag == "style":
            self.styles += data
        else:
            self.text += data
        if tag == "data":
            self.figures[-1] = (*self.figures[-1][:2], data)

    def document(self) -> Any:
        return json.loads(self.scripts["document"])


def read(html: str) -> Read:
    found = Read()
    found.feed(html)
    return found
