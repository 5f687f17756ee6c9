"""`download` as tests call it: signed in to the loopback server, and what it leaves and says."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from kaggle_server import Server, environment
from typer.testing import Result

from smp_camvid.data import http_fetch

TARGET = Path("data/camvid")
SECRET = "0123456789abcdef0123456789abcdef"


@pytest.fixture
def waits(here: Path, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A client that was never imported, and waits that take no time."""
    asked: list[float] = []
    for name in [*os.environ]:
        if name.startswith("KAGGLE_"):
            monkeypatch.delenv(name)
    for name in [*sys.modules]:
        if name.partition(".")[0] == "kaggle":
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(http_fetch, "sleep", asked.append)
    monkeypatch.setattr(http_fetch, "CHUNK", 1 << 14)
    return asked


@pytest.fixture
def signed_in(
    waits: object, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = {"KAGGLE_USERNAME": "somebody", "KAGGLE_KEY": SECRET}
    for name, value in environment(server.port, tmp_path / "home", **known).items():
        monkeypatch.setenv(name, value)


def left() -> list[str]:
    """Every file below the working folder that is not of the dataset itself."""
    found = (path for path in Path().rglob("*") if path.is_file())
    return sorted(str(path) for path in found if TARGET not in path.parents)


def refused(result: Result, *parts: str) -> None:
    assert result.exit_code == 1, result.output
    for part in parts:
        assert part in result.stderr
    assert result.stdout == ""
    for never in ("Traceback", SECRET, "sig=secret", "Told"):
        assert never not in result.output
    assert not TARGET.exists()
