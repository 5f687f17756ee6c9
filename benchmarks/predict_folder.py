"""A folder of frames through `smp-camvid predict`: speed, memory, and what resuming costs.

    python benchmarks/predict_folder.py [--frames DIR] [--count 2000] [--model MODEL]

Without --frames, scenes are drawn.  The frames are repeated until there are `count`, in a temporary
folder.  The job is run, run again with nothing left to do, and each kind of file is weighed.
"""

from __future__ import annotations

import argparse
import itertools
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from smp_camvid.data import synthetic


@dataclass
class Watched:
    """What a command cost."""

    seconds: float = 0.0
    cpu_seconds: float = 0.0
    resident: list[int] = field(default_factory=list)
    """Bytes of all its processes together, twice a second."""


def fill(folder: Path, source: Path | None, count: int) -> None:
    """`count` frames under names of their own."""
    folder.mkdir()
    originals = sorted(source.rglob("*.png")) if source else list(drawn(folder.parent / "drawn"))
    for number, original in enumerate(itertools.islice(itertools.cycle(originals), count)):
        shutil.copyfile(original, folder / f"{number:07}.png")


def drawn(folder: Path, count: int = 50) -> Iterator[Path]:
    folder.mkdir()
    for number, shot in enumerate(synthetic.plan({"train": count, "val": 1, "test": 1})[:count]):
        path = folder / f"{number}.png"
        Image.fromarray(synthetic.render(shot, (360, 480), seed=0)[0]).save(path)
        yield path


def predict(folder: Path, out: Path, model: str, processes: int, words: list[str]) -> Watched:
    """Runs the command and watches it."""
    command = [sys.executable, "-m", "smp_camvid", "predict", str(folder), "--out", str(out)]
    command += ["--model", model] if model else []
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    children = [
        subprocess.Popen(
            [*command, *words], stdout=subprocess.DEVNULL, env=environment(n, processes)
        )
        for n in range(processes)
    ]
    watched, stop = Watched(), threading.Event()

    def watch() -> None:
        while not stop.wait(0.5):
            watched.resident.append(sum(map(resident, children)))

    threading.Thread(target=watch, daemon=True).start()
    codes = [child.wait() for child in children]
    stop.set()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    watched.seconds = time.monotonic() - began
    watched.cpu_seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    assert codes == [0] * processes, codes
    return watched


def environment(rank: int, processes: int) -> dict[str, str]:
    if processes == 1:
        return dict(os.environ)
    return {**os.environ, "RANK": str(rank), "WORLD_SIZE": str(processes), "LOCAL_RANK": str(rank),
            "LOCAL_WORLD_SIZE": str(processes)}  # fmt: skip


def resident(child: subprocess.Popen[bytes]) -> int:
    try:
        pages = Path(f"/proc/{child.pid}/statm").read_text().split()[1]
    except OSError:
        return 0
    return int(pages) * resource.getpagesize()


def weigh(out: Path, count: int) -> None:
    for kind in ("mask.png", "color.png", "overlay.png", "probs.npz"):
        sizes = [path.stat().st_size for path in out.glob(f"*_{kind}")]
        if sizes:
            print(f"  {kind:<12} {sum(sizes) / len(sizes) / 1e3:8.1f} KB a frame")
    print(f"  manifest     {(out / 'manifest.jsonl').stat().st_size / count / 1e3:8.1f} KB a frame")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=Path, help="a folder of PNGs; drawn scenes if absent")
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--model", default="", help="as predict has it")
    parser.add_argument("--save", default="mask,color,overlay")
    parser.add_argument("--processes", type=int, default=1)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder, out = Path(place, "in"), Path(place, "out")
        fill(folder, given.frames, given.count)
        words = ["--save", given.save]
        load = os.getloadavg()[0]
        job = predict(folder, out, given.model, given.processes, words)
        again = predict(folder, out, given.model, given.processes, words)
        rate, cost = given.count / job.seconds, job.cpu_seconds / given.count
        print(f"{given.count} frames, {given.processes} process(es), {os.cpu_count()} cores")
        print(f"  load average before {load:.1f}")
        print(f"  {rate:.2f} images/s on the clock")
        print(f"  {cost * 1e3:.0f} ms of one core a frame: {1 / cost:.2f} images/s per core")
        marks = [int(len(job.resident) * share) for share in (0.1, 0.25, 0.5, 0.75, 0.95)]
        told = ", ".join(f"{job.resident[mark] / 2**20:.0f}" for mark in marks)
        print(f"  MiB resident at 10, 25, 50, 75, 95 % of the time: {told}; most "
              f"{max(job.resident) / 2**20:.0f}")  # fmt: skip
        print(f"  again, nothing to do: {again.seconds:.1f} s")
        weigh(out, given.count)


if __name__ == "__main__":
    main()
