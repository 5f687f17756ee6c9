"""smp-camvid data check|stats|show."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from smp_camvid import recipe, runs
from smp_camvid.commands.options import AsJson, of
from smp_camvid.errors import DataError, UsageError, did_you_mean

if TYPE_CHECKING:
    from smp_camvid.data.camvid import CamVid

Folder: TypeAlias = Annotated[
    str | None,
    typer.Argument(
        metavar="[DIR|synthetic]", help="Dataset folder; the one that train takes if absent."
    ),
]
Split: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--split", metavar="NAME", help="train, val, test, or several joined with +; all if absent."
    ),
]
ClassesOption: TypeAlias = Annotated[str, of("data.classes", "--classes", metavar="11|32|dataset")]
SplitSourceOption: TypeAlias = Annotated[
    str, of("data.split_source", "--split-source", metavar="standard|folders")
]


def out_option(name: str) -> Any:
    # readable=False: what is at that place is replaced, and typer need not judge it.
    help_text = f"The picture; {name} if absent."
    return typer.Option("--out", metavar="FILE.png", help=help_text, readable=False)


def data_check(
    folder: Folder = None,
    split: Split = None,
    classes: ClassesOption = "11",
    split_source: SplitSourceOption = "standard",
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit with 1 on warnings as well, not only on errors.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Look at every file: pairs, sizes, colours, counts, copies within and across splits."""
    check_choices(classes, split_source)
    from smp_camvid.data.checks import check_dataset, parse_splits
    from smp_camvid.report.data_tables import check_view, summary
    from smp_camvid.report.printing import print_view
    from smp_camvid.report.progress import step_progress

    with step_progress("looking at frames", quiet=as_json) as on_step:
        check = check_dataset(
            folder,
            classes,  # type: ignore[arg-type]  # checked above
            split_source,  # type: ignore[arg-type]
            parse_splits(split),
            on_step,
        )
    if as_json:
        typer.echo(json.dumps(check.document(), indent=2))
    else:
        print_view(check_view(check))
    if not check.passed(strict):
        raise DataError(f"{check.root} has problems: {summary(check)}")


def data_stats(
    folder: Folder = None,
    split: Split = None,
    classes: ClassesOption = "11",
    split_source: SplitSourceOption = "standard",
    out: Annotated[Path | None, out_option("data-stats.png")] = None,
    as_json: AsJson = False,
) -> None:
    """Count classes by split and drive; suggest class weights; draw a picture of it."""
    check_picture_name(out)
    dataset, splits = open_splits(folder, split, classes, split_source)
    from smp_camvid.data.statistics import collect_statistics
    from smp_camvid.report.console import make_console
    from smp_camvid.report.data_tables import (
        statistics_document,
        statistics_view,
        suggested_weights,
    )
    from smp_camvid.report.printing import has_swatches, print_view
    from smp_camvid.report.progress import step_progress
    from smp_camvid.report.statistics_figure import statistics_figure
    from smp_camvid.report.style import png_bytes

    with step_progress("counting pixels", quiet=as_json) as on_step:
        statistics = collect_statistics(dataset, splits, on_step)
    weights = suggested_weights(statistics)
    if out is None and not as_json:
        out = Path("data-stats.png")
    if out is not None:
        write_picture(out, png_bytes(statistics_figure(statistics)))
    if as_json:
        document = statistics_document(statistics, weights)
        typer.echo(json.dumps({**document, "picture": str(out) if out else None}, indent=2))
        return
    console = make_console(stderr=False)
    print_view(statistics_view(statistics, weights, has_swatches(console)), console)
    typer.echo(f"\n{out}")


