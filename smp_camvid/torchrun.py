"""What torchrun tells the processes it starts, and which run its launch has begun.

torchrun's agent is the parent of the processes of its machine.  When one of them dies it stops
the others and starts all of them again, with the same command line and a higher restart count.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
from pathlib import Path
from typing import Any

ROLE = "smp-camvid"  # what `train --devices` calls its processes; torchrun says "default"
_NO_ID = "none"  # torchrun's run id when nobody chose one


def launched() -> bool:
    """Whether torchrun started this process."""
    return bool(os.environ.get("RANK") and os.environ.get("WORLD_SIZE"))


def by_devices() -> bool:
    """Whether it was `train --devices`, on torchrun's launcher."""
    return os.environ.get("ROLE_NAME") == ROLE


def rank() -> int:
    """This process among all of the launch, from 0."""
    return _number("RANK", 0)


def local_rank() -> int:
    """This process among those of its machine, from 0."""
    return _number("LOCAL_RANK", 0)


def local_world() -> int:
    """Processes of the launch on this machine."""
    return _number("LOCAL_WORLD_SIZE", 1)


def restarts() -> int:
    """How often a death has made torchrun start the group anew."""
    return _number("TORCHELASTIC_RESTART_COUNT", 0)


def restarts_left() -> int:
    """How often torchrun would still start the group anew."""
    return _number("TORCHELASTIC_MAX_RESTARTS", 0) - restarts()


def _number(variable: str, default: int) -> int:
    """What stands there as a number; whoever needs it to make sense checks that."""
    value = os.environ.get(variable, "")
    return int(value) if value.isdigit() else default


# --- whose run is it --------------------------------------------------------------------------


def identity() -> dict[str, Any]:
    """What environment.json says of the launch: its id, the agent that began the run, restarts."""
    launch = os.environ.get("TORCHELASTIC_RUN_ID", _NO_ID)
    return {"launch": launch, "agent": _name_of(os.getppid()), "restart": restarts()}


def _name_of(process: int) -> str:
    """Machine, process id and start time; no other process ever has the same."""
    return f"{socket.gethostname()}:{process}:{_started_at(process)}"


def _started_at(process: int) -> str:
    """In clock ticks since the machine booted; empty where /proc does not tell."""
    with contextlib.suppress(OSError, IndexError):
        # The name, in parentheses, may hold anything; the start time is the 20th word after it.
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[19]
    return ""


def run_begun(save_dir: Path, name: str) -> Path | None:
    """The newest run `<save_dir>/<name>-<n>` that an earlier attempt of this launch has begun.

    The agent tells.  After a restart rank 0 may be on another machine: then it is the id of the
    launch, which users choose and may choose twice, so it counts for nothing before that.
    """
    if not launched():
        return None
    mine = identity()
    for run in _newest_first(save_dir, name):
        theirs = _launch_of(run)
        same_id = theirs.get("launch") == mine["launch"] != _NO_ID
        if theirs.get("agent") == mine["agent"] or (same_id and mine["restart"]):
            return run
    return None


def run_of_children(save_dir: Path, name: str) -> Path | None:
    """The newest run that processes started by this one have begun: it is their agent."""
    me = _name_of(os.getpid())
    found = (run for run in _newest_first(save_dir, name) if _launch_of(run).get("agent") == me)
    return next(found, None)


def _newest_first(save_dir: Path, name: str) -> list[Path]:
    numbered = {
        int(number): path
        for path in save_dir.glob(f"{name}-*")
        if (number := path.name.removeprefix(f"{name}-")).isdigit()
    }
    return [numbered[number] for number in sorted(numbered, reverse=True)]


def _launch_of(run: Path) -> dict[str, Any]:
    with contextlib.suppress(OSError, ValueError):
        return dict(json.loads((run / "environment.json").read_text(encoding="utf-8")))
    return {}


# --- how its processes ended ------------------------------------------------------------------

_CODES = "SMP_CAMVID_EXIT_CODES"  # torch does not tell them to a launcher that got a signal


def collect_codes(folder: Path) -> None:
    """From now on the processes started by this one leave their exit codes in `folder`."""
    os.environ[_CODES] = str(folder)


def leave_code(code: object) -> None:
    """This process is about to end with `code`."""
    folder = os.environ.get(_CODES)
    if folder and launched():
        number = code if isinstance(code, int) else int(code is not None)
        with contextlib.suppress(OSError):  # the launcher is gone, and the folder with it
            (Path(folder) / f"{restarts()}-{rank()}.code").write_text(str(number))


def codes_left(folder: Path, processes: int, attempt: int | None = None) -> list[int | None]:
    """The exit code of each rank at an attempt (the last); None for one that left none."""
    if attempt is None:
        attempt = max((int(file.name.split("-")[0]) for file in folder.glob("*.code")), default=0)
    files = [folder / f"{attempt}-{number}.code" for number in range(processes)]
    return [int(file.read_text()) if file.is_file() else None for file in files]


def silent_ranks(attempt: int, processes: int) -> list[int]:
    """The ranks that were killed at an attempt; none where codes are not collected."""
    folder = os.environ.get(_CODES)
    if not folder:
        return []
    codes = codes_left(Path(folder), processes, attempt)
    return [rank for rank, code in enumerate(codes) if code is None]


# --- threads ----------------------------------------------------------------------------------


def threads_each(processes: int) -> int:
    """CPU threads for each of some processes that share this machine."""
    allowed = getattr(os, "sched_getaffinity", None)
    cores = len(allowed(0)) if allowed else os.cpu_count() or 1
    return max(1, cores // processes)


def threads() -> int | None:
    """CPU threads for this process where torchrun chose: it gives one to each, and warns."""
    if os.environ.get("OMP_NUM_THREADS") != "1" or _asked_for_threads():
        return None
    return threads_each(local_world())


def _asked_for_threads() -> bool:
    """Whether OMP_NUM_THREADS was there before torchrun; where nothing tells, it was."""
    try:
        given = Path(f"/proc/{os.getppid()}/environ").read_bytes()
    except OSError:
        return True
    return any(entry.startswith(b"OMP_NUM_THREADS=") for entry in given.split(b"\0"))
