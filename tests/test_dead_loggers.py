"""Loggers that fail, are missing or are not asked for: the run is as without them."""

from __future__ import annotations

import gc
import importlib.metadata
import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from logged import curves_of, recorded
from runs_of_tests import Recorder, small
from typer.testing import CliRunner

from smp_camvid import registry
from smp_camvid.cli import app
from smp_camvid.errors import UsageError
from smp_camvid.recipe import TrainConfig, check_section
from smp_camvid.training.events import Event, Notice, StepDone
from smp_camvid.training.experiment import build_trainer

PLUGINS = """
    import json, sys

    class Good:
        def __init__(self, run_dir, history):
            self.run_dir, self.history = run_dir, history
            assert "lr" in (run_dir / "config.toml").read_text()
        def on_event(self, event):
            with (self.run_dir / "good.jsonl").open("a") as file:
                file.write(json.dumps([type(event).__name__, len(self.history.epochs)]) + "\\n")

    def unborn(run_dir, history):
        raise OSError("no server")

    class Mortal:
        def __init__(self, run_dir, history):
            self.left = 2
        def on_event(self, event):
            if type(event).__name__ == "StepDone":
                self.left -= 1
                if not self.left:
                    raise ValueError("no disk")

    class Leaver(Mortal):
        def on_event(self, event):
            if type(event).__name__ == "EpochDone":
                sys.exit(3)

    class Deaf:
        def __init__(self, run_dir, history):
            pass
"""


def left_out(heard: Recorder) -> list[str]:
    """What was said of listeners that failed."""
    said = [notice.message for notice in heard.of(Notice)]
    return [message for message in said if "was left out" in message]


@pytest.fixture
def plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An installed distribution with loggers of every kind."""
    place = tmp_path / "installed"
    info = place / "log_plugin-1.0.dist-info"
    info.mkdir(parents=True)
    (place / "log_plugin.py").write_text(textwrap.dedent(PLUGINS))
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: log-plugin\nVersion: 1.0\n")
    names = {"good": "Good", "unborn": "unborn", "mortal": "Mortal", "leaver": "Leaver",
             "deaf": "Deaf", "broken": "Nothing", "wandb": "Good"}  # fmt: skip
    entries = [f"{name} = log_plugin:{target}" for name, target in names.items()]
    (info / "entry_points.txt").write_text("\n".join(["[smp_camvid.loggers]", *entries]))
    monkeypatch.syspath_prepend(place)
    yield
    sys.modules.pop("log_plugin", None)


def test_dead_loggers_are_named_once_and_the_run_is_as_without(
    plugins: None, segnet_data: Path, tmp_path: Path, beside: Callable[[Any], Any]
) -> None:
    heard = beside(Recorder())
    names = ["unborn", "mortal", "leaver", "deaf", "good", "good"]
    run = build_trainer(small(segnet_data, tmp_path / "a", train__loggers=names)).train()
    assert run.reason == "done"
    assert sorted(left_out(heard)) == [
        "deaf failed and was left out: AttributeError: 'Deaf' object has no attribute 'on_event'",
        "leaver failed and was left out: RuntimeError: it wanted to exit with 3",
        "mortal failed and was left out: ValueError: no disk",
        "unborn failed and was left out: OSError: no server",
    ]
    told = [json.loads(line) for line in (run.run_dir / "good.jsonl").read_text().splitlines()]
    assert [kind for kind, _ in told] == [type(event).__name__ for event in heard.heard]
    assert {epochs for _, epochs in told} == {0}
    without = build_trainer(small(segnet_data, tmp_path / "b"), listeners=[]).train()
    assert (run.run_dir / "metrics.jsonl").read_text() == (
        without.run_dir / "metrics.jsonl"
    ).read_text()


class Assassin:
    """Kills W&B's own process at the second step."""

    steps = 0

    def on_event(self, event: Event) -> None:
        self.steps += isinstance(event, StepDone)
        if isinstance(event, StepDone) and self.steps == 2:
            os.kill(service_of(os.getpid()), signal.SIGKILL)


