"""Several processes, one list of inputs: who does what, and who speaks for all at the end.

The processes need not reach each other: each takes every n-th input, and what they must tell each
other is in the output folder.  torchrun stops all processes when one of them fails, so under it
only the last one reports failures by its exit code, when the others have nothing left to lose.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from smp_camvid import torchrun
from smp_camvid.errors import UsageError
from smp_camvid.inference.manifest import HOME
from smp_camvid.locks import locked

Item = TypeVar("Item")


@dataclass(frozen=True)
class Group:
    """The processes that share a job, and which of them this is."""

    rank: int = 0
    world: int = 1
    launch: str = ""
    """Tells the launches of torchrun apart; empty without it."""

    def share(self, items: Sequence[Item]) -> Sequence[Item]:
        """Those of this process: each item is one process's."""
        return items[self.rank :: self.world] if self.world > 1 else items


def current_group() -> Group:
    """What RANK and WORLD_SIZE say.  Raises UsageError when that makes no sense."""
    rank, world = os.environ.get("RANK"), os.environ.get("WORLD_SIZE")
    if not rank or not world:
        return Group()
    if not (rank.isdigit() and world.isdigit() and int(rank) < int(world)):
        raise UsageError(f"RANK={rank} and WORLD_SIZE={world} in the environment make no sense.")
    return Group(int(rank), int(world), _launch())


def _launch() -> str:
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return ""
    names = ("TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT", "MASTER_ADDR", "MASTER_PORT")
    words = [os.environ.get(name, "") for name in names]
    if torchrun.local_world() == int(os.environ["WORLD_SIZE"]):
        words.append(str(torchrun.identity()["agent"]))  # one for all: no two launches share it
    return hashlib.sha256(json.dumps(words).encode()).hexdigest()[:16]


def begin(out: Path, group: Group) -> None:
    """Forgets how this process ended in an earlier launch of the same name."""
    if group.launch:
        _mark(out, group).unlink(missing_ok=True)


def finish(out: Path, group: Group, failed: int) -> int:
    """How many failed inputs this process answers for; those of all, for torchrun's last one."""
    if not group.launch:
        return failed
    mark = _mark(out, group)
    with locked(out / HOME / "lock"):
        mark.parent.mkdir(exist_ok=True)
        mark.write_text(str(failed))
        marks = [int(path.read_text()) for path in mark.parent.iterdir()]
        if len(marks) < group.world:
            return 0
        shutil.rmtree(mark.parent)
    return sum(marks)


def _mark(out: Path, group: Group) -> Path:
    return out / HOME / f"launch-{group.launch}" / f"rank-{group.rank}"
