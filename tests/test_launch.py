"""torchrun and `--devices`: started, interrupted, killed, restarted, and what the user reads."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gloo_group
import pytest
import torch
from gloo_group import Group
from runs_of_tests import small
from test_killed import differing
from torch import nn
from typer.testing import CliRunner

from smp_camvid import runs
from smp_camvid.cli import app
from smp_camvid.commands.launch import exit_code
from smp_camvid.data.camvid import standard_stems
from smp_camvid.errors import UsageError
from smp_camvid.training import distributed, interrupts, last_words, torchrun

EPOCHS = 40
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


@pytest.fixture
def write_recipe(make_segnet: Any, tmp_path: Path) -> Callable[[str], Path]:
    """A run of many short epochs in a folder of its own, as a file."""
    frames = {"train": 9, "val": 3}
    data = make_segnet({k: list(standard_stems(k)[:n]) for k, n in frames.items()}, (36, 48))

    def write(name: str) -> Path:
        file = tmp_path / f"{name}.toml"
        chosen = small(
            data, tmp_path / name, name="run", model__norm="batch", model__dropout=0.3,
            train__epochs=EPOCHS, train__batch_size=4, train__ema=0.9, train__schedule="cosine",
            train__checkpoint_steps=1, train__optimizer="adamw", train__verbose=1,
        )  # fmt: skip
        file.write_text(chosen.to_toml())
        return file

    return write


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
    two: Group, write_recipe: Any, tmp_path: Path
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
    whole, _ = two(gloo_group.run, str(write_recipe("whole")))
    assert steps_done(run) == steps_done(Path(whole[0])) == 2 * EPOCHS
    assert differing(run, Path(whole[0])) == []


# --- interruptions ----------------------------------------------------------------------------


@pytest.mark.slow
def test_ctrl_c_leaves_a_checkpoint_that_devices_go_on_from(
    two: Group, write_recipe: Any, tmp_path: Path
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
    whole, _ = two(gloo_group.run, str(write_recipe("whole")))
    assert differing(run, Path(whole[0])) == []


@pytest.mark.slow
def test_sigterm_does_the_same(two: Group, write_recipe: Any, tmp_path: Path) -> None:
    recipe = write_recipe("stopped")
    launcher = train("--recipe", str(recipe), "--devices", "2")
    run = tmp_path / "stopped" / "run-1"
    wait_for_epochs(run, launcher)
    launcher.terminate()
    code, _, err = outcome(launcher)
    assert code == 130, err
    assert steps_done(run) < 2 * EPOCHS
    two(gloo_group.resume, str(recipe), str(run))
    whole, _ = two(gloo_group.run, str(write_recipe("whole")))
    assert differing(run, Path(whole[0])) == []


@pytest.mark.parametrize(
    ("world", "seconds", "leaves"), [(1, 0.0, True), (2, 0.5, False), (2, 1.5, True)]
)
def test_the_second_signal_leaves_unless_it_is_the_first_again(
    monkeypatch: pytest.MonkeyPatch, world: int, seconds: float, leaves: bool
) -> None:
    """Schedulers signal torchrun and its processes; torchrun passes the signal on."""
    clock = iter([100.0, 100.0 + seconds])
    monkeypatch.setattr(interrupts.time, "monotonic", lambda: next(clock))
    group = distributed.Dist()
    group.world = world
    noted = interrupts.Interrupts(group)
    with noted.listening():
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt) if leaves else nullcontext():
            signal.raise_signal(signal.SIGINT)
        with pytest.raises(interrupts.Interrupted):
            noted.check()


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


def test_devices_and_torchrun_must_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    done = CliRunner().invoke(app, ["train", "--devices", "3"])
    assert done.exit_code == 2
    assert "torchrun has started 2 processes here" in done.stderr


def test_a_wrong_word_is_named_once(launched: Any) -> None:
    launched(rank=1)
    done = CliRunner().invoke(app, ["train", "--no-such-option"])
    assert (done.exit_code, done.stderr) == (2, "")


def test_the_code_of_a_group() -> None:
    assert exit_code([2, -15]) == 2
    assert exit_code([130, 130]) == 130
    assert exit_code([130, 1]) == 1
    assert exit_code([last_words.SURVIVOR, 130]) == 130
    assert exit_code([-9, last_words.SURVIVOR]) is None  # somebody has to say it for the killed one


# --- what torchrun's variables mean -----------------------------------------------------------


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Sets torchrun's variables in this process."""

    def set_variables(rank: int = 0, run_id: str = "job", restart: int = 0) -> None:
        values = {
            "RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 4, "LOCAL_WORLD_SIZE": 4,
            "TORCHELASTIC_RUN_ID": run_id, "TORCHELASTIC_RESTART_COUNT": restart,
        }  # fmt: skip
        for name, value in values.items():
            monkeypatch.setenv(name, str(value))

    return set_variables