def service_of(pid: int) -> int:
    """The process id of the W&B service that process `pid` has started."""
    for path in Path("/proc").glob("[0-9]*"):
        try:
            words = (path / "cmdline").read_bytes().split(b"\0")
            parent = (path / "stat").read_text().rpartition(")")[2].split()[1]
        except OSError:
            continue  # gone since it was listed
        if int(parent) == pid and words[0].endswith(b"wandb-core"):
            return int(path.name)
    raise AssertionError("W&B has no process")


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
def test_a_run_outlives_the_process_of_wandb(
    segnet_data: Path, tmp_path: Path, own_wandb: None, every_step: None,
    beside: Callable[[Any], Any], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    heard, assassin = Recorder(), Assassin()
    beside(SimpleNamespace(on_event=lambda e: (assassin.on_event(e), heard.on_event(e))))
    run = build_trainer(
        small(segnet_data, tmp_path / "a", train__loggers=["wandb", "tensorboard"])
    ).train()
    assert run.reason == "done" and assassin.steps == 4
    (notice,) = left_out(heard)
    assert notice.startswith("wandb failed and was left out: ")
    assert set(curves_of(run.run_dir)["step/loss"]) == {1, 2, 3, 4}
    without = build_trainer(small(segnet_data, tmp_path / "b"), listeners=[]).train()
    assert recorded(run.run_dir) == recorded(without.run_dir)
    for thing in gc.get_objects():  # W&B has let go of its dead process without a farewell
        if type(thing) is subprocess.Popen:
            thing.wait()


def test_unknown_broken_and_missing_loggers_are_refused_before_anything_is_written(
    plugins: None, segnet_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.metadata.distribution

    def without_wandb(name: str) -> importlib.metadata.Distribution:
        if name == "wandb":
            raise importlib.metadata.PackageNotFoundError(name)
        return find(name)

    monkeypatch.setattr(importlib.metadata, "distribution", without_wandb)
    words = ["train", "--data", str(segnet_data), "--save-dir", str(tmp_path / "runs")]
    for name in ("tensorbord", "broken", "wandb"):
        words += ["--logger", name]
    refused = CliRunner().invoke(app, words)
    assert refused.exit_code == 2 and refused.stdout == ""
    said = " ".join(refused.stderr.split())
    assert "3 problems" in said
    assert "there are tensorboard, wandb, broken" in said and "Did you mean 'tensorboard'?" in said
    assert "'broken' (log_plugin:Nothing) does not load" in said
    assert "wandb is not installed. pip install 'smp-camvid[wandb]'" in said
    assert not (tmp_path / "runs").exists()
    for name in ("tensorbord", "wandb"):
        with pytest.raises(UsageError, match=name):
            check_section(TrainConfig(), {"loggers": [name]})
    assert check_section(TrainConfig(), {"loggers": "good"}).loggers == ("good",)
    assert set(registry.broken_plugins(registry.LOGGERS)) == {"broken", "wandb"}


def test_nothing_of_them_is_imported_unless_asked() -> None:
    code = """
        import sys
        from pathlib import Path
        from smp_camvid import registry
        from smp_camvid.recipe import TrainConfig
        from smp_camvid.training import experiment
        from smp_camvid.training.events import History
        from smp_camvid.training.listening import default_listeners
        registry.check_loggers(["tensorboard", "wandb"])
        default_listeners(TrainConfig(loggers=("tensorboard", "wandb")), Path("x"), History())
        ours = {"smp_camvid.report.wandb_log", "smp_camvid.report.tensorboard_log"}
        assert not {*ours, "tensorboard", "torch.utils.tensorboard"} & set(sys.modules)
        # timm imports wandb wherever it finds it; the rest of the package does not
        assert "wandb" not in sys.modules or "timm" in sys.modules
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True)
