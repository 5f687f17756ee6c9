"""TensorBoard, offline W&B and plugins: what they hold, what they leave alone, and how they die."""

from __future__ import annotations

import gc
import importlib.metadata
import io
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import events_by_hand
import numpy as np
import pytest
import wandb
from events_by_hand import ended, epoch_done, epoch_of, pictures, started, step, tell
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from typer.testing import CliRunner

from smp_camvid import registry, runs
from smp_camvid.cli import app
from smp_camvid.data.classes import CAMVID11
from smp_camvid.errors import UsageError
from smp_camvid.recipe import Recipe, TrainConfig, check_section, resolve
from smp_camvid.report import scalars, wandb_log
from smp_camvid.report.sheets import prediction_sheet
from smp_camvid.report.tensorboard_log import TensorBoardLogger
from smp_camvid.report.wandb_log import WandbLogger
from smp_camvid.report.wandb_records import history_rows
from smp_camvid.training import trainer as trainer_module
from smp_camvid.training.events import Event, History, Notice, StepDone
from smp_camvid.training.experiment import build_trainer
from smp_camvid.training.listening import default_listeners

SMALL = [
    ("model.base_channels", 4), ("model.depth", 2), ("model.padding", "same"),
    ("data.size", [32, 48]), ("data.score_size", "native"), ("train.batch_size", 2),
    ("train.workers", 0), ("train.verbose", 0), ("train.save_plots", False),
    ("train.precision", "fp32"), ("train.epochs", 2),
]  # fmt: skip


def small(data: Path, save_dir: Path, loggers: list[str], **train: Any) -> Recipe:
    """Five frames in batches of two, the odd one left out: two steps an epoch."""
    given = {"loggers": loggers, "save_dir": str(save_dir), **train}
    changes = [(f"train.{key}", value) for key, value in given.items()]
    return resolve("vanilla", [*SMALL, ("data.path", str(data)), *changes]).recipe


class Recorder:
    """A listener that keeps what it hears."""

    def __init__(self) -> None:
        self.heard: list[Event] = []

    def on_event(self, event: Event) -> None:
        self.heard.append(event)

    @property
    def notices(self) -> list[str]:
        """What concerns listeners."""
        said = [event.message for event in self.heard if isinstance(event, Notice)]
        return [message for message in said if "was left out" in message]


@pytest.fixture
def beside(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], Any]:
    """Adds a listener to the default ones."""

    def add(listener: Any) -> Any:
        def both(*args: Any) -> list[Any]:
            return [*default_listeners(*args), listener]

        monkeypatch.setattr(trainer_module, "default_listeners", both)
        return listener

    return add


@pytest.fixture
def every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scalars, "EVERY_STEPS", 1)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run folder as loggers find it."""
    run_dir = tmp_path / "runs" / "vanilla-1"
    run_dir.mkdir(parents=True)
    (run_dir / "config.toml").write_text("[train]\nlr = 0.5\n")
    return run_dir


@pytest.fixture
def temporary() -> Iterator[Path]:
    """A temporary folder of a short name: W&B has its socket there, whose path is at most 108."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


