"""Run folders: made exclusively, written atomically, found again.

runs/<name>-<n>/config.toml  environment.json  metrics.jsonl  timing.jsonl
                weights/  checkpoint.pt  plots/  images/
"""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from smp_camvid.errors import RunError, UsageError

CHECKPOINT_CHOICES = "last, best or epoch-N"


@contextlib.contextmanager
def atomic_path(
    path: Path, keep_as: Path | None = None, *, within: Path | None = None, sync: bool = True
) -> Iterator[Path]:
    """Yields a temporary path beside `path`; on success it is synced and renamed onto it.

    Nobody ever sees a half-written file under its final name, and a failure leaves the old one.
    `keep_as` is the name the old one gets when the new one is whole.  `within`: a folder on the
    same disk for the temporary file.  Without `sync` a power cut, and nothing less, may leave an
    empty file under the name.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    prefix = "." if within else f".{path.name}."
    handle, name = tempfile.mkstemp(dir=within or path.parent, prefix=prefix, suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        if sync:
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
        temporary.chmod(0o666 & ~_umask())
        if keep_as is not None and path.is_file():
            path.replace(keep_as)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@functools.cache
def _umask() -> int:
    # Once: while it is asked for, a thread that makes a file makes it without any.
    current = os.umask(0)
    os.umask(current)
    return current


def write_bytes(path: Path, data: bytes) -> None:
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=2, sort_keys=True) + "\n")


def append_line(path: Path, value: Mapping[str, Any]) -> None:
    """One JSON document a line, on the disk when this returns."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(value) + "\n")
        file.flush()
        os.fsync(file.fileno())


# .<name>.<eight characters of tempfile's><suffix of the name>
_UNFINISHED = re.compile(r"\..+(\.[^.]+)\.[a-z0-9_]{8}\1")


def sweep(folder: Path) -> None:
    """Removes what a killed process left unfinished: the temporary files of `atomic_path`.

    Other hidden files, which a file manager or the user put there, stay.
    """
    for path in folder.glob(".*"):
        if _UNFINISHED.fullmatch(path.name) and path.is_file():
            path.unlink()


def read_lines(path: Path) -> list[dict[str, Any]]:
    """All whole lines of a .jsonl file; a torn last line is left out."""
    if not path.exists():
        return []
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        with contextlib.suppress(json.JSONDecodeError):
            rows.append(json.loads(line))
    return rows


def truncate_lines(path: Path, epoch: int) -> list[int]:
    """Keeps the lines of epochs 1 to `epoch`: what a resumed run will write again goes.

    Returns those of them that have no whole line, which nobody but a user has taken away.
    """
    rows: dict[int, Mapping[str, Any]] = {}
    for row in read_lines(path):
        rows.setdefault(row["epoch"], row)
    kept = [rows[number] for number in range(1, epoch + 1) if number in rows]
    write_text(path, "".join(json.dumps(row) + "\n" for row in kept))
    return [number for number in range(1, epoch + 1) if number not in rows]


def existing_parent(path: Path) -> Path:
    """`path` if it is there, else the nearest folder above it that is."""
    path = path.absolute()
    while not path.exists():
        path = path.parent
    return path


def free_bytes(path: Path) -> int:
    """Of the disk that `path` is on, or would be."""
    return shutil.disk_usage(existing_parent(path)).free


