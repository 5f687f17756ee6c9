"""Frames worth a look: which ones, what the model says of them, and where it is wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from smp_camvid.data.classes import VOID
from smp_camvid.report.colour_vision import colour_blind_palette

if TYPE_CHECKING:
    from smp_camvid.data.cache import FrameCache
    from smp_camvid.inference.predictor import Segmenter

__all__ = ["FramePicture", "chosen_frames", "colour_blind_palette", "error_map", "frame_pictures"]

Picture = npt.NDArray[np.uint8]

ERROR_COLORS = {"right": (226, 230, 234), "wrong": (186, 28, 36), "void": (160, 168, 176)}
"""Of `error_map`: the lightness tells right from wrong, whatever the eye makes of red."""
HATCH, HATCH_PERIOD = (206, 211, 216), 8


@dataclass(frozen=True)
class FramePicture:
    """A frame, its truth and its prediction, all at the size its score was counted at."""

    name: str
    """The file, as in the document's `per_frame`."""
    drive: str
    miou: float | None
    """Over the classes in the frame; None for a frame of void."""
    frame: Picture
    """RGB `[H, W, 3]`."""
    truth: Picture
    """Class indices `[H, W]`, void 255."""
    prediction: Picture


def chosen_frames(document: Mapping[str, Any], count: int) -> dict[str, list[str]]:
    """The file names of the `count` best (best first), median and worst (worst first) frames.

    By the frame's mIoU in the document's `per_frame`, equals in the split's order; frames of void
    are left out.  No frame is there twice: few are shared out, the worst and the best first.
    """
    scored = [frame for frame in document["per_frame"] if frame["miou"] is not None]
    order = sorted(scored, key=lambda frame: frame["miou"])
    worst, best, median = (min(count, (len(order) + spare) // 3) for spare in (2, 1, 0))
    middle = max(worst, (len(order) - median) // 2)
    groups = {
        "best": sorted(order[len(order) - best :], key=lambda frame: -frame["miou"]),
        "median": order[middle : middle + median],
        "worst": order[:worst],
    }
    return {group: [frame["frame"] for frame in frames] for group, frames in groups.items()}


def frame_pictures(
    segmenter: Segmenter, cache: FrameCache, names: Sequence[str], document: Mapping[str, Any]
) -> list[FramePicture]:
    """The frames of `cache` with these file names, predicted again as `evaluate` did.

    `document` is what it found of this model on this split.
    """
    from smp_camvid.data.preprocess import resize_picture
    from smp_camvid.evaluation.examination import predictions

    places = {frame.image.name: index for index, frame in enumerate(cache.frames)}
    indices = [places[name] for name in names]
    scored = {frame["frame"]: frame for frame in document["per_frame"]}
    return [
        FramePicture(
            name=name,
            drive=scored[name]["drive"],
            miou=scored[name]["miou"],
            frame=resize_picture(cache.image(index), (found.shape[0], found.shape[1])),
            truth=cache.label(index),
            prediction=found,
        )
        for name, index, found in zip(
            names, indices, predictions(segmenter, cache, indices), strict=True
        )
    ]


def error_map(truth: Picture, prediction: Picture, void: int = VOID) -> Picture:
    """Labels `[H, W]` each -> RGB `[H, W, 3]` of what is wrong.

    Light grey is right, dark red is wrong, and void, which counts nowhere, is hatched in grey.
    """
    diagonal = np.add.outer(np.arange(truth.shape[0]), np.arange(truth.shape[1]))
    stripe = (diagonal % HATCH_PERIOD < HATCH_PERIOD // 2)[..., None]
    hatched = np.where(stripe, np.array(ERROR_COLORS["void"]), np.array(HATCH))
    wrong = (truth != prediction)[..., None]
    judged = np.where(wrong, np.array(ERROR_COLORS["wrong"]), np.array(ERROR_COLORS["right"]))
    return np.where((truth == void)[..., None], hatched, judged).astype(np.uint8)
