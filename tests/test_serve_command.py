"""smp-camvid serve: what it says, and how it ends."""

from __future__ import annotations

import importlib.util
import json
import re
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

import pytest
from command_line import PROGRAM, run
from kaggle_server import clean_environment
from page_server import PageServer, png_of

import smp_camvid
from smp_camvid.commands.serve import address_of
from smp_camvid.inference import box
from smp_camvid.serve.guard import KEY_HEADER
from smp_camvid.serve.listening import bound


def test_a_taken_port_is_said_with_a_free_one(here: Path, tiny_weights: Path) -> None:
    with bound("127.0.0.1", 0) as door:
        port = door.getsockname()[1]
        done = run("serve", "--port", port, "--model", tiny_weights)
    assert done.exit_code == 1
    assert f"on 127.0.0.1, port {port}" in done.stderr
    found = re.search(r"smp-camvid serve --port (\d+)", done.stderr)
    assert found and int(found[1]) > port


def test_without_the_extra_it_says_how_to_install_it(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "uvicorn" else find(name)
    )
    done = run("serve")
    assert (done.exit_code, done.stdout) == (2, "")
    assert "pip install 'smp-camvid[serve]'" in done.stderr


def test_without_a_model_it_says_so(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(box, "names", lambda: ())
    done = run("serve", "--port", 0)
    assert (done.exit_code, done.stdout) == (1, "")
    assert "no trained model" in done.stderr
    done = run("serve", "--port", 0, "--model", "runs/nothing")
    assert (done.exit_code, done.stdout) == (1, "")
    assert "runs/nothing" in done.stderr


@pytest.mark.parametrize(
    ("host", "name"),
    [("127.0.0.1", "127.0.0.1"), ("localhost", "localhost"), ("::1", "[::1]"),
     ("0.0.0.0", "127.0.0.1")],
)  # fmt: skip
def test_the_address_can_be_opened(host: str, name: str) -> None:
    try:
        door = bound(host, 0)
    except smp_camvid.SmpCamvidError:
        pytest.skip(f"this machine has no {host}")
    with door:
        port = door.getsockname()[1]
        assert address_of(door, host, "k") == f"http://{name}:{port}/#k"
        with socket.create_connection((name.strip("[]"), port), timeout=10):
            pass


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_in_peace_and_leaves_nothing(
    tiny_weights: Path, tmp_path: Path, number: signal.Signals
) -> None:
    words = ["serve", "--port", "0", "--model", str(tiny_weights)]
    with subprocess.Popen(
        [*PROGRAM, *words], cwd=tmp_path, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env={**clean_environment(), "TMPDIR": str(tmp_path)},
    ) as process:  # fmt: skip
        assert process.stdout
        address = process.stdout.readline().strip()
        port, key = re.fullmatch(r"http://127\.0\.0\.1:(\d+)/#(\S{22})", address).groups()  # type: ignore[union-attr]
        (folder,) = tmp_path.glob("smp-camvid-*")
        assert folder.stat().st_mode & 0o077 == 0
        page = PageServer(int(port), folder, None)  # type: ignore[arg-type]
        listed = page.ask("GET", "/api/models", headers={KEY_HEADER: key}).json
        id = listed["models"][0]["id"]
        upload = page.ask("POST", f"/api/pictures?model={id}", png_of(), {KEY_HEADER: key})
        assert json.loads(upload.body)["size"] == [60, 90]
        process.send_signal(number)
        rest, errors = process.communicate(timeout=60)
    assert (process.returncode, rest) == (0, "")
    assert errors.splitlines()[-1] == "stopped"
    assert "Traceback" not in errors
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_it_does_not_wait_for_a_picture_that_nobody_will_see(
    tiny_weights: Path, tmp_path: Path
) -> None:
    words = ["serve", "--port", "0", "--model", str(tiny_weights)]
    forever = (
        "import pathlib, time, smp_camvid.serve.application as application\n"
        "begun = pathlib.Path('begun')\n"
        "application.read_picture = lambda *_: (begun.touch(), time.sleep(600))\n"
    )
    with subprocess.Popen(
        [*PROGRAM[:2], forever + PROGRAM[2], *words], cwd=tmp_path, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env={**clean_environment(), "TMPDIR": str(tmp_path)},
    ) as process:  # fmt: skip
        assert process.stdout
        found = re.search(r":(\d+)/#(\S+)", process.stdout.readline())
        assert found
        page = PageServer(int(found[1]), tmp_path, None)  # type: ignore[arg-type]
        own = {KEY_HEADER: found[2]}
        id = page.ask("GET", "/api/models", headers=own).json["models"][0]["id"]
        path = f"/api/pictures?model={id}"
        asking = threading.Thread(
            target=lambda: statuses.append(page.ask("POST", path, png_of(), own).status)
        )
        statuses: list[int] = []
        asking.start()
        while not (tmp_path / "begun").exists():
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
        asking.join(10)
    assert (process.returncode, statuses) == (0, [500])
    assert errors.splitlines()[-1] == "stopped" and "Traceback" not in errors
    assert [path.name for path in tmp_path.iterdir()] == ["begun"]
