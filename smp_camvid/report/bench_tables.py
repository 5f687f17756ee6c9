"""`smp-camvid bench` for people: the document of `bench --json` in groups."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from smp_camvid.data.room import in_words
from smp_camvid.report.plan_tables import pairs

Document = Mapping[str, Any]


def bench_view(found: Document) -> RenderableType:
    """Machine, training, prediction, data; what limits what is said beside it."""
    parts: list[RenderableType] = []
    for title, rows in (
        ("machine", _machine_rows(found)),
        ("training", _training_rows(found)),
        ("prediction", _prediction_rows(found)),
        ("data", _data_rows(found)),
    ):
        parts += [Text(title, "bold"), pairs(rows), Text("")]
    return Group(*parts[:-1])


def _machine_rows(found: Document) -> Iterator[tuple[str, str]]:
    facts, matmul = found["machine"], found["matmul"]
    yield "processor", f"{facts['processor']}, {facts['cores']} cores, {facts['threads']} threads"
    for name in facts["gpus"]:
        yield "GPU", name
    rate = f"{_flops(matmul['flops_per_second'])} in {matmul['precision']}"
    if matmul["precision"] != "fp32":
        rate += f", {_flops(matmul['fp32_flops_per_second'])} in fp32"
    yield "products", f"{rate} (large matrices)"
    load = facts["load"]
    if load is not None and load > facts["cores"] / 2:
        yield "note", f"other programs run too (load average {load:.1f}): expect more without them"


def _training_rows(found: Document) -> Iterator[tuple[str, str]]:
    settings, training = found["settings"], found["training"]
    model = settings["arch"] + (f" on {settings['encoder']}" if settings["encoder"] else "")
    yield "recipe", f"{settings['recipe']}: {model}, {settings['parameters']:,} parameters"
    size = "x".join(map(str, settings["training_picture"]))
    yield "a step", f"{settings['batch_size']} frames of {size} on {settings['arithmetic']}"
    step = training["seconds_per_step"]
    span = f"{_ms(step['low'])} to {_ms(step['high'])} over {step['calls']}"
    yield "takes", f"{_ms(step['median'])} ({span})"
    yield "speed", f"{training['images_per_second']:.3g} images/s"
    if training["share_of_matmul"] is not None:
        share = f"{training['share_of_matmul']:.0%} of what matrix products reach"
        yield "computes", f"{_flops(training['flops_per_second'])}, {share}"
    if found["peak_memory_bytes"] is not None:
        yield "memory", f"{in_words(found['peak_memory_bytes'])} at most"


def _prediction_rows(found: Document) -> Iterator[tuple[str, str]]:
    for one in found["prediction"]:
        size = "x".join(map(str, one["size"]))
        rate = f"{one['images_per_second']:.3g} images/s"
        yield one["model"], f"{rate} of {size}, one at a time, {one['engine']} on {one['device']}"


def _data_rows(found: Document) -> Iterator[tuple[str, str]]:
    data = found["data"]
    size = "x".join(map(str, data["size"]))
    yield "decoding", f"{data['decoded_per_second']:.3g} frames/s of {size}, once for each dataset"
    yield "augmenting", f"{data['augmented_per_second']:.3g} frames/s in one process"
    rate = data["augmented_per_second"] / found["training"]["images_per_second"]
    if rate < 1:
        yield "note", f"training wants more: --workers {int(1 / rate) + 1} or more"


def _ms(seconds: float) -> str:
    return f"{1000 * seconds:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"


def _flops(rate: float) -> str:
    return f"{rate / 1e12:.3g} TFLOP/s" if rate >= 1e12 else f"{rate / 1e9:.3g} GFLOP/s"
