"""torchrun and `--devices`: started, interrupted, killed, restarted, and what the user reads."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gloo_group
import pytest
import torch
from gloo_group import Group
from runs_of_tests import small
from test_killed import differing
from typer.testing import CliRunner

from smp_camvid import runs
from smp_camvid.cli import app

EPOCHS = 24
TORCHRUN = ["-m", "torch.distributed.run", "--nproc-per-node", "2"]
PATIENCE_SECONDS = 240
needs_proc = pytest.mark.skipif(
    not Path("/proc").is_dir(), reason="finds the process to kill in /proc"
)


@pytest.fixture(scope="module")
def two() -> Iterator[Group]:
    group = Group(2)
    yield group
    group.close()


def recipe_file(data: Path, folder: Path) -> Path:
    """A run of many short epochs, as a file; the run goes to `folder`."""
    chosen = small(
        data, folder, name="run", model__norm="batch", model__dropout=0.3,
        train__epochs=EPOCHS, train__batch_size=4, train__ema=0.9, train__schedule="cosine",
        train__checkpoint_steps=1, train__optimizer="adamw", train__verbose=1,
    )  # fmt: skip
    file = folder.with_suffix(".toml")
    file.write_text(chosen.to_toml())
    return file


@pytest.fixture
def write_recipe(short_segnet: Path, tmp_path: Path) -> Callable[[str], Path]:
    return lambda name: recipe_file(short_segnet, tmp_path / name)


@pytest.fixture(scope="module")
def whole(two: Group, short_segnet: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder that two processes leave when nothing disturbs them."""
    recipe = recipe_file(short_segnet, tmp_path_factory.mktemp("whole") / "runs")
    return Path(two(gloo_group.run, str(recipe))[0][0])


def start(*words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},  # as the group that it is compared with
    )


def train(*words: str) -> subprocess.Popen[str]:
    return start("-m", "smp_camvid", "train", *words)


def outcome(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=PATIENCE_SECONDS)
    return process.returncode, out, err


def wait_for_epochs(run: Path, process: subprocess.Popen[str]) -> None:
    """Until the run is under way; work is left then."""
    until = time.monotonic() + PATIENCE_SECONDS
    while len(runs.read_lines(run / "metrics.jsonl")) < 2:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.02)


def steps_done(run: Path) -> int:
    document = torch.load(run / "checkpoint.pt", weights_only=True)
    return int(document["state"]["step"])


def process_of(launcher: int, local_rank: int) -> int:
    """The process id of one of torchrun's children."""
    wanted = f"LOCAL_RANK={local_rank}".encode()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = (folder / "stat").read_text().rpartition(")")[2].split()[1]
            if int(parent) == launcher and wanted in (folder / "environ").read_bytes().split(b"\0"):
                return int(folder.name)
        except OSError:
            continue
    raise AssertionError("it is not there")


# --- a death and the restart ------------------------------------------------------------------


@pytest.mark.slow
@needs_proc
def test_torchrun_goes_on_where_a_killed_process_left_the_group(
    whole: Path, write_recipe: Any, tmp_path: Path
) -> None:
    launcher = start(
        *TORCHRUN, "--max-restarts", "1", "-m", "smp_camvid", "train",
        "--recipe", str(write_recipe("killed")),
    )  # fmt: skip
    run = tmp_path / "killed" / "run-1"
    wait_for_epochs(run, launcher)
    os.kill(process_of(launcher.pid, local_rank=1), signal.SIGKILL)
    code, out, err = outcome(launcher)
    assert (code, out) == (0, f"{run}\n"), err
    assert [path.name for path in run.parent.iterdir()] == ["run-1"]
    (resumed,) = runs.read_lines(run / "resumed.jsonl")
    assert resumed["restart"] == 1 and 0 < resumed["epoch"] < EPOCHS
    assert "A process of the group ended; this is restart 1." in err
    assert f"(step {resumed['step']})" in err
    assert steps_done(run) == steps_done(whole) == 2 * EPOCHS
    assert differing(run, whole) == []


# --- interruptions ----------------------------------------------------------------------------


@pytest.mark.slow
def test_ctrl_c_leaves_a_checkpoint_that_devices_go_on_from(
    whole: Path, write_recipe: Any, tmp_path: Path
) -> None:
    launcher = train("--recipe", str(write_recipe("stopped")), "--devices", "2")
    run = tmp_path / "stopped" / "run-1"
    wait_for_epochs(run, launcher)
    launcher.send_signal(signal.SIGINT)
    code, out, err = outcome(launcher)
    assert (code, out) == (130, f"{run}\n"), err
    said = [line for line in err.splitlines() if line.startswith("smp-camvid:")]
    assert said == [
        "smp-camvid: Interrupted; a checkpoint is written. Go on with: "
        f"smp-camvid train --resume {run} --devices 2"
    ]
    assert "Traceback" not in err and "SIGINT" not in err
    assert "4 frames = 2 processes x 2" in err
    assert steps_done(run) < 2 * EPOCHS
    code, out, err = outcome(train("--resume", str(run), "--devices", "2"))
    assert (code, out) == (0, f"{run}\n"), err
    assert differing(run, whole) == []


