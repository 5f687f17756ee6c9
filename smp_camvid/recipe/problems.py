"""Whether values make a recipe; if not, everything that is wrong with them, a sentence each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from smp_camvid import registry
from smp_camvid.errors import UsageError, did_you_mean
from smp_camvid.recipe.sections import ModelConfig
from smp_camvid.recipe.train_section import TrainConfig
from smp_camvid.recipe.whole import Recipe

FindProblems = Callable[[Mapping[str, Any]], list[str]]
"""Nested values -> sentences about what is wrong with them."""


def check(
    values: Mapping[str, Any], what: str = "The recipe", also: FindProblems | None = None
) -> Recipe:
    """Validates nested values.  Raises UsageError with all problems, one a line."""
    problems = _model_problems(values.get("model", {})) + (also(values) if also else [])
    recipe = None
    try:
        recipe = Recipe.model_validate(values)
    except ValidationError as error:
        problems = [_explain(e) for e in error.errors()] + problems
    if recipe is None or problems:
        listed = "".join(f"\n  - {problem}" for problem in problems)
        count = f"{len(problems)} problem{'s' if len(problems) > 1 else ''}"
        raise UsageError(
            f"{what} has {count}:{listed}",
            "\n`smp-camvid recipes show vanilla` prints the valid keys.",
        )
    return recipe


def check_section(section: TrainConfig, changes: Mapping[str, Any]) -> TrainConfig:
    """`section` with `changes`, validated like a recipe.  Raises UsageError with all problems."""
    try:
        checked = TrainConfig.model_validate({**section.model_dump(), **changes})
    except ValidationError as error:
        listed = "".join(f"\n  - {_explain(e, TrainConfig)}" for e in error.errors())
        raise UsageError(f"The Trainer's options have problems:{listed}") from None
    registry.check_loggers(checked.loggers)
    return checked


# The data decides these two, the Trainer wraps the third.
NOT_OPTIONS = {
    "classes": "set by data.classes",
    "in_channels": "always 3, RGB",
    "activation": "the loss and the predictor work on logits",
    "aux_params": "the Trainer has no second output",
}


def _model_problems(model: Any) -> list[str]:
    """What pydantic cannot know: architectures and the options of their constructors."""
    if not isinstance(model, Mapping):
        return []
    arch = model.get("arch", "vanilla")
    if not isinstance(arch, str):
        return []
    if arch not in registry.architecture_names():
        guess = did_you_mean(arch, registry.architecture_names())
        return [f"model.arch: no architecture {arch!r}. {guess}".rstrip()]
    known = registry.options_of(arch)
    problems = []
    for key in model:
        if key in ModelConfig.model_fields or (key in known and key not in NOT_OPTIONS):
            continue
        if key in NOT_OPTIONS:
            problems.append(f"model.{key}: cannot be set ({NOT_OPTIONS[key]}).")
        else:
            guess = did_you_mean(key, [*ModelConfig.model_fields, *known])
            takes = (
                "" if guess else f"It takes {', '.join(k for k in known if k not in NOT_OPTIONS)}."
            )
            problems.append(f"model.{key}: {arch} has no such option. {guess or takes}")
    return problems


def _explain(error: Any, root: type[BaseModel] = Recipe) -> str:
    """One pydantic error -> one sentence."""
    key = ".".join(str(part) for part in error["loc"] if not str(part).startswith("function"))
    if error["type"] == "extra_forbidden":
        *parents, last = error["loc"]
        section: Any = root.model_fields[str(parents[0])].annotation if parents else root
        known = getattr(section, "model_fields", {})
        guess = did_you_mean(str(last), known)
        return f"{key}: unknown key. {guess or 'Known: ' + ', '.join(known) + '.'}"
    if error["type"] == "string_pattern_mismatch":
        meaning = _field_of(root, error["loc"]).description or ""
        return f"{key}: {error['input']!r} is none of these: {meaning}"
    message = error["msg"][0].lower() + error["msg"][1:]
    if error["type"] == "section":  # about several keys at once
        return f"{key}: {message}."
    value = repr(error["input"])
    return f"{key}: {message}, not {value if len(value) < 60 else type(error['input']).__name__}."


def _field_of(root: type[BaseModel], location: Sequence[Any]) -> Any:
    """The declaration a pydantic error points at."""
    *parents, last = [str(part) for part in location]
    section: Any = root.model_fields[parents[0]].annotation if parents else root
    return section.model_fields[last]
