"""The live view in a window: at every size, while it is resized, and what stays at the end."""

from __future__ import annotations

import dataclasses
import io
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from command_line import PROGRAM
from pseudo_terminal import Program
from rich.console import Console, ConsoleOptions
from rich.live import Live
from runs_of_tests import small
from terminal_window import Window
from told_events import (
    RUN,
    SLOW,
    Clock,
    WindowConsole,
    epoch_done,
    events,
    plain_environment,  # noqa: F401
    started,
)

from smp_camvid.data.classes import CAMVID11, CAMVID32, ClassTable
from smp_camvid.report import console as console_module
from smp_camvid.report.console import ConsoleListener
from smp_camvid.report.live import LiveView
from smp_camvid.report.machine_use import MEASURE_EVERY_SECONDS, MachineMeter, MachineUse
from smp_camvid.report.region import Region
from smp_camvid.report.view_state import ViewState
from smp_camvid.training.events import Event, History, Notice, StepDone, ValidationStep

pytestmark = pytest.mark.usefixtures("plain_environment")

Resize = Callable[[int, int], None]
SIZES = [(80, 24), (120, 30), (200, 50)]
HEADING = re.compile(r"^van\[bold\]illa-1  cpu")
BAR = re.compile(r"(epoch \d+/\d+|^run) +[━╸╺]+")
CURVE = re.compile("^(loss|mIoU|lr)  ")
ROW = re.compile(r"^[★ ] +\d+  \d\.\d{3} ")


def play(
    told: Iterable[Event],
    console: Console,
    after: Callable[[Event], None] = lambda event: None,
    **options: Any,
) -> ConsoleListener:
    """A listener that has heard and drawn each event, `after` being called behind each."""
    clock = Clock()
    listener = ConsoleListener(console, clock=clock, **options)
    for event in told:
        clock.now += 1.0
        listener.on_event(event)
        after(event)
    return listener


def of_view(lines: Iterable[str]) -> list[str]:
    """The lines that only the live view has."""
    return [row for row in lines if HEADING.search(row) or BAR.search(row) or CURVE.search(row)]


def check_window(window: Window) -> None:
    """One live view, whole and below everything else, and nothing of another anywhere."""
    assert not window.broken
    seen = window.seen
    everything = [*window.scrolled, *seen]
    assert sum(bool(HEADING.search(row)) for row in everything) == 1
    assert sum(bool(BAR.search(row)) for row in everything) == 2
    assert sum(bool(CURVE.search(row)) for row in everything) <= 3
    top = next(i for i, row in enumerate(seen) if HEADING.search(row))
    assert (window.cursor.y, window.cursor.x) == (top - 1, 0) and not seen[top - 1]
    assert max(map(len, seen[top:])) < window.columns


@pytest.mark.parametrize("table", [CAMVID11, CAMVID32])
@pytest.mark.parametrize("size", [*SIZES, (50, 20), (100, 15), (40, 10)])
def test_every_picture_is_whole_and_alone(size: tuple[int, int], table: ClassTable) -> None:
    window = Window(*size)
    told = [event for event in events(6, table) if not isinstance(event, Notice)][:-1]
    console = WindowConsole(window)

    def check(event: Event) -> None:
        # In a narrower one the lines before the view are broken.
        if size[0] >= 80 and not isinstance(event, StepDone):
            check_window(window)

    listener = play(told, console, check)
    top = window.cursor.y
    assert len(of_view(window.seen[top:])) >= 3
    assert ("IoU of the" in "\n".join(window.seen[top:])) == (size[1] > 10)
    if top > 0:  # the row of the newest epoch stands above it
        assert re.search(r"^★? *6 ", window.seen[top - 1])
    listener.close()


