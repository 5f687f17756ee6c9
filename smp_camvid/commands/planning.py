"""What `smp-camvid train` does instead of training: --dry-run and --find-lr."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from smp_camvid import runs, torchrun
from smp_camvid.commands.launch import check_devices
from smp_camvid.errors import DataError, DeviceError, UsageError
from smp_camvid.recipe import Recipe

if TYPE_CHECKING:
    from smp_camvid.training.lr_finder import RangeTest
    from smp_camvid.training.plan import Plan
    from smp_camvid.training.trainer import Trainer


def check_alone(find_lr: bool, dry_run: bool, resume: Path | None, devices: int | None) -> None:
    """Raises UsageError for options that do not go together."""
    if find_lr and dry_run:
        raise UsageError(
            "--find-lr trains on trial, --dry-run does not train at all.", "Leave one of them out."
        )
    if (find_lr or dry_run) and resume is not None:
        raise UsageError(
            f"--resume goes on with a run; {'--find-lr' if find_lr else '--dry-run'} looks ahead "
            "at a new one.",
            f"For a run of the same recipe: --recipe {resume / 'config.toml'}",
        )
    if find_lr and devices and devices > 1:
        raise UsageError("--find-lr runs in one process.", "Leave out --devices.")
    if (find_lr or dry_run) and torchrun.launched():
        raise UsageError(
            f"{'--find-lr' if find_lr else '--dry-run'} runs in one process.",
            "Leave out torchrun; --dry-run --devices N is the plan for N processes.",
        )


def show_plan(recipe: Recipe, devices: int | None = None) -> None:
    """Prints the plan of a run; raises what stands in its way after that."""
    from smp_camvid.report.progress import step_progress
    from smp_camvid.training.plan import check_room, make_plan, plan_without_data
    from smp_camvid.training.step_time import time_steps

    if devices and devices > 1:
        check_devices(recipe, devices)
    try:
        trainer = open_trainer(recipe)
    except DataError:
        print_plan(plan_without_data(recipe, devices or 1))
        raise
    plan = make_plan(trainer, devices or 1)
    try:
        check_room(plan)
        with step_progress("measuring steps", quiet=not recipe.train.verbose) as on_step:
            plan = dataclasses.replace(plan, timing=time_steps(trainer, devices or 1, on_step))
    except DeviceError:
        print_plan(plan)
        raise
    print_plan(plan)
    trainer.keeper.check()  # raises when the disk is too small


def print_plan(plan: Plan | None) -> None:
    """On stdout; nothing where not even a plan is known."""
    from smp_camvid.report.console import make_console
    from smp_camvid.report.plan_tables import plan_view

    if plan is not None:
        make_console(stderr=False).print(plan_view(plan))


def find_learning_rate(recipe: Recipe) -> None:
    """Runs the range test, leaves its curve in a folder of its own and prints what to try."""
    from smp_camvid.report.console import make_console
    from smp_camvid.report.lr_report import lr_rows, next_command
    from smp_camvid.report.plan_tables import pairs
    from smp_camvid.report.progress import step_progress
    from smp_camvid.training.lr_finder import find_lr

    trainer = open_trainer(recipe)
    with step_progress("trying learning rates", quiet=not recipe.train.verbose) as on_step:
        test = find_lr(trainer, on_step=on_step)
    folder = write_range_test(trainer, test)
    make_console(stderr=False).print(pairs(lr_rows(test, recipe.train.lr)))
    # Whole lines, however narrow the terminal: they are there to be copied.
    for label, line in (("folder", str(folder)), ("next", next_command(test, folder))):
        if line:
            typer.echo(f"{label:<14} {line}")


def open_trainer(recipe: Recipe) -> Trainer:
    """The run, ready to start, with nobody listening."""
    from smp_camvid.report.progress import step_progress
    from smp_camvid.training.experiment import build_trainer

    with step_progress("decoding frames", quiet=not recipe.train.verbose) as on_decoded:
        return build_trainer(recipe, on_decoded=on_decoded, listeners=[])


def write_range_test(trainer: Trainer, test: RangeTest) -> Path:
    """`<save_dir>/<name>-find-lr-<n>` with config.toml, environment.json and the curve."""
    from smp_camvid.report.lr_report import lr_figure
    from smp_camvid.report.style import png_bytes

    recipe = trainer.keeper.recipe
    folder = runs.create_run(Path(recipe.train.save_dir), f"{recipe.name}-find-lr")
    runs.write_text(folder / "config.toml", recipe.to_toml())
    runs.write_json(folder / "environment.json", runs.describe_environment(str(trainer.arithmetic)))
    lines = "".join(json.dumps(row) + "\n" for row in test.rows())
    runs.write_text(folder / "lr-curve.jsonl", lines)
    title = f"{folder.name}, {trainer.keeper.metadata['protocol']}"
    runs.write_bytes(folder / "lr-curve.png", png_bytes(lr_figure(test, title, recipe.train.lr)))
    return folder
