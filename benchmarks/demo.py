"""`make demo`: draws synthetic road scenes, trains a narrow U-Net, judges it, predicts a frame.

Everything goes through the commands a user would type, into ./demo.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path

HOME = Path("demo")


def command(*words: str) -> str:
    """Runs a smp-camvid command, showing it first; returns what it printed."""
    print(f"\n$ smp-camvid {' '.join(words)}", flush=True)
    done = subprocess.run(
        [sys.executable, "-m", "smp_camvid", *words], stdout=subprocess.PIPE, text=True, check=False
    )
    print(done.stdout, end="", flush=True)
    if done.returncode:
        sys.exit(done.returncode)
    return done.stdout


def main() -> None:
    began = time.monotonic()
    shutil.rmtree(HOME, ignore_errors=True)
    data, runs, predictions = (str(HOME / name) for name in ("data", "runs", "predictions"))
    command("download", "--source", "synthetic", "--to", data)
    run = command("train", "--recipe", "quick", "--data", data, "--save-dir", runs).strip()
    command("evaluate", run)
    frame = sorted((HOME / "data" / "test").glob("*.png"))[0]
    command("predict", str(frame), "--model", run, "--out", predictions)
    print(f"\nDone in {time.monotonic() - began:.0f} s.  Look at:")
    for picture in [
        *sorted(Path(run, "plots").glob("*s.png")),
        *sorted(Path(run, "images").glob("*-val.png"))[-1:],
        *sorted(Path(predictions).glob("*_overlay.png")),
    ]:
        print(f"  {picture}")


if __name__ == "__main__":
    main()
