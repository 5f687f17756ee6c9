"""What `evaluate` prints: the document of `evaluate --json` in 80 columns.

Everything from outside (class names, paths, file names) goes in as `rich.text.Text`, never as
markup.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from smp_camvid.data.room import in_words
from smp_camvid.report.tables import duration, number, shortened, worst_first

_NAME_WIDTH = 14


def evaluation_table(
    result: Mapping[str, Any], *, frames: int = 3, definitions: bool = False
) -> RenderableType:
    """Scores by class, worst first, and pooled; by drive where there are several; the best and
    worst `frames`; with `definitions` the other numbers that are called mIoU."""
    parts: list[RenderableType] = [_head(result), class_table(result), _pooled(result)]
    if len(result["by_drive"]) > 1:
        parts.append(_drives(result["by_drive"]))
    if definitions:
        parts.append(definition_table(result["definitions"]))
    if frames:
        parts.append(_frames(result["per_frame"], frames))
    parts.append(_notes(result))
    return Group(*(part for block in parts for part in (block, Text(""))))


def plain_table(*columns: str, right: Iterable[str] = ()) -> Table:
    """A table without lines, its columns two apart."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left", no_wrap=True)
    return table


def span(interval: Sequence[float] | None, digits: int = 3) -> str:
    """`0.528-0.575`; nothing where there is no interval."""
    return "" if interval is None else "-".join(number(edge, digits) for edge in interval)


