"""`train --dry-run` for people: the plan of a run in groups, and its learning rate drawn."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

from smp_camvid.data.layouts import count
from smp_camvid.data.room import in_words
from smp_camvid.report.lr_report import in_digits
from smp_camvid.report.tables import duration
from smp_camvid.training.plan import Plan, lr_over

_LABEL, _ROWS = 14, 5
_LEVELS, _ASCII_LEVELS = " ▁▂▃▄▅▆▇█", " .:-=+*##"


def plan_view(plan: Plan) -> RenderableType:
    """The whole plan; what is not known without a dataset is left out."""
    groups = (
        ("run", _run_rows(plan)),
        ("pictures", _picture_rows(plan)),
        ("network", _network_rows(plan)),
        ("memory", _memory_rows(plan)),
        ("disk", _disk_rows(plan)),
        ("time", _time_rows(plan)),
    )
    parts: list[RenderableType] = []
    for title, rows in groups:
        parts += [Text(title, "bold"), pairs(rows), Text("")]
    return Group(*parts, Text("learning rate", "bold"), *_lr_parts(plan))


def pairs(rows: Iterable[tuple[str, str]]) -> Table:
    """Labels to the left, what is said of them to the right."""
    grid = Table.grid(padding=(0, 1, 0, 0), pad_edge=False)
    grid.add_column(width=_LABEL, style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for label, value in rows:
        grid.add_row(label, Text(value))
    return grid


def _run_rows(plan: Plan) -> Iterator[tuple[str, str]]:
    cfg, data = plan.recipe.train, plan.data
    yield "recipe", plan.recipe.name
    yield "device", str(plan.arithmetic)
    yield "data", plan.recipe.data.path
    if data is not None:
        yield "protocol", data.protocol
        judged = f"{data.val_frames} to validate" if data.val_frames else "none to validate"
        yield "frames", f"{data.train_frames} to train on, {judged}"
    yield "a step", _step_in_words(plan)
    if data is not None:
        steps = f"{data.steps_per_epoch:,} an epoch, {plan.steps:,} in all"
        yield "steps", f"{steps} ({count(cfg.epochs, 'epoch')})"
    if cfg.stop_after:
        yield "", f"fewer if {cfg.stop_metric} does not improve for {cfg.stop_after} epochs"


def _step_in_words(plan: Plan) -> str:
    cfg = plan.recipe.train
    batch, accumulate = cfg.frames_per_batch, cfg.accumulate
    parts = [str(plan.frames)]
    if plan.processes > 1:
        parts.append(f"{plan.processes} processes")
    if accumulate > 1:
        parts.append(f"{accumulate} batches")
    product = f" = {' x '.join(parts)}" if len(parts) > 1 else ""
    return f"{count(batch * accumulate, 'frame')}{product}"


def _picture_rows(plan: Plan) -> Iterator[tuple[str, str]]:
    data = plan.recipe.data
    yield "frames", _size(data.size)
    if data.crop is not None or data.multi_scale is not None:
        often = "" if data.multi_scale is None else f", scaled by {_range(data.multi_scale)}"
        yield "crops", f"{_size(data.crop or data.size)}{often}"
    if data.full_frame_epochs:
        yield "", f"the last {count(data.full_frame_epochs, 'epoch')}: whole frames"
    varies = "at most " if data.multi_scale is not None or data.full_frame_epochs else ""
    how = "with mirrored borders" if plan.mirrored else "padded"
    how = "" if plan.network_size == plan.picture else f", {how}"
    yield "network gets", f"{varies}{_size(plan.network_size)}{how}"


def _network_rows(plan: Plan) -> Iterator[tuple[str, str]]:
    model = plan.recipe.model
    encoder = model.options.get("encoder_name")
    yield "model", f"{model.arch} on {encoder}" if encoder else model.arch
    yield "parameters", f"{plan.parameters:,}"
    if plan.flops is None:
        yield "operations", "unknown: this network cannot be counted on shapes alone"
        return
    yield "forward", f"{_flops(plan.flops.forward)} a frame, a multiply-add being two"
    times = plan.flops.step / max(1, plan.flops.forward)
    each = "the maps, their gradients, those of the weights"
    yield "training", f"{_flops(plan.flops.step)} a frame, {times:.1f} times as much: {each}"


def _memory_rows(plan: Plan) -> Iterator[tuple[str, str]]:
    memory, free = plan.memory, plan.free_memory
    if memory is not None:
        kept = memory.frame * plan.frames
        yield "weights", f"{in_words(memory.weights)}, as much for their gradients"
        yield "optimizer", in_words(memory.optimizer)
        if memory.copies:
            yield "copies", f"{in_words(memory.copies)} (averaged weights, lower precision)"
        each = f"{count(plan.frames, 'frame')} of {in_words(memory.frame)}"
        yield "activations", f"{in_words(kept)}: {each}"
        needed = in_words(plan.needed_memory or 0)
        yield "a step", f"about {needed} in all, with what kernels take for themselves"
    known = "unknown" if free is None else in_words(free)
    yield "free", f"{known} on {plan.arithmetic.device}{'' if plan.fits else ': too little'}"


def _disk_rows(plan: Plan) -> Iterator[tuple[str, str]]:
    cfg = plan.recipe.train
    yield "a run", f"up to {in_words(plan.disk)} of weights and checkpoints"
    little = "" if plan.disk <= plan.free_disk else ": too little"
    yield "free", f"{in_words(plan.free_disk)} in {cfg.save_dir}{little}"


def _time_rows(plan: Plan) -> Iterator[tuple[str, str]]:
    if plan.timing is None or plan.data is None:
        yield "not measured", "no dataset" if plan.data is None else "a step may not fit"
        return
    timing, cfg = plan.timing, plan.recipe.train
    rate = cfg.frames_per_batch * cfg.accumulate / max(timing.step, 1e-9)
    steps = count(timing.steps_timed, "step")
    yield "a step", f"{timing.step:.3g} s ({rate:.3g} frames/s), measured over {steps}"
    yield "an epoch", duration(timing.step * plan.data.steps_per_epoch)
    if timing.validation:
        yield "a validation", duration(timing.validation)
    together = f", if {plan.processes} processes are as fast as one" if plan.processes > 1 else ""
    yield "the run", f"{duration(plan.seconds)}{together}"


def _lr_parts(plan: Plan) -> Iterator[RenderableType]:
    cfg = plan.recipe.train
    per_epoch = plan.data.steps_per_epoch if plan.data else 100
    rates = lr_over(cfg, per_epoch, 400)
    yield LrCurve(rates, cfg.epochs)
    yield Text("")
    words = [f"{cfg.schedule}, peak {in_digits(max(rates))}, last {in_digits(rates[-1])}"]
    if cfg.warmup_epochs:
        words.append(f"{cfg.warmup_epochs:g} epochs of warm-up")
    if cfg.schedule == "plateau":
        words.append(f"halved after {cfg.patience} epochs without a lower loss")
    if cfg.encoder_lr != 1:
        words.append(f"the encoder's times {cfg.encoder_lr:g}")
    yield pairs([("schedule", "; ".join(words))])


class LrCurve:
    """The learning rate over the run as a filled curve, as wide as the terminal allows."""

    def __init__(self, rates: Sequence[float], epochs: int) -> None:
        self.rates, self.epochs = rates, epochs

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width = min(64, max(8, options.max_width - _LABEL - 1))
        levels = _ASCII_LEVELS if options.ascii_only else _LEVELS
        lines = filled_curve(self.rates, width, _ROWS, levels)
        labels = [in_digits(max(self.rates)), *[""] * (_ROWS - 2), "0"]
        for label, line in zip(labels, lines, strict=True):
            yield Text(label.ljust(_LABEL + 1), "dim") + Text(line, "cyan")
        end = f"epoch {self.epochs}"
        yield Text(" " * (_LABEL + 1) + "1" + end.rjust(len(lines[0]) - 1), "dim")


def filled_curve(
    values: Sequence[float], width: int, rows: int, levels: str = _LEVELS
) -> list[str]:
    """Lines from top to bottom: a column for each share of `values`, its height their mean.

    The scale goes from 0 to the largest mean; `levels` are the fillings of one character.
    """
    width, most = min(width, len(values)), len(levels) - 1
    edges = [n * len(values) // width for n in range(width + 1)]
    means = [sum(values[start:end]) / (end - start) for start, end in itertools.pairwise(edges)]
    top = max(means) or 1.0
    heights = [round(mean / top * rows * most) for mean in means]
    return [
        "".join(levels[min(most, max(0, height - row * most))] for height in heights)
        for row in reversed(range(rows))
    ]


def _size(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


def _range(factors: tuple[float, float]) -> str:
    return f"{factors[0]:g} to {factors[1]:g}"


def _flops(number: int) -> str:
    for unit, size in (("TFLOP", 10**12), ("GFLOP", 10**9)):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return f"{number / 10**6:.3g} MFLOP"
