"""smp-camvid evaluate."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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
from smp_camvid.errors import DataError, UsageError

if TYPE_CHECKING:
    from smp_camvid.data.cache import FrameCache
    from smp_camvid.inference.predictor import Segmenter


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
        int, typer.Option("--frames", min=0, help="How many best and worst frames to name or draw.")
    ] = 3,
    as_json: AsJson = False,
    csv_file: Annotated[
        Path | None, typer.Option("--csv", metavar="FILE", help="Also write the per-class scores.")
    ] = None,
    figures: Annotated[
        Path | None,
        typer.Option("--figures", metavar="DIR", help="Also draw the scores and frames there."),
    ] = None,
    figure_format: Annotated[
        str,
        typer.Option(
            "--figure-format", metavar="png|svg|both", help="Of the figures; frames are PNG."
        ),
    ] = "png",
) -> None:
    """Score a model on a split: by class, by drive and by frame, with intervals, and what they
    mean."""
    label_size = parse_size(size)
    check_figures(figures, figure_format)
    from smp_camvid.evaluation.bootstrap import Bootstrap
    from smp_camvid.evaluation.evaluate import evaluate as score
    from smp_camvid.evaluation.split import open_split
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
    judged_data = data or data_of(segmenter.source)
    with step_progress("evaluating", quiet=as_json) as on_step:
        result = score(
            segmenter,
            judged_data,
            split=split,
            size=label_size,
            batch_size=batch_size,
            workers=workers,
            tolerance=tolerance,
            bootstrap=Bootstrap(block),
            on_step=on_step,
        )
    drawn = {}
    if figures:
        cache = open_split(segmenter, judged_data, split, label_size)
        drawn = draw(figures, result, segmenter, cache, frames, figure_format)
    if as_json:
        named = {"figures": [str(path) for path in drawn]} if figures else {}
        typer.echo(json.dumps({**result, **named}, indent=2))
    else:
        print_view(evaluation_table(result, frames=frames, definitions=definitions))
    if csv_file:
        write_csv(csv_file, result)
    for path, content in drawn.items():
        write_file(path, content, "--figures")
        if not as_json:
            typer.echo(path)


def check_figures(folder: Path | None, form: str) -> None:
    """Before anything is computed.  Raises UsageError or DataError."""
    from smp_camvid.report.figure_files import FORMATS

    if form not in FORMATS:
        raise UsageError(f"--figure-format {form} is not known.", "It is png, svg or both.")
    if folder is not None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataError(
                f"{folder} cannot be made: {error.strerror}.", "Name a folder with --figures."
            ) from error


def draw(
    folder: Path,
    result: dict[str, Any],
    segmenter: Segmenter,
    cache: FrameCache,
    count: int,
    form: str,
) -> dict[Path, bytes]:
    """The files of `--figures`, not yet written."""
    from smp_camvid.report.figure_files import FORMATS, draw_figures
    from smp_camvid.report.frame_pictures import chosen_frames, frame_pictures

    pictures = {
        group: frame_pictures(segmenter, cache, names, result)
        for group, names in chosen_frames(result, count).items()
    }
    drawn = draw_figures(result, segmenter.table, pictures, FORMATS[form])
    return {folder / name: content for name, content in drawn.items()}


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
    """The per-class scores and their mean, as comma-separated values."""
    rows = io.StringIO(newline="")
    writer = csv.DictWriter(rows, COLUMNS)
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
    write_file(path, rows.getvalue().encode(), "--csv")


def write_file(path: Path, content: bytes, option: str) -> None:
    """Raises DataError when the file cannot be written; the scores are printed by then."""
    try:
        runs.write_bytes(path, content)
    except OSError as error:
        raise DataError(
            f"{path} cannot be written: {error.strerror}.", f"Name another place with {option}."
        ) from error


COLUMNS = (
    "class", "iou", "iou_low", "iou_high", "precision", "recall", "dice", "boundary_f1", "pixels",
)  # fmt: skip
"""Of the file of `--csv`; an empty cell is a score that does not exist."""
