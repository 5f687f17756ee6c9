"""smp-camvid recipes list|show|check|copy, and smp-camvid models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from smp_camvid import recipe, registry
from smp_camvid.commands.options import Changes
from smp_camvid.errors import SmpCamvidError, UsageError
from smp_camvid.inference import box


def recipes_list() -> None:
    """The shipped recipes."""
    width = max(map(len, recipe.recipe_names()))
    for name in recipe.recipe_names():
        values = recipe.read_toml(recipe.find_recipe(name))
        typer.echo(f"{name:<{width}}  {values.get('description', '')}")


def recipes_show(
    name: Annotated[str, typer.Argument(metavar="NAME|FILE.toml")],
    set_: Changes = None,
) -> None:
    """Every value of a recipe, what it means, and where it came from."""
    resolved = recipe.resolve(name, [recipe.parse_set(text) for text in set_ or []])
    for key, origin in resolved.origins.items():
        value = recipe.value_of(resolved.recipe, key)
        typer.echo(f"{key} = {json.dumps(value)}  # {origin}")


def recipes_check(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="NAME|FILE.toml", help="All shipped ones if absent."),
    ] = None,
) -> None:
    """Check recipes whole, without reading data or weights."""
    from smp_camvid.training.experiment import find_problems

    problems = []
    for name in names or recipe.recipe_names():
        try:
            recipe.resolve(name, also=find_problems)
            typer.echo(f"{name}: good")
        except SmpCamvidError as error:
            problems.append(error)
            typer.echo(f"smp-camvid: {error}", err=True)
    if problems:
        raise typer.Exit(2)


def recipes_copy(
    name: Annotated[str, typer.Argument(metavar="NAME|FILE.toml")],
    target: Annotated[Path, typer.Argument(metavar="FILE.toml")],
) -> None:
    """Copy a recipe to a file of your own, comments and all."""
    if target.suffix != ".toml":
        raise UsageError(f"{target} does not end in .toml.", f"For example {target}.toml")
    try:
        with target.open("x", encoding="utf-8") as file:
            file.write(recipe.find_recipe(name).read_text(encoding="utf-8"))
    except FileExistsError:
        raise UsageError(f"{target} exists and is left as it is.", "Name another file.") from None
    typer.echo(
        f"{target}\nsmp-camvid train --recipe {target if len(target.parts) > 1 else f'./{target}'}",
        err=False,
    )


def models() -> None:
    """The architectures, and the options each takes in a recipe; trained models that ship."""
    for name in registry.architecture_names():
        typer.echo(f"{name}: {', '.join(registry.options_of(name))}")
    for name in box.names():
        typer.echo(f"trained: {name}, described in {box.find(name) / 'MODEL_CARD.md'}")


recipes_app = typer.Typer(
    no_args_is_help=True, add_completion=False, help="List, show, check and copy recipes."
)
recipes_app.command("list")(recipes_list)
recipes_app.command("show")(recipes_show)
recipes_app.command("check")(recipes_check)
recipes_app.command("copy")(recipes_copy)
