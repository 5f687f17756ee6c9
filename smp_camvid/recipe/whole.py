"""The recipe as a whole, and its values by their dotted keys."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import tomli_w
from pydantic import BaseModel, Field

from smp_camvid.recipe.sections import DataConfig, LossConfig, ModelConfig, Section, Step
from smp_camvid.recipe.train_section import TrainConfig


class Recipe(Section):
    """Everything a run is made from."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")] = "recipe"
    """Name of the run folder: letters, digits, dot, dash and underscore."""
    description: str = ""
    """One line for `recipes list`."""
    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig()
    augment: tuple[Step, ...] = ()
    loss: LossConfig = LossConfig()
    train: TrainConfig = TrainConfig()

    def to_toml(self) -> str:
        """The recipe with every value written out; reading it back gives an equal recipe."""
        values = {"extends": "", **_without_none(self.model_dump(mode="json"))}
        return tomli_w.dumps(values)


def _without_none(value: Any) -> Any:
    """TOML has no null; an absent key means None."""
    if isinstance(value, dict):
        return {k: _without_none(v) for k, v in value.items() if v is not None}
    if isinstance(value, list):
        return [_without_none(v) for v in value]
    return value


def flat_values(recipe: Recipe) -> dict[str, Any]:
    """Every value under its dotted key, as JSON would hold it."""
    return dict(flatten(recipe.model_dump(mode="json")))


def value_of(recipe: Recipe, key: str) -> Any:
    """The value of a dotted key, as JSON would hold it."""
    return flat_values(recipe)[key]


def field_help(key: str) -> str:
    """The docstring of a field, `"train.epochs"` for example."""
    section, name = key.split(".")
    annotation = Recipe.model_fields[section].annotation
    assert isinstance(annotation, type) and issubclass(annotation, BaseModel)
    return annotation.model_fields[name].description or ""


def flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested values by dotted keys, one level deep: those of `prefix` are left whole."""
    for key, value in values.items():
        if isinstance(value, Mapping) and not prefix:
            yield from flatten(value, f"{key}.")
        else:
            yield prefix + key, value