@pytest.mark.parametrize("reflow", [True, False])
@pytest.mark.parametrize("size", SIZES)
def test_nothing_of_the_view_is_left_however_it_is_resized(
    size: tuple[int, int], reflow: bool
) -> None:
    window = Window(*size, reflow=reflow)
    console = WindowConsole(window)
    others = [(size[0] - 20, size[1]), (60, 16), (size[0] + 40, 40), (76, 12), size]

    def resize(event: Event) -> None:
        if isinstance(event, ValidationStep) and others:
            console.resize(*others.pop(0))
        elif isinstance(event, StepDone) and event.step == 3:
            check_window(window)

    play(events(6), console, resize)
    assert not others
    everything = window.everything
    assert not of_view(everything)
    assert len([row for row in everything if ROW.search(row)]) == 6
    assert [row for row in everything if "IoU of the classes" in row] == [
        "IoU of the classes, val, epoch 6, worst first"
    ]
    assert everything[-1].startswith("next ") and not window.cursor.hidden


@pytest.mark.parametrize("size", SIZES)
def test_a_picture_made_for_the_window_before_does_no_harm(size: tuple[int, int]) -> None:
    """Over a network the window is another when the picture arrives."""
    window = Window(*size)
    console = WindowConsole(window)

    def resize(event: Event) -> None:
        if isinstance(event, ValidationStep):
            window.resize(columns=size[0] - 9 * event.epoch)  # the console hears of it later
        elif isinstance(event, StepDone) and event.step == 2:
            console.resize(window.columns, window.lines)

    play(events(4), console, resize)
    assert not of_view(window.everything)
    assert len([row for row in window.everything if ROW.search(row)]) == 4


class Shrunk:
    """Three lines, and while they are made the window gets narrower."""

    def __rich_console__(self, console: WindowConsole, options: ConsoleOptions) -> Iterator[str]:
        yield from ["x" * options.max_width] * 3
        console.resize(50, 24)


def test_a_picture_is_not_cropped_to_a_window_that_changed_meanwhile() -> None:
    window = Window(80, 24)
    console = WindowConsole(window)
    region = Region(console, Shrunk())
    assert window.seen == ["", *["x" * 50] * 3] and window.cursor.y == 0
    console.print("said", "above")
    assert window.seen == ["said above", "", *["x" * 49] * 3] and window.cursor.y == 1
    region.stop()
    assert window.everything == ["said above"]


