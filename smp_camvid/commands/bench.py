"""smp-camvid bench."""

from __future__ import annotations

import json
import os
from typing import Annotated, Any

import typer

from smp_camvid import recipe
from smp_camvid.commands.options import AsJson, Changes, Encoder, RecipeName, of
from smp_camvid.commands.train import given_options, recipe_asked_for


def bench(
    ctx: typer.Context,
    arch: Annotated[str | None, of("model.arch", "--arch")] = None,
    recipe_name: RecipeName = None,
    set_: Changes = None,
    encoder: Encoder = None,
    size: Annotated[str | None, of("data.size", "--size", metavar="HxW")] = None,
    batch_size: Annotated[str | None, of("train.batch_size", "--batch-size", metavar="N")] = None,
    device: Annotated[str | None, of("train.device", "--device")] = None,
    precision: Annotated[
        str | None, of("train.precision", "--precision", metavar="auto|fp32|bf16|fp16")
    ] = None,
    seconds: Annotated[
        float,
        typer.Option(
            "--seconds", metavar="S", min=0.1, help="For each of the measurements, in seconds."
        ),
    ] = 12.0,
    as_json: AsJson = False,
) -> None:
    """How fast this machine trains and predicts: images/s, share of its peak, memory."""
    name, implied = recipe_asked_for(arch, recipe_name)
    overrides = [*implied, *given_options(ctx), *(recipe.parse_set(text) for text in set_ or [])]
    from smp_camvid.report.bench_tables import bench_view
    from smp_camvid.report.printing import print_view
    from smp_camvid.report.progress import step_progress
    from smp_camvid.training.bench import Bench
    from smp_camvid.training.experiment import find_problems

    load = load_average()
    resolved = recipe.resolve(name, overrides, find_problems).recipe
    with step_progress("measuring", quiet=as_json) as on_step:
        found = Bench(resolved, seconds).document(on_step)
    found = {"machine": machine_facts(load), **found}
    if as_json:
        typer.echo(json.dumps(found, indent=2))
    else:
        print_view(bench_view(found))


def load_average() -> float | None:
    """Of the last minute, before anything is measured; None where there is none (Windows)."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


def machine_facts(load: float | None) -> dict[str, Any]:
    """What the figures depend on."""
    import torch

    from smp_camvid import __version__
    from smp_camvid.report.machine import cpu_facts, device_facts

    cpu, device = cpu_facts(), device_facts()
    return {
        "processor": cpu["name"],
        "cores": cpu["cores"],
        "threads": device["threads"],
        "capability": device["cpu_capability"],
        "bf16_in_hardware": device["bf16_in_hardware"],
        "gpus": [card["name"] for card in device["cuda"]],
        "load": load,
        "torch": torch.__version__,
        "smp_camvid": __version__,
    }
