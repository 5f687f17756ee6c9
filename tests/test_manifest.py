"""Jobs that are killed, that run beside each other, and that share one list of inputs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import color_predict
import numpy as np
import pytest
from color_predict import nearest
from fork_server import fork_server
from PIL import Image

from smp_camvid.commands.sharing import Group, begin, current_group, finish
from smp_camvid.inference.manifest import HOME, NAME, open_manifest

PROGRAM = str(Path(__file__).with_name("color_predict.py"))
KILLED = -9
FRAMES = 9
pytestmark = pytest.mark.usefixtures("here")


def frame(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (24, 32, 3), np.uint8)


def write_frames(count: int = FRAMES) -> None:
    Path("in/deep").mkdir(parents=True)
    for number in range(count):
        Image.fromarray(frame(number)).save(f"in/{'deep/' * (number % 3 == 0)}{number:02}.png")


class Child:
    """A command in a process of its own."""

    def __init__(self, *words: str, **variables: str) -> None:
        handle, self._said = tempfile.mkstemp(dir=".")
        os.close(handle)
        given = (str(Path.cwd()), ["predict", *words], variables, self._said)
        self._process = fork_server().Process(target=color_predict.forked, args=given)
        self._process.start()

    def end(self) -> tuple[int, str]:
        """Exit code and what it said on both streams."""
        self._process.join(timeout=120)
        said = Path(self._said).read_text()
        assert "Traceback" not in said, said
        return self._process.exitcode, said


def start(*words: str, out: str = "out", **variables: str) -> Child:
    return Child("in", "--recursive", "--out", out, *words, **variables)


def job(*words: str, out: str = "out", **variables: str) -> int:
    return start(*words, out=out, **variables).end()[0]


def content(out: str) -> dict[str, bytes]:
    return {
        path.relative_to(out).as_posix(): path.read_bytes()
        for path in sorted(Path(out).rglob("*"))
        if path.is_file() and path.name != "lock"
    }


@pytest.fixture
def uninterrupted() -> dict[str, bytes]:
    """All files of a job that nothing happened to."""
    write_frames()
    assert job(out="whole") == 0
    made = content("whole")
    assert len(made) == 3 * FRAMES + 1
    return made


def outputs() -> list[str]:
    return [json.loads(line)["output"] for line in Path("out", NAME).read_text().splitlines()]


# --- killed -----------------------------------------------------------------------------------


def whole(path: Path) -> bool:
    if path.suffix != ".png":
        return True
    try:
        with Image.open(path) as picture:
            picture.load()
    except (OSError, SyntaxError):
        return False
    return True


@pytest.fixture
def no_torn_picture(here: Path) -> Iterator[None]:
    """Opens whatever is visible under a final name, all the time."""
    torn: list[str] = []
    stop = threading.Event()

    def watch() -> None:
        while not stop.is_set():
            for folder, _, names in os.walk(here / "out"):
                torn.extend(n for n in names if HOME not in folder and not whole(Path(folder, n)))
            stop.wait(0.002)

    watcher = threading.Thread(target=watch)
    watcher.start()
    yield
    stop.set()
    watcher.join()
    assert not torn


@pytest.mark.parametrize(
    "point",
    [
        "picture half written,1", "picture half written,14", "picture not renamed,11",
        "record half written,1", "record half written,6", "records not gathered,1",
        "parts not removed,1",
    ],
)  # fmt: skip
@pytest.mark.usefixtures("no_torn_picture")
def test_killed_anywhere_and_run_again_equals_uninterrupted(
    uninterrupted: dict[str, bytes], point: str
) -> None:
    assert job(SMP_CAMVID_TEST_KILL=point) == KILLED
    assert content("out") != uninterrupted
    if "half written" in point:  # the trap left what it should
        assert list(Path("out", HOME).glob("process-*/.*png" if "pict" in point else "*/part*"))
    assert job() == 0
    assert content("out") == uninterrupted
    assert [path.name for path in Path("out", HOME).iterdir()] == ["lock"]


def test_killed_again_and_again(uninterrupted: dict[str, bytes]) -> None:
    killed = 0
    trap = {"SMP_CAMVID_TEST_KILL": "picture not renamed,13", "SMP_CAMVID_TEST_PAUSE": "0.05"}
    while job("--batch-size", "2", **trap) == KILLED:
        killed += 1
        assert killed < 20
    assert killed > 1
    assert content("out") == uninterrupted


def test_a_damaged_manifest_costs_a_word_and_nothing_else(uninterrupted: dict[str, bytes]) -> None:
    shutil.copytree("whole", "out")
    lines = uninterrupted[NAME].decode().splitlines()
    spoiled = [lines[0], "{}", '{"output": "x"}', lines[1][:40], "\0" * 50, *lines[3:], "[1]"]
    spoiled[5] = spoiled[5].replace('"files"', '"filed"')
    Path("out", NAME).write_text("\n".join(spoiled) + "\n")
    assert job() == 1  # for all that is known, somebody else has made these files
    assert {k: v for k, v in content("out").items() if k != NAME} == {
        k: v for k, v in uninterrupted.items() if k != NAME
    }
    assert job("--force") == 0
    made = content("out")
    assert {k: v for k, v in made.items() if k != NAME} == {
        k: v for k, v in uninterrupted.items() if k != NAME
    }
    assert set(uninterrupted[NAME].splitlines()) <= set(made[NAME].splitlines())


# --- beside each other ------------------------------------------------------------------------


def test_the_living_are_left_alone() -> None:
    with open_manifest(Path("out")) as living:
        (living.unfinished / "half.png").write_bytes(b"half")
        living.add("a", {"input": "a"})
        dead = living.unfinished.parent / "process-dead"
        dead.mkdir()
        (dead / "part.jsonl").write_text('{"output": "b", "input": "b"}\n{"output": "c", "inp')
        (dead / "half.png").write_bytes(b"half")
        with open_manifest(Path("out")) as beside:
            assert not dead.exists() and (living.unfinished / "half.png").exists()
            assert beside.find("b") == {"output": "b", "input": "b"}
            assert beside.find("a") is None and beside.find("c") is None
            beside.add("a2", {"input": "a2"})
            beside.add("a2", {"input": "a2", "again": 1})
            assert beside.find("a2") == {"output": "a2", "input": "a2", "again": 1}
        assert outputs() == ["b"]  # the last one gathers
    assert outputs() == ["a", "a2", "b"]
    with open_manifest(Path("out")) as later:
        assert later.find("a2") == {"output": "a2", "input": "a2", "again": 1}


def test_several_commands_at_once_in_one_folder(uninterrupted: dict[str, bytes]) -> None:
    """As `ls | xargs -P 3 smp-camvid predict` has it."""
    names = sorted(Path("in").glob("*.png"))
    jobs = [Child(*map(str, names[n::3]), "--out", "out") for n in range(3)]
    assert [one.end()[0] for one in jobs] == [0, 0, 0]
    assert outputs() == [path.stem for path in names]
    pictures = {name: data for name, data in content("out").items() if name != NAME}
    assert pictures.items() <= uninterrupted.items()


# --- one list, several processes --------------------------------------------------------------


def together(world: int, *words: str) -> list[int]:
    started = [start(*words, RANK=str(n), WORLD_SIZE=str(world)) for n in range(world)]
    ended = [one.end() for one in started]
    told = [line for _, said in ended for line in said.splitlines() if line.startswith("in/")]
    assert len(told) == len(set(told))
    return [code for code, _ in ended]


def test_two_processes_do_each_input_once_and_leave_what_one_leaves(
    uninterrupted: dict[str, bytes],
) -> None:
    assert together(2) == [0, 0]
    assert content("out") == uninterrupted
    assert together(3) == [0, 0, 0]  # nothing left to do, whoever did it
    assert content("out") == uninterrupted


def test_a_killed_process_of_two_is_made_up_for(uninterrupted: dict[str, bytes]) -> None:
    other = {"RANK": "1", "WORLD_SIZE": "2"}
    assert job(SMP_CAMVID_TEST_KILL="picture half written,5", **other) == KILLED
    assert together(2) == [0, 0]
    assert content("out") == uninterrupted


def test_shares_are_disjoint_and_together_all() -> None:
    items = list(range(11))
    for world in (1, 2, 3, 12):
        shares = [Group(rank, world).share(items) for rank in range(world)]
        assert sorted(chain(*shares)) == items


def test_the_exit_code_of_each_process_tells_of_its_own(uninterrupted: dict[str, bytes]) -> None:
    Path("in/00bad.png").write_text("nothing")  # the first: process 0's
    assert together(2) == [1, 0]
    assert set(content("out")) == set(uninterrupted)


def test_under_torchrun_the_last_one_answers_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"WORLD_SIZE": "3", "RANK": "0", "TORCHELASTIC_RUN_ID": "x"}.items():
        monkeypatch.setenv(name, value)
    group, out = current_group(), Path("out")
    assert (group.rank, group.world) == (0, 3) and group.launch
    Path(out, HOME).mkdir(parents=True)
    ranks = [Group(rank, 3, group.launch) for rank in range(3)]
    for _ in range(2):
        assert [finish(out, ranks[0], 2), finish(out, ranks[2], 1)] == [0, 0]
        assert finish(out, ranks[1], 0) == 3
    finish(out, ranks[1], 5)  # of a launch of the same name that was stopped
    begin(out, ranks[1])
    assert [finish(out, each, 1) for each in ranks] == [0, 0, 3]
    assert finish(out, Group(), 7) == 7
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert current_group().launch != group.launch


@pytest.mark.slow
def test_torchrun_lets_all_processes_finish_before_it_hears_of_failures() -> None:
    write_frames()
    Path("in/00bad.png").write_text("nothing")
    child = subprocess.run(
        [
            sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2",
            PROGRAM, "predict", "in", "--recursive", "--out", "out", "--save", "mask",
        ],
        capture_output=True, text=True, check=False, timeout=300,
        env={**os.environ, "SMP_CAMVID_TEST_PAUSE": "0.3"},
    )  # fmt: skip
    assert child.returncode == 1, child.stderr
    assert child.stderr.count("00bad.png is not a picture") == 1
    assert child.stderr.count("1 of 10 inputs failed") == 1
    assert len(outputs()) == FRAMES == len([n for n in content("out") if n.endswith("_mask.png")])
    for number in (0, 5):
        path = Path("out", "deep" if number == 0 else "", f"{number:02}_mask.png")
        with Image.open(path) as mask:
            assert np.array_equal(np.array(mask), nearest(frame(number)))


def test_shared_by_processes_are_files_only() -> None:
    code, said = Child("http://127.0.0.1:9/a.png", RANK="0", WORLD_SIZE="2").end()
    assert code == 2 and "Several processes share files" in said
