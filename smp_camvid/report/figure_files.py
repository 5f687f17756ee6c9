"""The pictures of `evaluate --figures`: what there is to draw of a document, as files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from smp_camvid.data.classes import ClassTable
from smp_camvid.report.frame_pictures import FramePicture
from smp_camvid.report.gallery import gallery
from smp_camvid.report.score_figures import (
    class_iou_figure,
    confusion_figure,
    drive_figure,
    reliability_figure,
)
from smp_camvid.report.style import png_bytes, svg_bytes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMATS = {"png": ("png",), "svg": ("svg",), "both": ("png", "svg")}
"""Of `--figure-format`."""


def draw_figures(
    document: Mapping[str, Any],
    table: ClassTable,
    pictures: Mapping[str, Sequence[FramePicture]],
    formats: Sequence[str] = ("png",),
) -> dict[str, bytes]:
    """File name -> content, of all that the document of `evaluate` says of a model.

    `pictures` are the frames of each group of `chosen_frames`; a group without any has no file,
    and photographs are PNG in every case.
    """
    title = title_of(document)
    files = {
        f"{name}.{form}": png_bytes(figure) if form == "png" else svg_bytes(figure)
        for name, figure in _figures(document, table, title)
        for form in formats
    }
    for group, frames in pictures.items():
        if frames:
            words = f"{group.capitalize()} frames of {title}"
            files[f"frames-{group}.png"] = png_bytes(gallery(frames, table, words))
    return files


def _figures(
    document: Mapping[str, Any], table: ClassTable, title: str
) -> Iterator[tuple[str, Figure]]:
    per_class = document["per_class"]
    intervals = {name: scores["iou_interval"] for name, scores in document["classes"].items()}
    yield "class-iou", class_iou_figure(per_class, document["miou"], table, title, intervals)
    pixels = np.array(document["confusion"]["pixels"], np.int64)
    yield "confusion", confusion_figure(pixels, table, title)
    yield "reliability", reliability_figure(document["calibration"], title)
    if len(document["by_drive"]) > 1:  # one drive would say what the classes say
        yield "drives", drive_figure(document["by_drive"], per_class, title)


def title_of(document: Mapping[str, Any]) -> str:
    """The model and what it was judged on: a run's weights without the folders above the run."""
    model = Path(*Path(document["model"]).parts[-3:])
    return f"{model} on {document['split']}, {document['protocol']}"
