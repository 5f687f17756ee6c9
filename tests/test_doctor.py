"""`doctor`: what is installed and found, without a secret, an import of kaggle or the network."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from smp_camvid.cli import app
from smp_camvid.inference import memory
from smp_camvid.report import installation, machine

SECRET = "KGAT_not-for-anybodys-eyes"


def run(*words: str) -> Result:
    return CliRunner().invoke(app, ["doctor", *words], env={"COLUMNS": "80"})


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user without credentials, in an empty folder."""
    for name in ("API_TOKEN", "USERNAME", "KEY", "CONFIG_DIR"):
        monkeypatch.delenv(f"KAGGLE_{name}", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home" / ".config"))
    (tmp_path / "home").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path / "home"


def install(folder: Path, name: str, version: str, entry_points: str = "") -> None:
    """What pip leaves of a distribution, as far as metadata goes."""
    info = folder / f"{name}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    if entry_points:
        (info / "entry_points.txt").write_text(entry_points)


def test_one_json_document_with_everything() -> None:
    done = run("--json")
    assert done.exit_code == 0, done.output
    document = json.loads(done.stdout)
    assert document["problems"] == []
    assert document["versions"]["torch"] and document["cpu"]["cores"] >= 1
    assert document["device"]["chosen"].startswith(("cpu", "cuda", "mps"))
    assert {"amx", "avx512", "bf16_in_hardware", "cuda", "mps"} <= set(document["device"])
    assert document["albumentations"] == [
        {"distribution": "albumentations", "version": "2.0.8", "licence": "MIT"}
    ]
    assert set(document["folders"]) == {"data", "cache", "runs"}
    assert all(folder["free_bytes"] > 0 for folder in document["folders"].values())
    assert document["memory"]["total_bytes"] >= (document["memory"]["available_bytes"] or 0)
    assert document["kaggle_credentials"] is None
    assert any("no dataset yet" in note for note in document["notes"])


def test_the_view_is_plain_and_fits_80_columns() -> None:
    done = run()
    assert done.exit_code == 0 and "No problem found." in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80 and "\x1b" not in done.stdout


def test_the_agpl_twin_is_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path / "site", "albumentationsx", "2.0.11")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    done = run("--json")
    document = json.loads(done.stdout)
    assert {e["distribution"]: e["licence"] for e in document["albumentations"]} == {
        "albumentations": "MIT",
        "albumentationsx": "AGPL-3.0",
    }
    assert done.exit_code == 1 and "AGPL" in document["problems"][0]
    assert "pip uninstall albumentationsx" in done.stderr


def test_a_missing_package_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    there = installation.version_of
    monkeypatch.setattr(
        installation, "version_of", lambda name: None if "album" in name else there(name)
    )
    done = run()
    assert done.exit_code == 1 and "albumentations is missing" in done.stdout


def test_a_broken_plugin_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    points = "[smp_camvid.models]\nroadnet = no_such_module:Net\n"
    install(tmp_path / "site", "roadnet", "1.0", points)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    document = json.loads(run("--json").stdout)
    assert "no_such_module" in document["broken_plugins"]["roadnet"]
    assert any("plugin roadnet" in problem for problem in document["problems"])


def test_a_torch_that_does_not_import(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise RuntimeError("operator torchvision::nms does not exist\nand more")

    monkeypatch.setattr(machine, "device_facts", broken)
    done = run()
    assert done.exit_code == 1 and "Traceback" not in done.output
    assert "torchvision::nms does not exist" in done.stderr and "and more" not in done.output
    assert "unknown: torch does not work" in done.stdout


@pytest.mark.parametrize("place", ["KAGGLE_API_TOKEN", "KAGGLE_KEY", "kaggle.json", "access_token"])
def test_credentials_are_named_and_never_shown(
    home: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    if place.startswith("KAGGLE"):
        monkeypatch.setenv(place, SECRET)
        monkeypatch.setenv("KAGGLE_USERNAME", "somebody")
    else:
        (home / ".kaggle").mkdir()
        (home / ".kaggle" / place).write_text(json.dumps({"username": "u", "key": SECRET}))
    for words in ((), ("--json",)):
        done = run(*words)
        assert SECRET not in done.output
        assert place in done.stdout.replace("\n", "").replace(" ", "")
    assert "no Kaggle credentials" not in run().stdout


@pytest.mark.parametrize(
    ("content", "why"),
    [("", "is empty"), ("{}", "lacks username and key"), ('{"username": "u', "is not valid JSON")],
)
def test_credentials_that_cannot_be_used_are_not_called_found(
    home: Path, content: str, why: str
) -> None:
    (home / ".kaggle").mkdir()
    (home / ".kaggle" / "kaggle.json").write_text(content)
    document = json.loads(run("--json").stdout)
    assert document["kaggle_credentials"] is None
    assert document["kaggle_credential_faults"] == [f"{home / '.kaggle' / 'kaggle.json'} {why}"]
    said = " ".join(run().stdout.split())
    assert "none that can be used" in said and "found in" not in said


def test_without_a_dataset_the_place_is_that_of_download() -> None:
    found = json.loads(run("--json").stdout)["folders"]["data"]
    assert found["path"] == str(Path("data/camvid").absolute()) and not found["exists"]


def test_a_file_gets_lines_without_blanks_at_their_end() -> None:
    lines = run().stdout.splitlines()
    assert len(lines) > 10 and [line for line in lines if line != line.rstrip()] == []


def test_kaggle_and_the_models_are_not_imported() -> None:
    program = (
        "import sys, socket\n"
        "def no(*a, **k): raise AssertionError('network')\n"
        "socket.socket.connect = no\n"
        "sys.argv = ['smp-camvid', 'doctor', '--json']\n"
        "from smp_camvid.cli import main\n"
        "try: main()\nexcept SystemExit as stop: assert not stop.code\n"
        "heavy = {'kaggle', 'kagglesdk', 'timm', 'albumentations'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not (Path.home() / ".kaggle").exists()


def test_memory_of_a_container(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info, limit = tmp_path / "meminfo", tmp_path / "memory.max"
    info.write_text("MemTotal:  8000 kB\nMemFree: 10 kB\nMemAvailable: 6000 kB\nHugePages: 0\n")
    monkeypatch.setattr(memory, "_MEMINFO", info)
    monkeypatch.setattr(memory, "_CONTAINER_LIMIT", limit)
    assert memory.memory_facts() == {"total_bytes": 8192000, "available_bytes": 6144000}
    limit.write_text("max\n")
    assert memory.memory_facts()["total_bytes"] == 8192000
    limit.write_text("2048000\n")
    assert memory.memory_facts() == {"total_bytes": 2048000, "available_bytes": 2048000}


def test_sizes_of_folders(tmp_path: Path) -> None:
    (tmp_path / "data" / "camvid" / "train").mkdir(parents=True)
    (tmp_path / "data" / "camvid" / "train" / "a.png").write_bytes(b"12345")
    found = installation.folders()["data"]
    assert found["exists"] and found["size_bytes"] == 5 and found["writable"]
