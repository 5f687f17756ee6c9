"""The console: what is said at which verbosity, in a log, in a terminal, and never too wide."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.cells import cell_len
from rich.console import Console

from smp_camvid.data.classes import CAMVID11, CAMVID32, ClassTable
from smp_camvid.report.console import ConsoleListener, can_redraw, make_console
from smp_camvid.report.live import sparkline
from smp_camvid.report.rows import epoch_head, epoch_row
from smp_camvid.report.tables import class_bars, duration, evaluation_table, number, worst_first
from smp_camvid.training.events import (
    EpochDone,
    Event,
    ModelPart,
    Notice,
    RunEnded,
    RunStarted,
    Saved,
    Scores,
    StepDone,
    ValidationStep,
)

RUN = Path("runs/van[bold]illa-1")
CONTROL = re.compile(r"\x1b|[\x00-\x08\x0b-\x1f]")


class Clock:
    """Time that passes only when told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CI", "NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")


def started(epochs: int = 3, table: ClassTable = CAMVID11, steps: int = 4) -> RunStarted:
    return RunStarted(
        name=RUN.name,
        run_dir=RUN,
        device="cpu (bf16, channels_last)",
        protocol="camvid11@360x480",
        classes=table,
        epochs=epochs,
        first_epoch=1,
        steps_per_epoch=steps,
        batch_size=4,
        train_frames=367,
        val_frames=101,
        parameters=31_032_395,
        architecture=(ModelPart("enc[0]oder", "Contracting", 18_842_048, "4x1024x28x28"),),
        optimizer="Adam, lr 0.0002",
        parameter_sizes=(("encoder.[0].weight", (64, 3, 3, 3), 1728),),
    )


def scores(base: float, table: ClassTable) -> Scores:
    names = table.names
    per_class = {name: base * i / len(names) for i, name in enumerate(names)}
    return Scores(1 / base, base, base, {**per_class, names[-1]: None})


def epoch_done(
    epoch: int, epochs: int = 3, table: ClassTable = CAMVID11, val: bool = True, gpu: bool = False
) -> EpochDone:
    score = scores(0.2 * min(epoch, 4), table)
    return EpochDone(
        epoch=epoch,
        epochs=epochs,
        train=score,
        val=score if val else None,
        lr=2e-4,
        images_per_second=12.3,
        seconds=61.0,
        seconds_left=61.0 * (epochs - epoch),
        data_wait_seconds=1.0,
        gpu_memory_bytes=3 * 2**30 if gpu else None,
        best=val and epoch == 2,
    )


def events(
    epochs: int = 3,
    table: ClassTable = CAMVID11,
    val: bool = True,
    gpu: bool = False,
    reason: str = "done",
) -> Iterator[Event]:
    yield started(epochs, table)
    yield Notice("[bold]slow[/bold]: an epoch takes 21 minutes; try [red] --size 180x240")
    for epoch in range(1, epochs + 1):
        for step in range(1, 5):
            yield StepDone(epoch, step, 4, 0.5 if step == 2 else None, 2e-4, step * 4, step * 1.5)
        if val:
            yield ValidationStep(epoch, 1, 2)
        yield epoch_done(epoch, epochs, table, val, gpu)
        yield Saved(epoch, RUN / "weights" / "last.safetensors")
    yield RunEnded(reason, RUN, epochs, 2 if val else None, None, "smp-camvid evaluate 'a [b]'")


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
    assert [row.endswith("best") for row in rows] == [False, True, False]
    assert "mIoU 0.400 val 0.400" in rows[1] and "GPU" not in rows[1]


def test_a_log_says_where_it_runs_and_how_it_ended() -> None:
    text = in_a_log()
    for part in (
        "van[bold]illa-1 on cpu (bf16, channels_last)",
        "camvid11@360x480: 367 frames to train on, 101 to validate",
        "note: [bold]slow[/bold]: an epoch takes 21 minutes; try [red] --size 180x240",
        "epoch 2: val mIoU 0.400",
        "epoch 3: val mIoU 0.600, accuracy 0.600, camvid11@360x480",
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


@pytest.mark.parametrize("width", [80, 120, 160])
@pytest.mark.parametrize("table", [CAMVID11, CAMVID32])
@pytest.mark.parametrize("gpu", [False, True])
def test_no_line_is_wider_than_the_terminal(width: int, table: ClassTable, gpu: bool) -> None:
    console = terminal(width, color_system=None)  # type: ignore[arg-type]
    listener = ConsoleListener(console, 1, Clock())
    clock = listener._clock
    assert isinstance(clock, Clock)
    for event in events(12, table, gpu=gpu):
        clock.now += 1.0  # every event is drawn
        listener.on_event(event)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", written(console)).replace("\r", "\n")
    lines = [line.rstrip() for line in text.splitlines()]
    assert max(cell_len(line) for line in lines if not line.startswith("note")) <= width
    assert any(line.startswith("van[bold]illa-1  cpu") for line in lines)
    assert any("IoU of the" in line for line in lines)


def test_the_live_region_fits_the_window_and_is_gone_at_the_end() -> None:
    console = terminal(80, 24)
    listener = ConsoleListener(console, 1, Clock())
    *_, end = run = list(events(3, CAMVID32))
    for event in run[:-1]:
        listener.on_event(event)
    assert listener._live is not None
    shown = console.render_lines(listener._live.get_renderable(), pad=False)
    assert 8 < len(shown) <= 23
    hidden, shown_again = "\x1b[?25l", "\x1b[?25h"
    assert hidden in written(console) and shown_again not in written(console)
    listener.on_event(end)
    assert listener._live is None
    assert shown_again in written(console)
    assert written(console).count("note: ") >= 2  # in view, then for good


@pytest.mark.parametrize("height", [5, 8, 12, 24, 60])
def test_the_live_region_fits_any_height(height: int) -> None:
    console = terminal(80, height)
    listener = ConsoleListener(console, 1, Clock())
    for event in list(events(3))[:-1]:
        listener.on_event(event)
    assert listener._live is not None
    shown = console.render_lines(listener._live.get_renderable(), pad=False)
    listener.close()
    assert len(shown) < max(height, 9)  # rich cuts what a window of fewer lines cannot hold


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


def result(**changes: object) -> dict[str, object]:
    return {
        "miou": 0.5,
        "accuracy": 0.9,
        "mean_class_accuracy": 0.6,
        "per_class": {"Sk[b]y": 0.75, "Pole": 0.25, "Gone": None},
        "classes_counted": 2,
        "frames": 101,
        "split": "val",
        "protocol": "camvid11@360x480",
        "definition": "pooled",
        "model": "runs/[x]",
        "checkpoint": "last",
    } | changes


def test_evaluation_table_is_worst_first_and_says_by_which_measure() -> None:
    stream = io.StringIO()
    Console(file=stream, width=80).print(evaluation_table(result()))
    text = stream.getvalue()
    assert not CONTROL.search(text)
    order = [text.index(name) for name in ("Pole", "Sk[b]y", "Gone", "mean IoU")]
    assert order == sorted(order)
    for part in ("runs/[x]", "last", "camvid11@360x480", "pooled", "101 (val)", "2 of 3 counted"):
        assert part in text
    assert re.search(r"mean IoU +0\.500", text) and re.search(r"Gone +- +does not occur", text)
    assert max(map(len, text.splitlines())) <= 80


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
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7], 8) == "▁▂▃▄▅▆▇█"
    assert sparkline([9.0, 0.0, 9.0, 7.0], 2) == "▁█"  # the last of each share
    assert sparkline([1.0, float("nan"), 1.0], 3) == "▄ ▄"