def test_which_run_a_launch_has_begun(launched: Any, tmp_path: Path) -> None:
    def begun(number: int, **told: Any) -> Path:
        run = tmp_path / f"run-{number}"
        run.mkdir(exist_ok=True)
        (run / "environment.json").write_text(json.dumps(told))
        return run

    begun(11, python="3.11")  # of a single process
    assert torchrun.run_begun(tmp_path, "run") is None
    launched()
    assert torchrun.run_begun(tmp_path, "run") is None
    # the same agent: after a restart, and after machines have joined, which torchrun does not count
    mine = torchrun.identity()
    assert torchrun.run_begun(tmp_path, "run") is None
    second = begun(2, **mine)
    assert torchrun.run_begun(tmp_path, "run") == second
    tenth = begun(10, **mine)
    assert torchrun.run_begun(tmp_path, "run") == tenth
    # rank 0 is on another machine now
    begun(10, **{**mine, "agent": "elsewhere:1:1"})
    begun(2, **{**mine, "agent": "elsewhere:1:1"})
    assert torchrun.run_begun(tmp_path, "run") is None  # an id that was used before
    launched(restart=1)
    assert torchrun.run_begun(tmp_path, "run") == tenth
    launched(run_id="another", restart=1)
    assert torchrun.run_begun(tmp_path, "run") is None
    begun(10, agent="elsewhere:1:1", launch="none")
    launched(run_id="none", restart=1)  # nobody chose one
    assert torchrun.run_begun(tmp_path, "run") is None
    (tmp_path / "run-10" / "environment.json").write_text("{")
    assert torchrun.run_begun(tmp_path, "run") is None


def test_the_agent_is_the_process_that_started_it(tmp_path: Path) -> None:
    ask = "from smp_camvid.training import torchrun; print(torchrun.identity()['agent'])"
    done = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=True)
    run = tmp_path / "run-1"
    run.mkdir()
    (run / "environment.json").write_text(json.dumps({"agent": done.stdout.strip()}))
    assert torchrun.run_of_children(tmp_path, "run") == run
    assert torchrun.run_of_children(tmp_path, "other") is None


def test_threads_are_shared_out_unless_somebody_chose(
    launched: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    launched()
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(torchrun, "_asked_for_threads", lambda: False)
    assert torchrun.threads() == 2
    monkeypatch.setattr(torchrun, "_asked_for_threads", lambda: True)
    assert torchrun.threads() is None
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert torchrun.threads() is None


class Board(dict[str, int]):
    """A store in memory."""

    def add(self, key: str, amount: int, /) -> int:
        self[key] = self.get(key, 0) + amount
        return self[key]

    def check(self, keys: list[str], /) -> bool:
        return all(key in self for key in keys)


def test_a_group_speaks_with_one_voice(launched: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(last_words, "PATIENCE_SECONDS", 0.01)
    monkeypatch.setattr(last_words, "_board", Board())
    gone = RuntimeError("[gloo/transport/tcp/pair.cc] Connection closed by peer")
    speak = last_words.last_words
    assert speak("alone") == "alone"
    launched(rank=0)
    assert speak("x", gone).startswith("Another process of the group was killed")
    monkeypatch.setenv("ROLE_NAME", torchrun.ROLE)
    assert speak("x", gone) == ""  # the launcher of --devices says which
    monkeypatch.delenv("ROLE_NAME")
    launched(rank=2)
    assert speak("x", gone) == ""
    assert speak("Only here.") == "process 2: Only here."
    launched(rank=3)
    assert speak("Only here.") == ""  # said
    launched(rank=0)
    assert speak("Everywhere.") == "Everywhere."
    assert speak("x", gone) == ""  # a reason was given
    launched(rank=1)
    assert speak("Everywhere.") == ""
    assert speak("Interrupted.", KeyboardInterrupt()) == "Interrupted."
    launched(rank=0)
    assert speak("Interrupted.", KeyboardInterrupt()) == ""
    launched(rank=1)
    monkeypatch.setattr(last_words, "_board", None)  # before the group has met
    assert speak("Everywhere.") == ""
    monkeypatch.setenv("LOCAL_RANK", "0")
    assert speak("On this machine.") == "process 1: On this machine."


# --- SyncBatchNorm ----------------------------------------------------------------------------


def test_synchronised_norms_are_the_same_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    """On the CPU they compute in eval mode only; timm's layers have an activation inside."""
    config = {"arch": "unet", "encoder_name": "tu-tf_efficientnet_lite0", "encoder_weights": None}
    network = gloo_group.build(config, {}, {}, distributed.Dist()).network.eval()
    image = torch.randint(0, 255, (1, 3, 64, 64), dtype=torch.uint8)
    parameters = [id(parameter) for parameter in network.parameters()]
    before = network(image)
    group: Any = SimpleNamespace(device=torch.device("cuda"))
    distributed.Group.sync_norms(group, network)
    kinds = {type(module) for module in network.modules()}
    assert not any(issubclass(kind, nn.BatchNorm2d) for kind in kinds)
    assert any(issubclass(kind, nn.SyncBatchNorm) for kind in kinds)
    assert torch.equal(network(image), before)
    assert [id(parameter) for parameter in network.parameters()] == parameters


def test_synchronised_norms_need_gpus() -> None:
    group: Any = SimpleNamespace(device=torch.device("cpu"))
    with pytest.raises(UsageError, match="needs GPUs"):
        distributed.Group.sync_norms(group, nn.Identity())
