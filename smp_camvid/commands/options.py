"""Options that several commands share, each declared once."""

from __future__ import annotations

from typing import Annotated, Any, TypeAlias

import typer

from smp_camvid.errors import UsageError


def parse_size(text: str | None, option: str = "--size") -> tuple[int, int] | None:
    """`"360x480"` -> (360, 480), height first.  Raises UsageError naming the option."""
    if text is None:
        return None
    height, cross, width = text.lower().partition("x")
    if not (cross and height.isdigit() and width.isdigit() and int(height) and int(width)):
        raise UsageError(f"{option} {text!r} is not HEIGHTxWIDTH.", "For example 360x480.")
    return int(height), int(width)


def of(key: str, *names: str, metavar: str | None = None) -> Any:
    """An option that sets the recipe's `key`; its help text is the field's docstring."""
    from smp_camvid import recipe  # pydantic, which commands without a recipe start faster without

    return typer.Option(
        *names, help=recipe.field_help(key).rstrip("."), metavar=metavar, show_default=False
    )


RecipeName: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--recipe",
        metavar="NAME|FILE.toml",
        help="What to start from (smp-camvid recipes list).",
    ),
]
Changes: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Set any key of the recipe, such as train.epochs=3."
    ),
]
Encoder: TypeAlias = Annotated[
    str | None, typer.Option("--encoder", help="Encoder of an smp architecture.")
]
Model: TypeAlias = Annotated[
    str | None,
    typer.Argument(
        metavar="[RUN|FILE|NAME]",
        help="Run folder, weights or .onnx file, or shipped model; the newest run if absent, "
        "without one the shipped model.",
    ),
]
Checkpoint: TypeAlias = Annotated[
    str,
    typer.Option(
        "--checkpoint",
        metavar="last|best|epoch-N",
        help="Which weights of the run; the last epoch's if absent.",
    ),
]
Device: TypeAlias = Annotated[
    str, typer.Option("--device", help="auto, cpu, cuda, cuda:1, mps.", show_default=False)
]
Tile: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--tile",
        metavar="HxW",
        help="Run the network on overlapping parts of this size; large frames are cut anyway.",
    ),
]
Tta: TypeAlias = Annotated[
    bool,
    typer.Option("--tta", help="Average over three scales and their mirror images (six passes)."),
]
Precision: TypeAlias = Annotated[
    str,
    typer.Option(
        "--precision",
        metavar="auto|fp32|bf16|fp16",
        help="Arithmetic; auto is fp32 on a CPU, bf16 or fp16 on a GPU.",
    ),
]
JudgedData: TypeAlias = Annotated[
    str | None,
    typer.Option("--data", metavar="DIR|synthetic", help="Dataset; the run's own if absent."),
]
Split: TypeAlias = Annotated[
    str, typer.Option("--split", help="train, val, test, or several joined with +.")
]
ScoreSize: TypeAlias = Annotated[
    str | None,
    typer.Option("--size", metavar="HxW", help="Label size to score at; the run's own if absent."),
]
JudgedBatch: TypeAlias = Annotated[
    int, typer.Option("--batch-size", min=1, help="Frames per forward pass.")
]
JudgedWorkers: TypeAlias = Annotated[
    int, typer.Option("--workers", min=0, help="Processes that load frames.")
]
Tolerance: TypeAlias = Annotated[
    float | None,
    typer.Option(
        "--tolerance",
        metavar="PX",
        min=0.0,
        help="How far apart boundaries match, in pixels; .75 % of the diagonal if absent.",
        show_default=False,
    ),
]
Block: TypeAlias = Annotated[
    int,
    typer.Option(
        "--block", min=1, help="Consecutive frames that resamples for the intervals keep together."
    ),
]
AsJson: TypeAlias = Annotated[
    bool, typer.Option("--json", help="Print one JSON document and nothing else.")
]
