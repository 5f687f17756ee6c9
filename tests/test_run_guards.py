"""What a run is guarded against: other data, another process, a damaged record, a dead end."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import run
from runs_of_tests import Recorder, Stopper, bare_trainer, batch_of, lines, small, trained

from smp_camvid import runs
from smp_camvid.data.camvid import standard_stems
from smp_camvid.errors import RunError, TrainingError, UsageError
from smp_camvid.recipe import resolve
from smp_camvid.training import events
from smp_camvid.training.checkpoint import load_checkpoint
from smp_camvid.training.experiment import build_trainer
from smp_camvid.training.resuming import check_same_data, facts_of_data
from smp_camvid.training.trainer import Trainer


def cut(data: Path, save_dir: Path, after: int = 1, **changes: Any) -> Path:
    """A run of three epochs that was interrupted after the first."""
    recipe = small(data, save_dir, **{"train__epochs": 3, **changes})
    stopper = Stopper(events.EpochDone, after)
    return build_trainer(recipe, listeners=[stopper]).train().run_dir


def going_on(data: Path, save_dir: Path, run_dir: Path, **changes: Any) -> tuple[Trainer, Recorder]:
    heard = Recorder()
    recipe = small(data, save_dir, **{"train__epochs": 3, **changes})
    made = build_trainer(recipe, listeners=[heard], weights_follow=True)
    made.resume(run_dir)
    return made, heard


def said(heard: Recorder) -> str:
    return " ".join(notice.message for notice in heard.of(events.Notice))


# --- the data ---------------------------------------------------------------------------------


def drawn(data: Path, to: Path) -> Path:
    """The same frames, by their own word of another dataset."""
    shutil.copytree(data, to)
    (to / "manifest.json").write_text('{"source": "synthetic"}')
    return to


def test_a_run_goes_on_with_its_own_data_wherever_it_lies(
    segnet_data: Path, tmp_path: Path
) -> None:
    whole = trained(segnet_data, tmp_path, train__epochs=3).run_dir
    run_dir = cut(segnet_data, tmp_path)
    before = {path: path.read_bytes() for path in run_dir.rglob("*") if path.is_file()}
    fewer = shutil.copytree(segnet_data, tmp_path / "fewer")
    (first, *_), (label, *_) = (
        sorted((fewer / part).iterdir()) for part in ("train", "trainannot")
    )
    first.unlink()
    label.unlink()
    with pytest.raises(UsageError, match="keeps its data; these are others: 5 -> 4 train frames"):
        going_on(fewer, tmp_path, run_dir)
    renamed = shutil.copytree(segnet_data, tmp_path / "renamed")
    for folder in ("val", "valannot"):
        for path, stem in zip(
            sorted((renamed / folder).iterdir()), standard_stems("val")[50:53], strict=True
        ):
            path.rename(path.with_stem(stem))
    with pytest.raises(UsageError, match="others: other val frames"):
        going_on(renamed, tmp_path, run_dir)
    with pytest.raises(UsageError, match="camvid11@360x480 -> synthetic11@360x480"):
        going_on(drawn(segnet_data, tmp_path / "drawn"), tmp_path, run_dir)
    assert {path: path.read_bytes() for path in before} == before
    moved = segnet_data.rename(tmp_path / "moved")
    made, _ = going_on(moved, tmp_path, run_dir)
    made.train()
    assert lines(run_dir) == lines(whole)


def test_a_checkpoint_without_its_data_opens(segnet_data: Path, tmp_path: Path) -> None:
    """Those of before, and of loaders that know nothing of their frames."""
    run_dir = cut(segnet_data, tmp_path)
    facts = load_checkpoint(run_dir / "checkpoint.pt")["data"]
    assert (facts["train"]["count"], facts["val"]["count"]) == (5, 3)
    check_same_data(None, facts)
    foreign = facts_of_data([batch_of(2)], None, "")
    check_same_data(foreign, facts_of_data([batch_of(4)], None, ""))


# --- another process --------------------------------------------------------------------------

_HOLDS = """
import sys, time
from pathlib import Path
from smp_camvid.training.run_lock import RunLock
RunLock.held = RunLock()
RunLock.held.take(Path(sys.argv[1]))
print("held", flush=True)
time.sleep(600)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no record locks")
def test_two_processes_do_not_train_one_run(segnet_data: Path, tmp_path: Path) -> None:
    run_dir = cut(segnet_data, tmp_path)
    before = lines(run_dir)
    made, _ = going_on(segnet_data, tmp_path, run_dir)
    words = [sys.executable, "-c", _HOLDS, str(run_dir)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None and other.stdout.readline() == "held\n"
        unfinished = run_dir / ".checkpoint.pt.abcdefgh.pt"
        unfinished.write_text("of the other")
        with pytest.raises(RunError, match="is being trained by another process"):
            made.train()
        assert unfinished.exists() and lines(run_dir) == before
        other.kill()
    again, _ = going_on(segnet_data, tmp_path, run_dir)
    assert again.train().reason == "done" and not unfinished.exists()


@pytest.mark.skipif(sys.platform == "win32", reason="no record locks")
def test_a_run_is_locked_while_it_trains_and_not_by_its_workers(
    segnet_data: Path, tmp_path: Path
) -> None:
    ask = (
        "import sys; from pathlib import Path\n"
        "from smp_camvid.training.run_lock import RunLock\n"
        "RunLock().take(Path(sys.argv[1]))"
    )
    answers = []

    class Asker(Recorder):
        """At one step, another process asks; before that, a fork of this one ends."""

        def on_event(self, event: events.Event) -> None:
            super().on_event(event)
            if isinstance(event, events.StepDone) and len(self.of(events.StepDone)) == 2:
                if not (child := os.fork()):
                    os._exit(0)
                os.waitpid(child, 0)
                words = [sys.executable, "-c", ask, str(made.run_dir)]
                answers.append(subprocess.run(words, capture_output=True, text=True))

    made = build_trainer(small(segnet_data, tmp_path), listeners=[Asker()])
    made.train()
    assert answers[0].returncode == 1 and "being trained by another" in answers[0].stderr
    words = [sys.executable, "-c", ask, str(made.run_dir)]
    assert subprocess.run(words, check=False).returncode == 0


# --- the record -------------------------------------------------------------------------------


@pytest.mark.parametrize("lost", [1, 2, 3])
def test_a_gap_in_the_record_is_told_and_nothing_moves_up(
    segnet_data: Path, tmp_path: Path, lost: int
) -> None:
    run_dir = cut(segnet_data, tmp_path, after=3, train__epochs=4)
    path = run_dir / "metrics.jsonl"
    rows = path.read_text().splitlines()
    rows[lost - 1] = rows[lost - 1][:50]  # torn, or by a careless hand
    path.write_text("\n".join([*rows, ""]))
    made, heard = going_on(segnet_data, tmp_path, run_dir, train__epochs=4)
    made.train()
    assert f"metrics.jsonl has no whole line of epoch {lost}; it stays so." in said(heard)
    left = [row["epoch"] for row in runs.read_lines(path)]
    assert left == [epoch for epoch in (1, 2, 3, 4) if epoch != lost]


def test_lines_are_kept_by_their_epoch(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text(
        "".join(json.dumps({"epoch": n, "at": i}) + "\n" for i, n in enumerate((1, 3, 3, 2)))
    )
    assert runs.truncate_lines(path, 4) == [4]
    kept = [(row["epoch"], row["at"]) for row in runs.read_lines(path)]
    assert kept == [(1, 0), (2, 3), (3, 1)]
    assert runs.truncate_lines(path, 1) == [] and len(runs.read_lines(path)) == 1


# --- dead ends --------------------------------------------------------------------------------


@pytest.mark.parametrize("clip", [0.0, 1.0])
def test_a_gradient_that_is_not_finite_stops_before_the_update(tmp_path: Path, clip: float) -> None:
    made = bare_trainer(tmp_path, clip_norm=clip, ema=0.9)
    made.train_step(batch_of(2))
    before = [value.clone() for value in made.learner.state_dict()["model"].values()]
    averaged = [value.clone() for value in made.judged.state_dict().values()]
    hook = next(made.network.parameters()).register_hook(lambda grad: grad * torch.inf)
    with pytest.raises(
        TrainingError, match=r"The gradient is (inf|nan) at epoch 1, batch 1 \(frame"
    ):
        made.train_step(batch_of(2))
    after = made.learner.state_dict()["model"].values()
    assert all(torch.equal(a, b) for a, b in zip(after, before, strict=True))
    now = made.judged.state_dict().values()
    assert all(torch.equal(a, b) for a, b in zip(now, averaged, strict=True))
    hook.remove()
    made.train_step(batch_of(2))


def test_a_run_that_would_come_to_the_same_end_is_not_offered(
    segnet_data: Path, tmp_path: Path
) -> None:
    heard = Recorder()
    made = build_trainer(small(segnet_data, tmp_path, train__lr=1e30), listeners=[heard])
    with pytest.raises(TrainingError, match="Start a new run"):
        made.train()
    (ended,) = heard.of(events.RunEnded)
    assert (ended.reason, ended.next_command) == ("failed", "")


def test_a_failure_that_torchrun_mends_names_no_command(
    segnet_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ended() -> events.RunEnded:
        class Full(Recorder):
            def on_event(self, event: events.Event) -> None:
                super().on_event(event)
                if isinstance(event, events.StepDone):
                    monkeypatch.setattr(made.keeper, "record", full)

        def full(done: object) -> None:
            raise RunError("The disk is full.")

        heard = Full()
        made = build_trainer(small(segnet_data, tmp_path), listeners=[heard])
        with pytest.raises(RunError):
            made.train()
        (found,) = heard.of(events.RunEnded)
        return found

    assert "train --resume" in ended().next_command
    monkeypatch.setenv("TORCHELASTIC_MAX_RESTARTS", "2")
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert ended().next_command == ""
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "2")
    assert "train --resume" in ended().next_command


# --- the end ----------------------------------------------------------------------------------


def test_early_stopping_says_why(segnet_data: Path, tmp_path: Path) -> None:
    heard = Recorder()
    still = {"train__lr": 1e-30, "train__stop_after": 2, "model__norm": "none", "train__epochs": 9}
    build_trainer(small(segnet_data, tmp_path, **still), listeners=[heard]).train()
    (notice,) = heard.of(events.Notice)
    assert notice.message.startswith("Stopped early after epoch 3 of 9: miou was best in epoch 1 (")
    assert [type(event).__name__ for event in heard.heard[-2:]] == ["Notice", "RunEnded"]


def test_a_finished_run_is_left_as_it_is(segnet_data: Path, tmp_path: Path) -> None:
    run_dir = trained(segnet_data, tmp_path).run_dir
    before = {path: path.read_bytes() for path in run_dir.rglob("*") if path.is_file()}
    done = run("train", "--resume", run_dir)
    assert (done.exit_code, done.stdout) == (0, f"{run_dir}\n")
    assert done.stderr.splitlines()[-1].startswith("smp-camvid: The run is finished: 2 epochs.")
    assert {path: path.read_bytes() for path in run_dir.rglob("*") if path.is_file()} == before
    assert run("train", "--resume", run_dir, "--epochs", 3, "--verbose", 0).exit_code == 0
    assert len(runs.read_lines(run_dir / "metrics.jsonl")) == 3


def test_a_resumed_run_stays_in_its_folder_and_may_save_otherwise(
    segnet_data: Path, tmp_path: Path
) -> None:
    run_dir = cut(segnet_data, tmp_path)
    refused = run("train", "--resume", run_dir, "--save-dir", tmp_path / "elsewhere")
    assert refused.exit_code == 2 and "stays in its folder" in refused.stderr
    saving = ["--keep", 1, "--save-every", 1, "--set", "train.checkpoint_steps=7"]
    assert run("train", "--resume", run_dir, "--verbose", 0, *saving).exit_code == 0
    kept = [path.stem for path in (run_dir / "weights").glob("epoch-*")]
    assert kept == ["epoch-0003"]
    again = cut(segnet_data, tmp_path)
    made, _ = going_on(segnet_data, tmp_path / "elsewhere", again)
    made.train()
    assert resolve(str(again / "config.toml")).recipe.train.save_dir == str(tmp_path)


def test_max_restarts_need_somebody_to_heed_them(monkeypatch: pytest.MonkeyPatch) -> None:
    for words in ([], ["--devices", 1], ["--dry-run"]):
        done = run("train", "--max-restarts", 3, *words)
        assert done.exit_code == 2 and "goes with --devices" in done.stderr
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    done = run("train", "--max-restarts", 3)
    assert done.exit_code == 2 and "is torchrun's here" in done.stderr


def test_broken_checkpoints_name_what_there_is_to_start_from(
    segnet_data: Path, tmp_path: Path
) -> None:
    run_dir = trained(segnet_data, tmp_path).run_dir
    for path in run_dir.glob("checkpoint*.pt"):
        path.write_bytes(b"torn")
    with pytest.raises(RunError, match=f"--weights {run_dir}$"):
        load_checkpoint(run_dir / "checkpoint.pt")
    shutil.rmtree(run_dir / "weights")
    with pytest.raises(RunError, match=f"--recipe {run_dir}/config.toml$"):
        load_checkpoint(run_dir / "checkpoint.pt")
