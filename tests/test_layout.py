"""The shape of the project: imports point one way, docs tell the truth, the wheel stands alone."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import venv
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

import smp_camvid
from smp_camvid.cli import app

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "smp_camvid"

# Lowest first; a module imports only its own layer and those before it.
LAYERS = [
    ("errors", "registry"), ("recipe", "runs", "locks", "torchrun"), ("data",), ("models",),
    ("inference",), ("evaluation",), ("training",), ("report",), ("serve",), ("commands",),
    ("cli", "__main__"),
]  # fmt: skip
# Named by the layer above it for types only, or standing for the package as a whole.
FREE = {"__init__"}
# Events are plain dataclasses without torch: what training says and report hears.
SHARED = {"smp_camvid.training.events"}


def layer_of(module: str) -> int:
    part = module.split(".")[1]
    return next(i for i, names in enumerate(LAYERS) if part in names)


def imports_of(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("smp_camvid"):
            if node.module == "smp_camvid":
                yield from (f"smp_camvid.{alias.name}" for alias in node.names)
            else:
                yield str(node.module)


def test_imports_point_one_way() -> None:
    wrong = []
    for file in PACKAGE.rglob("*.py"):
        name = ".".join(file.relative_to(ROOT).with_suffix("").parts)
        if file == PACKAGE / "__init__.py":
            continue
        for target in imports_of(file):
            if target.split(".")[1] in {*FREE, "__version__"} or target in SHARED:
                continue
            if layer_of(target) > layer_of(name):
                wrong.append(f"{name} imports {target}")
    assert not wrong


def test_the_library_never_prints() -> None:
    calls = [
        f"{file.relative_to(ROOT)}:{node.lineno}"
        for file in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "print"
    ]
    assert not calls


def test_nothing_is_unpickled() -> None:
    for file in PACKAGE.rglob("*.py"):
        text = file.read_text()
        assert "import pickle" not in text
        assert text.count("torch.load(") == text.count("weights_only=True"), file


def readme() -> str:
    return (ROOT / "README.md").read_text()


def test_the_readme_names_every_command_and_no_other() -> None:
    listed = set(re.findall(r"^\| `smp-camvid ([a-z]+)", readme(), re.MULTILINE))
    done = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "200"})
    offered = set(re.findall(r"^│ ([a-z]+) ", done.stdout, re.MULTILINE))
    assert listed == offered


def test_the_file_tree_in_the_readme_is_real() -> None:
    tree = re.search(r"```text\n(smp_camvid/.*?)```", readme(), re.DOTALL)
    assert tree
    named: set[str] = set()
    folder = ""
    for line in tree[1].splitlines()[1:]:
        if not line.startswith("  "):  # beside the package
            assert all((ROOT / name).is_dir() for name in re.findall(r"\S+/", line)), line
            continue
        if not line.startswith("   "):  # a new folder of the package, or files of its own
            found = re.match(r"  (\w+/)", line)
            folder = found[1] if found else ""
        named |= {folder + file for file in re.findall(r"\w+\.py\b", line)}
    there = {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        if not path.name.startswith("__")
    }
    assert named == there, f"gone: {sorted(named - there)}; to be named: {sorted(there - named)}"


@pytest.mark.slow
def test_the_wheel_runs_from_any_folder(tmp_path: Path) -> None:
    subprocess.run(
        [
            sys.executable,
            "-m",
            "build",
            "--wheel",
            "--no-isolation",
            "-o",
            str(tmp_path),
            str(ROOT),
        ],
        check=True,
        capture_output=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    home = tmp_path / "venv"
    venv.create(home, with_pip=True)
    python = home / ("Scripts" if os.name == "nt" else "bin") / "python"

    def run(*words: str | Path) -> str:
        listed = [str(word) for word in words]
        return subprocess.run(
            listed, check=True, capture_output=True, text=True, cwd=tmp_path
        ).stdout

    run(python, "-m", "pip", "install", "--no-deps", "--no-index", wheel)
    # The dependencies are borrowed from the environment that runs this test; a .pth file inside
    # a borrowed folder is not read, so the checkout itself stays out of sight.
    site = run(python, "-c", "import site; print(site.getsitepackages()[0])").strip()
    borrowed = [path for path in sys.path if path.endswith("site-packages")]
    (Path(site) / "borrowed.pth").write_text("\n".join(borrowed))
    where = run(python, "-c", "import smp_camvid; print(smp_camvid.__file__)").strip()
    assert Path(where).is_relative_to(home)
    command = python.parent / "smp-camvid"
    assert "Commands" in run(command, "--help")
    recipes = run(command, "recipes", "list")
    assert all(name in recipes for name in ("vanilla", "ronneberger-2015", "unet-lite0"))
    assert not any((Path(site) / name).exists() for name in ("cli.py", "recipes", "tests"))
    assert run(command, "--version") == f"smp-camvid {smp_camvid.__version__}\n"
