"""smp-camvid evaluate."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Annotated, Any

import typer

from smp_camvid import recipe, runs
from smp_camvid.commands.options import AsJson, Checkpoint, Device, Model, parse_size
from smp_camvid.errors import DataError


def evaluate(
    model: Model = None,
    checkpoint: Checkpoint = "",
    data: Annotated[
        str | None,
        typer.Option("--data", metavar="DIR|synthetic", help="Dataset; the run's own if absent."),
    ] = None,
    split: Annotated[
        str, typer.Option("--split", help="train, val, test, or several joined with +.")
    ] = "val",
    size: Annotated[
        str | None,
        typer.Option(
            "--size", metavar="HxW", help="Label size to score at; the run's own if absent."
        ),
    ] = None,
    batch_size: Annotated[
        int, typer.Option("--batch-size", min=1, help="Frames per forward pass.")
    ] = 4,
    workers: Annotated[
        int, typer.Option("--workers", min=0, help="Processes that load frames.")
    ] = 0,
    device: Device = "auto",
    as_json: AsJson = False,
    csv_file: Annotated[
        Path | None, typer.Option("--csv", metavar="FILE", help="Also write the per-class scores.")
    ] = None,
) -> None:
    """Score a model on a split: per-class IoU, mIoU, accuracy, and what they mean."""
    label_size = parse_size(size)
    from smp_camvid.evaluation.evaluate import evaluate as score
    from smp_camvid.inference.predictor import load
    from smp_camvid.report.console import make_console
    from smp_camvid.report.progress import step_progress
    from smp_camvid.report.tables import evaluation_table

    segmenter = load(model, checkpoint=checkpoint, device=device)
    with step_progress("evaluating", quiet=as_json) as on_step:
        result = score(
            segmenter,
            data or data_of(segmenter.source),
            split=split,
            size=label_size,
            batch_size=batch_size,
            workers=workers,
            on_step=on_step,
        )
    if as_json:
        typer.echo(json.dumps(result, indent=2))
    else:
        make_console(stderr=False).print(evaluation_table(result))
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
        writer = csv.writer(file)
        writer.writerow(["class", "iou"])
        writer.writerows(
            (name, "" if iou is None else iou) for name, iou in result["per_class"].items()
        )
        writer.writerow(["mean", result["miou"]])
