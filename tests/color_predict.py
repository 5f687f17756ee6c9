"""`predict` with a network that anybody can check: each pixel gets the class of the nearest colour.

As a program it is the command line with that network behind it, in a process without torch, which
SMP_CAMVID_TEST_KILL ("point,number") ends with SIGKILL at a chosen point.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from smp_camvid.data.classes import CAMVID11
from smp_camvid.inference import files, manifest
from smp_camvid.inference.engine import NumpyMath
from smp_camvid.inference.predictor import Segmenter

Picture = npt.NDArray[np.uint8]
PALETTE = CAMVID11.palette[:11].astype(np.float32)


class ColorEngine:
    """An engine as `Engine` has it; `batches` remembers how many frames each pass had."""

    table, metadata, device, math = CAMVID11, {}, "cpu", NumpyMath()
    size_policy = {"border": "void", "margin": 0, "multiple": 1, "minimum": 1}  # noqa: RUF012

    def __init__(self, source: str = "colors") -> None:
        self.source = source
        self.batches: list[int] = []

    def run(self, images: Any) -> npt.NDArray[np.float32]:
        self.batches.append(len(images))
        pixels = np.asarray(images, np.float32)[:, None]  # B 1 3 h w
        return -((pixels - PALETTE[None, :, :, None, None]) ** 2).sum(2)

    run_tile = run


def nearest(picture: Picture) -> Picture:
    """The truth: `[H, W, 3]` -> `[H, W]`, pixel by pixel."""
    distances = ((picture[..., None, :].astype(np.int64) - PALETTE.astype(np.int64)) ** 2).sum(-1)
    return distances.argmin(-1).astype(np.uint8)


def load_colors(reference: Any = None, **options: Any) -> Segmenter:
    """In place of `predictor.load`."""
    for name in ("checkpoint", "device", "precision"):
        options.pop(name, None)
    return Segmenter(ColorEngine(str(reference or "colors")), **options)  # type: ignore[arg-type]


# --- as a program ---------------------------------------------------------------------------------


def die(*_: Any, **__: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def nth(number: int, what: Callable[..., Any], instead: Callable[..., Any]) -> Callable[..., Any]:
    calls = iter(range(1, 1 << 30))
    return lambda *a, **k: (instead if next(calls) == number else what)(*a, **k)


def arm(point: str, number: int) -> None:
    """Lays the trap."""
    if point == "picture half written":
        save = files.Image.Image.save

        def half(self: Any, path: Path, **options: Any) -> None:
            save(self, path, **options)
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
            die()

        files.Image.Image.save = nth(number, save, half)  # type: ignore[method-assign]
    elif point == "picture not renamed":
        Path.replace = nth(number, Path.replace, die)  # type: ignore[method-assign]
    elif point == "record half written":
        add = manifest.Manifest.add

        def torn(self: Any, output: str, record: Any) -> None:
            self._part.write(b'{"output": "' + output.encode() + b'", "inp')
            die()

        manifest.Manifest.add = nth(number, add, torn)  # type: ignore[method-assign]
    elif point == "records not gathered":
        manifest._merge = die  # type: ignore[assignment]
    else:
        assert point == "parts not removed", point
        manifest._merge = then_die(manifest._merge)  # type: ignore[assignment]


def then_die(what: Callable[..., Any]) -> Callable[..., Any]:
    def done(*words: Any) -> None:
        what(*words)
        die()

    return done


def slowed(run: Callable[..., Any], seconds: float) -> Callable[..., Any]:
    def slow(*words: Any) -> Any:
        time.sleep(seconds)
        return run(*words)

    return slow


def main() -> None:
    from smp_camvid import cli
    from smp_camvid.inference import predictor

    signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job ignores it
    predictor.load = load_colors
    if trap := os.environ.get("SMP_CAMVID_TEST_KILL"):
        point, _, number = trap.partition(",")
        arm(point, int(number))
    if pause := os.environ.get("SMP_CAMVID_TEST_PAUSE"):
        ColorEngine.run = slowed(ColorEngine.run, float(pause))  # type: ignore[method-assign]
    cli.main()


def forked(folder: str, words: list[str], variables: dict[str, str], said: str) -> None:
    """`main` in a process that was forked: its output goes to the file `said`."""
    os.chdir(folder)
    os.environ.update(variables)
    sys.argv = ["smp-camvid", *words]
    handle = os.open(said, os.O_WRONLY | os.O_CREAT)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    main()


if __name__ == "__main__":
    main()
