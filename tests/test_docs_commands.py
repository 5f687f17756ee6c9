"""Every command in README and docs is one that exists, with options and names that exist."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import typer
from docs_blocks import LANGUAGES, PAGES, ROOT, Block, all_blocks, blocks_of, inline_commands

from smp_camvid import recipe, registry
from smp_camvid.cli import app
from smp_camvid.commands import train as train_command
from smp_camvid.errors import SmpCamvidError
from smp_camvid.inference import box
from smp_camvid.training.experiment import find_problems

SHELL = {"cat", "chmod", "export", "mkdir", "mv", ".", "ls", "ssh"}
"""Programs of the system, whose options are none of ours."""
MINE = {"./mine.toml", "mine.toml"}
"""Recipes that a page has its reader make."""
PLUGINS = {"models": {"roadnet"}, "sources": {"myroads"}, "loggers": {"losses"}}
"""What the package of docs/howto-plugin.md brings."""

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


class WrongCommandError(AssertionError):
    """A command of the docs that would be refused."""


def check(words: Sequence[str]) -> None:
    """Raises WrongCommandError for a command that does not exist as it is written."""
    program, rest = words[0], list(words[1:])
    if "torchrun" in words:
        at = list(words).index("-m") + 1
        if words[at] != "smp_camvid":
            raise WrongCommandError(f"torchrun starts {words[at]}")
        check(["smp-camvid", *(word for word in words[at + 1 :] if word[0] != "$")])
    elif program == "smp-camvid":
        check_ours(rest)
    elif program == "make":
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        require(rest[0], targets, "make")
    elif program in ("python", "python3"):
        if rest[0] != "-m" and not (ROOT / rest[0]).is_file():
            raise WrongCommandError(f"there is no {rest[0]}")
    elif program == "pip":
        extras = re.findall(r"\[([\w,]+)\]", " ".join(rest))
        for name in ",".join(extras).split(",") if extras else []:
            require(name, PROJECT["project"]["optional-dependencies"], "extra")
    elif program == "pytest":
        pass
    else:
        require(program, SHELL, "program")


def require(name: str, known: Any, kind: str) -> None:
    if name not in known:
        raise WrongCommandError(f"there is no {kind} {name!r}")


def check_ours(words: list[str]) -> None:
    """`smp-camvid WORDS`, by the parser that would read it."""
    group = typer.main.get_command(app)
    context = group.make_context("smp-camvid", [], resilient_parsing=True)
    while hasattr(group, "get_command"):
        if words and words[0] in ("--version", "--help", "--debug"):
            return
        name = words.pop(0) if words else ""
        command = group.get_command(context, name)
        if command is None:
            raise WrongCommandError(f"{context.command_path} has no command {name!r}")
        if hasattr(command, "get_command"):
            context = command.make_context(name, [], parent=context, resilient_parsing=True)
        group = command
    try:
        given = group.make_context(name, words, parent=context).params
    except typer.Exit:  # --help
        return
    except Exception as error:
        raise WrongCommandError(f"{name}: {error}") from error
    check_names(name, given)


def check_names(command: str, given: Mapping[str, Any]) -> None:
    """What the parser takes for any word, and the command would refuse."""
    if command == "train":
        check_recipe(given)
    sources = {*registry.plugin_names(registry.SOURCES), *PLUGINS["sources"]}
    for option, known in {
        "source": sources, "name": {*recipe.recipe_names(), *MINE},
        "names": {*recipe.recipe_names(), *MINE}, "model": box.names(), "models": box.names(),
        "scale": ("train", "native"), "format": ("onnx", "pt2"), "format_": ("onnx", "pt2"),
    }.items():  # fmt: skip
        for value in listed(given.get(option)):
            if value in known or (option.startswith("model") and re.search(r"[./]", value)):
                continue  # a model may be a file, too
            raise WrongCommandError(f"{command}: there is no {option} {value!r}")


def listed(value: Any) -> list[str]:
    if value is None:
        return []
    return [value] if isinstance(value, str) else [str(one) for one in value]


def check_recipe(given: Mapping[str, Any]) -> None:
    """The recipe of a `train`, found, resolved and checked whole as `train` itself does it."""
    if given["recipe_name"] in MINE or given["arch"] in PLUGINS["models"]:
        return
    asked = {**given, "resume": None, "dry_run": True, "find_lr": False}
    asked["logger"] = [name for name in given["logger"] or () if name not in PLUGINS["loggers"]]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train_command, "show_plan", lambda resolved, devices: None)
        try:
            train_command.train(SimpleNamespace(params=asked), **asked)
        except SmpCamvidError as error:
            raise WrongCommandError(str(error)) from error


@pytest.mark.parametrize("block", all_blocks("", "bash", "console"), ids=str)
def test_the_commands_of_a_block_exist(block: Block) -> None:
    commands = block.commands
    assert commands, f"{block}: a block without a language holds commands; name another as text"
    for words in commands:
        check(words)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_commands_in_the_prose_exist(page: Path) -> None:
    for line, words in inline_commands(page):
        try:
            check([*words, "--help"] if len(words) == 2 else words)  # a command is spoken of
        except WrongCommandError as error:
            raise WrongCommandError(f"{page.name}:{line}: {error}") from error


def test_blocks_are_of_a_known_kind() -> None:
    kinds = {block.language for page in PAGES for block in blocks_of(page)}
    assert kinds <= LANGUAGES


def test_there_are_commands_to_check() -> None:
    ours = [w for b in all_blocks("", "bash", "console") for w in b.commands if "smp" in w[0]]
    assert len(ours) > 80
    assert sum(len(inline_commands(page)) for page in PAGES) > 15


@pytest.mark.parametrize(
    "line",
    [
        "smp-camvid trian", "smp-camvid train --archh vanilla", "smp-camvid train --arch unett",
        "smp-camvid train --recipe unet-lite", "smp-camvid train --set train.epoch=3",
        "smp-camvid train --set train.lr=fast", "smp-camvid train --logger tensorbord",
        "smp-camvid train --epochs many", "smp-camvid train --size 360",
        "smp-camvid predict", "smp-camvid predict a.png --model camvid-lite1",
        "smp-camvid download --source kagle", "smp-camvid recipes show vanila",
        "smp-camvid recipes print vanilla", "smp-camvid data check --strickt",
        "smp-camvid export a --format onxx", "make tests", "python benchmarks/gone.py",
        "pip install '.[weight]'", "torchrun -m smp_camvid train --recepie quick", "curl x",
    ],
)  # fmt: skip
def test_a_wrong_command_is_noticed(line: str) -> None:
    from docs_blocks import commands_of

    (words,) = commands_of(line)
    with pytest.raises(WrongCommandError):
        check(words)


def tables_of(block: Block) -> Iterator[str]:
    yield from tomllib.loads(block.text)


@pytest.mark.parametrize("block", all_blocks("toml"), ids=str)
def test_toml_blocks_are_recipes_or_projects(block: Block, tmp_path: Path) -> None:
    if set(tables_of(block)) & {"project", "build-system"}:
        return  # howto-plugin.md's is installed in test_docs_run.py
    (tmp_path / "page.toml").write_text(block.text)
    recipe.resolve(str(tmp_path / "page.toml"), also=find_problems)