def data_show(
    folder: Folder = None,
    split: Split = None,
    classes: ClassesOption = "11",
    split_source: SplitSourceOption = "standard",
    augment: Annotated[
        bool,
        typer.Option(
            "--augment",
            help="The same frames as the network sees them: those of train augmented as in its "
            "first epoch, others resized.",
        ),
    ] = False,
    recipe_name: Annotated[
        str,
        typer.Option(
            "--recipe", metavar="NAME|FILE.toml", help="Whose size and steps --augment takes."
        ),
    ] = "vanilla",
    number: Annotated[
        int, typer.Option("--frames", min=1, max=100, help="How many frames to show.")
    ] = 8,
    out: Annotated[Path | None, out_option("data-show.png")] = None,
    as_json: AsJson = False,
) -> None:
    """Draw a contact sheet: frames, the same with their labels laid over, and a legend."""
    check_picture_name(out)
    resolved = recipe.resolve(recipe_name).recipe
    dataset, splits = open_splits(folder, split, classes, split_source)
    from smp_camvid.data import samples
    from smp_camvid.report.contact_sheet import contact_sheet
    from smp_camvid.report.style import png_bytes

    picks = samples.evenly_spaced(dataset, splits, number)
    if augment:
        shown = samples.as_trained(dataset, picks, resolved)
        how = f"as recipe {resolved.name} shows them, train in epoch 1, seed {resolved.train.seed}"
    else:
        shown, how = samples.as_they_are(dataset, picks), "as they are"
    frames = [
        (f"{pick.frame.stem}  {pick.split}{_seen(pick.split) if augment else ''}", image, label)
        for pick, (image, label) in zip(picks, shown, strict=True)
    ]
    title = f"{len(frames)} frames of {'+'.join(splits)} {how}, {len(dataset.table)} classes"
    out = out or Path("data-show.png")
    write_picture(out, png_bytes(contact_sheet(frames, dataset.table, title)))
    if as_json:
        document = {
            "root": str(dataset.root),
            "recipe": resolved.name if augment else None,
            "frames": [{"split": pick.split, "image": str(pick.frame.image)} for pick in picks],
            "picture": str(out),
        }
        typer.echo(json.dumps(document, indent=2))
    else:
        typer.echo(str(out))


def _seen(split: str) -> str:
    return ", augmented" if split == "train" else ", resized"


# --- shared ----------------------------------------------------------------------------------


def check_choices(classes: str, split_source: str) -> None:
    """Raises UsageError for a class table or a split source that does not exist."""
    for option, given, known in (
        ("--classes", classes, ("11", "32", "dataset")),
        ("--split-source", split_source, ("standard", "folders")),
    ):
        if given not in known:
            guess = did_you_mean(given, known)
            raise UsageError(
                f"{option} {given!r} is not known; it is one of {', '.join(known)}.", guess
            )


def open_splits(
    folder: str | None, split: str | None, classes: str, split_source: str
) -> tuple[CamVid, tuple[str, ...]]:
    """The dataset and the splits asked for; those that have labels when none is named."""
    check_choices(classes, split_source)
    from smp_camvid.data.camvid import open_dataset
    from smp_camvid.data.checks import parse_splits

    named = parse_splits(split)
    dataset = open_dataset(
        folder,
        classes,  # type: ignore[arg-type]  # checked above
        split_source,  # type: ignore[arg-type]
        need=named if split else (),
    )
    if split:
        return dataset, named
    labelled = tuple(
        name
        for name in named
        if any(frame.label is not None for frame in dataset.splits.get(name, ()))
    )
    if not labelled:
        raise DataError(
            f"{dataset.root} has no labels to show or count.",
            "A label is called <stem>_L.png or <stem>.png, in the label folder.",
        )
    return dataset, labelled


def check_picture_name(path: Path | None) -> None:
    """Raises UsageError before the work for a name that is no PNG."""
    if path is not None and path.suffix.lower() != ".png":
        raise UsageError(f"--out {path} does not end in .png.", f"For example {path}.png")


def write_picture(path: Path, data: bytes) -> None:
    """Raises DataError when it cannot be written."""
    try:
        runs.write_bytes(path, data)
    except OSError as error:
        raise DataError(
            f"{path} cannot be written: {error.strerror}.", "Name another file with --out."
        ) from error


data_app = typer.Typer(
    no_args_is_help=True, add_completion=False, help="Check, count and show a dataset."
)
data_app.command("check")(data_check)
data_app.command("stats")(data_stats)
data_app.command("show")(data_show)
