"""What torchrun's variables mean, how a group ends and speaks, and what its norms become."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gloo_group
import pytest
import torch
import typer
from runs_of_tests import small
from torch import nn
from torch.distributed.elastic.multiprocessing import SignalException
from typer.testing import CliRunner

from smp_camvid import torchrun
from smp_camvid.cli import app
from smp_camvid.commands import launch as launch_module
from smp_camvid.commands.launch import exit_code
from smp_camvid.errors import RunError, UsageError
from smp_camvid.training import distributed, interrupts, last_words


@pytest.mark.parametrize(
    ("codes", "ended"),
    [
        ((130, 130), typer.Exit(130)),
        ((130, 0), typer.Exit(130)),
        ((1, 130), typer.Exit(1)),
        ((None, 1), typer.Exit(1)),
        ((2, 2), typer.Exit(2)),
        ((130, None), RunError("")),
        ((None, last_words.SURVIVOR), RunError("")),
        ((None, None), RunError("")),
        ((0, 0), None),  # the run was done before anybody heard
    ],
)
def test_the_code_after_a_signal_is_that_of_the_processes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, codes: tuple[int | None, ...], ended: Any
) -> None:
    def launched(config: Any, program: str) -> Any:
        def group(*words: str) -> None:
            for rank, code in enumerate(codes):
                if code is not None:
                    with pytest.MonkeyPatch.context() as child:
                        child.setenv("RANK", str(rank))
                        child.setenv("WORLD_SIZE", "2")
                        torchrun.leave_code(code)
            raise SignalException("asked to end", signal.SIGTERM)

        return group

    monkeypatch.setenv("SMP_CAMVID_EXIT_CODES", "")
    monkeypatch.setattr(launch_module, "_prepare", lambda devices: None)
    monkeypatch.setattr("torch.distributed.launcher.api.elastic_launch", launched)
    recipe = small(tmp_path, tmp_path)
    if ended is None:
        launch_module.launch(recipe, 2, 0)
        return
    with pytest.raises(type(ended)) as caught:
        launch_module.launch(recipe, 2, 0)
    assert caught.value.exit_code == ended.exit_code


def test_a_restart_names_the_process_that_left_no_code(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert torchrun.silent_ranks(0, 2) == []  # nobody collects codes
    monkeypatch.setenv("SMP_CAMVID_EXIT_CODES", str(tmp_path))
    for rank, attempt in ((0, 0), (1, 1)):
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setenv("WORLD_SIZE", "2")
        monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", str(attempt))
        torchrun.leave_code(last_words.SURVIVOR)
    assert torchrun.silent_ranks(0, 2) == [1]
    assert torchrun.silent_ranks(1, 2) == [0]
    assert torchrun.codes_left(tmp_path, 2) == [None, last_words.SURVIVOR]  # the last attempt's


def test_files_of_the_working_folder_are_seen_as_before(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """By `python -m smp_camvid` they are, by the console script not; the processes do the same."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    assert launch_module._program() == ["-m", "smp_camvid"]
    monkeypatch.setattr(sys, "path", ["/usr/local/bin", *sys.path])
    assert launch_module._program() == ["-P", "-m", "smp_camvid"]


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
    ask = "from smp_camvid import torchrun; print(torchrun.identity()['agent'])"
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
