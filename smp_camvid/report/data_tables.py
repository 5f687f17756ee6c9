"""What `data check` and `data stats` print, and the documents behind their `--json`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from smp_camvid.data.checks import Check
from smp_camvid.data.inspection import Finding
from smp_camvid.data.layouts import count
from smp_camvid.data.statistics import FrameStatistics, Statistics
from smp_camvid.report.tables import number, shortened

SHOWN = 5
"""Findings of one kind that the table spells out; `--json` has all."""

_STYLES = {"error": "bold red", "warning": "bold yellow", "note": "bold cyan"}
_DRIVES = 6  # columns that fit 80 characters beside the names of the classes
_NAME_WIDTH = 17

Weights = Mapping[str, Sequence[float]]


# --- data check ------------------------------------------------------------------------------


def check_view(check: Check) -> RenderableType:
    """Frames and drives of each split, then the findings, worst first."""
    layout = {"kaggle": "Kaggle", "segnet": "SegNet"}.get(check.layout, check.layout)
    by = "the standard split" if check.split_source == "standard" else "the split of its folders"
    classes = "its own classes" if check.classes == "dataset" else f"{check.classes} classes"
    head = _pairs([("dataset", str(check.root)), ("read as", f"{layout} layout, {classes}, {by}")])
    parts: list[RenderableType] = [head, Text(""), _splits_table(check), Text("")]
    grouped = groupby(check.findings, key=lambda finding: (finding.severity, finding.kind))
    for (severity, _), findings in grouped:
        parts += [_findings(severity, list(findings), check), Text("")]
    return Group(*parts, Text(summary(check), "bold"))


def summary(check: Check) -> str:
    """`"1 error, 0 warnings, 2 notes in 468 frames (4.0 s)."`"""
    numbers = ", ".join(
        count(check.count(severity), severity) for severity in ("error", "warning", "note")
    )
    frames = count(sum(len(frames) for frames in check.splits.values()), "frame")
    return f"{numbers} in {frames} ({check.seconds:.1f} s)."


def _splits_table(check: Check) -> Table:
    table = _table("split", "frames", "frames of each drive")
    for split, drives in check.drives().items():
        longest = sorted(drives.items(), key=lambda item: -item[1])[:_DRIVES]
        listed = ", ".join(f"{shortened(d, 20)} {n}" for d, n in sorted(longest))
        rest = len(drives) - len(longest)
        more = f" and {count(rest, 'other drive')}" if rest else ""
        table.add_row(Text(split), Text(str(sum(drives.values()))), Text(listed + more))
    return table


def _findings(severity: str, findings: Sequence[Finding], check: Check) -> Table:
    grid = Table.grid(padding=(0, 1, 0, 0), pad_edge=False)
    grid.add_column(width=7, no_wrap=True)
    grid.add_column(overflow="fold")
    for index, finding in enumerate(findings[:SHOWN]):
        label = Text(severity, _STYLES[severity]) if index == 0 else Text("")
        grid.add_row(label, Text(_below_root(finding.message, check)))
    if len(findings) > SHOWN:
        grid.add_row("", Text(f"and {len(findings) - SHOWN} more like it; --json lists all", "dim"))
    for hint in dict.fromkeys(finding.hint for finding in findings[:SHOWN] if finding.hint):
        grid.add_row("", Text(hint, "dim"))
    return grid


def _below_root(message: str, check: Check) -> str:
    """Paths without the folder that the head of the view has named already."""
    return message.replace(f"{check.root}/", "")


# --- data stats ------------------------------------------------------------------------------


def suggested_weights(statistics: Statistics) -> dict[str, list[float]]:
    """Class weights as the recipes know them, from train where there is one."""
    from smp_camvid.training.class_weights import class_weights, frequencies_of

    split = "train" if "train" in statistics.splits else statistics.splits[0]
    frequencies = frequencies_of(statistics.counts(split))
    found = {
        "log 1.02": class_weights("log", frequencies, 1.02),
        "log 1.1": class_weights("log", frequencies, 1.1),
        "median": class_weights("median", frequencies),
    }
    return {name: [float(w) for w in ws] for name, ws in found.items() if ws is not None}


def statistics_document(statistics: Statistics, weights: Weights) -> dict[str, Any]:
    """What `data stats --json` prints: shares, never per cent, in the order of the classes."""

    def shares(frames: Sequence[FrameStatistics]) -> dict[str, Any]:
        mean, std = statistics.mean_std(frames)
        values = (round(float(share), 8) for share in statistics.shares(frames))
        return {
            "frames": len(frames),
            "void": round(statistics.void_share(frames), 8),
            "classes": dict(zip(statistics.table.names, values, strict=True)),
            "mean": [round(float(v), 5) for v in mean],
            "std": [round(float(v), 5) for v in std],
        }

    return {
        "root": str(statistics.root),
        "protocol": statistics.protocol,
        "splits": {name: shares(statistics.of(split=name)) for name in statistics.splits},
        "drives": {name: shares(statistics.of(drive=name)) for name in statistics.drives},
        "sizes": {f"{h}x{w}": frames for (h, w), frames in statistics.sizes()},
        "class_weights": {
            name: dict(zip(statistics.table.names, map(_round, values), strict=True))
            for name, values in weights.items()
        },
    }


def _round(value: float) -> float:
    return round(value, 5)


def statistics_view(
    statistics: Statistics, weights: Weights, swatches: bool = True
) -> RenderableType:
    """Sizes and colour statistics, then the classes by split with their weights, and by drive.

    `swatches`: a block of its colour before each class, where the console has blocks and colours.
    """
    sizes = [f"{frames} of {w}x{h}" for (h, w), frames in statistics.sizes()]
    head = [
        ("dataset", str(statistics.root)),
        ("protocol", statistics.protocol),
        ("frames", ", ".join(sizes[:4]) + (" ..." if len(sizes) > 4 else "")),
    ]
    for split in statistics.splits:
        mean, std = (_colors(v) for v in statistics.mean_std(statistics.of(split=split)))
        head.append((f"RGB, {split}", f"mean {mean}  std {std}"))
    by_split = {name: statistics.of(split=name) for name in statistics.splits}
    longest = sorted(statistics.drives, key=lambda d: -len(statistics.of(drive=d)))[:_DRIVES]
    by_drive = {name: statistics.of(drive=name) for name in statistics.drives if name in longest}
    first = "train" if "train" in by_split else statistics.splits[0]
    explained = (
        f"Shares in per cent of the labelled pixels.  Weights counted on {first}, at the labels' "
        "own size: log c is 1/ln(c + share), loss.class_weights = log with loss.log_offset = c "
        "in a recipe; median is the median frequency."
    )
    return Group(
        _pairs(head), Text(""),
        _shares_table(statistics, by_split, weights, swatches), Text(""),
        _shares_table(statistics, by_drive, {}, swatches), *_left_out(statistics), Text(""),
        Text(explained, "dim"),
    )  # fmt: skip


def _left_out(statistics: Statistics) -> Iterator[Text]:
    rest = len(statistics.drives) - _DRIVES
    if rest > 0:
        yield Text(f"and {count(rest, 'shorter drive')}; --json lists all", "dim")


def _colors(values: Iterable[float]) -> str:
    return " ".join(f"{value:.3f}" for value in values)


def _shares_table(
    statistics: Statistics,
    columns: Mapping[str, list[FrameStatistics]],
    weights: Weights,
    swatches: bool,
) -> Table:
    classes = statistics.table
    table = _table("class", *(shortened(name, 9) for name in columns), *weights)
    shares = {name: statistics.shares(frames) for name, frames in columns.items()}
    for index, name in enumerate(classes.names):
        if index == classes.void_index:
            continue
        block = "██ " if swatches else ""
        swatch = Text(block, "rgb({},{},{})".format(*classes.colors[index]))
        cells = [_percent(values[index]) for values in shares.values()]
        weighed = [number(values[index] or None, 2) for values in weights.values()]
        table.add_row(swatch.append(shortened(name, _NAME_WIDTH), "default"), *cells, *weighed)
    void = [_percent(statistics.void_share(frames)) for frames in columns.values()]
    table.add_row(Text("void, of all pixels", "dim"), *(Text(value, "dim") for value in void))
    return table


def _percent(share: float) -> str:
    return "-" if share == 0 else "<.01" if share < 0.0001 else f"{100 * share:.2f}"


# --- shared ----------------------------------------------------------------------------------


def _pairs(rows: Iterable[tuple[str, str]]) -> Table:
    grid = Table.grid(padding=(0, 2, 0, 0), pad_edge=False)
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for label, value in rows:
        grid.add_row(label, Text(value))
    return grid


def _table(first: str, *others: str) -> Table:
    """The first column to the left, numbers to the right, words after "frames" to the left."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(Text(first), no_wrap=True)
    for name in others:
        words = name.startswith("frames of")
        table.add_column(Text(name), justify="left" if words else "right", no_wrap=not words)
    return table
