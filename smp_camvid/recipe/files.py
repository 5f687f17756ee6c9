"""Recipes as files: found by name, read, and laid on the one they extend."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from smp_camvid.errors import UsageError, did_you_mean


def recipe_folder() -> Path:
    """Where the shipped recipes are: inside the installed package, or the root of a checkout."""
    package = Path(__file__).parents[1]
    installed = package / "recipes"
    return installed if installed.is_dir() else package.parent / "recipes"


def recipe_names() -> list[str]:
    return sorted(path.stem for path in recipe_folder().glob("*.toml"))


def find_recipe(name: str) -> Path:
    """A shipped recipe's name or a TOML file -> its path."""
    if name.endswith(".toml") or "/" in name or "\\" in name:
        path = Path(name)
        if not path.is_file():
            raise UsageError(
                f"There is no recipe file {name}.",
                "`smp-camvid recipes list` names the shipped ones.",
            )
        return path
    if name in recipe_names():
        return recipe_folder() / f"{name}.toml"
    raise UsageError(
        f"There is no recipe {name!r}. {did_you_mean(name, recipe_names())}".strip(),
        "`smp-camvid recipes list` shows all; a file is named by its path, ending in .toml.",
    )


def read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"Recipe {path} cannot be read: {error}.") from error


def layers_of(name: str) -> list[tuple[str, dict[str, Any]]]:
    """What a recipe is made of, first to last: its parent, then itself."""
    path = find_recipe(name)
    own = read_toml(path)
    parent = own.pop("extends", "base")
    label = path.stem
    own.setdefault("name", label)
    if parent == "":
        return [(label, own)]
    if not isinstance(parent, str):
        raise UsageError(f"Recipe {path}: `extends` must be the name or file of one recipe.")
    beside = path.parent / parent  # a file is named from where the recipe lies
    parent_path = beside if parent.endswith(".toml") and beside.is_file() else find_recipe(parent)
    base = read_toml(parent_path)
    if base.pop("extends", "base") != "":
        raise UsageError(
            f"Recipe {path} extends {parent!r}, which extends another: one level is allowed.",
            f"Start from a copy of it: smp-camvid recipes copy {parent} mine.toml",
        )
    base.pop("name", None)
    base.pop("description", None)
    return [(parent_path.stem, base), (label, own)]


def parse_set(text: str) -> tuple[str, Any]:
    """`train.epochs=3` -> ("train.epochs", 3).  The value is TOML; what is not, is a string."""
    key, found, value = text.partition("=")
    key = key.strip()
    if not found or not key:
        raise UsageError(f"--set {text!r} is not key=value.", "For example --set train.epochs=3")
    try:
        return key, tomllib.loads(f"value = {value.strip()}")["value"]
    except tomllib.TOMLDecodeError:
        return key, value.strip()