@pytest.fixture
def own_wandb(tmp_path: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """W&B as on a fresh machine; its process and its hooks go with the test."""
    monkeypatch.setenv("TMPDIR", str(temporary))
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    hooks = sys.exit, sys.excepthook
    yield
    wandb.teardown()
    sys.exit, sys.excepthook = hooks


def tensorboard(run: Path, **options: Any) -> EventAccumulator:
    everything = {"scalars": 0, "images": 0, "tensors": 0}
    return EventAccumulator(str(run / "tensorboard"), everything, **options).Reload()


def curves_of(run: Path) -> dict[str, dict[int, float]]:
    read = tensorboard(run)
    return {tag: {e.step: e.value for e in read.Scalars(tag)} for tag in read.Tags()["scalars"]}


def parts_of(run: Path) -> list[Path]:
    """The .wandb files of a run, which are whole once W&B's own process has ended."""
    wandb.teardown()
    return sorted(run.glob("wandb/offline-run-*/run-*.wandb"))


def places(part: Path) -> list[tuple[str, int]]:
    """(name, step or epoch) of each value, in order."""
    rows = [*history_rows(part)]
    return [(key, row.get("epoch", row.get("step"))) for row in rows for key in row if "/" in key]


def recorded(run: Path) -> dict[int, dict[str, float]]:
    """metrics.jsonl under the loggers' names: epoch -> name -> value."""
    found: dict[int, dict[str, float]] = {}
    for row in runs.read_lines(run / "metrics.jsonl"):
        values = found[row["epoch"]] = {}
        for split in ("train", "val"):
            values |= {f"{split}/{key}": row[split][key] for key in ("loss", "miou", "accuracy")}
            per_class = row[split]["per_class"].items()
            values |= {f"{split}_iou/{name}": iou for name, iou in per_class if iou is not None}
    return found


# --- a run from the command line, with both loggers -------------------------------------------


class Ears:
    """A proxy that notices whether anybody asks it for anything, and hangs up."""

    def __init__(self) -> None:
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.heard = threading.Event()
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        while True:
            try:
                connection, _ = self.socket.accept()
            except OSError:
                return
            self.heard.set()
            connection.close()

    def environment(self) -> dict[str, str]:
        address = f"http://127.0.0.1:{self.socket.getsockname()[1]}"
        names = ("http_proxy", "https_proxy", "all_proxy")
        return {form: address for name in names for form in (name, name.upper())}


@pytest.fixture
def ears() -> Iterator[Ears]:
    made = Ears()
    yield made
    made.socket.close()


@pytest.fixture
def machine(tmp_path: Path, temporary: Path) -> dict[str, str]:
    """An environment with empty home, temporary and working folders; others cache elsewhere."""
    for name in ("home", "cwd"):
        (tmp_path / name).mkdir()
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("WANDB_", "XDG_"))}
    return {
        **kept,
        "HOME": str(tmp_path / "home"),
        "TMPDIR": str(temporary),
        "MPLCONFIGDIR": str(tmp_path / "matplotlib"),
    }


@pytest.fixture
def logged(
    segnet_data: Path, tmp_path: Path, machine: dict[str, str], ears: Ears
) -> SimpleNamespace:
    """A run from the command line with both loggers: its folder and what it said."""
    words = [
        "train", "--logger", "tensorboard", "--logger", "wandb", "--data", segnet_data,
        "--size", "32x48", "--epochs", "2", "--batch-size", "2", "--workers", "0",
        "--precision", "fp32", "--set", "model.base_channels=4", "--set", "model.depth=2",
        "--set", "model.padding=same", "--set", "data.score_size=native",
    ]  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "smp_camvid", *map(str, words)],
        cwd=tmp_path / "cwd", env={**machine, **ears.environment()},
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return SimpleNamespace(run=tmp_path / "cwd/runs/vanilla-1", out=done.stdout, err=done.stderr)


@pytest.mark.slow
def test_a_real_run_is_in_both_files_and_nowhere_else(
    logged: SimpleNamespace, tmp_path: Path, temporary: Path, ears: Ears
) -> None:
    assert logged.out == "runs/vanilla-1\n"
    assert "wandb:" not in logged.err and "was left out" not in logged.err
    assert not ears.heard.is_set()
    assert not [*(tmp_path / "home").rglob("*"), *temporary.rglob("*")]
    assert [path.name for path in (tmp_path / "cwd").iterdir()] == ["runs"]
    check_curves(logged.run)
    check_pictures_and_recipe(logged.run)


def check_curves(run: Path) -> None:
    """Both files against metrics.jsonl, value by value, and nothing beside."""
    truth, curves = recorded(run), curves_of(run)
    (part,) = parts_of(run)
    rows = [*history_rows(part)]
    by_epoch = {row["epoch"]: row for row in rows if "val/loss" in row}
    assert set(truth) == set(by_epoch) == {1, 2}
    for epoch, values in truth.items():
        assert {k: v for k, v in by_epoch[epoch].items() if k[:3] in ("tra", "val")} == values
        at = {name: curve[2 * epoch] for name, curve in curves.items() if name in values}
        assert at == pytest.approx(values, rel=1e-6)  # event files hold float32
    names = {name for values in truth.values() for name in values}
    assert {name for name in curves if name.startswith(("train", "val"))} == names
    assert set(curves["machine/images_per_second"]) == {2, 4}
    (first,) = [row for row in rows if "step" in row]  # one of ten
    assert first["step"] == 1 and first["step/lr"] == 2e-4
    assert curves["step/loss"] == {1: pytest.approx(first["step/loss"], rel=1e-6)}


