"""What the report's templates are given: documents and records, in the order they are shown."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from smp_camvid.data.classes import ClassTable
from smp_camvid.report.compare_tables import letter, verdict
from smp_camvid.report.evaluation_tables import (
    intervals_in_words,
    most_mistaken,
    prediction_in_words,
    seen_in_words,
    tolerance_of,
)
from smp_camvid.report.html_figures import Figures
from smp_camvid.report.html_records import RunRecord
from smp_camvid.report.tables import worst_first

HEATS = 10
OF_WEIGHTS = (
    "arch", "recipe", "epoch", "protocol", "train_split", "train_size", "package_version",
)  # fmt: skip


@dataclass(frozen=True)
class ModelView:
    """One model of the report; `number` tells it from the others."""

    number: int
    f: Figures
    record: RunRecord
    table: ClassTable

    @property
    def letter(self) -> str:
        return letter(self.number)

    @property
    def name(self) -> str:
        return self.record.name

    @property
    def document(self) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self.f.value()
        return found

    @property
    def how(self) -> str:
        """Checkpoint, and what else was done with it: `last-ema, tiles of 256x256`."""
        return prediction_in_words(self.document)

    @property
    def tolerance(self) -> str:
        return tolerance_of(self.document["boundary"])

    @property
    def rows(self) -> list[dict[str, Any]]:
        """Classes, worst IoU first, and what each is most often taken for."""
        return [
            {"index": self.table.names.index(name), "name": name, "mistaken": self._mistaken(name)}
            for name, _ in worst_first(self.document["per_class"])
        ]

    def _mistaken(self, name: str) -> dict[str, Any] | None:
        index, share = most_mistaken(self.document["confusion"], name)
        if share < 0.01:
            return None
        return {"index": index, "name": self.table.names[index], "share": share}

    @property
    def bins(self) -> list[dict[str, Any]]:
        """Those of the reliability diagram that hold pixels, with their place in the document."""
        bins = self.document["calibration"]["bins"]
        return [{**one, "number": i} for i, one in enumerate(bins) if one["pixels"]]

    @property
    def most_pixels(self) -> int:
        """In one of `bins`."""
        return max((one["pixels"] for one in self.bins), default=1)

    @property
    def matrix(self) -> dict[str, Any]:
        """Rows truth, columns prediction.  Void is never truth, but may be predicted."""
        pixels = np.array(self.document["confusion"]["pixels"], np.int64)
        rows = [
            {
                "index": index,
                "name": name,
                "cells": [
                    cell(found, count, pixels[index].sum())
                    for found, count in zip(self.table.names, pixels[index], strict=True)
                ],
            }
            for index, name in enumerate(self.table.names)
            if index != self.table.void_index
        ]
        return {"names": self.table.names, "rows": rows}

    @property
    def environment(self) -> list[tuple[str, str]]:
        """Labels and values of environment.json, the versions one by one."""
        flat = dict(self.record.environment)
        versions, _ = flat.pop("versions", None), flat.pop("command", None)
        flat |= versions if isinstance(versions, dict) else {}
        return [(str(label).replace("_", " "), str(value)) for label, value in flat.items()]

    @property
    def weights(self) -> list[tuple[str, str]]:
        """What the weights file says of the network and of its training."""
        known = self.record.weights
        facts = {**{key: known.get(key) for key in OF_WEIGHTS}, **(known.get("options") or {})}
        if facts["train_size"]:
            facts["train_size"] = "x".join(map(str, facts["train_size"]))
        return [(key.replace("_", " "), str(value)) for key, value in facts.items() if value]


def cell(name: str, pixels: int, total: int) -> dict[str, Any]:
    """One of a matrix: its share of `total` in per cent, and how dark that is (0 to 10)."""
    share = pixels / total if total else 0.0
    text = "" if share < 0.001 else "<1" if share < 0.005 else f"{100 * share:.0f}"
    # The square root lets a confusion of one per cent show beside a diagonal of ninety.
    heat = round(HEATS * math.sqrt(share))
    return {"name": name, "pixels": int(pixels), "text": text, "heat": heat}


def difference_views(figures: Figures, models: Sequence[ModelView]) -> list[dict[str, Any]]:
    """Each other model against the first: classes by what was lost, most first."""
    return [
        _difference(figures.inside("differences", number - 1), models[number])
        for number in range(1, len(models))
    ]


def _difference(figures: Figures, model: ModelView) -> dict[str, Any]:
    classes = figures.value("per_class")
    edges = [
        abs(edge)
        for one in [figures.value("miou"), *classes.values()]
        for edge in (one["difference"], *(one["interval"] or ()))
        if edge is not None
    ]
    return {
        "model": model,
        "f": figures,
        "verdict": verdict(figures.value("miou", "interval")),
        "most": max([*edges, 1e-6]),
        "rows": [
            {
                "index": model.table.names.index(name),
                "name": name,
                "verdict": verdict(classes[name]["interval"]),
            }
            for name, _ in worst_first({name: one["difference"] for name, one in classes.items()})
        ],
    }


_STANDARD = re.compile(r"camvid\d+@\d+x\d+")


def reading(documents: Sequence[Mapping[str, Any]]) -> list[str]:
    """What the scores can and cannot say, in sentences."""
    first = documents[0]
    splits, protocol = first["split"].split("+"), first["protocol"]
    found = [f"The 95 % interval: {intervals_in_words(first['intervals'])}."]
    seen = list(dict.fromkeys(filter(None, map(seen_in_words, documents))))
    found += [f"{words[0].upper()}{words[1:]}." for words in seen]
    if "val" in splits and _STANDARD.fullmatch(protocol) and not seen:
        found.append(VAL)
    if "test" in splits:
        found.append(TEST)
    if protocol.startswith("synthetic"):
        found.append(DRAWN)
    if any(document["checkpoint"] == "best" for document in documents):
        found.append(BEST)
    found.append(COMPARABLE)
    return found


VAL = (
    "Val of CamVid is seven seconds of one drive, and that drive is more than half of train: it "
    "shows mistakes, but scores on test are 12 to 15 points lower."
)
TEST = "What is chosen by test scores makes test a second val: choose first, then look here once."
DRAWN = "The scenes are drawn: the score says nothing of real roads."
BEST = "These weights were chosen by val, so their val score is flattered by the choice."
COMPARABLE = (
    "Compare it with scores of the same protocol and definition only; other projects mean other "
    "numbers by mIoU."
)
