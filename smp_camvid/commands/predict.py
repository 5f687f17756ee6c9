"""smp-camvid predict."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from smp_camvid import torchrun
from smp_camvid.commands.download import sigterm_is_ctrl_c
from smp_camvid.commands.options import (
    AsJson,
    Checkpoint,
    Device,
    Precision,
    Tile,
    Tta,
    parse_size,
)
from smp_camvid.errors import DataError, InterruptedRun, RunError, UsageError

if TYPE_CHECKING:
    from smp_camvid.commands.sharing import Group
    from smp_camvid.inference.inputs import Input
    from smp_camvid.inference.job import Job
    from smp_camvid.inference.predictor import Segmenter
    from smp_camvid.report.job_progress import JobView

GPU_BATCH = 8
"""Frames per pass where nobody says; on a CPU more than one gains nothing."""


def predict(
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUT...",
            help="Pictures, videos, folders, quoted patterns ('frames/**/*.png', frame_%05d.png), "
            "http(s) addresses, or - for the standard input.",
        ),
    ],
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            metavar="RUN|FILE|NAME",
            help="Run folder, weights or .onnx file, or shipped model; the newest run if absent, "
            "without one the shipped model.",
        ),
    ] = None,
    checkpoint: Checkpoint = "",
    out: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="Where the predictions go.")
    ] = Path("predictions"),
    save: Annotated[
        str, typer.Option("--save", metavar="mask,color,overlay,probs", help="What to write.")
    ] = "mask,color,overlay",
    scale: Annotated[
        str,
        typer.Option(
            "--scale",
            metavar="train|native",
            help="Resize to the trained height, or take pictures as they are.",
        ),
    ] = "train",
    tile: Tile = None,
    tta: Tta = False,
    recursive: Annotated[
        bool, typer.Option("--recursive", help="Also look into the folders in a folder.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Do again what an earlier job has done.")
    ] = False,
    batch_size: Annotated[
        int | None,
        typer.Option(
            "--batch-size",
            min=1,
            help=f"Pictures per forward pass; 1 on a CPU, {GPU_BATCH} on a GPU if absent.",
            show_default=False,
        ),
    ] = None,
    device: Device = "auto",
    precision: Precision = "auto",
    as_json: AsJson = False,
) -> None:
    """Segment pictures and videos: class mask, coloured mask and overlay at the input's own size.

    What is done already is not done again, so a job that was stopped goes on with the same command.
    """  # fmt: skip
    from smp_camvid.commands.sharing import current_group
    from smp_camvid.inference.collisions import check_outputs
    from smp_camvid.inference.files import parse_kinds
    from smp_camvid.inference.inputs import find_inputs

    _check(out, scale, precision)
    kinds, size, group = parse_kinds(save), parse_size(tile, "--tile"), current_group()
    found = find_inputs(inputs, recursive, out)
    check_outputs(found, out, kinds)
    if group.world > 1 and (as_json or not all(one.is_file for one in found)):
        raise UsageError(
            "Several processes share files, and print lines.",
            f"Without --json, - and addresses; {out}/manifest.jsonl has all results at the end.",
        )
    from smp_camvid.inference.predictor import load

    segmenter = load(
        model, checkpoint=checkpoint, device=_own_device(device, group), scale=scale, tile=size,
        tta=tta, precision=precision,
    )  # fmt: skip
    if group.rank == 0:
        _name_the_model(model, segmenter)
    options = {"scale": scale, "tile": size and list(size), "tta": tta, "precision": precision}
    each = batch_size or (1 if segmenter.device in ("cpu", "mps") else GPU_BATCH)
    with sigterm_is_ctrl_c(), _job(segmenter, out, kinds, options, force, each, group) as job:
        failed = _run(job, group.share(found), group, as_json)
    _end(out, group, len(found), failed)


def _check(out: Path, scale: str, precision: str) -> None:
    from smp_camvid.inference.looks import check_precision, check_scale

    check_scale(scale)
    check_precision(precision)
    if out.exists() and not out.is_dir():
        raise UsageError(f"--out {out} is a file.", "Name a folder.")


@contextlib.contextmanager
def _job(
    segmenter: Segmenter,
    out: Path,
    kinds: Sequence[str],
    options: Mapping[str, Any],
    force: bool,
    batch_size: int,
    group: Group,
) -> Iterator[Job]:
    from smp_camvid.commands.sharing import begin
    from smp_camvid.inference.job import Job
    from smp_camvid.inference.ledger import Ledger, identity
    from smp_camvid.inference.manifest import open_manifest

    with open_manifest(out) as manifest:
        begin(out, group)
        ledger = Ledger(out, manifest, identity(segmenter.source), kinds, options, force)
        yield Job(segmenter, ledger, batch_size, _threads())


def _run(job: Job, inputs: Sequence[Input], group: Group, as_json: bool) -> int:
    """Runs the job and tells of it; returns how many inputs failed."""
    from smp_camvid.report.predictions import Teller

    watched = len(inputs) > 1 or any(one.is_video for one in inputs)
    with _view(group, watched) as view, Teller(view, job.ledger.out, as_json) as teller:
        if len(inputs) == 1:
            job.on_frame = view.step
            job.segmenter.on_tile = None if inputs[0].is_video else view.step
        try:
            with contextlib.closing(job.run(inputs)) as outcomes:
                for done, outcome in enumerate(outcomes, start=1):
                    teller.tell(outcome)
                    if len(inputs) > 1:
                        view.step(done, len(inputs))
        except KeyboardInterrupt:
            raise InterruptedRun(
                "Interrupted.", "What is done stays, and the same command goes on from there."
            ) from None
        except RunError as error:
            if group.launch and torchrun.local_rank():  # else the first process alone is heard
                view.note(f"smp-camvid: process {group.rank}: {error}")
            raise
        if group.rank == 0:
            teller.tell_skipped(len(inputs))
    return teller.failed


def _end(out: Path, group: Group, inputs: int, failed: int) -> None:
    from smp_camvid.commands.sharing import finish

    failures = finish(out, group, failed)
    if failures:
        message = f"{failures} of {inputs} inputs failed."
        if group.launch:  # where only the first process is heard
            typer.echo(f"smp-camvid: {message}", err=True)
            raise typer.Exit(DataError.exit_code)
        raise DataError(message)


@contextlib.contextmanager
def _view(group: Group, watched: bool) -> Iterator[JobView]:
    """With a bar if it is worth watching; of several processes one has it."""
    from smp_camvid.report.job_progress import job_progress, plain_view

    if group.rank or not watched:
        yield plain_view("" if group.rank else "tiles")
        return
    label = "predicting" if group.world == 1 else f"predicting, first of {group.world} processes"
    with job_progress(label) as view:
        yield view


def _name_the_model(asked: str | None, segmenter: Segmenter) -> None:
    from smp_camvid.inference import box

    if asked is None and segmenter.source in box.names():
        typer.echo(
            f"There is no run under ./runs: {segmenter.source}, which ships with this package, "
            "predicts.", err=True,
        )  # fmt: skip


def _own_device(device: str, group: Group) -> str:
    """Of the GPUs of a machine each process takes one."""
    if group.world == 1 or device not in ("auto", "cuda"):
        return device
    from smp_camvid.inference.opening import gpu_present

    if not gpu_present():
        return device
    import torch

    gpus = torch.cuda.device_count()
    return f"cuda:{torchrun.local_rank() % gpus}" if gpus else device


def _threads() -> int:
    """To decode, and as many to encode."""
    return max(2, min(4, (os.cpu_count() or 1) // torchrun.local_world()))
