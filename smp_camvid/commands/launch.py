"""`train --devices N`: N processes on this machine, started and watched by torch's own launcher.

Each runs the command line as it was given; torchrun's variables tell it that it is one of them.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

import typer

from smp_camvid import torchrun
from smp_camvid.errors import InterruptedRun, RunError, SmpCamvidError, UsageError
from smp_camvid.recipe import Recipe

_kept: list[BaseException] = []
"""What holds torch's rendezvous until this process ends: its timer cannot be stopped by itself,
which is tried, with a traceback, when the last reference is dropped while the timer is at work."""
SECONDS_TO_END = "120"  # for the step and the checkpoint, after Ctrl-C; torch's own is 30


def check_devices(recipe: Recipe, devices: int) -> None:
    """Raises UsageError or DeviceError when the recipe cannot be trained by so many processes."""
    from smp_camvid.data.sampling import share_of
    from smp_camvid.inference.device import resolve_device
    from smp_camvid.training.distributed import check_shareable

    check_shareable(resolve_device(recipe.train.device), devices)
    if isinstance(recipe.train.batch_size, int):
        share_of(recipe.train.batch_size, devices)


def check_launched(devices: int | None) -> None:
    """Raises UsageError when torchrun and `--devices` say different things."""
    if devices not in (None, torchrun.local_world()):
        raise UsageError(
            f"torchrun has started {torchrun.local_world()} processes here, --devices asks for "
            f"{devices}.",
            "Leave out --devices.",
        )


def check_restarts(max_restarts: int, devices: int | None) -> None:
    """Raises UsageError for `--max-restarts` where there is no launcher of ours to heed it."""
    if not max_restarts or torchrun.by_devices():
        return
    if torchrun.launched():
        raise UsageError("--max-restarts is torchrun's here.", "Put it before -m smp_camvid.")
    if not devices or devices < 2:
        raise UsageError("--max-restarts goes with --devices N.", "Leave it out for one process.")


def launch(recipe: Recipe, devices: int, max_restarts: int, resume: Path | None = None) -> None:
    """Runs this command in `devices` processes; returns when the run is done.

    Raises typer.Exit with their code when they have said why, RunError when one was killed.
    After a signal the code is 130 only where all of them have ended as they are asked to then.
    """
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    _prepare(devices)
    again = partial(_go_on, recipe, devices, resume)
    with tempfile.TemporaryDirectory() as logs:
        torchrun.collect_codes(Path(logs))
        config = LaunchConfig(
            min_nodes=1, max_nodes=1, nproc_per_node=devices, max_restarts=max_restarts,
            role=torchrun.ROLE, run_id=uuid.uuid4().hex, rdzv_backend="c10d",
            rdzv_endpoint="localhost:0", local_addr="localhost",
            logs_specs=DefaultLogsSpecs(log_dir=logs),
        )  # fmt: skip
        try:
            elastic_launch(config, sys.executable)(*_program(), *sys.argv[1:])
        except SignalException as error:  # the processes got it too, and have ended by now
            _kept.append(error)
            codes = torchrun.codes_left(Path(logs), devices)
            if any(code != 0 for code in codes):
                raise _interruption(codes, again) from None
        except ChildFailedError as error:
            code = exit_code(failure.exitcode for failure in error.failures.values())
            if code is not None:
                raise typer.Exit(code) from None
            rank, first = error.get_first_failure()
            raise _death(rank, -first.exitcode, again) from None


def _program() -> list[str]:
    """`-m smp_camvid`, which sees the files of the working folder only where this process does."""
    here = Path(sys.path[0] or ".").resolve() == Path.cwd()
    return ["-m", "smp_camvid"] if here else ["-P", "-m", "smp_camvid"]


def _prepare(devices: int) -> None:
    """What the processes inherit, and a launcher that keeps to itself what they say anyway."""
    if not os.environ.get("OMP_NUM_THREADS"):  # empty is as good as absent to OpenMP
        os.environ["OMP_NUM_THREADS"] = str(torchrun.threads_each(devices))
    os.environ.setdefault("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", SECONDS_TO_END)
    if sys.platform == "linux":  # nothing of theirs has to leave the machine
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    if os.environ.get("SMP_CAMVID_DEBUG") != "1" and "--debug" not in sys.argv:
        quiet = logging.getLogger("torch.distributed.elastic")
        quiet.addHandler(logging.NullHandler())
        quiet.propagate = False


def exit_code(codes: Iterable[int]) -> int | None:
    """That of the group: a wrong option before a failure before an interruption.

    None when no process ended by itself: it was killed (negative), or lost the others.
    """
    known = set(codes)
    order = (UsageError.exit_code, SmpCamvidError.exit_code, InterruptedRun.exit_code)
    return next((code for code in order if code in known), None)


def _interruption(codes: Sequence[int | None], again: Callable[[], str]) -> typer.Exit | RunError:
    """What to raise when a signal has ended the group: as its processes ended, by rank."""
    code = exit_code(code for code in codes if code is not None)
    if code is None or (code == InterruptedRun.exit_code and None in codes):
        return RunError("A process was killed before it had saved and ended.", again())
    return typer.Exit(code)  # they have said why


def _go_on(recipe: Recipe, devices: int, resume: Path | None) -> str:
    """The command that goes on with the run they have trained; empty where there is none."""
    run = resume or torchrun.run_of_children(Path(recipe.train.save_dir), recipe.name)
    return f"Go on with: smp-camvid train --resume {run} --devices {devices}" if run else ""


def _death(rank: int, number: int, again: Callable[[], str]) -> RunError:
    """What to say of a process that was ended by a signal and could not say so itself."""
    named = signal.Signals(number).name if number in set(signal.Signals) else f"code {-number}"
    lack = ", often for lack of memory" if number == signal.SIGKILL else ""
    said = f"Process {rank} was ended by {named}{lack}, and the run with it."
    return RunError(said, again())
