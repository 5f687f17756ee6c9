"""Seconds from the command to something useful, whole processes.

    python benchmarks/startup.py [--write]

`--help`; a mask with the model in the box; `train` to the end of its first step, beside what
importing torch and segmentation-models-pytorch alone takes.  Processes alternate; the first round
warms the disk and is not counted.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

from first_mask import drawn
from frames import draw
from side_by_side import alternate, options, publish, spread

HERE = Path(__file__).parent


def main() -> None:
    given = options(__doc__).parse_args()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        os.environ["SMP_CAMVID_CACHE"] = str(place / "cache")
        picture, data = drawn(place / "road.png"), draw(place / "data", (180, 240), 16)
        python, ours = [sys.executable], [sys.executable, "-m", "smp_camvid"]
        train = f"""--recipe quick --data {data} --set data.split_source=folders --device cpu
            --save-dir {place / "runs"} --verbose 0""".split()
        predict = f"""--model camvid-lite0 --device cpu --save mask,overlay --force
            --out {place / "ours"}""".split()
        commands = {
            "python alone": [*python, "-c", "pass"],
            "`smp-camvid --help`": [*ours, "--help"],
            "`smp-camvid predict img.png`": [*ours, "predict", str(picture), *predict],
            "the same mask by a torch and smp script": [
                *python, str(HERE / "plain_predict.py"), str(picture), str(place / "plain")
            ],
            "`import torch, segmentation_models_pytorch`": [
                *python, "-c", "import torch, segmentation_models_pytorch"
            ],
            "`smp-camvid train`, to the end of its first step": [
                *python, str(HERE / "first_step.py"), *train
            ],
        }  # fmt: skip
        seconds = alternate(
            {name: partial(run, command) for name, command in commands.items()},
            1 if given.quick else given.repeats,
        )
    rows = [{"": name, "seconds": str(spread(values))} for name, values in seconds.items()]
    publish("startup", rows, seconds, given, "Whole processes; frames decoded before.")


def run(command: list[str]) -> None:
    subprocess.run(command, check=True, capture_output=True)


if __name__ == "__main__":
    main()