def test_the_same_resize_smears_a_view_that_counts_its_lines(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The negative control of the test above."""

    def open_live(console: Console, view: Any) -> Live:
        live = Live(view, console=console, auto_refresh=False, transient=True)
        live.start(refresh=True)
        return live

    monkeypatch.setattr(console_module, "open_region", open_live)
    window = Window(120, 30)
    console = WindowConsole(window)
    sizes = [(90, 30)]

    def resize(event: Event) -> None:
        if isinstance(event, ValidationStep) and sizes:
            console.resize(*sizes.pop())

    play(events(4), console, resize)
    assert of_view(window.everything)


def test_the_end_leaves_the_lines_of_a_run_that_was_never_live(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def lines(redrawn: bool) -> list[str]:
        window = Window(160, 30)
        with monkeypatch.context() as patch:
            if not redrawn:
                patch.setattr(console_module, "can_redraw", lambda console: False)
            play(events(5), WindowConsole(window))
        return window.everything

    live, plain = lines(True), lines(False)
    rows = [row for row in live if ROW.search(row)]
    heads = [row for row in live if "train    val" in row or row.startswith(" epoch   loss")]
    assert len(rows) == 5 and len(heads) == 2
    log = [row for row in plain if row.startswith("epoch ")]
    kept = [row for row in live if row not in rows and row not in heads]
    # The note is said where it was heard, and live at the end.
    assert [row for row in kept if row != f"note: {SLOW}"] == [
        row for row in plain if row not in log and row != f"note: {SLOW}"
    ]


@pytest.mark.parametrize("height", [5, 8, 12, 24, 60])
@pytest.mark.parametrize("width", [20, 80, 160])
def test_the_view_fits_any_window(width: int, height: int) -> None:
    window = Window(width, height)
    listener = play(list(events(6))[:-1], WindowConsole(window))
    used = len(window.seen) - window.cursor.y
    assert used < max(height, 5)
    assert len(window.seen) - used >= min(10, height // 3)  # rows of the table keep their place
    listener.close()


def test_the_worst_classes_stay_when_room_is_short() -> None:
    window = Window(80, 17)
    listener = play(list(events(2))[:-1], WindowConsole(window))
    text = "\n".join(window.seen)
    listener.close()
    shown = [name for name in CAMVID11.names if name in text]
    assert "IoU of the worst classes" in text
    assert shown == list(CAMVID11.names[: len(shown)]) and 3 <= len(shown) < 11


def test_what_is_printed_meanwhile_stands_above_the_view() -> None:
    window = Window(80, 24)
    console = WindowConsole(window)

    def speak(event: Event) -> None:
        if isinstance(event, ValidationStep):
            console.print(f"word {event.epoch}")

    listener = play(list(events(3))[:-1], console, speak)
    words = [row for row in window.everything if row.startswith("word")]
    assert words == ["word 1", "word 2", "word 3"]
    check_window(window)
    listener.close()


def test_a_refresh_clears_nothing_and_is_short() -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    console = Console(file=stream, force_terminal=True, width=120, height=30)
    listener = play(list(events(8))[:-3], console)
    sizes = [len(written(stream))]
    listener.draw(now=True)
    picture = written(stream)[sizes[0] :]
    listener.close()
    # One erased part of a line at a time; never a whole line or window before it is written.
    assert not re.search(r"\x1b\[(2J|1J|2K|1K|3J|H)", picture)
    assert picture.count("\x1b[J") == 1 and picture.endswith("\x1b[?2026l")
    assert picture.index("\x1b[J") > len(picture) - 30
    assert len(picture) < 6000


def written(stream: io.TextIOWrapper) -> str:
    stream.flush()
    return stream.buffer.getvalue().decode()  # type: ignore[attr-defined, no-any-return]


def test_pictures_are_seldom() -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    clock = Clock()
    listener = ConsoleListener(Console(file=stream, force_terminal=True, width=80), clock=clock)
    listener.on_event(started(steps=1000))
    before = written(stream).count("?2026h")
    for step in range(1, 1001):
        clock.now += 0.01
        listener.on_event(StepDone(1, step, 1000, 0.5, 1e-3, step, step * 0.01))
    listener.close()
    assert 40 <= written(stream).count("?2026h") - before <= 51  # ten seconds, five a second


def test_a_resumed_run_draws_the_curves_of_the_whole() -> None:
    before = [epoch_done(epoch, 12) for epoch in range(1, 9)]
    window = Window(80, 24)
    told = [dataclasses.replace(started(12), first_epoch=9), epoch_done(9, 12)]
    listener = play(told, WindowConsole(window), history=History(before))
    assert listener.state and [e.epoch for e in listener.state.epochs] == list(range(1, 10))
    curve = next(row for row in window.seen if row.startswith("mIoU"))
    assert len(re.findall("[▁▂▃▄▅▆▇]", curve)) == 2 * 9
    listener.close()


@pytest.mark.parametrize("change", [0.02, -0.02, 0.0])
def test_a_change_has_a_sign_beside_its_colour(change: float) -> None:
    first, second = epoch_done(1), epoch_done(2)
    assert first.val and second.val
    moved = {**first.val.per_class, "Road": first.val.per_class["Road"] + change}  # type: ignore[operator]
    second = dataclasses.replace(second, val=dataclasses.replace(second.val, per_class=moved))
    window = Window(80, 30)
    listener = play([started(), first, second], WindowConsole(window, no_color=True))
    row = next(row for row in window.seen if "Road" in row)
    listener.close()
    assert {0.02: "+.020", -0.02: "-.020", 0.0: "="}[change] in row


# -- the machine -------------------------------------------------------------------------------


def test_a_computer_without_a_gpu_is_measured_now_and_then() -> None:
    clock = Clock()
    meter = MachineMeter("cpu (bf16, channels_last)", clock)
    first = meter()
    assert meter() is first and not first.gpu
    clock.now += MEASURE_EVERY_SECONDS
    assert meter() is not first
    if sys.platform == "linux":
        assert first.used_bytes and first.total_bytes
        assert 0 < first.used_bytes <= first.total_bytes and first.load is not None


class FakeCuda:
    """As torch.cuda answers; it was never run on a GPU here."""

    def __init__(self, has_load: bool) -> None:
        self.has_load, self.asked = has_load, 0

    def mem_get_info(self, device: str) -> tuple[int, int]:
        assert device == "cuda:1"
        return 60 * 2**30, 80 * 2**30

    def utilization(self, device: str) -> int:
        self.asked += 1
        if not self.has_load:
            raise ModuleNotFoundError("nvidia-ml-py does not seem to be installed")
        return 97


@pytest.mark.parametrize("has_load", [True, False])
def test_a_gpu_is_shown_with_its_load_where_the_driver_tells(
    has_load: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    cuda, clock = FakeCuda(has_load), Clock()
    monkeypatch.setitem(sys.modules, "torch", type("torch", (), {"cuda": cuda}))
    meter = MachineMeter("cuda:1 (bf16)", clock)
    for _ in range(3):
        use = meter()
        clock.now += MEASURE_EVERY_SECONDS
    assert use == MachineUse(True, 20 * 2**30, 80 * 2**30, 0.97 if has_load else None)
    assert cuda.asked == (3 if has_load else 1)  # what cannot be told is not asked for again
    state = ViewState.of(started(), clock)
    state.machine = use
    stream = io.StringIO()
    Console(file=stream, width=100, height=30).print(LiveView(state))
    load = ", 97% busy" if has_load else ""
    assert f"GPU 20.0 of 80.0 GiB{load}\n" in stream.getvalue().replace("  ", "").replace(
        " \n", "\n"
    )


# -- a real terminal ---------------------------------------------------------------------------

SCRIPT = """
import os, sys, warnings
from smp_camvid.report.console import ConsoleListener
from told_events import events
from smp_camvid.training.events import EpochDone, RunEnded
listener = ConsoleListener()
for event in events(4):
    listener.on_event(event)
    if isinstance(event, EpochDone):
        print("said on stdout", event.epoch)
        print("said on stderr", event.epoch, file=sys.stderr)
        warnings.warn("warned")
        sys.stdin.readline()
        listener.draw(now=True)
        os.write(2, b"said past Python\\n")
        listener.draw(now=True)
print("the end")
"""


def test_in_a_real_terminal_with_words_in_between() -> None:
    here = Path(__file__).parent
    window = Window(100, 30)
    program = Program([sys.executable, "-c", SCRIPT], window, here)
    try:
        for epoch, size in enumerate([(80, 30), (110, 20), (100, 30), (100, 30)], 1):
            heard = re.compile(rf"said on stderr {epoch}$")
            program.until(lambda heard=heard: any(heard.search(r) for r in window.everything))
            program.until(lambda: any("IoU of the" in row for row in window.seen))
            program.resize(*size)
            program.press(b"\n")  # the terminal echoes it where the cursor is
        assert program.finish() == 0
    finally:
        program.close()
    everything = window.everything
    assert not of_view(everything)
    for stream in ("stdout", "stderr"):
        said = [row for row in everything if row.startswith(f"said on {stream}")]
        assert [row.split()[-1] for row in said] == ["1", "2", "3", "4"]
    assert everything.count("said past Python") == 4
    assert everything[-1] == "the end" and not window.cursor.hidden
    assert str(RUN) in "\n".join(everything)


@pytest.mark.slow
@pytest.mark.parametrize("devices", [[], ["--devices", "2"]])
def test_a_training_shows_itself_once(
    kaggle_data: Path, tmp_path: Path, devices: list[str]
) -> None:
    (tmp_path / "recipe.toml").write_text(
        small(kaggle_data, tmp_path / "runs", train__epochs=4).to_toml()
    )
    words = ["train", "--recipe", "recipe.toml", "--verbose", "1", *devices]
    window = Window(120, 40)
    program = Program([*PROGRAM, *words], window, tmp_path)
    try:
        program.until(lambda: any(re.search(r"epoch [23]/4 ", row) for row in window.seen))
        assert sum("vanilla-1  cpu" in row for row in window.seen) == 1  # of one process
        program.resize(80, 40)
        assert program.finish() == 0
    finally:
        program.close()
    everything = window.everything
    assert sum(row.startswith("run vanilla-1 on cpu") for row in everything) == 1
    assert sum(bool(ROW.search(row)) for row in everything) == 4
    assert not [row for row in everything if BAR.search(row) or CURVE.search(row)]
    # a long folder goes on in the next row
    assert "".join(everything[-3:]).endswith("vanilla-1") and not window.cursor.hidden