def check_pictures_and_recipe(run: Path) -> None:
    read, recipe = tensorboard(run), (run / "config.toml").read_text()
    (text,) = read.Tensors("recipe/text_summary")
    assert textwrap.dedent(text.tensor_proto.string_val[0].decode()).strip() == recipe.strip()
    (part,) = parts_of(run)
    rows = [*history_rows(part)]
    for split in ("train", "val"):
        (row,) = [row for row in rows if f"pictures/{split}" in row]
        (stored,) = read.Images(f"pictures/{split}")
        file = part.parent / "files" / row[f"pictures/{split}"]["path"]
        assert (row["epoch"], stored.step) == (2, 4)
        assert pixels(file) == pixels(io.BytesIO(stored.encoded_image_string))


def pixels(file: Any) -> bytes:
    with Image.open(file) as picture:
        return picture.convert("RGB").tobytes()


def test_the_proxy_would_have_heard_an_online_run(
    folder: Path, machine: dict[str, str], ears: Ears
) -> None:
    code = """
        import sys
        from pathlib import Path
        from smp_camvid.report.wandb_log import WandbLogger
        from smp_camvid.training.events import History
        WandbLogger(Path(sys.argv[1]), History())
    """
    asked = {"WANDB_MODE": "online", "WANDB_API_KEY": "0" * 40}
    online = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), str(folder)], cwd=folder,
        env={**machine, **ears.environment(), **asked},
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        assert ears.heard.wait(60)
    finally:
        online.kill()
        online.wait()


class LateStop:
    """Ctrl-C in the second epoch of a run whose last checkpoint is its first."""

    def __init__(self, run_dir: Path) -> None:
        self.checkpoint, self.steps = run_dir / "checkpoint.pt", 0

    def on_event(self, event: Event) -> None:
        self.steps += isinstance(event, StepDone)
        if isinstance(event, StepDone) and self.steps == 1:
            self.first = self.checkpoint.read_bytes()
        if isinstance(event, StepDone) and self.steps == 3:
            os.kill(os.getpid(), signal.SIGINT)


def test_a_real_run_resumed_has_the_curves_of_an_uninterrupted_one(
    segnet_data: Path, tmp_path: Path, own_wandb: None, every_step: None,
    beside: Callable[[Any], Any],
) -> None:  # fmt: skip
    recipe = small(segnet_data, tmp_path, ["tensorboard", "wandb"])
    whole = build_trainer(recipe).train().run_dir
    stop = beside(LateStop(tmp_path / "vanilla-2"))
    cut = build_trainer(recipe).train()
    assert cut.reason == "interrupted" and cut.run_dir == stop.checkpoint.parent
    stop.checkpoint.write_bytes(stop.first)
    written = places(parts_of(cut.run_dir)[0])
    assert ("step/loss", 3) in written and ("val/loss", 1) in written  # past the checkpoint
    beside(Recorder())
    next_second()
    again = build_trainer(recipe)
    again.resume(cut.run_dir)
    assert again.train().reason == "done"
    assert seeded(curves_of(cut.run_dir)) == seeded(curves_of(whole))
    (only,), both = parts_of(whole), parts_of(cut.run_dir)
    found = sorted(place for part in both for place in places(part))
    assert len(both) == 2 and found == sorted(places(only))


def seeded(curves: dict[str, dict[int, float]]) -> dict[str, dict[int, float]]:
    """Those that the seed determines."""
    return {name: curve for name, curve in curves.items() if not name.startswith("machine")}


# --- events by hand -----------------------------------------------------------------------------


