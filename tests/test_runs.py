"""Run folders: exclusive, atomic, found again."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from smp_camvid import runs
from smp_camvid.errors import RunError, UsageError


def test_run_folders_are_numbered_and_never_reused(tmp_path: Path) -> None:
    names = [runs.create_run(tmp_path, "vanilla").name for _ in range(3)]
    assert names == ["vanilla-1", "vanilla-2", "vanilla-3"]
    (tmp_path / "vanilla-2").rmdir()
    assert runs.create_run(tmp_path, "vanilla").name == "vanilla-4"
    assert runs.create_run(tmp_path, "unet").name == "unet-1"
    (tmp_path / "vanilla-lite-9").mkdir()
    assert runs.create_run(tmp_path, "vanilla").name == "vanilla-5"


def test_a_failed_write_leaves_the_old_file_and_no_rest(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    runs.write_text(path, "old")
    with pytest.raises(RuntimeError), runs.atomic_path(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_lines_survive_a_torn_end_and_are_truncated(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    for epoch in (1, 2, 3):
        runs.append_line(path, {"epoch": epoch})
    with path.open("a") as file:
        file.write('{"epoch": 4, "lo')
    assert [row["epoch"] for row in runs.read_lines(path)] == [1, 2, 3]
    runs.truncate_lines(path, 2)
    assert path.read_text() == '{"epoch": 1}\n{"epoch": 2}\n'


def test_sweeping_takes_what_a_killed_process_left_and_nothing_else(tmp_path: Path) -> None:
    left = []
    for name in ("checkpoint.pt", "metrics.jsonl", "last-ema.safetensors", "epoch-0001-train.png"):
        with runs.atomic_path(tmp_path / name) as temporary:
            temporary.write_text("whole")
            left.append(temporary)
    for path in left:
        path.write_text("half")  # as a SIGKILL before the rename leaves it
    others = [".DS_Store", ".gitignore", "._last.pt", ".notes.toml", ".run.json.swp", ".nfs0000001"]
    for name in others:
        (tmp_path / name).write_text("")
    (tmp_path / ".git").mkdir()
    runs.sweep(tmp_path)
    assert not any(path.exists() for path in left)
    assert all((tmp_path / name).exists() for name in [*others, ".git"])
    assert (tmp_path / "checkpoint.pt").read_text() == "whole"


def test_save_dir_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(RunError, match="is a file"):
        runs.check_writable(tmp_path / "file" / "runs")
    runs.check_writable(tmp_path / "new" / "runs")
    assert not (tmp_path / "new").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_save_dir_without_permission_is_refused(tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0o500)
    with pytest.raises(RunError, match="--save-dir"):
        runs.check_writable(tmp_path / "locked")


def test_a_disk_too_small_is_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="GB are free"):
        runs.check_disk(tmp_path / "not" / "yet", 10**18)
    runs.check_disk(tmp_path, 1)


def _run(root: Path, name: str, *weights: str) -> Path:
    run = root / name
    (run / "weights").mkdir(parents=True)
    (run / "config.toml").write_text("")
    for number, weight in enumerate(weights):
        file = run / "weights" / f"{weight}.safetensors"
        file.write_text("")
        os.utime(file, ns=(number, number + len(list(root.iterdir()))))
    return run


def test_weights_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RunError, match="smp-camvid train"):
        runs.find_weights(None)
    old = _run(tmp_path / "runs", "a-1", "last", "best", "epoch-0010")
    new = _run(tmp_path / "runs", "b-1", "last", "last-ema")
    _run(tmp_path / "runs", "c-1")
    assert runs.find_weights(None).resolve() == new / "weights" / "last-ema.safetensors"
    assert runs.find_weights(old) == old / "weights" / "last.safetensors"
    assert runs.find_weights(old, "best").name == "best.safetensors"
    assert runs.find_weights(old, "epoch-10").name == "epoch-0010.safetensors"
    assert runs.run_of(runs.find_weights(old)) == old
    with pytest.raises(RunError, match="there are: last, last-ema"):
        runs.find_weights(new, "best")
    with pytest.raises(UsageError, match="epoch-N"):
        runs.find_weights(old, "newest")
    with pytest.raises(RunError, match="no weights yet"):
        runs.find_weights("runs/c-1")
    with pytest.raises(RunError, match="There is no run"):
        runs.find_weights("runs/d-1")


def test_the_environment_names_versions_and_no_path(tmp_path: Path) -> None:
    found = runs.describe_environment("cpu")
    assert {"torch", "smp-camvid"} <= set(found["versions"])
    assert "/" not in found["command"][0]
