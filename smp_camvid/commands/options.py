"""Options that several commands share, each declared once."""

from __future__ import annotations

from typing import Annotated, Any, TypeAlias

import typer

from smp_camvid import recipe
from smp_camvid.errors import UsageError


def parse_size(text: str | None) -> tuple[int, int] | None:
    """`"360x480"` -> (360, 480), height first."""
    if text is None:
        return None
    height, cross, width = text.lower().partition("x")
    if not (cross and height.isdigit() and width.isdigit() and int(height) and int(width)):
        raise UsageError(f"--size {text!r} is not HEIGHTxWIDTH.", "For example 360x480.")
    return int(height), int(width)


def of(key: str, *names: str, metavar: str | None = None) -> Any:
    """An option that sets the recipe's `key`; its help text is the field's docstring."""
    return typer.Option(
        *names, help=recipe.field_help(key).rstrip("."), metavar=metavar, show_default=False
    )


Model: TypeAlias = Annotated[
    str | None,
    typer.Argument(metavar="[RUN|FILE]", help="Run folder or weights file; newest run if absent."),
]
Checkpoint: TypeAlias = Annotated[
    str,
    typer.Option(
        "--checkpoint",
        metavar="last|best|epoch-N",
        help="Which weights of the run; the last epoch's if absent.",
    ),
]
Device: TypeAlias = Annotated[str, of("train.device", "--device")]
AsJson: TypeAlias = Annotated[
    bool, typer.Option("--json", help="Print one JSON document and nothing else.")
]