def test_a_resumed_run_goes_on_in_tensorboard_where_its_checkpoint_was(
    folder: Path, every_step: None
) -> None:
    cut = TensorBoardLogger(folder, History())
    # Killed in epoch 3; the checkpoint is of step 4, inside epoch 2.
    tell(cut, started(folder), *epoch_of(1), *epoch_of(2), pictures(2), step(7), ended(folder))
    again = TensorBoardLogger(folder, History([epoch_done(1)]))
    tell(again, started(folder), *epoch_of(2)[1:], *epoch_of(3), pictures(3), ended(folder))
    read = tensorboard(folder)
    assert [event.step for event in read.Scalars("step/loss")] == [*range(1, 10)]
    for name in ("val/loss", "train/miou", "val_iou/Sky"):
        assert [event.step for event in read.Scalars(name)] == [3, 6, 9]
    assert [event.step for event in read.Images("pictures/val")] == [9]
    assert [event.step for event in read.Tensors("recipe/text_summary")] == [1, 5]
    twice = tensorboard(folder, purge_orphaned_data=False)  # there was something to forget
    assert [event.step for event in twice.Scalars("val/loss")] == [3, 6, 6, 9]


def test_pictures_arrive_pixel_for_pixel(folder: Path, own_wandb: None) -> None:
    shown = pictures(1)
    sheet = prediction_sheet(shown.frames, CAMVID11, "epoch 1")
    for logger in (TensorBoardLogger(folder, History()), WandbLogger(folder, History())):
        tell(logger, started(folder), *epoch_of(1), shown, ended(folder))
    (stored,) = tensorboard(folder).Images("pictures/val")
    assert pixels(io.BytesIO(stored.encoded_image_string)) == sheet.tobytes()
    (part,) = parts_of(folder)
    (row,) = [row for row in history_rows(part) if "pictures/val" in row]
    assert pixels(part.parent / "files" / row["pictures/val"]["path"]) == sheet.tobytes()
    for color in (CAMVID11.colors[label] for label in np.unique(shown.frames[0][1])):
        assert (np.asarray(sheet) == color).all(-1).any()


