"""smp-camvid export."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from smp_camvid.commands.options import Checkpoint
from smp_camvid.errors import UsageError

if TYPE_CHECKING:
    from smp_camvid.inference.export import Exported


def export(
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="[RUN|FILE|NAME]",
            help="Run folder, weights file or shipped model; newest run if absent.",
        ),
    ] = None,
    format: Annotated[
        str,
        typer.Option("--format", metavar="onnx|pt2", help="For ONNX Runtime, or torch.export."),
    ] = "onnx",
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE", help="Default: the run's name in this folder."),
    ] = None,
    argmax: Annotated[
        bool, typer.Option("--argmax", help="Give class indices in place of scores.")
    ] = False,
    checkpoint: Checkpoint = "",
) -> None:
    """Write a model for other programs; kept only if it does the same as the network."""
    if format not in ("onnx", "pt2"):
        raise UsageError(f"--format {format} is not known.", "It is onnx or pt2.")
    from smp_camvid.inference.export import Format
    from smp_camvid.inference.export import export as write

    done = write(model, format=cast(Format, format), out=out, argmax=argmax, checkpoint=checkpoint)
    for line in describe(done):
        typer.echo(line)


def describe(done: Exported) -> list[str]:
    """What was made of what, how it compared, and what to do with it."""
    shapes = ", ".join(f"{b} x {h}x{w}" for b, h, w in done.checked)
    logits = "" if done.difference is None else f"; logits differ by at most {done.difference:.1e}"
    return [
        f"{done.source} -> {done.path} ({done.path.stat().st_size / 1e6:.1f} MB), {takes(done)}",
        f"checked against the network on pictures of {shapes}: "
        f"{done.agreement:.3%} of the pixels have the same class{logits}",
        next_command(done),
    ]


def takes(done: Exported) -> str:
    """The sizes that go in, in words."""
    facts = done.facts
    batch = "any batch" if facts["any_batch"] else "one at a time"
    if facts["size"]:
        height, width = facts["size"]
        return f"frames of {height}x{width} only (this model's sizes cannot stay open), {batch}"
    if "least" in facts:
        first, step = facts["least"], facts["multiple"]
        return f"height and width of {first}, {first + step}, {first + 2 * step}, ..., {batch}"
    return f"frames of any size, {batch}"


def next_command(done: Exported) -> str:
    if done.facts["format"] == "pt2":
        return f'python: torch.export.load("{done.path}").module()(image)'
    if done.facts["output"] == "classes":
        return f'python: onnxruntime.InferenceSession("{done.path}").run(None, {{"image": image}})'
    return f"smp-camvid predict img.png --model {done.path}"
