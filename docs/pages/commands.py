"""The command reference: every command and option, with the help text the command line prints."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import typer

from smp_camvid.cli import app

# What Typer calls a value that nobody named.
_VALUES = {"<int range>": "N", "<int>": "N", "<float range>": "X", "<float>": "X", "<str>": "TEXT"}


def tree() -> Iterator[tuple[str, Any, Any]]:
    """(full name, command, its context) of every command, groups before what is in them."""
    root = typer.main.get_command(app)
    context = root.make_context("smp-camvid", [], resilient_parsing=True)
    yield "smp-camvid", root, context
    yield from _below(root, context)


def _below(group: Any, parent: Any) -> Iterator[tuple[str, Any, Any]]:
    for name in group.list_commands(parent):
        command = group.get_command(parent, name)
        context = command.make_context(name, [], parent=parent, resilient_parsing=True)
        yield f"{parent.command_path} {name}", command, context
        if hasattr(command, "list_commands"):
            yield from _below(command, context)


def reference(page: str) -> str:
    """Markdown: a section for every command."""
    return "\n\n".join(section(*each) for each in tree())


def section(name: str, command: Any, context: Any) -> str:
    rows = [row for one in command.get_params(context) if (row := parameter_row(one, context))]
    arguments = [cells[0] for kind, *cells in rows if kind == "argument"]
    inner = list(command.list_commands(context)) if hasattr(command, "list_commands") else []
    usage = " ".join([name, "[OPTIONS]", *(["COMMAND"] if inner else arguments)])
    parts = [f"## `{name}`", f"```text\n{usage}\n```", prose(command.help or "")]
    if inner:
        parts.append("Commands: " + ", ".join(f"`{one}`" for one in inner) + ".")
    if rows:
        lines = [f"| {code(left)} | {escaped(right)} |" for _, left, right in rows]
        parts.append("\n".join(["| option | what it does |", "|---|---|", *lines]))
    return "\n\n".join(parts)


def parameter_row(parameter: Any, context: Any) -> tuple[str, str, str] | None:
    """(argument or option, its names and value, its help text); None for hidden ones."""
    record = parameter.get_help_record(context)
    if record is None:
        return None
    left, right = record
    kind = str(parameter.param_type_name)
    if kind == "argument":
        left = re.sub(r" <[^>]*>$", "", left)
    for typer_name, ours in _VALUES.items():
        left = left.replace(typer_name, ours)
    return kind, left, right


def prose(text: str) -> str:
    """A docstring's paragraphs, each in one line."""
    return "\n\n".join(" ".join(part.split()) for part in text.split("\n\n"))


def escaped(text: str) -> str:
    """Words for a cell of a table: no bar, no emphasis, no link and no HTML in them."""
    return re.sub(r"([|*_<\[\]])", r"\\\1", text)


def code(text: str) -> str:
    """A code span for a cell of a table."""
    return "`" + text.replace("|", "\\|") + "`"
