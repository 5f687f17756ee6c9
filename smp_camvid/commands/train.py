"""smp-camvid train."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from smp_camvid import recipe, runs, torchrun
from smp_camvid.commands.launch import check_devices, check_launched, check_restarts, launch
from smp_camvid.commands.options import Changes, Encoder, RecipeName, of, parse_size
from smp_camvid.commands.planning import check_alone, find_learning_rate, show_plan
from smp_camvid.errors import InterruptedRun, UsageError

# Option name -> the recipe key it sets.
OPTIONS = {
    "encoder": "model.encoder_name", "encoder_weights": "model.encoder_weights",
    "weights": "model.weights", "reset_head": "model.reset_head",
    "data": "data.path", "classes": "data.classes", "split_source": "data.split_source",
    "size": "data.size",
    "epochs": "train.epochs", "batch_size": "train.batch_size", "accumulate": "train.accumulate",
    "lr": "train.lr", "seed": "train.seed", "deterministic": "train.deterministic",
    "device": "train.device", "precision": "train.precision", "workers": "train.workers",
    "save_dir": "train.save_dir", "save_every": "train.save_every", "keep": "train.keep",
    "save_plots": "train.save_plots", "show_plots": "train.show_plots",
    "logger": "train.loggers", "verbose": "train.verbose",
}  # fmt: skip


def train(
    ctx: typer.Context,
    arch: Annotated[str | None, of("model.arch", "--arch")] = None,
    recipe_name: RecipeName = None,
    set_: Changes = None,
    encoder: Encoder = None,
    encoder_weights: Annotated[
        str | None,
        typer.Option(
            "--encoder-weights", help="none, imagenet, another name smp or timm knows, or a file."
        ),
    ] = None,
    weights: Annotated[str | None, of("model.weights", "--weights", metavar="RUN|FILE")] = None,
    reset_head: Annotated[bool | None, of("model.reset_head", "--reset-head")] = None,
    data: Annotated[str | None, of("data.path", "--data", metavar="DIR|synthetic")] = None,
    classes: Annotated[str | None, of("data.classes", "--classes", metavar="11|32|dataset")] = None,
    split_source: Annotated[
        str | None, of("data.split_source", "--split-source", metavar="standard|folders")
    ] = None,
    size: Annotated[str | None, of("data.size", "--size", metavar="HxW")] = None,
    epochs: Annotated[int | None, of("train.epochs", "--epochs")] = None,
    batch_size: Annotated[
        str | None, of("train.batch_size", "--batch-size", metavar="N|auto")
    ] = None,
    accumulate: Annotated[int | None, of("train.accumulate", "--accumulate")] = None,
    lr: Annotated[float | None, of("train.lr", "--lr")] = None,
    find_lr: Annotated[
        bool,
        typer.Option("--find-lr", help="Instead of training, try learning rates and suggest one."),
    ] = False,
    seed: Annotated[int | None, of("train.seed", "--seed")] = None,
    deterministic: Annotated[bool | None, of("train.deterministic", "--deterministic")] = None,
    device: Annotated[str | None, of("train.device", "--device")] = None,
    precision: Annotated[
        str | None, of("train.precision", "--precision", metavar="auto|fp32|bf16|fp16")
    ] = None,
    workers: Annotated[int | None, of("train.workers", "--workers")] = None,
    save_dir: Annotated[str | None, of("train.save_dir", "--save-dir", metavar="DIR")] = None,
    save_every: Annotated[int | None, of("train.save_every", "--save-every")] = None,
    keep: Annotated[int | None, of("train.keep", "--keep")] = None,
    save_plots: Annotated[
        bool | None, of("train.save_plots", "--save-plots/--no-save-plots")
    ] = None,
    show_plots: Annotated[bool | None, of("train.show_plots", "--show-plots")] = None,
    logger: Annotated[list[str] | None, of("train.loggers", "--logger", metavar="NAME")] = None,
    verbose: Annotated[int | None, of("train.verbose", "--verbose")] = None,
    resume: Annotated[
        Path | None, typer.Option("--resume", metavar="RUN", help="Go on with an interrupted run.")
    ] = None,
    devices: Annotated[
        int | None,
        typer.Option(
            "--devices", min=1, metavar="N", help="Train with N GPUs, or on a CPU with N processes."
        ),
    ] = None,
    max_restarts: Annotated[
        int,
        typer.Option(
            "--max-restarts",
            min=0,
            metavar="N",
            help="With --devices: when a process dies, go on from the last checkpoint, N times.",
        ),
    ] = 0,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Instead of training, print the plan: sizes, memory, time."),
    ] = False,
) -> None:
    """Train a model and leave a run folder; its path is printed."""
    check_alone(find_lr, dry_run, resume, devices)
    check_restarts(max_restarts, devices)
    overrides = given_options(ctx)
    if resume is not None:
        if recipe_name:
            raise UsageError("A resumed run has its recipe.", "Leave out --recipe or --resume.")
        if arch:
            overrides.insert(0, ("model.arch", arch))
        recipe_name = str(resume_config(resume))
    else:
        recipe_name, implied = recipe_asked_for(arch, recipe_name)
        overrides = implied + overrides
    overrides += [recipe.parse_set(text) for text in set_ or []]
    if resume is not None and "train.save_dir" in dict(overrides):
        raise UsageError("A resumed run stays in its folder.", "Leave out --save-dir.")
    from smp_camvid.training.experiment import find_problems
    from smp_camvid.training.resuming import check_same_run

    resolved = recipe.resolve(recipe_name, overrides, find_problems).recipe
    if resume is not None:
        check_same_run(Path(recipe_name).read_text(encoding="utf-8"), resolved)
    if dry_run:
        show_plan(resolved, devices)
        return
    if find_lr:
        find_learning_rate(resolved)
        return
    if torchrun.launched():
        check_launched(devices)
    elif devices and devices > 1:
        check_devices(resolved, devices)
        launch(resolved, devices, max_restarts, resume)
        return
    run_training(resolved, resume, f" --devices {devices}" if devices else "")


def given_options(ctx: typer.Context) -> list[tuple[str, Any]]:
    """(key of the recipe, value) of the options that were given."""
    given = {name: ctx.params.get(name) for name in OPTIONS}
    return [
        (OPTIONS[name], option_value(name, value))
        for name, value in given.items()
        if value not in (None, ())
    ]


def recipe_asked_for(
    arch: str | None, recipe_name: str | None
) -> tuple[str, list[tuple[str, Any]]]:
    """The recipe that --arch and --recipe mean, and what --arch sets in it."""
    asked, implied = arch or "vanilla", []
    if recipe_name is None and asked not in recipe.recipe_names():
        implied.append(("name", asked))
    recipe_name = recipe_name or (asked if asked in recipe.recipe_names() else "base")
    if arch and arch != recipe_name:
        implied.append(("model.arch", arch))
    return recipe_name, implied


def option_value(name: str, value: Any) -> Any:
    if name == "size":
        return parse_size(value)
    if name == "batch_size" and value.isdigit():
        return int(value)
    return value


def resume_config(run: Path) -> Path:
    path = run / "config.toml"
    if not path.is_file():
        raise UsageError(
            f"{run} is not a run folder: it has no config.toml.", "Name one under ./runs."
        )
    return path


def run_training(resolved: recipe.Recipe, resume: Path | None, again: str = "") -> None:
    """`again` goes behind the command that continues an interrupted run."""
    from smp_camvid.inference.device import resolve_device
    from smp_camvid.report.progress import step_progress
    from smp_camvid.training.distributed import join, own_device
    from smp_camvid.training.experiment import build_trainer

    group = join(own_device(resolve_device(resolved.train.device)))
    if resume is None and group.is_main:  # after a restart of the group there is one
        resume = torchrun.run_begun(Path(resolved.train.save_dir), resolved.name)
        if resume is not None:
            resolved = recipe.resolve(str(resume / "config.toml")).recipe
    follow = resume is not None and not runs.is_untrained(resume)
    resume, resolved, follow = group.share((resume, resolved, follow))
    quiet = not (resolved.train.verbose and group.is_main)
    with step_progress("decoding frames", quiet=quiet) as on_decoded:
        trainer = build_trainer(resolved, on_decoded=on_decoded, weights_follow=follow)
    if resume is not None:
        trainer.resume(resume)
        if trainer.finished:
            if group.is_main:
                typer.echo(f"smp-camvid: {trainer.finished}", err=True)
                typer.echo(str(resume))
            return
    ended = trainer.train()
    if not group.is_main:
        raise typer.Exit(0 if ended.reason == "done" else InterruptedRun.exit_code)
    typer.echo(str(ended.run_dir))
    if ended.reason == "interrupted":
        raise InterruptedRun(
            "Interrupted; a checkpoint is written.", f"Go on with: {ended.next_command}{again}"
        )
