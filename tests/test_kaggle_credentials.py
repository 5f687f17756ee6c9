"""What is said about credentials, held against what the real client finds at the same places."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from kaggle_server import environment, serving

from smp_camvid.data import kaggle_credentials
from smp_camvid.data.kaggle_credentials import look

SECRET = "0123456789abcdef0123456789abcdef"
PAIR = json.dumps({"username": "somebody", "key": SECRET})
LOGIN = json.dumps({"refresh_token": SECRET, "username": "somebody", "scopes": []})

Arrangement = Mapping[str, str]
"""Paths below HOME -> content, and variables -> value; `~` in a value is HOME."""

ARRANGEMENTS: dict[str, Arrangement] = {
    "nothing": {},
    "token": {"KAGGLE_API_TOKEN": SECRET},
    "token before key": {"KAGGLE_API_TOKEN": SECRET, ".kaggle/kaggle.json": PAIR},
    "file of the token": {"KAGGLE_API_TOKEN": "~/my token", "my token": SECRET},
    "empty file of the token": {"KAGGLE_API_TOKEN": "~/my", "my": "", ".kaggle/access_token": "x"},
    "access_token": {".kaggle/access_token": SECRET},
    "access_token.txt": {".kaggle/access_token": " \n", ".kaggle/access_token.txt": SECRET},
    "empty access_token": {".kaggle/access_token": ""},
    "variables": {"KAGGLE_USERNAME": "somebody", "KAGGLE_KEY": SECRET},
    "name alone": {"KAGGLE_USERNAME": "somebody"},
    "name and a file": {"KAGGLE_USERNAME": "somebody", ".kaggle/kaggle.json": PAIR},
    "half and half": {"KAGGLE_USERNAME": "x", ".kaggle/kaggle.json": json.dumps({"key": SECRET})},
    "kaggle.json": {".kaggle/kaggle.json": PAIR},
    "empty kaggle.json": {".kaggle/kaggle.json": ""},
    "kaggle.json without a key": {".kaggle/kaggle.json": "{}"},
    "kaggle.json cut off": {".kaggle/kaggle.json": PAIR[:-8]},
    "kaggle.json of no object": {".kaggle/kaggle.json": '["username", 3]'},
    "XDG": {".config/kaggle/kaggle.json": PAIR},
    "XDG beside a folder .kaggle": {".config/kaggle/kaggle.json": PAIR, ".kaggle/notes": ""},
    "own folder": {"KAGGLE_CONFIG_DIR": "~/own", "own/kaggle.json": PAIR},
    "own folder, file elsewhere": {"KAGGLE_CONFIG_DIR": "~/own", ".kaggle/kaggle.json": PAIR},
    "login": {".kaggle/credentials.json": LOGIN},
    "empty login": {".kaggle/credentials.json": '{"refresh_token": ""}'},
}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in [*os.environ]:
        if name.startswith("KAGGLE_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CONFIG_HOME", "")
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


@pytest.fixture
def arrange(home: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Arrangement], None]:
    def make(arrangement: Arrangement) -> None:
        for name, content in arrangement.items():
            if name.startswith("KAGGLE_"):
                monkeypatch.setenv(name, content.replace("~", str(home)))
            else:
                (home / name).parent.mkdir(parents=True, exist_ok=True)
                (home / name).write_text(content)

    return make


def ask_the_client(monkeypatch: pytest.MonkeyPatch, home: Path) -> str | None:
    """The way the real client signs in, against a server that accepts everything."""
    for name in [*sys.modules]:
        if name.partition(".")[0] == "kaggle":
            monkeypatch.delitem(sys.modules, name)
    with serving() as server:
        for name, value in environment(server.port, home).items():
            if name != "XDG_CONFIG_HOME":
                monkeypatch.setenv(name, value)
        from kaggle.api.kaggle_api_extended import KaggleApi

        api: Any = KaggleApi()
        try:
            api.authenticate()
        except (SystemExit, TypeError):  # TypeError: it takes any JSON for an object
            return None
    return str(api.config_values[api.CONFIG_NAME_AUTH_METHOD])


@pytest.mark.parametrize("name", ARRANGEMENTS)
def test_it_finds_what_the_client_finds(
    home: Path,
    arrange: Callable[[Arrangement], None],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
) -> None:
    arrange(ARRANGEMENTS[name])
    sight = look()
    # The client closes stdin with the builtin exit() when it finds nothing.
    monkeypatch.setattr(sys, "stdin", None)
    way = ask_the_client(monkeypatch, home)
    assert (sight.first is None) == (way is None), (sight, way)
    if way is not None:
        assert sight.used(way) == sight.first
    else:
        assert bool(sight.faults) == bool(ARRANGEMENTS[name])
    assert SECRET not in repr(sight)


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("XDG beside a folder .kaggle", ".config/kaggle/kaggle.json is not read"),
        ("own folder, file elsewhere", ".kaggle/kaggle.json is not read"),
        ("empty kaggle.json", ".kaggle/kaggle.json is empty"),
        ("kaggle.json cut off", ".kaggle/kaggle.json is not valid JSON"),
        ("kaggle.json without a key", ".kaggle/kaggle.json lacks username and key"),
        ("empty access_token", ".kaggle/access_token is empty"),
        ("empty file of the token", "the file that KAGGLE_API_TOKEN names is empty"),
        ("name alone", "KAGGLE_USERNAME is set and KAGGLE_KEY is not"),
    ],
)
def test_why_not_is_said(arrange: Callable[[Arrangement], None], name: str, fault: str) -> None:
    arrange(ARRANGEMENTS[name])
    sight = look()
    assert sight.first is None and any(fault in one for one in sight.faults), sight


def test_a_file_of_somebody_else(
    arrange: Callable[[Arrangement], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    arrange({".kaggle/kaggle.json": PAIR})

    def refuse(path: Path, *_: object, **__: object) -> str:  # the superuser reads everything
        if path.name == "kaggle.json":
            raise PermissionError(13, "Permission denied", str(path))
        raise FileNotFoundError

    monkeypatch.setattr(kaggle_credentials.Path, "read_text", refuse)
    sight = look()
    assert sight.first is None
    (fault,) = sight.faults
    assert "kaggle.json cannot be read (chown it to yourself, chmod 600)" in fault
