"""docs/results.md: what it says is what accuracy.json keeps, and what the recipes repeat."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import accuracy
import pytest

from smp_camvid.recipe import resolve
from smp_camvid.recipe.files import parse_set

ROOT = Path(__file__).parents[1]
ROWS: list[dict[str, Any]] = json.loads(accuracy.KEPT.read_text(encoding="utf-8"))
DOCUMENT = accuracy.DOCUMENT.read_text(encoding="utf-8")


def test_the_page_has_the_rows_that_were_kept() -> None:
    assert ROWS
    assert accuracy.written(DOCUMENT, ROWS) == DOCUMENT
    assert accuracy.written(DOCUMENT, [{**ROWS[0], "val": 0.123456}]) != DOCUMENT


@pytest.mark.parametrize("row", ROWS, ids=lambda row: str(row["title"]))
def test_a_row_is_what_it_says(row: dict[str, Any]) -> None:
    command = shlex.split(row["command"].replace("\\\n", " "))
    assert command[:4] == ["smp-camvid", "train", "--recipe", row["recipe"]]
    changes = [parse_set(command[i + 1]) for i, word in enumerate(command) if word == "--set"]
    recipe = resolve(row["recipe"], changes).recipe
    # no row was trained on what it is judged on, or on test
    assert (recipe.data.train_split, recipe.data.hold_out) == ("train", "")
    assert (recipe.train.epochs, recipe.train.seed) == (row["epochs"], row["seed"])
    assert row["protocol"] == "camvid11@360x480"
    classes = row["val_per_class"].values()
    assert row["val"] == pytest.approx(sum(classes) / 11)
    assert set(row["held_out"]) <= set(accuracy.DRIVES)
    assert not re.search(r"/(home|root|tmp|Users|work)/", json.dumps(row))
    assert (accuracy.PICTURES / row["picture"]).is_file()
    assert f"pictures/{row['picture']}" in DOCUMENT


def test_the_mean_is_told_only_of_three() -> None:
    drives = {
        drive: {"miou": value}
        for drive, value in zip(accuracy.DRIVES, (0.3, 0.4, 0.8), strict=True)
    }
    row = {**ROWS[0], "held_out": drives}
    assert "| 0.300 | 0.400 | 0.800 | 0.500 |" in accuracy.table([row])
    row = {**ROWS[0], "held_out": {"0006R0": {"miou": 0.4}}}
    assert "| not run | 0.400 | not run | - |" in accuracy.table([row])
