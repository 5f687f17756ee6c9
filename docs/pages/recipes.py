"""The recipe reference: every key from where it is declared, and the recipes that ship."""

from __future__ import annotations

import json
from typing import Any

from pages.commands import escaped
from smp_camvid import recipe, registry
from smp_camvid.recipe import Recipe

_SECTIONS = ("model", "data", "loss", "train")
_BOUNDS = (
    ("minimum", "≥"), ("exclusiveMinimum", ">"), ("maximum", "≤"), ("exclusiveMaximum", "<")
)  # fmt: skip
_TYPES = {"integer": "whole number", "number": "number", "boolean": "true, false", "string": "text"}


def reference(page: str) -> str:
    """Markdown: a table of keys for each section, the architectures' options, the files."""
    schema = Recipe.model_json_schema()
    sections = [section(name, schema) for name in _SECTIONS]
    sections.insert(1, options())
    sections.insert(3, augmentation(schema))
    return "\n\n".join([top(schema), *sections, files()])


def top(schema: dict[str, Any]) -> str:
    rows = [(name, schema["properties"][name]) for name in ("name", "description")]
    return (
        "## Top level\n\n"
        '`extends` names the recipe that this one changes (`base` if absent, `""` for none), one '
        "level deep.\n\n" + table(rows, "", schema)
    )


def section(name: str, schema: dict[str, Any]) -> str:
    about = schema["$defs"][schema["properties"][name]["$ref"].rpartition("/")[2]]
    rows = list(about["properties"].items())
    words = about.get("description", "").replace("\n", " ")
    return f"## \\[{name}\\]\n\n{words}\n\n{table(rows, f'{name}.', schema)}"


def augmentation(schema: dict[str, Any]) -> str:
    step = schema["$defs"]["Step"]
    return (
        f"## augment\n\nA list of steps. {step['description']}\n\n"
        + table(list(step["properties"].items()), "", schema)
        + '\n\n```toml\naugment = [\n  { name = "HorizontalFlip", p = 0.5 },\n]\n```'
    )


def table(rows: list[tuple[str, dict[str, Any]]], prefix: str, schema: dict[str, Any]) -> str:
    lines = [
        f"| `{prefix}{name}` | {escaped(values(about))} | {default(about)} "
        f"| {escaped(about.get('description', ''))} |"
        for name, about in rows
    ]
    return "\n".join(["| key | values | default | what it does |", "|---|---|---|---|", *lines])


def values(about: dict[str, Any]) -> str:
    """What a field takes, from its JSON schema: `whole number ≥ 1`, `log, median, none`."""
    if "anyOf" in about:
        kinds = [values(one) for one in about["anyOf"] if one.get("type") != "null"]
        return " or ".join(dict.fromkeys(kinds))
    if "const" in about:
        return str(about["const"])
    if "enum" in about:
        return ", ".join(map(str, about["enum"]))
    if about.get("type") == "array":
        inner = about.get("prefixItems")
        if inner:
            return f"[{', '.join(values(one) for one in inner)}]"
        return f"list of {values(about.get('items', {}))}"
    bounds = [f"{sign} {about[key]:g}" for key, sign in _BOUNDS if key in about]
    return " ".join([_TYPES.get(about.get("type", ""), "any"), ", ".join(bounds)]).strip()


def default(about: dict[str, Any]) -> str:
    if "default" not in about:
        return ""
    value = about["default"]
    return "absent" if value is None else f"`{json.dumps(value)}`"


def options() -> str:
    """What each architecture takes in [model]."""
    lines = [
        f"| `{name}` | {', '.join(f'`{option}`' for option in registry.options_of(name))} |"
        for name in registry.ARCHITECTURES
    ]
    return (
        "### Options of the architectures\n\nFurther keys of `[model]`, handed to the constructor; "
        "`in_channels` and `classes` follow from the data.\n\n"
        + "\n".join(["| arch | options |", "|---|---|", *lines])
    )


def files() -> str:
    parts = ["## Recipes that ship"]
    for name in recipe.recipe_names():
        path = recipe.find_recipe(name)
        words = recipe.read_toml(path).get("description", "")
        text = path.read_text(encoding="utf-8").rstrip()
        parts.append(f"### {name}\n\n{words}.\n\n```toml\n{text}\n```")
    return "\n\n".join(parts)