def in_words(size: int) -> str:
    """`"1.2 GB"`, `"3.4 MB"`, `"5.6 kB"`, `"7 bytes"`."""
    for unit, name in ((10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if size >= unit:
            return f"{size / unit:.1f} {name}"
    return f"{size} bytes"


def check_disk(folder: Path, needed: int) -> None:
    """Raises RunError when the disk of `folder` has less than `needed` bytes free."""
    free = free_bytes(folder)
    if free < needed:
        elsewhere = "" if (folder / "config.toml").is_file() else " name another --save-dir,"
        raise RunError(
            f"The run needs up to {in_words(needed)} for weights and checkpoints; "
            f"{in_words(free)} are free.",
            f"Free some,{elsewhere} or keep fewer weights with --keep 1.",
        )


def check_writable(save_dir: Path) -> None:
    """Raises RunError when run folders cannot be made in `save_dir`; leaves nothing behind."""
    existing = existing_parent(save_dir)
    try:
        if not existing.is_dir():
            raise NotADirectoryError(f"{existing} is a file")
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        raise RunError(
            f"Runs cannot be written to {save_dir}: {error.strerror or error}.",
            "Name another folder with --save-dir.",
        ) from error


def create_run(save_dir: Path, name: str) -> Path:
    """Makes `<save_dir>/<name>-<n>` with the next free number; never an existing folder."""
    check_writable(save_dir)
    save_dir.mkdir(parents=True, exist_ok=True)
    taken = [
        int(number)
        for path in save_dir.glob(f"{name}-*")
        if (number := path.name.removeprefix(f"{name}-")).isdigit()
    ]
    following = max(taken, default=0) + 1
    while True:
        run = save_dir / f"{name}-{following}"
        try:
            run.mkdir()
            return run
        except FileExistsError:  # another process was faster
            following += 1


def is_untrained(run: Path) -> bool:
    """Whether a run was opened and ended before it wrote anything that training made."""
    made = ("checkpoint.pt", "checkpoint-previous.pt", "metrics.jsonl", "weights")
    return (run / "config.toml").is_file() and not any((run / name).exists() for name in made)


def weights_of(run: Path, checkpoint: str = "") -> Path:
    """A run's weights file; without `checkpoint` the last epoch's, its EMA when there is one."""
    folder = run / "weights"
    if checkpoint == "":
        for name in ("last-ema", "last"):
            if (folder / f"{name}.safetensors").is_file():
                return folder / f"{name}.safetensors"
        raise RunError(
            f"{run} has no weights yet.", "Let the run finish an epoch, or name another."
        )
    name = checkpoint
    if checkpoint.startswith("epoch-") and checkpoint[6:].isdigit():
        name = f"epoch-{int(checkpoint[6:]):04d}"
    elif checkpoint not in ("last", "best", "last-ema"):
        raise UsageError(f"There is no checkpoint {checkpoint!r}.", f"It is {CHECKPOINT_CHOICES}.")
    path = folder / f"{name}.safetensors"
    if not path.is_file():
        there = ", ".join(sorted(p.stem for p in folder.glob("*.safetensors"))) or "none"
        raise RunError(f"{run} has no weights {checkpoint!r}; there are: {there}.")
    return path


def trained_runs(save_dir: Path = Path("runs")) -> list[Path]:
    """The runs with weights, those written last first."""
    stamps = {
        path.parent.parent: path.stat().st_mtime_ns
        for path in save_dir.glob("*/weights/last*.safetensors")
    }
    return sorted(stamps, key=lambda run: stamps[run], reverse=True)


def newest_run(save_dir: Path = Path("runs")) -> Path | None:
    """The run whose weights were written last."""
    return next(iter(trained_runs(save_dir)), None)


def newest_begun(save_dir: Path = Path("runs")) -> Path | None:
    """The run that wrote something last, trained or not."""
    told = ("progress.json", "metrics.jsonl", "checkpoint.pt")
    stamps = {
        path.parent: max(
            file.stat().st_mtime_ns for file in map(path.with_name, told) if file.is_file()
        )
        for path in save_dir.glob("*/config.toml")
        if any(path.with_name(name).is_file() for name in told)
    }
    return max(stamps, key=lambda run: stamps[run], default=None)


def find_weights(reference: str | Path | None, checkpoint: str = "") -> Path:
    """RUN | FILE | nothing (the newest run under ./runs) -> a weights file."""
    if reference is None or str(reference) == "":
        run = newest_run()
        if run is None:
            raise RunError(
                "There is no trained model under ./runs.",
                "Train one: smp-camvid train --arch vanilla",
            )
        return weights_of(run, checkpoint)
    path = Path(reference)
    if path.is_dir():
        return weights_of(path, checkpoint)
    if path.is_file():
        if checkpoint:
            raise UsageError("--checkpoint goes with a run folder, not with a weights file.")
        return path
    known = sorted(str(p) for p in Path("runs").glob("*") if p.is_dir())
    there = f" Under ./runs: {', '.join(known[-5:])}." if known else ""
    raise RunError(
        f"There is no run or weights file {reference}.{there}",
        "Name a run folder, a .safetensors or .onnx file.",
    )


def run_of(weights: Path) -> Path | None:
    """The run folder a weights file lies in, if it does."""
    run = weights.resolve().parent.parent
    return run if (run / "config.toml").is_file() else None


_RECORDED = (
    "smp-camvid", "torch", "torchvision", "segmentation-models-pytorch", "timm", "albumentations",
    "numpy", "opencv-python-headless", "pillow", "safetensors",
)  # fmt: skip


def describe_environment(device: str) -> dict[str, Any]:
    """What environment.json holds: versions, machine, device, git commit, command line."""
    versions = {}
    for package in _RECORDED:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    return {
        "versions": versions,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu_count": os.cpu_count(),
        "device": device,
        "git_commit": _git_commit(),
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
    }


def _git_commit() -> str | None:
    """The commit of the working folder, with `+changes` when it is not clean; None outside git."""

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", *words], capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()

    with contextlib.suppress(OSError, subprocess.SubprocessError):
        dirty = git("status", "--porcelain", "--untracked-files=no")
        return git("rev-parse", "HEAD") + ("+changes" if dirty else "")
    return None
