"""What the live view of a training looks like, recorded in a pseudo-terminal.

    python benchmarks/record_live.py [--out demo/live] [--epochs N]

Trains a tiny net on drawn scenes three times, in windows of 80, 120 and 200 columns, which are made
narrower and wider while it runs, and watches the last run from another window.  Saved are the
windows as their users see them (PNG), and the whole scrollback after the end as text.  Exits 1 when
a line of the view ran over the edge or a remain of it is in the scrollback.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

from terminal_picture import draw_window

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from pseudo_terminal import Program
from terminal_window import Window

WINDOWS = {80: (24, (60, 24)), 120: (32, (80, 24)), 200: (50, (110, 30))}  # and what they become
SETTINGS = (
    "model.base_channels=8", "model.depth=3", "model.padding=same", "data.size=[96,128]",
    "train.lr=0.004", "train.batch_size=10", "train.workers=0",
)  # fmt: skip
PROGRAM = (sys.executable, "-m", "smp_camvid")


def training(out: Path, epochs: int) -> list[str]:
    words = [*PROGRAM, "train", "--recipe", "vanilla", "--data", "synthetic", "--no-save-plots"]
    for setting in SETTINGS:
        words += ["--set", setting]
    return [*words, "--epochs", str(epochs), "--save-dir", str(out / "runs")]


def record(words: list[str], columns: int, epochs: int, out: Path, name: str) -> list[str]:
    """Resizes at a third and two thirds of the run; returns what looks wrong."""
    lines, other = WINDOWS[columns]
    program = Program(words, Window(columns, lines), Path.cwd())
    window = program.window

    def save(moment: str) -> None:
        draw_window(window).save(out / f"{name}-{moment}.png")

    def epoch(number: int, step: int = 5) -> None:
        bar = re.compile(rf"epoch {number}/.* train (\d+)/")
        program.until(
            lambda: any(
                (found := bar.search(row)) and int(found[1]) >= step for row in window.seen
            ),
            900,
        )

    try:
        for moment, number, size in (
            ("first-epoch", 1, None), ("before", epochs // 3, other),
            ("resized", epochs // 3 + 1, None),
            ("then", 2 * epochs // 3, (columns, lines)), ("back", epochs, None),
        ):  # fmt: skip
            epoch(number)
            save(moment)
            if size:
                program.resize(*size)
        watch(Window(columns, lines), out, name)
        code = program.finish(900)
    finally:
        program.close()
    save("end")
    (out / f"{name}-scrollback.txt").write_text("\n".join(window.everything) + "\n")
    return [] if code == 0 else [f"exit code {code}"]


def watch(window: Window, out: Path, name: str) -> None:
    """How another terminal shows the newest run, while it trains."""
    run = max((out / "runs").iterdir(), key=lambda path: path.stat().st_mtime)
    program = Program([*PROGRAM, "watch", str(run), "--once"], window, Path.cwd())
    try:
        program.finish()
    finally:
        program.close()
    draw_window(window).save(out / f"{name}-watched.png")


def remains(out: Path, name: str) -> list[str]:
    """Lines of the view that stayed behind."""
    lines = (out / f"{name}-scrollback.txt").read_text().splitlines()
    return [line for line in lines if re.search(r"━.*\d+/\d+|[▁▂▃▄▅▆▇]{3}", line)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("demo/live"))
    parser.add_argument("--epochs", type=int, default=14)
    parser.add_argument("--columns", type=int, nargs="*", default=list(WINDOWS))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    wrong = []
    for columns in options.columns:
        name = f"train-{columns}"
        words = training(options.out, options.epochs)
        wrong += record(words, columns, options.epochs, options.out, name)
        wrong += remains(options.out, name)
    print("\n".join([*wrong, f"Look at {options.out}/*.png"]))
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
