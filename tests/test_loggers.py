"""TensorBoard and offline W&B, told events by hand: what they hold, and what they leave alone."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import events_by_hand
import numpy as np
import pytest
from events_by_hand import ended, epoch_done, epoch_of, pictures, started, step, tell
from logged import Ears, next_second, parts_of, pixels, places, tensorboard

from smp_camvid.data.classes import CAMVID11
from smp_camvid.report import scalars, wandb_log
from smp_camvid.report.sheets import prediction_sheet
from smp_camvid.report.tensorboard_log import TensorBoardLogger
from smp_camvid.report.wandb_log import WandbLogger
from smp_camvid.report.wandb_records import history_rows
from smp_camvid.training.events import History, StepDone


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run folder as loggers find it."""
    run_dir = tmp_path / "runs" / "vanilla-1"
    run_dir.mkdir(parents=True)
    (run_dir / "config.toml").write_text("[train]\nlr = 0.5\n")
    return run_dir


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
