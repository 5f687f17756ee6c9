"""Seconds from the command to the first mask, whole processes, on a CPU.

    python benchmarks/first_mask.py [--repeats 5] [--picture FILE]

`smp-camvid predict img.png` with the model in the box, beside a plain script that imports torch
and segmentation-models-pytorch and does the same with the same weights
(benchmarks/plain_predict.py).  They alternate; the first round warms the disk and is not counted.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from smp_camvid.data.synthetic import Shot, render
from smp_camvid.report.machine import cpu_facts

PLAIN = Path(__file__).parent / "plain_predict.py"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--picture", type=Path, help="a road scene; one is drawn if absent")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        picture = options.picture or drawn(out / "road.png")
        ways = {
            "smp-camvid predict": [sys.executable, "-m", "smp_camvid", "predict", str(picture),
                                   "--model", "camvid-lite0", "--device", "cpu", "--save",
                                   "mask,overlay", "--force", "--out", str(out / "ours")],
            "torch and smp": [sys.executable, str(PLAIN), str(picture), str(out / "plain")],
        }  # fmt: skip
        seconds = measure(ways, options.repeats)
        machine = cpu_facts()
        print(f"{machine['name']}, {machine['cores']} cores; picture {picture.name}")
        for name, values in seconds.items():
            middle, spread = statistics.median(values), (min(values), max(values))
            print(f"{name:20} {middle:6.2f} s   {spread[0]:.2f} to {spread[1]:.2f}")
        ours, plain = (statistics.median(seconds[name]) for name in ways)
        print(f"{plain / ours:.1f} times faster; masks agree on {agreement(out, picture):.3%}")


def drawn(path: Path) -> Path:
    """A made-up street at 720x960, as large as CamVid's camera took it."""
    Image.fromarray(render(Shot("val", "Syn01", 0, 0), (720, 960), seed=0)[0]).save(path)
    return path


def measure(ways: dict[str, list[str]], repeats: int) -> dict[str, list[float]]:
    """Seconds of each way, alternating."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(repeats + 1):
        for name, command in ways.items():
            began = time.perf_counter()
            subprocess.run(command, check=True, capture_output=True)
            if number:
                seconds[name].append(time.perf_counter() - began)
    return seconds


def agreement(out: Path, picture: Path) -> float:
    """Share of pixels with the same class in both masks."""
    masks = [np.asarray(Image.open(out / way / f"{picture.stem}_mask.png"))
             for way in ("ours", "plain")]  # fmt: skip
    return float((masks[0] == masks[1]).mean())


if __name__ == "__main__":
    main()