def facts(rows: Iterable[tuple[str, str]]) -> Table:
    """Labels, and beside them what may go over several lines."""
    table = Table.grid(padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for label, value in rows:
        table.add_row(label, Text(value))
    return table


def _head(result: Mapping[str, Any]) -> Table:
    counted, known = result["classes_counted"], len(result["per_class"])
    rows = [
        ("model", result["model"]),
        ("checkpoint", prediction_in_words(result)),
        ("protocol", result["protocol"]),
        ("definition", result["definition"]),
        ("frames", f"{result['frames']} ({result['split']})"),
        ("classes", f"{counted} of {known} counted"),
    ]
    return facts(rows + ([("beware", seen_in_words(result))] if result["trained_on"] else []))


def seen_in_words(result: Mapping[str, Any]) -> str:
    """That a score is no judgement; empty where the model has not seen the frames."""
    seen = " and ".join(result["trained_on"])
    return seen and (
        f"this model was trained on {seen}: the score is what it has learnt by heart, and says "
        "nothing of other frames"
    )


def prediction_in_words(result: Mapping[str, Any]) -> str:
    """The checkpoint, and how it was run where that is out of the ordinary."""
    tta, tile = result["prediction"]["tta"], result["prediction"]["tile"]
    how = [
        f"TTA at {', '.join(f'{scale:g}' for scale in tta)} and mirrored" if tta else "",
        "tiles of {}x{}".format(*tile) if tile else "",
    ]
    return ", ".join([result["checkpoint"], *filter(None, how)])


def class_table(result: Mapping[str, Any]) -> Table:
    """Every class, worst IoU first, and what its pixels are most often taken for."""
    figures = ("IoU", "prec.", "recall", "Dice", "edges")
    table = plain_table("class", "IoU", "95 %", *figures[1:], "taken for", right=figures)
    for name, iou in worst_first(result["per_class"]):
        scores = result["classes"][name]
        if iou is None:
            table.add_row(Text(shortened(name, _NAME_WIDTH)), "-", Text("not there", style="dim"))
            continue
        keys = ("precision", "recall", "dice", "boundary_f1")
        table.add_row(
            Text(shortened(name, _NAME_WIDTH)),
            number(iou),
            Text(span(scores["iou_interval"]), style="dim"),
            *(number(scores[key]) for key in keys),
            Text(taken_for(result["confusion"], name)),
        )
    return table


def taken_for(confusion: Mapping[str, Any], name: str) -> str:
    """`Building 31%`: the other class most of its pixels went to; nothing below one per cent."""
    index, share = most_mistaken(confusion, name)
    return "" if share < 0.01 else f"{shortened(confusion['classes'][index], 10)} {share:.0%}"


def most_mistaken(confusion: Mapping[str, Any], name: str) -> tuple[int, float]:
    """The other class that most pixels of `name` went to, and their share of all of its pixels."""
    place = confusion["classes"].index(name)
    row = list(confusion["pixels"][place])
    total = sum(row)
    row[place] = 0
    return row.index(max(row)), max(row) / total if total else 0.0


def _pooled(result: Mapping[str, Any]) -> Table:
    table = Table.grid(padding=(0, 2, 0, 0), pad_edge=False)
    boundary, calibration = result["boundary"], result["calibration"]
    interval = result["miou_interval"]
    for label, value, remark in (
        ("mean IoU", result["miou"], f"95 %: {span(interval)}" if interval else ""),
        ("pixel accuracy", result["accuracy"], ""),
        ("mean class accuracy", result["mean_class_accuracy"], ""),
        ("frequency-weighted IoU", result["frequency_weighted_iou"], ""),
        ("boundary F1 (edges)", boundary["f1"], f"within {tolerance_of(boundary)}"),
        ("calibration error (ECE)", calibration["ece"], f"{len(calibration['bins'])} bins"),
    ):
        style = "bold" if label == "mean IoU" else ""
        table.add_row(Text(label, style), Text(number(value), style), Text(remark, "dim"))
    return table


def tolerance_of(boundary: Mapping[str, Any]) -> str:
    """`4.5 px`, or the share of the diagonal where labels differ in size."""
    if boundary["tolerance_px"] is None:
        return f"{boundary['tolerance_of_diagonal']:.2%} of the diagonal"
    return f"{boundary['tolerance_px']:g} px"


def _drives(by_drive: Mapping[str, Mapping[str, Any]]) -> Table:
    figures = ("frames", "mIoU", "accuracy", "classes")
    table = plain_table("drive", "frames", "mIoU", "95 %", "accuracy", "classes", right=figures)
    for name, drive in sorted(by_drive.items(), key=lambda item: item[1]["miou"] or 0.0):
        table.add_row(
            Text(shortened(name, 24)),
            str(drive["frames"]),
            number(drive["miou"]),
            Text(span(drive["miou_interval"]), style="dim"),
            number(drive["accuracy"]),
            str(drive["classes_counted"]),
        )
    return table


def definition_table(definitions: Iterable[Mapping[str, Any]]) -> Table:
    """The same predictions by other definitions of mIoU."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("mIoU by", no_wrap=True)
    table.add_column("", justify="right", no_wrap=True)
    table.add_column("is", overflow="fold")
    for one in definitions:
        what = Text.assemble(one["meaning"], (f" ({one['used_by']})", "dim"))
        table.add_row(one["name"], number(one["miou"]), what)
    return table


def ranked(per_frame: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Frames by their mIoU, worst first; those of void alone are left out."""
    return sorted((f for f in per_frame if f["miou"] is not None), key=lambda f: f["miou"])


def _frames(per_frame: Iterable[Mapping[str, Any]], number_of: int) -> Table:
    order = ranked(per_frame)
    table = plain_table("worst frames", "mIoU", "  best frames", "mIoU", right=("mIoU",))
    for worst, best in zip(order[:number_of], order[::-1][:number_of], strict=True):
        table.add_row(
            Text(shortened(worst["frame"], 28)),
            number(worst["miou"]),
            Text(f"  {shortened(best['frame'], 28)}"),
            number(best["miou"]),
        )
    return table


def _notes(result: Mapping[str, Any]) -> Table:
    speed = result["speed"]
    memory = speed["peak_memory_bytes"]
    took = (
        f"{result['frames']} frames in {duration(speed['seconds'])} on "
        f"{result['prediction']['device']}, {speed['images_per_second']:.3g} images/s "
        f"({speed['network_images_per_second']:.3g} through the network)"
    )
    return facts(
        [
            ("95 %", intervals_in_words(result["intervals"])),
            ("speed", took + (f", {in_words(memory)} at most" if memory else "")),
        ]
    )


def intervals_in_words(how: Mapping[str, Any]) -> str:
    """What an interval means, and what it was made from."""
    made = f"{how['resamples']} resamples of {how['blocks']} blocks of {how['block_frames']} frames"
    meaning = str(how["meaning"])
    none = meaning.startswith("none")
    return meaning + ("; --block N makes them shorter" if none else f" ({made})")
