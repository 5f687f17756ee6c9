"""What a predictor can be asked for: tiles, looks at several scales, precision."""

from __future__ import annotations

from collections.abc import Sequence

from smp_camvid.errors import UsageError

TTA_SCALES = (0.75, 1.0, 1.25)


def checked_tile(tile: object) -> tuple[int, int]:
    """Height and width.  Raises UsageError for anything else."""
    pair = tile if isinstance(tile, list | tuple) else ()
    if len(pair) != 2 or not all(isinstance(n, int) and n >= 1 for n in pair):
        raise UsageError(f"A tile is a height and a width, as (512, 512), not {tile!r}.")
    return pair[0], pair[1]


def tta_scales(tta: bool | Sequence[float]) -> tuple[float, ...]:
    """The scales of test-time augmentation; empty is none.  Raises UsageError."""
    if isinstance(tta, bool | None):
        return TTA_SCALES if tta else ()
    scales = tuple(tta) if isinstance(tta, list | tuple) else (tta,)
    if not all(isinstance(scale, int | float) and 0 < scale <= 4 for scale in scales):
        raise UsageError(
            f"TTA takes scales above 0 and at most 4, as (0.75, 1.0), not {tta!r}.",
            "True stands for .75, 1 and 1.25.",
        )
    return scales


def check_scale(scale: str) -> None:
    """Raises UsageError for another than train and native."""
    _check("scale", scale, ("train", "native"))


def check_precision(precision: str) -> None:
    """Raises UsageError for another than auto, fp32, bf16 and fp16."""
    _check("precision", precision, ("auto", "fp32", "bf16", "fp16"))


def _check(what: str, value: str, known: Sequence[str]) -> None:
    if value not in known:
        raise UsageError(f"The {what} {value!r} is not known.", f"It is {' or '.join(known)}.")
