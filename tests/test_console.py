"""The console: what is said at which verbosity, in a log, in a terminal, and never too wide."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console
from told_events import Clock, epoch_done, events, plain_environment, started  # noqa: F401

from smp_camvid.report.class_bars import class_bars
from smp_camvid.report.console import ConsoleListener, can_redraw, make_console
from smp_camvid.report.rows import epoch_head, epoch_row
from smp_camvid.report.sparkline import sparkline
from smp_camvid.report.tables import duration, number, worst_first
from smp_camvid.training.events import StepDone

CONTROL = re.compile(r"\x1b|[\x00-\x08\x0b-\x1f]")


pytestmark = pytest.mark.usefixtures("plain_environment")


def in_a_log(verbose: int = 1, **options: bool | int | str) -> str:
    stream = io.StringIO()
    listener = ConsoleListener(Console(file=stream), verbose)
    for event in events(**options):  # type: ignore[arg-type]
        listener.on_event(event)
    return stream.getvalue()


def terminal(width: int, height: int = 24, **options: bool) -> Console:
    settings: dict[str, bool | str] = {"force_terminal": True, "color_system": "truecolor"}
    stream = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    return Console(file=stream, width=width, height=height, **(settings | options))  # type: ignore[arg-type]


def written(console: Console) -> str:
    console.file.flush()
    return console.file.buffer.getvalue().decode()  # type: ignore[attr-defined, no-any-return]


def test_a_log_has_plain_lines_one_for_each_epoch() -> None:
    text = in_a_log()
    assert not CONTROL.search(text)
    rows = [line for line in text.splitlines() if line.startswith("epoch ")]
    assert [row.split()[1] for row in rows] == ["1/3", "2/3", "3/3"]
    assert [row.endswith("best") for row in rows] == [True, True, False]
    assert "mIoU 0.400 val 0.400" in rows[1] and "GPU" not in rows[1]


def test_a_log_says_where_it_runs_and_how_it_ended() -> None:
    text = in_a_log()
    for part in (
        "van[bold]illa-1 on cpu (bf16, channels_last)",
        "camvid11@360x480: 367 frames to train on, 101 to validate",
        "note: [bold]slow[/bold]: an epoch takes 21 minutes; try [red] --size 180x240",
        "epoch 2: val mIoU 0.400",
        "epoch 3: val mIoU 0.300, accuracy 0.300, camvid11@360x480",
        "pooled over the split, void left out, mean over 10 classes",
        "weights/last.safetensors (epoch 3)",
        "next    smp-camvid evaluate 'a [b]'",
        "enc[0]oder",
    ):
        assert part in text, part


def test_forced_colour_in_a_log_moves_no_cursor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    stream = io.StringIO()
    monkeypatch.setattr("sys.stderr", stream)
    listener = ConsoleListener(make_console())
    for event in events():
        listener.on_event(event)
    assert stream.getvalue()
    assert not re.search(r"\x1b\[[0-9;?]*[A-HJKhl]", stream.getvalue())


@pytest.mark.parametrize(
    ("verbose", "said", "unsaid"),
    [
        (1, ["Contracting"], ["Adam", "64x3x3x3"]),
        (2, ["Contracting", "Adam"], ["64x3x3x3"]),
        (3, ["Contracting", "Adam", "encoder.[0].weight", "64x3x3x3"], []),
    ],
)
def test_verbosity(verbose: int, said: list[str], unsaid: list[str]) -> None:
    text = in_a_log(verbose)
    assert all(word in text for word in said)
    assert not any(word in text for word in unsaid)


def test_verbosity_0_is_silent() -> None:
    assert in_a_log(0) == ""


def test_without_validation_nothing_is_made_up() -> None:
    text = in_a_log(val=False)
    assert "mIoU 0.200 val -" in text
    assert "\nlast" not in text and "best" not in text
    assert "folder" in text


def test_an_interrupted_run_says_so() -> None:
    text = in_a_log(reason="interrupted")
    assert "stopped in epoch 3 of 3" in text


def test_a_long_epoch_gives_a_sign_of_life_every_half_minute() -> None:
    clock, stream = Clock(), io.StringIO()
    listener = ConsoleListener(Console(file=stream), 1, clock)
    listener.on_event(started(steps=100))
    for step in range(1, 101):
        clock.now += 1.0
        loss = 0.25 if step == 3 else None
        listener.on_event(StepDone(1, step, 100, loss, 2e-4, step * 4, float(step)))
    rows = [line for line in stream.getvalue().splitlines() if line.startswith("epoch 1/3")]
    assert [row.split()[3] for row in rows] == ["30/100", "60/100", "90/100"]
    assert "loss 0.250  4 img/s  1:10 to validation" in rows[0]


def test_close_twice_and_a_second_run_are_fine() -> None:
    console = terminal(80)
    listener = ConsoleListener(console)
    listener.on_event(started())
    listener.on_event(started())
    listener.close()
    listener.close()
    assert written(console).count("\x1b[?25l") == written(console).count("\x1b[?25h") == 2


def test_no_color_leaves_no_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    def colours() -> list[str]:
        console = terminal(100, color_system="truecolor")  # type: ignore[arg-type]
        listener = ConsoleListener(console)
        for event in events():
            listener.on_event(event)
        return re.findall(
            r"\x1b\[(?:[0-9]+;)*(?:3[0-8]|4[0-8]|9[0-7])(?:;[0-9]+)*m", written(console)
        )

    assert colours()
    monkeypatch.setenv("NO_COLOR", "1")
    assert not colours()


@pytest.mark.parametrize(("name", "value"), [("CI", "true"), ("TERM", "dumb")])
def test_no_live_region_in_ci_or_on_a_dumb_terminal(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert can_redraw(terminal(80))
    monkeypatch.setenv(name, value)
    assert not can_redraw(terminal(80))


def test_make_console_does_not_read_markup(capsys: pytest.CaptureFixture[str]) -> None:
    make_console().print("[red]a[/red] [0] :smile:")
    make_console(stderr=False).print("out")
    captured = capsys.readouterr()
    assert captured.err == "[red]a[/red] [0] :smile:\n"
    assert captured.out == "out\n"


def test_an_ascii_terminal_gets_ascii() -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    listener = ConsoleListener(Console(file=stream, force_terminal=True, width=80, height=24))
    for event in events():
        listener.on_event(event)  # a character that cannot be written would raise
    stream.flush()
    assert b"*    2" in stream.buffer.getvalue()  # type: ignore[attr-defined]


@pytest.mark.parametrize("gpu", [False, True])
@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_rows_stand_under_their_heads(width: int, gpu: bool) -> None:
    head = epoch_head(width, gpu)
    row = epoch_row(epoch_done(2, gpu=gpu), width, gpu)
    assert len(row) == len(head[0]) == len(head[1]) <= width
    assert row.plain.startswith("★    2")
    ends = [match.end() for match in re.finditer(r"\S+", head[1])]
    assert ends == [match.end() for match in re.finditer(r"\S+", " " + row.plain[1:])]
    assert ("GPU" in head[0]) == (gpu and width >= 80)


def test_class_bars_show_the_worst_when_room_is_short() -> None:
    console = Console(file=io.StringIO(), width=80)
    per_class = {f"c{i}": i / 10 for i in range(10)}
    before = {**per_class, "c1": 0.2, "c2": 0.15}
    console.print(class_bars(per_class, before, width=80, rows=2))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert re.findall(r"c\d", text) == ["c0", "c2", "c1", "c3"]  # column by column
    assert "-.100" in text and "+.050" in text


def test_numbers_and_durations() -> None:
    assert [number(v) for v in (None, float("nan"), 0.12345, 12.0, 12345.0)] == [
        "-", "-", "0.123", "12.000", "1e+04",
    ]  # fmt: skip
    assert [duration(s) for s in (None, float("inf"), 7.4, 3599, 3599.6, 11220, 190800)] == [
        "-", "-", "0:07", "59:59", "1h00m", "3h07m", "2d05h",
    ]  # fmt: skip
    assert worst_first({"a": None, "b": 0.9, "c": 0.0}) == [("c", 0.0), ("b", 0.9), ("a", None)]
    assert sparkline([0, 1, 2, 3, 4, 5, 6], 7) == ["▁▂▃▄▅▆▇"]
    assert sparkline([9.0, 0.0, 9.0, 7.0], 2) == ["▁▇"]  # the last of each share
    assert sparkline([1.0, float("nan"), 1.0], 3) == ["▄ ▄"]
    assert sparkline([0.0, 0.5, 1.0], 3, rows=2) == ["  ▇", "▁██"]
    assert sparkline([0.5, 1.0], 2, span=(0.0, 2.0)) == ["▃▄"]  # in the scale of another curve
