"""From a recipe's name and overrides to the recipe: later layers cover earlier ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from smp_camvid import registry
from smp_camvid.recipe.files import layers_of
from smp_camvid.recipe.problems import FindProblems, check
from smp_camvid.recipe.sections import ModelConfig
from smp_camvid.recipe.train_section import TrainConfig
from smp_camvid.recipe.whole import Recipe, flat_values, flatten


@dataclass(frozen=True)
class Resolved:
    """A recipe, and where each value came from: default, the base's name, its own, option."""

    recipe: Recipe
    origins: Mapping[str, str]


def resolve(
    name: str, overrides: Sequence[tuple[str, Any]] = (), also: FindProblems | None = None
) -> Resolved:
    """Reads a recipe, lays the overrides on top and checks the whole.

    `also` finds what only the libraries behind the recipe know, such as the arguments of an
    augmentation (`training.experiment.find_problems`).  Raises UsageError listing every problem
    at once.
    """
    flat: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for label, values in [*layers_of(name), ("option", dict(overrides))]:
        layer = dict(values if label == "option" else flatten(values))
        _drop_stale_options(flat, layer)
        _keep_effective_batch(flat, layer)
        flat.update(layer)
        origins.update(dict.fromkeys(layer, label))
    recipe = check(_nest(flat), f"Recipe {name!r}", also)
    return Resolved(recipe, {key: origins.get(key, "default") for key in flat_values(recipe)})


def _drop_stale_options(flat: dict[str, Any], layer: Mapping[str, Any]) -> None:
    """A layer that names another architecture starts without the options of the former one."""
    arch = layer.get("model.arch")
    if arch is None or arch == flat.get("model.arch"):
        return
    known = registry.options_of(arch) if arch in registry.architecture_names() else ()
    for key in [k for k in flat if k.startswith("model.")]:
        name = key.removeprefix("model.")
        if name not in ModelConfig.model_fields and name not in known:
            del flat[key]


def _keep_effective_batch(flat: dict[str, Any], layer: dict[str, Any]) -> None:
    """A layer that asks for `auto` learns from as many frames a step as it would without."""
    asked = layer.get("train.batch_size")
    if asked is None:
        return
    before = flat.get("train.batch_size", TrainConfig.model_fields["batch_size"].default)
    accumulate = layer.get("train.accumulate", flat.get("train.accumulate", 1))
    if asked != "auto":
        flat.pop("train.effective_batch", None)  # it went with the auto of a layer below
    elif type(before) is int and type(accumulate) is int:
        kept = flat.get("train.effective_batch") or before * accumulate
        layer.setdefault("train.effective_batch", kept)


def _nest(flat: Mapping[str, Any]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for key, value in flat.items():
        section, dot, name = key.partition(".")
        if dot:
            table = nested.setdefault(section, {})
            if isinstance(table, dict):
                table[name] = value
        else:
            nested[key] = value
    return nested
