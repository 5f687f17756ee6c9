"""The report's frames: pictures small enough for one file, their classes exact.

A frame goes in as JPEG, truth and prediction as class indices, compressed: the page paints them, so
colours can be changed and classes left out without another picture.
"""

from __future__ import annotations

import base64
import io
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from smp_camvid.data.classes import VOID, ClassTable
from smp_camvid.report.frame_pictures import FramePicture

WIDEST = 640
"""Pixels: more than a card of the page shows, and twelve frames stay below 2 MB."""
GROUPS = {"worst": "Worst", "median": "Median", "best": "Best"}


@dataclass(frozen=True)
class Shot:
    """One frame as the page has it."""

    name: str
    drive: str
    group: str
    index: int
    """Of the frame in the document's `per_frame`."""
    size: tuple[int, int]
    jpeg: str
    truth: str
    predictions: tuple[str, ...]
    """Of each model."""
    words: Mapping[str, Any]
    """What truth and predictions show, for those who do not see them."""

    def data(self) -> dict[str, Any]:
        """What the page's script paints from."""
        return {"size": self.size, "truth": self.truth, "predictions": self.predictions}


def shots(
    chosen: Mapping[str, Sequence[str]],
    pictures: Sequence[Sequence[FramePicture]],
    document: Mapping[str, Any],
    table: ClassTable,
) -> list[Shot]:
    """The frames that `frame_pictures.chosen_frames` chose, worst first, of all models."""
    by_name = [{picture.name: picture for picture in of_model} for of_model in pictures]
    places = {frame["frame"]: i for i, frame in enumerate(document["per_frame"])}
    return [
        _shot([of_model[name] for of_model in by_name], group, places[name], table)
        for group in GROUPS
        for name in chosen.get(group, ())
    ]


def _shot(pictures: Sequence[FramePicture], group: str, index: int, table: ClassTable) -> Shot:
    first = pictures[0]
    step = -(-first.frame.shape[1] // WIDEST)
    truth = first.truth[::step, ::step]
    found = [picture.prediction[::step, ::step] for picture in pictures]
    return Shot(
        name=first.name,
        drive=first.drive,
        group=group,
        index=index,
        size=(truth.shape[0], truth.shape[1]),
        jpeg=_jpeg(first.frame, (truth.shape[1], truth.shape[0])),
        truth=_packed(truth),
        predictions=tuple(_packed(labels) for labels in found),
        words={
            "truth": in_words(truth, table),
            "predictions": [in_words(labels, table) for labels in found],
        },
    )


def _jpeg(frame: npt.NDArray[np.uint8], size: tuple[int, int]) -> str:
    buffer = io.BytesIO()
    picture = Image.fromarray(frame)
    if picture.size != size:
        picture = picture.resize(size, Image.Resampling.LANCZOS)
    picture.save(buffer, "JPEG", quality=82, optimize=True)
    return base64.b64encode(buffer.getvalue()).decode()


def _packed(labels: npt.NDArray[np.uint8]) -> str:
    """uint8 `[H, W]` row by row, zlib, base64."""
    return base64.b64encode(zlib.compress(np.ascontiguousarray(labels).tobytes(), 9)).decode()


def in_words(labels: npt.NDArray[np.uint8], table: ClassTable) -> str:
    """`Road 33 %, Building 25 %, Sky 18 %`: the largest classes of a picture."""
    counts = np.bincount(labels[labels != VOID], minlength=len(table))
    total = max(1, int(counts.sum()))
    order = np.argsort(-counts, kind="stable")[:5]
    found = [f"{table.names[i]} {counts[i] / total:.0%}" for i in order if counts[i]]
    return ", ".join(found).replace("%", " %") or "nothing but void"
