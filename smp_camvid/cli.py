"""The command line: a thin client of the library.  Heavy imports happen inside the commands."""

from __future__ import annotations

import os
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from smp_camvid import __version__
from smp_camvid.commands.data import data_check, data_show, data_stats
from smp_camvid.commands.doctor import doctor
from smp_camvid.commands.download import download
from smp_camvid.commands.evaluate import evaluate
from smp_camvid.commands.predict import predict
from smp_camvid.commands.recipes import (
    models,
    recipes_check,
    recipes_copy,
    recipes_list,
    recipes_show,
)
from smp_camvid.commands.train import train
from smp_camvid.errors import InterruptedRun, SmpCamvidError
from smp_camvid.training import torchrun
from smp_camvid.training.last_words import SURVIVOR, last_words, lost_the_group


class PlainErrors(TyperGroup):
    """The one place where errors become a line on stderr and an exit code."""

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


def plain_reason(error: Exception) -> str:
    """A first line for errors of the system and of torch."""
    if isinstance(error, MemoryError) or "out of memory" in str(error).lower():
        return "Out of memory. Lower --batch-size (with --accumulate), or --size."
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else 'no reason given'}"


def fail(message: str, code: int, error: BaseException | None = None) -> None:
    """Says why on stderr, without markup or colour, and exits; of a group's processes, one."""
    if words := last_words(message, error):
        typer.echo(f"smp-camvid: {words}", err=True)
    raise typer.Exit(code)


app = typer.Typer(
    name="smp-camvid",
    cls=PlainErrors,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    help="Train, judge and use U-Nets on the CamVid road scenes.",
)


app.command()(train)
app.command()(evaluate)
app.command()(predict)
app.command()(download)
app.command()(models)
app.command()(doctor)
data_app = typer.Typer(no_args_is_help=True, help="Check, count and show a dataset.")
data_app.command("check")(data_check)
data_app.command("stats")(data_stats)
data_app.command("show")(data_show)
app.add_typer(data_app, name="data")
recipes_app = typer.Typer(no_args_is_help=True, help="List, show, check and copy recipes.")
recipes_app.command("list")(recipes_list)
recipes_app.command("show")(recipes_show)
recipes_app.command("check")(recipes_check)
recipes_app.command("copy")(recipes_copy)
app.add_typer(recipes_app, name="recipes")


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
    app(prog_name="smp-camvid")


if __name__ == "__main__":
    main()
