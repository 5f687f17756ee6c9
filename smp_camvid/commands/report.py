"""smp-camvid report."""

from __future__ import annotations

import contextlib
import re
import shlex
import tempfile
import webbrowser
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from smp_camvid import runs
from smp_camvid.commands.evaluate import data_of
from smp_camvid.commands.options import (
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
from smp_camvid.errors import DataError, UsageError

if TYPE_CHECKING:
    from smp_camvid.report.html import Report
    from smp_camvid.report.html_records import RunRecord


def report(
    models: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[RUN...]",
            help="Run folders, weights files or shipped models; the newest run if absent. "
            "Several are compared with the first.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="FILE.html",
            help="Where to; RUN/report.html if absent, for several or no run folder "
            "report-NAMES.html here.",
            show_default=False,
        ),
    ] = None,
    open_browser: Annotated[
        bool, typer.Option("--open", help="Open the report in the browser.")
    ] = False,
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
    frames: Annotated[
        int,
        typer.Option("--frames", min=0, max=12, help="How many best, median and worst frames."),
    ] = 3,
) -> None:
    """Write one HTML file that shows what a model has learnt, or how several differ."""
    label_size, tile_size = parse_size(size), parse_size(tile, "--tile")
    if out is not None:
        check_writable(out)
    from smp_camvid.evaluation.bootstrap import Bootstrap
    from smp_camvid.inference.predictor import load
    from smp_camvid.report.html import render
    from smp_camvid.report.html_making import How, make_report
    from smp_camvid.report.progress import step_progress

    asked: Sequence[str | None] = models or [None]  # the newest run
    segmenters = [
        load(
            model,
            checkpoint=checkpoint,
            device=device,
            tile=tile_size,
            tta=tta,
            precision="fp32",
        )
        for model in asked
    ]
    where, missing = data_for(segmenters[0].source, data)
    how = How(where, split, label_size, batch_size, workers, tolerance, Bootstrap(block), frames)
    with contextlib.ExitStack() as stack:

        def bar(number: int) -> Callable[[int, int], None]:
            stack.close()  # the bar before: a terminal has one
            label = f"model {number + 1} of {len(segmenters)}" if number else "evaluating"
            return stack.enter_context(step_progress(label))

        made = make_report(segmenters, how, on_model=bar)
    names = models or [str(made.records[0].folder or segmenters[0].source)]
    options = {
        "--checkpoint": checkpoint, "--data": data, "--split": split, "--size": size,
        "--tile": tile, "--tta": tta, "--tolerance": tolerance, "--block": block,
    }  # fmt: skip
    commands = commands_of(names, options, made.records)
    made = replace(made, commands=commands, missing=missing)
    path = out or default_path(made.records)
    write(path, made, render)
    typer.echo(path)
    if open_browser and not webbrowser.open(path.absolute().as_uri()):
        typer.echo(f"No browser could be opened; open {path} yourself.", err=True)


def check_writable(path: Path) -> None:
    """Before minutes are spent.  Raises DataError when no file can be made at `path`."""
    try:
        if path.is_dir():
            raise IsADirectoryError(0, "it is a folder")
        with tempfile.TemporaryFile(dir=runs.existing_parent(path.parent)):
            pass
    except OSError as error:
        raise cannot_write(path, error) from error


def cannot_write(path: Path, error: OSError) -> DataError:
    return DataError(
        f"{path} cannot be written: {error.strerror or error}.", "Name another file with --out."
    )


def data_for(source: str, data: str | None) -> tuple[str, tuple[str, ...]]:
    """The dataset, and a sentence where the run's own recipe can no longer say which it is."""
    if data is not None:
        return data, ()
    try:
        return data_of(source), ()
    except UsageError as error:
        return "auto", (f"{error.message} The frames are those that were found without it.",)


def default_path(records: Sequence[RunRecord]) -> Path:
    """report.html in the one run's folder; else a file here, named after what it shows."""
    if len(records) == 1 and records[0].folder is not None:
        return records[0].folder / "report.html"
    names = "-".join(record.name for record in records)
    plain = re.sub(r"[^\w.+-]+", "_", names)
    return Path(f"report-{plain[:80]}.html")


def write(path: Path, made: Report, render: Callable[[Report], str]) -> None:
    """Raises DataError; whatever happens, the file is whole, old or new."""
    text = render(made)
    check_writable(path)
    try:
        runs.write_text(path, text)
    except OSError as error:
        raise cannot_write(path, error) from error


def commands_of(
    models: Sequence[str], options: dict[str, Any], records: Sequence[RunRecord]
) -> tuple[tuple[str, str], ...]:
    """What makes the figures, this file and the runs again, as lines for a shell."""
    words = [word for option in options.items() for word in given(*option)]
    judge = "compare" if len(models) > 1 else "evaluate"
    found = [
        ("The figures", ["smp-camvid", judge, *models, *words, "--json"]),
        ("This report", ["smp-camvid", "report", *models, *words]),
    ]
    for record in records:
        of = f" of {record.name}" if len(records) > 1 else ""
        if record.folder and record.recipe:
            recipe = str(record.folder / "config.toml")
            found.append((f"A new run{of}", ["smp-camvid", "train", "--recipe", recipe]))
        if words := original(record):
            found.append((f"What started the run{of}", words))
    return tuple((what, shlex.join(words)) for what, words in found)


DEFAULTS = {"--block": 20}


def given(option: str, value: Any) -> list[str]:
    """The words of an option, none where it is as it is by itself."""
    if value in (None, False, "") or DEFAULTS.get(option) == value:
        return []
    return [option] if value is True else [option, str(value)]


def original(record: RunRecord) -> list[str]:
    """The command line that environment.json has, which may hold anything."""
    words = record.environment.get("command")
    if not isinstance(words, list) or len(words) < 2:
        return []
    return ["smp-camvid", *map(str, words[1:])]
