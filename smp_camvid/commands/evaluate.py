"""smp-camvid evaluate."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Annotated, Any

import typer

from smp_camvid import recipe, runs
from smp_camvid.commands.options import (
    AsJson,
    Block,
    Checkpoint,
    Device,
    JudgedBatch,
    JudgedData,
    JudgedWorkers,
    Model,
    ScoreSize,
    Split,
    Tile,
    Tolerance,
    Tta,
    parse_size,
)
from smp_camvid.errors import DataError


def evaluate(
    model: Model = None,
    checkpoint: Checkpoint = "",
    data: JudgedData = None,
    split: Split = "val",
    size: ScoreSize = None,
    batch_size: JudgedBatch = 4,
    workers: JudgedWorkers = 0,
    device: Device = "auto",
    tta: Tta = False,
    tile: Tile = None,
    tolerance: Tolerance = None,
    block: Block = 20,
    definitions: Annotated[
        bool,
        typer.Option("--definitions", help="Also what other projects' definitions of mIoU give."),
    ] = False,
    frames: Annotated[
        int, typer.Option("--frames", min=0, help="How many best and worst frames to name.")
    ] = 3,
    as_json: AsJson = False,
    csv_file: Annotated[
        Path | None, typer.Option("--csv", metavar="FILE", help="Also write the per-class scores.")
    ] = None,
) -> None:
    """Score a model on a split: by class, by drive and by frame, with intervals, and what they
    mean."""
    label_size = parse_size(size)
    from smp_camvid.evaluation.bootstrap import Bootstrap
    from smp_camvid.evaluation.evaluate import evaluate as score
    from smp_camvid.inference.predictor import load
    from smp_camvid.report.evaluation_tables import evaluation_table
    from smp_camvid.report.printing import print_view
    from smp_camvid.report.progress import step_progress

    # Scores are counted in float32 everywhere, so that they are the same on every machine.
    segmenter = load(
        model,
        checkpoint=checkpoint,
        device=device,
        tile=parse_size(tile, "--tile"),
        tta=tta,
        precision="fp32",
    )
    with step_progress("evaluating", quiet=as_json) as on_step:
        result = score(
            segmenter,
            data or data_of(segmenter.source),
            split=split,
            size=label_size,
            batch_size=batch_size,
            workers=workers,
            tolerance=tolerance,
            bootstrap=Bootstrap(block),
            on_step=on_step,
        )
    if as_json:
        typer.echo(json.dumps(result, indent=2))
    else:
        print_view(evaluation_table(result, frames=frames, definitions=definitions))
    if csv_file:
        write_csv(csv_file, result)


def data_of(weights: str) -> str:
    """The dataset of the run that made the weights; "auto" for weights outside a run."""
    run = runs.run_of(Path(weights))
    if run is None:
        return "auto"
    path = recipe.resolve(str(run / "config.toml")).recipe.data.path
    if path not in ("auto", "synthetic") and not Path(path).is_dir():
        raise DataError(
            f"The run was trained on data {path}, which is not a folder here.",
            f"Name it: smp-camvid evaluate {run} --data DIR",
        )
    return path


def write_csv(path: Path, result: dict[str, Any]) -> None:
    """Raises DataError when the file cannot be written; the scores are printed by then."""
    try:
        _write_rows(path, result)
    except OSError as error:
        raise DataError(
            f"{path} cannot be written: {error.strerror}.", "Name another file with --csv."
        ) from error


def _write_rows(path: Path, result: dict[str, Any]) -> None:
    with (
        runs.atomic_path(path) as temporary,
        temporary.open("w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        for name, scores in result["classes"].items():
            low, high = scores["iou_interval"] or (None, None)
            known = {column: scores[column] for column in COLUMNS if column in scores}
            writer.writerow({"class": name, "iou_low": low, "iou_high": high, **known})
        low, high = result["miou_interval"] or (None, None)
        writer.writerow(
            {
                "class": "mean",
                "iou": result["miou"],
                "iou_low": low,
                "iou_high": high,
                "recall": result["mean_class_accuracy"],
                "boundary_f1": result["boundary"]["f1"],
            }
        )


COLUMNS = (
    "class", "iou", "iou_low", "iou_high", "precision", "recall", "dice", "boundary_f1", "pixels",
)  # fmt: skip
"""Of the file of `--csv`; an empty cell is a score that does not exist."""
