"""Ways of doing the same thing, alternating in one run; what comes out as JSON and as a table.

    python benchmarks/side_by_side.py FILE.json ...     # tables into docs/performance.md

Used by the other scripts of this folder.  Rounds alternate between the ways, so that what else the
machine does meets all of them; factors are taken inside a round and their median is told.
"""

from __future__ import annotations

import argparse
import datetime
import json
import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
DOCUMENT = ROOT / "docs" / "performance.md"


class Spread(NamedTuple):
    """Median, lowest and highest of some repeats."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{digits(self.median)} ({digits(self.low)} to {digits(self.high)})"

    def scaled(self, factor: float) -> Spread:
        return Spread(*(factor * value for value in self))

    def rate(self, work: float) -> Spread:
        """`work` a second, of seconds."""
        return Spread(work / self.median, work / self.high, work / self.low)


def spread(values: Sequence[float]) -> Spread:
    return Spread(statistics.median(values), min(values), max(values))


def digits(value: float) -> str:
    """Three digits that count, none of them behind an E."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def alternate(
    ways: Mapping[str, Callable[[], object]],
    repeats: int,
    *,
    clock: Callable[[], float] = time.perf_counter,
    settle: Callable[[], object] = lambda: None,
) -> dict[str, list[float]]:
    """Seconds of each way in each round.  A first round, which warms everything up, is not counted.

    `settle` waits until what was begun is done, on devices that work behind our back.
    """
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(repeats + 1):
        for name, way in ways.items():
            settle()
            began = clock()
            way()
            settle()
            if number:
                seconds[name].append(clock() - began)
    return seconds


def times_faster(base: Sequence[float], way: Sequence[float]) -> Spread:
    """How many times faster than `base`, round by round."""
    return spread([slow / fast for slow, fast in zip(base, way, strict=True)])


def in_fresh_process(function: Callable[..., Any], *given: Any) -> Any:
    """Its result, from a process of its own, whose peak of memory nobody raised before.

    Forked, so that the imports are there; this process must not have computed with torch yet.
    """
    with multiprocessing.get_context("fork").Pool(1) as pool:
        return pool.apply(function, given)


# --- what is kept ----------------------------------------------------------------------------


def machine() -> dict[str, Any]:
    """What the figures depend on and a reader may know: no names of hosts, users or folders."""
    import torch

    from smp_camvid.inference.device import cpu_multiplies_bf16
    from smp_camvid.report.machine import cpu_facts

    facts = cpu_facts()
    cards = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "processor": facts["name"],
        "cores": facts["cores"],
        "threads": torch.get_num_threads(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "bf16_in_hardware": cpu_multiplies_bf16(),
        "gpus": cards,
        "torch": torch.__version__,
        "date": datetime.date.today().isoformat(),
        "load": [round(value, 1) for value in os.getloadavg()],
    }


def in_words(facts: Mapping[str, Any]) -> str:
    """The machine in a line below a table."""
    bf16 = "bf16 in hardware" if facts["bf16_in_hardware"] else "no bf16 in hardware"
    gpus = "".join(f"{name}; " for name in facts["gpus"])
    return (
        f"{gpus}{facts['processor']}, {facts['cores']} cores, {facts['threads']} threads, "
        f"{facts['capability']}, {bf16}, torch {facts['torch']}; {facts['date']}, "
        f"load average {facts['load'][0]} at the end."
    )


def markdown(rows: Sequence[Mapping[str, object]]) -> str:
    """A table; the keys of the first row are its head."""
    head = list(rows[0])
    lines = [head, ["---"] * len(head), *([str(row[key]) for key in head] for row in rows)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def publish(
    name: str,
    rows: Sequence[Mapping[str, object]],
    measured: object,
    given: argparse.Namespace,
    note: str = "",
) -> None:
    """Prints the table; with --write also keeps everything in results/ and in the document.

    `measured` is what JSON can hold, `note` goes below the table.
    """
    facts = machine()
    text = f"{markdown(rows)}\n\n{f'{note} ' if note else ''}{in_words(facts)}"
    print(f"\n{name}\n\n{text}\n", flush=True)
    folder = given.results or (RESULTS if given.write else None)
    if folder is None:
        return
    folder.mkdir(parents=True, exist_ok=True)
    kept = {
        "name": name,
        "machine": facts,
        "quick": given.quick,
        "table": text,
        "measured": measured,
    }
    path = folder / f"{name}.json"
    path.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    if given.write:
        insert(path)


def insert(path: Path) -> None:
    """The table of a file of results goes to its place in the document."""
    kept = json.loads(path.read_text(encoding="utf-8"))
    document = DOCUMENT.read_text(encoding="utf-8")
    DOCUMENT.write_text(between(document, kept["name"], kept["table"]), encoding="utf-8")


def between(document: str, name: str, text: str) -> str:
    """`document` with `text` between the two comments that are named after the table."""
    begin, end = f"<!-- table: {name} -->", f"<!-- end: {name} -->"
    before, found, rest = document.partition(begin)
    _, closed, after = rest.partition(end)
    if not (found and closed):
        raise SystemExit(f"{DOCUMENT.name} has no place for it: {begin} ... {end}")
    return f"{before}{begin}\n\n{text}\n\n{end}{after}"


def options(description: str | None) -> argparse.ArgumentParser:
    """The options all scripts have."""
    parser = argparse.ArgumentParser(description=(description or "").splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="tiny settings: does it run at all?")
    parser.add_argument(
        "--write", action="store_true", help="into benchmarks/results and docs/performance.md"
    )
    parser.add_argument("--results", type=Path, help="folder for the results as JSON")
    return parser


if __name__ == "__main__":  # results from another machine
    for name in sys.argv[1:]:
        insert(Path(name))
