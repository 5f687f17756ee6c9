"""The files of a prediction: which kinds there are, their names, and how they are written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from smp_camvid.errors import UsageError
from smp_camvid.inference.prediction import Prediction
from smp_camvid.runs import atomic_path

KINDS = ("mask", "color", "overlay", "probs")
# Overlays are photographs: zlib's own level 6 takes four times as long for 6 % fewer bytes.
_COMPRESSION = {"mask": 6, "color": 6, "overlay": 2}


def parse_kinds(text: str) -> tuple[str, ...]:
    """`"mask,overlay"` -> ("mask", "overlay").  Raises UsageError for an unknown kind."""
    kinds = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown or not kinds:
        raise UsageError(
            f"--save {text}: {', '.join(unknown) or 'nothing'} cannot be saved.",
            f"It takes {','.join(KINDS)}.",
        )
    return kinds


def file_name(stem: str, kind: str) -> str:
    """Of a picture's prediction."""
    return f"{stem}_{kind}.{'npz' if kind == 'probs' else 'png'}"


def save_prediction(
    prediction: Prediction,
    folder: Path,
    stem: str,
    kinds: Sequence[str],
    unfinished: Path | None = None,
) -> dict[str, Path]:
    """Writes the kinds asked for, all at the picture's own size; returns kind -> path.

    mask: uint8 class index PNG; color, overlay: RGB PNG; probs: float16 `[C, H, W]` npz.  A file
    has its name only when it is whole; until then it is in `unfinished`, a folder on the same
    disk, or beside its place.
    """
    arrays: dict[str, Callable[[], npt.NDArray[np.uint8]]] = {
        "mask": lambda: prediction.mask,
        "color": lambda: prediction.color,
        "overlay": prediction.overlay,
    }
    written = {}
    for kind in kinds:
        path = folder / file_name(stem, kind)
        # Not synced: 4 ms a file, and what a power cut emptied is noticed by its size.
        with atomic_path(path, within=unfinished, sync=False) as temporary:
            if kind == "probs":
                np.savez_compressed(temporary, probs=prediction.probs.astype(np.float16))
            else:
                level = _COMPRESSION[kind]
                Image.fromarray(arrays[kind]()).save(temporary, format="PNG", compress_level=level)
        written[kind] = path
    return written
