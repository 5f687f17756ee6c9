"""smp-camvid compare."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from typing import Annotated

import typer

from smp_camvid.commands.evaluate import data_of
from smp_camvid.commands.options import (
    AsJson,
    Block,
    Checkpoint,
    Device,
    JudgedBatch,
    JudgedData,
    JudgedWorkers,
    ScoreSize,
    Split,
    Tile,
    Tolerance,
    Tta,
    parse_size,
)
from smp_camvid.errors import UsageError


def compare(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN",
            help="Two or more run folders, weights files or names; the first is the base.",
        ),
    ],
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
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print a table of the models in Markdown.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Judge models on the same frames: paired differences with intervals, size and speed."""
    label_size, tile_size = parse_size(size), parse_size(tile, "--tile")
    if len(models) < 2:
        raise UsageError("A comparison needs two models.", "smp-camvid compare RUN RUN")
    if markdown and as_json:
        raise UsageError("--markdown and --json are two forms of the result.", "Name one.")
    from smp_camvid.evaluation.bootstrap import Bootstrap
    from smp_camvid.evaluation.compare import compare as judge_all
    from smp_camvid.inference.predictor import load
    from smp_camvid.report.compare_tables import comparison_table, markdown_table
    from smp_camvid.report.printing import print_view
    from smp_camvid.report.progress import step_progress

    segmenters = [
        load(
            model,
            checkpoint=checkpoint,
            device=device,
            tile=tile_size,
            tta=tta,
            precision="fp32",
        )
        for model in models
    ]
    with contextlib.ExitStack() as stack:

        def bar(number: int) -> Callable[[int, int], None]:
            stack.close()  # the bar before: a terminal has one
            label = f"model {number + 1} of {len(models)}"
            return stack.enter_context(step_progress(label, quiet=as_json))

        result = judge_all(
            segmenters,
            data or data_of(segmenters[0].source),
            split=split,
            size=label_size,
            batch_size=batch_size,
            workers=workers,
            tolerance=tolerance,
            bootstrap=Bootstrap(block),
            on_model=bar,
        )
    if as_json:
        typer.echo(json.dumps(result, indent=2))
    elif markdown:
        typer.echo(markdown_table(result), nl=False)
    else:
        print_view(comparison_table(result))