@pytest.mark.parametrize("careful", [True, False])
def test_the_parts_of_a_resumed_run_hold_everything_once(
    folder: Path, own_wandb: None, every_step: None, careful: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    # Stopped in epoch 3; the checkpoint it goes on from is of step 4, inside epoch 2.
    cut = WandbLogger(folder, History())
    tell(cut, started(folder), *epoch_of(1), *epoch_of(2), step(7), ended(folder, "failed"))
    if not careful:  # the test can fail
        monkeypatch.setattr(wandb_log, "_places", lambda part: iter(()))
    next_second()
    again = WandbLogger(folder, History([epoch_done(1)]))
    tell(again, started(folder), *epoch_of(2)[1:], *epoch_of(3), ended(folder))
    first, second = parts_of(folder)
    assert first.name == second.name  # the id
    found = places(first) + places(second)
    steps, epochs = range(1, 10), (1, 2, 3)
    assert {("step/loss", i) for i in steps} | {("val/miou", i) for i in epochs} <= set(found)
    assert (len(found) == len(set(found))) == careful


def next_second() -> None:
    """W&B names the folder of a part after the second it began in."""
    time.sleep(1.001 - time.time() % 1)


def test_after_a_kill_epochs_are_whole_whatever_wandb_had_written(
    folder: Path, machine: dict[str, str], own_wandb: None, every_step: None
) -> None:
    words = [sys.executable, events_by_hand.__file__, str(folder)]
    gone = subprocess.run(words, env=machine, cwd=folder, timeout=120)
    assert gone.returncode == -signal.SIGKILL and len(parts_of(folder)) == 1
    time.sleep(1)  # what it was writing
    again = WandbLogger(folder, History([epoch_done(1)]))
    tell(again, started(folder), *epoch_of(2)[1:], *epoch_of(3), ended(folder))
    found = [place for part in parts_of(folder) for place in places(part)]
    assert len(found) == len(set(found))
    assert {("val/miou", i) for i in (1, 2, 3)} <= set(found)
    assert {("step/loss", i) for i in range(5, 10)} <= set(found)


def test_epochs_that_no_part_holds_come_from_the_record(folder: Path, own_wandb: None) -> None:
    again = WandbLogger(folder, History([epoch_done(1), epoch_done(2)]))
    tell(again, started(folder), *epoch_of(3), ended(folder))
    (part,) = parts_of(folder)
    rows = [row for row in history_rows(part) if "val/miou" in row]
    assert [(row["epoch"], row["val/miou"]) for row in rows] == [(1, 0.1), (2, 0.2), (3, 0.3)]


def test_rows_longer_than_a_block_are_read_as_they_were_logged(
    folder: Path, own_wandb: None
) -> None:
    run = wandb_log._open(folder, "long")
    logged = [{"step": i, "text": "x" * (i * 2500)} for i in range(40)]
    for row in logged:
        run.log(row)
    run.finish()
    (part,) = parts_of(folder)
    found = [{k: row[k] for k in ("step", "text")} for row in history_rows(part)]
    assert found == logged
    cut = folder / "cut.wandb"
    cut.write_bytes(part.read_bytes()[:200_000])
    whole = [row["step"] for row in history_rows(cut)]
    assert 0 < len(whole) < 40 and whole == [*range(len(whole))]
    cut.write_bytes(b"something else")
    with pytest.raises(ValueError, match=r"not a \.wandb file"):
        list(history_rows(cut))


def test_steps_whose_loss_was_not_read_wait_for_one_that_was() -> None:
    unread = {1, 2, 3, 21}
    events = [step(i, None if i in unread else 0.5) for i in range(1, 41)]

    def taken(some: list[StepDone]) -> list[int]:
        thinned = scalars.Thinned()
        return [scalars.global_step(event) for event in some if thinned.takes(event)]

    assert taken(events) == [4, 11, 22, 31]
    for cut in (5, 10, 14, 35):  # interrupted and resumed == uninterrupted
        assert taken(events[:cut]) + taken(events[cut:]) == [4, 11, 22, 31]
    assert scalars.of_step(step(4, None)) == {"step/lr": 0.25}
    assert "machine/gpu_memory_bytes" not in scalars.of_epoch(epoch_done(1))
    assert scalars.of_epoch(epoch_done(1, gpu=7))["machine/gpu_memory_bytes"] == 7
    assert "val_iou/Car" not in scalars.of_epoch(epoch_done(1))


def test_what_the_user_set_stands(
    folder: Path, own_wandb: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    tell(WandbLogger(folder, History()), started(folder), *epoch_of(1), ended(folder))
    assert not parts_of(folder)
    assert os.environ["WANDB_MODE"] == "disabled" and "WANDB_CACHE_DIR" not in os.environ


# --- loggers that fail ----------------------------------------------------------------------


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
    run = build_trainer(small(segnet_data, tmp_path / "a", names)).train()
    assert run.reason == "done"
    assert sorted(heard.notices) == [
        "deaf failed and was left out: AttributeError: 'Deaf' object has no attribute 'on_event'",
        "leaver failed and was left out: RuntimeError: it wanted to exit with 3",
        "mortal failed and was left out: ValueError: no disk",
        "unborn failed and was left out: OSError: no server",
    ]
    told = [json.loads(line) for line in (run.run_dir / "good.jsonl").read_text().splitlines()]
    assert [kind for kind, _ in told] == [type(event).__name__ for event in heard.heard]
    assert {epochs for _, epochs in told} == {0}
    without = build_trainer(small(segnet_data, tmp_path / "b", []), listeners=[]).train()
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
    run = build_trainer(small(segnet_data, tmp_path / "a", ["wandb", "tensorboard"])).train()
    assert run.reason == "done" and assassin.steps == 4
    (notice,) = heard.notices
    assert notice.startswith("wandb failed and was left out: ")
    assert set(curves_of(run.run_dir)["step/loss"]) == {1, 2, 3, 4}
    without = build_trainer(small(segnet_data, tmp_path / "b", []), listeners=[]).train()
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
