"""A row of docs/results.md: what a finished run scores, and what repeats it.

    python benchmarks/accuracy.py RUN --title "..." [--held-out RUN RUN RUN] [--hardware "..."]
    python benchmarks/accuracy.py                       # the table again, from accuracy.json

RUN was trained on train and is judged on val; each held-out run is the same recipe with
`data.hold_out=DRIVE` and is judged on that drive, which it has not seen; what an earlier row of
the same title, command and seed has of them stays.  The rows are kept in accuracy.json beside this
script, the pictures (no frames among them) in docs/pictures.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import side_by_side
from make_box import command_of

from smp_camvid.commands.evaluate import data_of
from smp_camvid.evaluation.evaluate import evaluate, open_split
from smp_camvid.inference.predictor import Segmenter, load
from smp_camvid.recipe import resolve
from smp_camvid.report.frame_pictures import frame_pictures
from smp_camvid.report.gallery import gallery
from smp_camvid.runs import read_lines

KEPT = Path(__file__).parent / "accuracy.json"
DOCUMENT = side_by_side.ROOT / "docs" / "results.md"
PICTURES = side_by_side.ROOT / "docs" / "pictures"
DRIVES = ("0001TP", "0006R0", "0016E5")
SHOWN = (10, 40, 70, 95)
"""Frames of val in the pictures: the same for every row, and chosen before any row was there."""


def row_of(run: Path, title: str, hardware: str, data: str | None) -> dict[str, Any]:
    """All that the run's own files and its val frames say; the segmenter's pictures are drawn."""
    recipe = resolve(str(run / "config.toml")).recipe
    if recipe.data.hold_out or recipe.data.train_split != "train":
        raise SystemExit(f"{run} was not trained on the whole of train, and on nothing else.")
    if recipe.model.weights:  # its minutes would be those of the second part alone
        raise SystemExit(f"{run} began with the weights of another run.")
    segmenter = load(run, device="cpu")
    found = evaluate(segmenter, data or data_of(segmenter.source), split="val")
    seconds = [line["seconds"] for line in read_lines(run / "timing.jsonl")]
    name = recipe.name
    picture = f"results-{name}-{recipe.train.seed}.png"
    draw(segmenter, data or data_of(segmenter.source), found, title, picture)
    return {
        "title": title,
        "recipe": name,
        "command": command_of(run, name),
        "hardware": hardware,
        "epochs": len(seconds),
        "minutes": round(sum(seconds) / 60, 1),
        "seed": recipe.train.seed,
        "checkpoint": found["checkpoint"],
        "protocol": found["protocol"],
        "val": found["miou"],
        "val_per_class": found["per_class"],
        "held_out": {},
        "picture": picture,
    }


def held_out(whole: Path, runs: Sequence[Path], data: str | None) -> dict[str, Any]:
    """Drive -> scores of the run that did not see it and is else the same as `whole`."""
    scores = {}
    for run in runs:
        drive = resolve(str(run / "config.toml")).recipe.data.hold_out
        if drive not in DRIVES:
            raise SystemExit(f"{run} holds no drive out.")
        if _settings(run) != _settings(whole):
            raise SystemExit(f"{run} is not the recipe of {whole} without a drive.")
        segmenter = load(run, device="cpu")
        found = evaluate(segmenter, data or data_of(segmenter.source), split="val")
        scores[drive] = {"miou": found["miou"], "per_class": found["per_class"]}
    return scores


def _settings(run: Path) -> dict[str, Any]:
    """All of a run's recipe but the drive that it leaves out, and how and where it was run."""
    found = resolve(str(run / "config.toml")).recipe.model_dump()
    for key in ("path", "hold_out"):
        del found["data"][key]
    for key in ("save_dir", "device", "workers", "val_every", "save_every", "save_plots"):
        del found["train"][key]
    return found


def _same(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    return all(old[key] == new[key] for key in ("title", "command", "seed"))


def draw(segmenter: Segmenter, data: str, found: Mapping[str, Any], title: str, file: str) -> None:
    cache = open_split(segmenter, data, "val", None)
    names = [cache.frames[index].image.name for index in SHOWN]
    pictures = frame_pictures(segmenter, cache, names, found)
    sheet = gallery(pictures, cache.table, title, ("truth", "prediction", "errors"))
    sheet.save(PICTURES / file, optimize=True)


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The table of docs/results.md, the commands below it."""
    lines = [
        {
            "": f"**{row['title']}**",
            "recipe": f"[`{row['recipe']}`](../recipes/{row['recipe']}.toml)",
            "hardware": row["hardware"],
            "epochs": row["epochs"],
            "minutes": row["minutes"],
            "seed": row["seed"],
            **{f"{drive} held out": _of(row, drive) for drive in DRIVES},
            "mean of the three": _mean(row),
            "val": f"{row['val']:.3f}",
            "test": "",
        }
        for row in rows
    ]
    commands = "\n\n".join(f"{row['title']}:\n\n```\n{row['command']}\n```" for row in rows)
    return f"{side_by_side.markdown(lines)}\n\n{commands}"


def pictures(rows: Sequence[Mapping[str, Any]]) -> str:
    """Truth, prediction and errors of the same four val frames for each row."""
    words = "truth, prediction and errors of four val frames"
    return "\n".join(f"![{row['title']}: {words}](pictures/{row['picture']})" for row in rows)


def classes(rows: Sequence[Mapping[str, Any]]) -> str:
    """IoU of each class, on val and on each held-out drive."""
    lines = []
    for row in rows:
        judged = {"val": row["val_per_class"]}
        judged |= {f"{d} held out": s["per_class"] for d, s in row["held_out"].items()}
        for where, per_class in judged.items():
            cells = {name: "-" if iou is None else f"{iou:.3f}" for name, iou in per_class.items()}
            lines.append({"": f"{row['title']}, {where}", **cells})
    return side_by_side.markdown(lines)


def _of(row: Mapping[str, Any], drive: str) -> str:
    scores = row["held_out"].get(drive)
    return f"{scores['miou']:.3f}" if scores else "not run"


def _mean(row: Mapping[str, Any]) -> str:
    scores = [row["held_out"][drive]["miou"] for drive in DRIVES if drive in row["held_out"]]
    return f"{sum(scores) / len(scores):.3f}" if len(scores) == len(DRIVES) else "-"


def written(document: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """`document` with tables and pictures as they follow from the rows."""
    document = side_by_side.between(document, "accuracy", table(rows))
    document = side_by_side.between(document, "accuracy_pictures", pictures(rows))
    return side_by_side.between(document, "accuracy_classes", classes(rows))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", type=Path, nargs="?")
    parser.add_argument("--title")
    parser.add_argument("--hardware", default="2 cores of an AMD EPYC (AVX-512 BF16)")
    parser.add_argument("--held-out", type=Path, nargs="+", default=[])
    parser.add_argument("--data", help="Where CamVid is; what the run was trained on if absent")
    asked = parser.parse_args()
    rows = json.loads(KEPT.read_text(encoding="utf-8"))
    if asked.run:
        if not asked.title:
            parser.error("--title names the row")
        row = row_of(asked.run, asked.title, asked.hardware, asked.data)
        before = next((old for old in rows if _same(old, row)), row)
        row["held_out"] = before["held_out"] | held_out(asked.run, asked.held_out, asked.data)
        rows = [row if old is before else old for old in rows]
        if before is row:
            rows.append(row)
        KEPT.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    document = DOCUMENT.read_text(encoding="utf-8")
    DOCUMENT.write_text(written(document, rows), encoding="utf-8")


if __name__ == "__main__":
    main()