@pytest.mark.slow
def test_sigterm_does_the_same(two: Group, whole: Path, write_recipe: Any, tmp_path: Path) -> None:
    recipe = write_recipe("stopped")
    launcher = train("--recipe", str(recipe), "--devices", "2")
    run = tmp_path / "stopped" / "run-1"
    wait_for_epochs(run, launcher)
    launcher.terminate()
    code, _, err = outcome(launcher)
    assert code == 130, err
    assert steps_done(run) < 2 * EPOCHS
    two(gloo_group.resume, str(recipe), str(run))
    assert differing(run, whole) == []


@pytest.mark.slow
def test_a_signal_whose_checkpoint_fails_is_a_failure(write_recipe: Any, tmp_path: Path) -> None:
    recipe = write_recipe("stuck")
    text = recipe.read_text()
    for key, value in (("checkpoint_steps", 0), ("epochs", 400), ("save_every", 400)):
        text = re.sub(rf"^{key} = .*", f"{key} = {value}", text, flags=re.MULTILINE)
    recipe.write_text(text)
    launcher = train("--recipe", str(recipe), "--devices", "2")
    run = tmp_path / "stuck" / "run-1"
    wait_for_epochs(run, launcher)
    (run / "weights" / "last.safetensors").mkdir()  # written for the first time at the end
    launcher.terminate()
    code, out, err = outcome(launcher)
    assert (code, out) == (1, ""), err
    said = [line for line in err.splitlines() if line.startswith("smp-camvid:")]
    assert len(said) == 1 and f"{run} cannot be written" in said[0]


# --- failures ---------------------------------------------------------------------------------


ODD_FRAME = """
import os
from smp_camvid.errors import DataError
from smp_camvid.training import trainer
from smp_camvid.cli import main

def check(batch, classes, first):
    raise DataError("Frame 3 is odd.")

if os.environ["RANK"] == "1":
    trainer.check_batch = check
main()
"""


@pytest.mark.slow
def test_one_that_fails_ends_the_group_and_is_heard_once(write_recipe: Any, tmp_path: Path) -> None:
    script = tmp_path / "odd.py"
    script.write_text(ODD_FRAME)
    code, out, err = outcome(
        start(*TORCHRUN, str(script), "train", "--recipe", str(write_recipe("failed")))
    )
    assert (code, out) == (1, "")
    said = [line for line in err.splitlines() if line.startswith("smp-camvid:")]
    assert said == ["smp-camvid: process 1: Frame 3 is odd."]


@pytest.mark.slow
@needs_proc
def test_a_killed_process_is_named_by_the_launcher(write_recipe: Any, tmp_path: Path) -> None:
    launcher = train("--recipe", str(write_recipe("killed")), "--devices", "2")
    run = tmp_path / "killed" / "run-1"
    wait_for_epochs(run, launcher)
    os.kill(process_of(launcher.pid, local_rank=1), signal.SIGKILL)
    code, out, err = outcome(launcher)
    assert (code, out) == (1, "")
    said = [line for line in err.splitlines() if line.startswith("smp-camvid:")]
    assert said == [
        "smp-camvid: Process 1 was ended by SIGKILL, often for lack of memory, and the run with "
        f"it. Go on with: smp-camvid train --resume {run} --devices 2"
    ]


@pytest.mark.slow
def test_what_all_processes_find_is_said_once(tmp_path: Path) -> None:
    code, out, err = outcome(train("--data", str(tmp_path / "none"), "--devices", "2"))
    assert (code, out) == (1, "")
    assert err.startswith("smp-camvid: ") and err.count("\n") == 1, err


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--devices", "3", "--batch-size", "4"], 2, "cannot be shared out equally to 3"),
        (["--devices", "2", "--device", "cuda"], 1, ""),
        (["--devices", "2", "--set", "train.lr=-1"], 2, "train.lr"),
        (["--devices", "0"], 2, "--devices"),
    ],
)
def test_wrong_options_start_nothing(words: list[str], code: int, said: str) -> None:
    if torch.cuda.device_count() > 1:
        pytest.skip("there are GPUs for them")
    done = CliRunner().invoke(app, ["train", "--set", "model.base_channels=4", *words])
    assert done.exit_code == code
    assert said in done.stderr
