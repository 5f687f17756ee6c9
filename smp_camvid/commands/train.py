"""smp-camvid train."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from smp_camvid import recipe
from smp_camvid.commands.options import of, parse_size
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
    "save_plots": "train.save_plots", "show_plots": "train.show_plots", "verbose": "train.verbose",
}  # fmt: skip
# What may differ when a run goes on; anything else would be another run.
RESUMABLE = {"epochs", "device", "workers", "verbose", "data"}


def train(
    ctx: typer.Context,
    arch: Annotated[str | None, of("model.arch", "--arch")] = None,
    recipe_name: Annotated[
        str | None,
        typer.Option(
            "--recipe",
            metavar="NAME|FILE.toml",
            help="What to start from (smp-camvid recipes list).",
        ),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="Set any key of the recipe, such as train.epochs=3."
        ),
    ] = None,
    encoder: Annotated[
        str | None, typer.Option("--encoder", help="Encoder of an smp architecture.")
    ] = None,
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
    batch_size: Annotated[int | None, of("train.batch_size", "--batch-size")] = None,
    accumulate: Annotated[int | None, of("train.accumulate", "--accumulate")] = None,
    lr: Annotated[float | None, of("train.lr", "--lr")] = None,
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
    verbose: Annotated[int | None, of("train.verbose", "--verbose")] = None,
    resume: Annotated[
        Path | None, typer.Option("--resume", metavar="RUN", help="Go on with an interrupted run.")
    ] = None,
) -> None:
    """Train a model and leave a run folder; its path is printed."""
    given = {name: ctx.params[name] for name in OPTIONS if ctx.params[name] is not None}
    overrides = [(OPTIONS[name], option_value(name, value)) for name, value in given.items()]
    if resume is not None:
        refuse_changes(
            {
                **given,
                **({"arch": arch} if arch else {}),
                **({"set": set_} if set_ else {}),
                **({"recipe": 1} if recipe_name else {}),
            }
        )
        recipe_name = str(resume_config(resume))
    else:
        asked = arch or "vanilla"
        named_after_arch = recipe_name is None and asked not in recipe.recipe_names()
        recipe_name = recipe_name or (asked if asked in recipe.recipe_names() else "base")
        if arch and arch != recipe_name:
            overrides.insert(0, ("model.arch", arch))
        if named_after_arch:
            overrides.insert(0, ("name", asked))
    overrides += [recipe.parse_set(text) for text in set_ or []]
    from smp_camvid.training.experiment import find_problems

    resolved = recipe.resolve(recipe_name, overrides, find_problems).recipe
    run_training(resolved, resume)


def option_value(name: str, value: Any) -> Any:
    if name == "size":
        return parse_size(value)
    return value


def resume_config(run: Path) -> Path:
    path = run / "config.toml"
    if not path.is_file():
        raise UsageError(
            f"{run} is not a run folder: it has no config.toml.", "Name one under ./runs."
        )
    return path


def refuse_changes(given: dict[str, Any]) -> None:
    changed = [f"--{name.replace('_', '-')}" for name in given if name not in RESUMABLE]
    if changed:
        raise UsageError(
            f"A resumed run keeps its recipe; {', '.join(changed)} would change it.",
            "Leave it out, or start a new run from these weights with --weights RUN.",
        )


def run_training(resolved: recipe.Recipe, resume: Path | None) -> None:
    from smp_camvid.report.progress import step_progress
    from smp_camvid.training.experiment import build_trainer

    with step_progress("decoding frames", quiet=not resolved.train.verbose) as on_decoded:
        trainer = build_trainer(resolved, on_decoded=on_decoded, weights_follow=resume is not None)
    if resume is not None:
        trainer.resume(resume)
    ended = trainer.train()
    typer.echo(str(ended.run_dir))
    if ended.reason == "interrupted":
        raise InterruptedRun(
            "Interrupted; a checkpoint is written.", f"Go on with: {ended.next_command}"
        )
