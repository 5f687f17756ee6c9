"""The command line: a thin client of the library.  Heavy imports happen inside the commands."""

from __future__ import annotations

import ast
import importlib
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from smp_camvid import __version__, torchrun
from smp_camvid.errors import InterruptedRun, SmpCamvidError, visible
from smp_camvid.training.last_words import SURVIVOR, last_words, lost_the_group

COMMANDS = {
    "train": "train:train",
    "evaluate": "evaluate:evaluate",
    "compare": "compare:compare",
    "report": "report:report",
    "predict": "predict:predict",
    "export": "export:export",
    "serve": "serve:serve",
    "download": "download:download",
    "watch": "watch:watch",
    "models": "recipes:models",
    "bench": "bench:bench",
    "doctor": "doctor:doctor",
    "data": "data:data_app",
    "recipes": "recipes:recipes_app",
}
"""Command -> the module of smp_camvid.commands it is in, and its name there.  A module is imported
when its command is asked for: what others need would cost `predict` a third of its start."""


class PlainErrors(TyperGroup):
    """Finds the commands, and is the one place where errors become a line on stderr and a code."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name in COMMANDS and cmd_name not in self.commands:
            self.commands[cmd_name] = load_command(cmd_name)
        return super().get_command(ctx, cmd_name)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        for name in COMMANDS:  # importing them for a line each would double the time of --help
            self.commands.setdefault(name, TyperCommand(name, help=summary_of(name)))
        super().format_help(ctx, formatter)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and args[0] not in COMMANDS:  # what is nearest to it is looked for among all
            for name in COMMANDS:
                self.get_command(ctx, name)
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        debug = ctx.params.get("debug") or os.environ.get("SMP_CAMVID_DEBUG") == "1"
        try:
            return super().invoke(ctx)
        except SmpCamvidError as error:
            if debug:
                raise
            fail(str(error), error.exit_code)
        except KeyboardInterrupt as error:
            fail("Interrupted.", InterruptedRun.exit_code, error)
        except BrokenPipeError:  # `smp-camvid recipes show | head`: nobody is reading any more
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(1) from None
        except Exception as error:
            if debug or type(error).__module__.startswith("typer"):  # its exits and usage errors
                if torchrun.local_rank() and hasattr(error, "exit_code"):  # one of them says it
                    raise typer.Exit(error.exit_code) from None
                raise
            code = SURVIVOR if torchrun.launched() and lost_the_group(error) else 1
            fail(f"{plain_reason(error)} (--debug before the command shows where.)", code, error)


def load_command(name: str) -> Any:
    """A command, or a group of them, from its module."""
    module, _, attribute = COMMANDS[name].partition(":")
    found = getattr(importlib.import_module(f"smp_camvid.commands.{module}"), attribute)
    if not isinstance(found, typer.Typer):
        alone = typer.Typer(add_completion=False)
        alone.command(name)(found)
        found = alone
    command = typer.main.get_command(found)
    command.name = name
    return command


def summary_of(name: str) -> str:
    """What a command says of itself, read in its source."""
    module, _, attribute = COMMANDS[name].partition(":")
    source = Path(__file__).with_name("commands") / f"{module}.py"
    for node in ast.parse(source.read_bytes()).body:
        if isinstance(node, ast.FunctionDef) and node.name == attribute:
            return " ".join((ast.get_docstring(node) or "").split())
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == attribute:
            assert isinstance(node.value, ast.Call)  # a Typer with commands of its own
            said = {keyword.arg: keyword.value for keyword in node.value.keywords}
            return str(ast.literal_eval(said["help"]))
    raise AssertionError(f"{source} has no {attribute}")


def plain_reason(error: Exception) -> str:
    """A first line for errors of the system and of torch."""
    if isinstance(error, MemoryError) or "out of memory" in str(error).lower():
        return "Out of memory. Lower --batch-size (with --accumulate), or --size."
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else 'no reason given'}"


def fail(message: str, code: int, error: BaseException | None = None) -> None:
    """Says why on stderr, without markup or colour, and exits; of a group's processes, one."""
    if words := last_words(message, error):
        typer.echo(visible(f"smp-camvid: {words}"), err=True)
    raise typer.Exit(code)


app = typer.Typer(
    name="smp-camvid",
    cls=PlainErrors,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    help="Train, judge and use U-Nets on the CamVid road scenes.",
)


def show_version(value: bool) -> None:
    if value:
        typer.echo(f"smp-camvid {__version__}")
        raise typer.Exit


@app.callback()
def main_options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=show_version, is_eager=True, help="Print the version."),
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> None:
    """Train, judge and use U-Nets on the CamVid road scenes."""


def main() -> None:
    """Entry point of the console script."""
    try:
        app(prog_name="smp-camvid")
    except SystemExit as end:
        torchrun.leave_code(end.code)
        raise


if __name__ == "__main__":
    main()
