"""`smp-camvid train ...` that leaves when its first step is done: for startup.py.

python benchmarks/first_step.py --recipe quick
"""

import os
import sys
from typing import Any

from smp_camvid import cli
from smp_camvid.training.trainer import Trainer  # what the command imports, only earlier

step = Trainer.train_step


def first_and_last(*given: Any) -> None:
    step(*given)
    os._exit(0)


if __name__ == "__main__":
    Trainer.train_step = first_and_last  # type: ignore[assignment]
    sys.argv[1:1] = ["train"]
    cli.main()
