"""From paths to prediction files: what `predict` reads, and what it writes under which name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from smp_camvid.errors import DataError, UsageError
from smp_camvid.inference.predictor import Prediction
from smp_camvid.runs import atomic_path

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm"})
KINDS = ("mask", "color", "overlay", "probs")


def find_pictures(
    inputs: Sequence[str], recursive: bool = False, out: Path | None = None
) -> list[tuple[Path, Path]]:
    """Files and folders -> (picture, folder below the output folder it goes to), in order.

    A folder gives the pictures in it, with `recursive` those below it too, but neither hidden ones
    nor what lies in `out`, where earlier predictions are.  Raises DataError for a path that is not
    there and for a folder without pictures.
    """
    made = out.resolve() if out else None
    found: list[tuple[Path, Path]] = []
    for name in inputs:
        path = Path(name)
        if path.is_dir():
            entries = path.rglob("*") if recursive else path.glob("*")
            pictures = sorted(p for p in entries if _is_input(p, made))
            if not pictures:
                raise DataError(
                    f"There is no picture in {path}.",
                    "" if recursive else "--recursive also looks into the folders in it.",
                )
            found += [(p, p.parent.relative_to(path)) for p in pictures]
        elif path.is_file():
            found.append((path, Path()))
        else:
            raise DataError(
                f"There is no file or folder {name}.", "Name a picture or a folder of pictures."
            )
    return found


def _is_input(path: Path, made: Path | None) -> bool:
    if path.name.startswith(".") or path.suffix.lower() not in SUFFIXES or not path.is_file():
        return False
    return made is None or not path.resolve().is_relative_to(made)


def check_names(pictures: Sequence[tuple[Path, Path]]) -> None:
    """Raises UsageError when two pictures would be written under one name."""
    seen: dict[Path, Path] = {}
    for picture, folder in pictures:
        other = seen.setdefault(folder / picture.stem, picture)
        if other.resolve() != picture.resolve():
            raise UsageError(
                f"{other} and {picture} would both be written as {picture.stem}_mask.png.",
                "Predict them separately, each with its own --out.",
            )


def parse_kinds(text: str) -> tuple[str, ...]:
    """`"mask,overlay"` -> ("mask", "overlay").  Raises UsageError for an unknown kind."""
    kinds = tuple(part.strip() for part in text.split(",") if part.strip())
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown or not kinds:
        raise UsageError(
            f"--save {text}: {', '.join(unknown) or 'nothing'} cannot be saved.",
            f"It takes {','.join(KINDS)}.",
        )
    return kinds


def save_prediction(
    prediction: Prediction, folder: Path, stem: str, kinds: Sequence[str]
) -> dict[str, Path]:
    """Writes the kinds asked for, each atomically, all at the picture's own size.

    mask: uint8 class index PNG; color, overlay: RGB PNG; probs: float16 `[C, H, W]` npz.
    """
    arrays: dict[str, Callable[[], npt.NDArray[np.uint8]]] = {
        "mask": lambda: prediction.mask,
        "color": lambda: prediction.color,
        "overlay": prediction.overlay,
    }
    written = {}
    for kind in kinds:
        path = folder / f"{stem}_{kind}.{'npz' if kind == 'probs' else 'png'}"
        with atomic_path(path) as temporary:
            if kind == "probs":
                np.savez_compressed(temporary, probs=prediction.probs.astype(np.float16))
            else:
                Image.fromarray(arrays[kind]()).save(temporary, format="PNG")
        written[kind] = path
    return written
