"""Who downloads: every way to sign in to Kaggle, and what stands in its way."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command_line import child, run
from downloads import SECRET, TARGET, refused
from kaggle_server import (
    Reply,
    Server,
    assert_whole,
    environment,
    expired,
    hang_up,
    page,
    status,
)

pytestmark = pytest.mark.usefixtures("signed_in")


def test_nobody_signed_in(monkeypatch: pytest.MonkeyPatch, server: Server) -> None:
    monkeypatch.delenv("KAGGLE_KEY")
    done = run("download")
    refused(
        done, "KAGGLE_API_TOKEN", "kaggle.json", "expire the old token", "chmod 600", "--archive",
        '"Generate New Token"', '"Create Legacy API Key"',
    )  # fmt: skip
    assert done.stderr.startswith("smp-camvid: Kaggle needs to know who downloads")
    assert server.log == [] and not Path("data").exists()


@pytest.mark.parametrize("own", [False, True])
def test_the_way_with_kaggle_json_works_as_it_is_written(
    monkeypatch: pytest.MonkeyPatch, server: Server, tmp_path: Path, own: bool
) -> None:
    monkeypatch.delenv("KAGGLE_KEY")
    if own:
        monkeypatch.setenv("KAGGLE_CONFIG_DIR", str(tmp_path / "my keys"))
    (command,) = (s for s in run("download").stderr.splitlines() if "chmod 600" in s)
    home = tmp_path / "another"  # where nothing is yet
    (home / "Downloads").mkdir(parents=True)
    (home / "Downloads" / "kaggle.json").write_text(json.dumps({"username": "u", "key": SECRET}))
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("KAGGLE_USERNAME")
    subprocess.run(["sh", "-euc", command], check=True)
    for name in [*sys.modules]:
        if name.partition(".")[0] == "kaggle":
            monkeypatch.delitem(sys.modules, name)
    assert run("download").exit_code == 0
    assert any("Authorization" in headers for _, _, headers in server.log)


def write_json(text: str) -> Callable[[Path], dict[str, str]]:
    def write(home: Path) -> dict[str, str]:
        (home / ".kaggle" / "kaggle.json").write_text(text)
        return {}

    return write


@pytest.mark.parametrize(
    ("way", "said"),
    [
        (write_json(""), "/.kaggle/kaggle.json is empty"),
        (write_json("{}"), "/.kaggle/kaggle.json lacks username and key"),
        (write_json('["key"]'), "/.kaggle/kaggle.json lacks username and key"),
        (write_json('{"username": "somebody", "key'), "/.kaggle/kaggle.json is not valid JSON"),
        (lambda home: {"KAGGLE_USERNAME": "x"}, "KAGGLE_USERNAME is set and KAGGLE_KEY is not"),
        (lambda home: {"KAGGLE_API_TOKEN": str(home)}, "KAGGLE_API_TOKEN names a folder"),
        (lambda home: {"HOME": "/proc/nohome", "XDG_CONFIG_HOME": ""}, "Set HOME, or KAGGLE_CON"),
    ],
)
def test_credentials_that_cannot_be_used_are_told_apart(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: Any, said: str
) -> None:
    (tmp_path / "home" / ".kaggle").mkdir(parents=True)
    for name in ("KAGGLE_USERNAME", "KAGGLE_KEY"):
        monkeypatch.delenv(name)
    for name, value in way(tmp_path / "home").items():
        monkeypatch.setenv(name, value)
    done = run("download")
    refused(done, said)
    for untrue in ("expired?", "Reinstall", "gave up", "no credentials found"):
        assert untrue not in done.stderr
    assert not server.got_ranges


def token_in_variable(home: Path) -> dict[str, str]:
    return {"KAGGLE_API_TOKEN": SECRET}


def token_in_file(home: Path) -> dict[str, str]:
    (home / "token").write_text(SECRET)
    return {"KAGGLE_API_TOKEN": str(home / "token")}


def token_at_home(home: Path) -> dict[str, str]:
    (home / ".kaggle" / "access_token").write_text(SECRET)
    return {}


def name_and_key(home: Path) -> dict[str, str]:
    return {"KAGGLE_USERNAME": "somebody", "KAGGLE_KEY": SECRET}


def kaggle_json(home: Path) -> dict[str, str]:
    document = json.dumps({"username": "somebody", "key": SECRET})
    (home / ".kaggle" / "kaggle.json").write_text(document)  # readable by others: it warns
    return {}


def oauth(home: Path) -> dict[str, str]:
    document = json.dumps({"refresh_token": SECRET, "username": "somebody", "scopes": []})
    (home / ".kaggle" / "credentials.json").write_text(document)
    return {}


@pytest.mark.slow
@pytest.mark.parametrize(
    "way", [token_in_variable, token_in_file, token_at_home, name_and_key, kaggle_json, oauth]
)
def test_every_way_to_sign_in(server: Server, tmp_path: Path, original: Path, way: object) -> None:
    (tmp_path / "home" / ".kaggle").mkdir(parents=True)
    assert callable(way)
    variables = environment(server.port, tmp_path / "home", **way(tmp_path / "home"))
    # A verbose client would print the headers of every request.
    done = child("--debug", "download", VERBOSE="1", **variables)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{TARGET}\n"
    assert len(done.stderr.splitlines()) == 2
    assert SECRET not in done.stdout + done.stderr + (TARGET / "manifest.json").read_text()
    assert any("Authorization" in headers for _, _, headers in server.log)
    assert_whole(TARGET, original)


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (expired, "cannot use the credentials in KAGGLE_API_TOKEN"),
        (status(403), "cannot use the credentials in KAGGLE_API_TOKEN"),
        (status(401), "does not accept the credentials from KAGGLE_API_TOKEN (401)"),
        (status(503), "trouble of its own at the moment (503)"),
        (page, "a web page came back"),
        (hang_up, "connection to Kaggle was cut"),
    ],
)
def test_a_token_that_does_not_open(
    server: Server, monkeypatch: pytest.MonkeyPatch, reply: Reply, said: str
) -> None:
    monkeypatch.delenv("KAGGLE_KEY")
    monkeypatch.setenv("KAGGLE_API_TOKEN", SECRET)
    server.introspect = reply
    refused(run("download"), said)
    assert not server.got_ranges and not Path("data").exists()


@pytest.mark.parametrize("token", [f"{SECRET}\nmore", f" {SECRET}\r\n", f"{SECRET}\u20ac"])
def test_a_token_that_breaks_the_client_is_never_shown(
    server: Server, monkeypatch: pytest.MonkeyPatch, token: str
) -> None:
    monkeypatch.delenv("KAGGLE_KEY")
    monkeypatch.setenv("KAGGLE_API_TOKEN", token)
    refused(run("download"), "kaggle package gave up", "line breaks")
    done = child("--debug", "download")
    assert done.returncode == 1 and SECRET not in done.stdout + done.stderr


def test_the_client_leaves_stdin_and_the_console_alone(server: Server) -> None:
    program = (
        "import sys\nfrom smp_camvid.data.sources import obtain\n"
        "try:\n    obtain()\nexcept Exception as error:\n    print(type(error).__name__)\n"
        "print(sys.stdin.read())"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], input="still here", capture_output=True, text=True,
        check=True, env={k: v for k, v in os.environ.items() if k != "KAGGLE_KEY"},
    )  # fmt: skip
    assert done.stdout == "DownloadError\nstill here\n" and done.stderr == ""
