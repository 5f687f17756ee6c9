"""What `compare` prints: the document of `compare --json` as tables, or as Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from smp_camvid.report.evaluation_tables import (
    facts,
    intervals_in_words,
    plain_table,
    seen_in_words,
    span,
)
from smp_camvid.report.tables import number, shortened

_HEAD = ("model", "mIoU", "95 %", "accuracy", "Mpar", "GFLOP", "images/s")


def comparison_table(result: Mapping[str, Any]) -> RenderableType:
    """The models by letter, then each other's difference to the first, worst class first."""
    parts: list[RenderableType] = [_head(result), _models(result)]
    for number_, one in enumerate(result["differences"], start=1):
        parts.append(_difference(result, one, number_))
    parts.append(_notes(result))
    return Group(*(part for block in parts for part in (block, Text(""))))


def letter(index: int) -> str:
    """A, B, ... Z, A1, ..."""
    return chr(ord("A") + index % 26) + (str(index // 26) if index >= 26 else "")


def _head(result: Mapping[str, Any]) -> Table:
    return facts(
        [
            *((letter(i), model["model"]) for i, model in enumerate(result["models"])),
            ("protocol", result["protocol"]),
            ("definition", result["definition"]),
            ("frames", f"{result['frames']} ({result['split']})"),
            *(
                (f"beware {letter(i)}", words)
                for i, model in enumerate(result["models"])
                if (words := seen_in_words(model))
            ),
        ]
    )


def _models(result: Mapping[str, Any]) -> Table:
    table = plain_table(*_HEAD, right=_HEAD[1:])
    for i, model in enumerate(result["models"]):
        table.add_row(letter(i), *_figures(model))
    return table


def _figures(model: Mapping[str, Any]) -> list[str]:
    flops, speed = model["flops"], model["speed"]["network_images_per_second"]
    return [
        number(model["miou"]),
        span(model["miou_interval"]),
        number(model["accuracy"]),
        f"{model['parameters'] / 1e6:.2f}",
        "-" if flops is None else f"{flops / 1e9:.1f}",
        f"{speed:.3g}",
    ]


def _difference(result: Mapping[str, Any], one: Mapping[str, Any], index: int) -> Table:
    mine, first = letter(index), letter(0)
    a, b = result["models"][0], result["models"][index]
    columns = (first, mine, f"{mine} - {first}", "95 %")
    table = plain_table("IoU", *columns, "", right=columns)
    _row(table, "mean", a["miou"], b["miou"], one["miou"], "bold")
    # A class that only one of the two has an IoU for has no difference.
    order = sorted(
        one["per_class"].items(),
        key=lambda item: (item[1]["difference"] is None, item[1]["difference"] or 0.0),
    )
    for name, value in order:
        _row(table, name, a["per_class"][name], b["per_class"][name], value)
    return table


def _row(
    table: Table,
    name: str,
    first: float | None,
    mine: float | None,
    value: Mapping[str, Any],
    style: str = "",
) -> None:
    difference, interval = value["difference"], value["interval"]
    table.add_row(
        Text(shortened(name, 17), style),
        number(first),
        number(mine),
        Text("-" if difference is None else f"{difference:+.3f}", style),
        Text(signed(interval), "dim"),
        Text(verdict(interval)),
    )


def signed(interval: list[float] | None) -> str:
    """`-0.012 to +0.034`."""
    return "" if interval is None else " to ".join(f"{edge:+.3f}" for edge in interval)


def verdict(interval: list[float] | None) -> str:
    """Whether the interval of a difference, as it is printed, leaves out 0, and on which side."""
    low, high = (round(edge, 3) for edge in interval or (0.0, 0.0))
    return "better" if low > 0 else "worse" if high < 0 else ""


def _notes(result: Mapping[str, Any]) -> Table:
    first = result["models"][0]
    device = first["prediction"]["device"]
    rows = [
        ("95 %", intervals_in_words(result["intervals"])),
        ("better, worse", "the interval of the difference leaves out 0.000"),
        ("GFLOP", "one pass over one frame; a multiplication with its addition counts two"),
        ("images/s", f"network alone, {device}, batches of {first['speed']['batch_size']}"),
    ]
    return facts(rows)


def markdown_table(result: Mapping[str, Any]) -> str:
    """The models as a table in Markdown, with what its scores are below it."""
    lines = [_markdown_row(_HEAD), _markdown_row(["---", *["---:"] * (len(_HEAD) - 1)])]
    for model in result["models"]:
        lines.append(_markdown_row([model["model"], *_figures(model)]))
    what = f"{result['protocol']}, {result['split']}, {result['frames']} frames; mIoU:"
    intervals = f"95 %: {intervals_in_words(result['intervals'])}."
    seen = [
        f"Beware of {model['model']}: {words}."
        for model in result["models"]
        if (words := seen_in_words(model))
    ]
    return "\n".join(
        [*lines, "", " ".join([f"{what} {result['definition']}. {intervals}", *seen]), ""]
    )


def _markdown_row(cells: Any) -> str:
    return "| " + " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in cells) + " |"
