"""Telling listeners: in order, in the main process, and never at the cost of the run."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

from smp_camvid import registry
from smp_camvid.recipe import TrainConfig
from smp_camvid.training.events import Event, History, Listener, Notice

# By name, so that training does not import the report package it stands below.
CONSOLE = "smp_camvid.report.console:ConsoleListener"
PLOTS = "smp_camvid.report.plots:PlotListener"
PROGRESS = "smp_camvid.report.progress_file:ProgressFile"

OpenLogger: TypeAlias = Callable[[Path, History], Listener]
"""An entry point of the group `smp_camvid.loggers`: (run folder, epochs on record) -> Listener.

The run's recipe is config.toml in its folder, where a logger also keeps its files.  A resumed run
has epochs on record, or goes on inside its first one.  The first event is RunStarted, the last
RunEnded, unless the process is killed.
"""


def default_listeners(config: TrainConfig, run_dir: Path, history: History) -> list[Listener]:
    """The console, plots and loggers that the run wants; `history` holds the epochs before."""
    chosen: list[Listener] = [_load(PROGRESS)(run_dir)]
    if config.verbose:
        chosen.append(_load(CONSOLE)(verbose=config.verbose, history=History([*history.epochs])))
    if config.save_plots or config.show_plots:
        chosen.append(
            _load(PLOTS)(run_dir, config.save_every, show=config.show_plots, history=history)
        )
    # A history each: the plots go on writing in theirs.
    loggers = dict.fromkeys(config.loggers)
    return chosen + [NamedLogger(name, run_dir, History([*history.epochs])) for name in loggers]


def _load(reference: str):  # type: ignore[no-untyped-def]  # whatever the name stands for
    module, _, name = reference.partition(":")
    return getattr(importlib.import_module(module), name)


class NamedLogger:
    """A registered logger, opened by the first event: a failure there is one of a listener."""

    def __init__(self, name: str, run_dir: Path, history: History) -> None:
        self.name, self._run_dir, self._history = name, run_dir, history
        self._logger: Listener | None = None

    def on_event(self, event: Event) -> None:
        try:
            if self._logger is None:
                open_logger: OpenLogger = registry.load_entry(registry.LOGGERS, self.name)
                self._logger = open_logger(self._run_dir, self._history)
            self._logger.on_event(event)
        except SystemExit as error:  # a library's way out must not be the run's
            raise RuntimeError(f"it wanted to exit with {error.code}") from error


class Audience:
    """The listeners of one run.  One that raises is named once and left out from then on."""

    def __init__(self, listeners: Sequence[Listener] | None) -> None:
        self._given = listeners
        self._listeners: list[Listener] = []

    def open(self, default: Sequence[Listener]) -> None:
        """Those given to the Trainer, else the default ones."""
        self._listeners = list(default if self._given is None else self._given)

    def notice(self, sentence: str) -> None:
        """Something the user should see; nothing when it is empty."""
        if sentence:
            self.tell(Notice(sentence))

    def tell(self, event: Event) -> None:
        for listener in list(self._listeners):
            if listener not in self._listeners:  # it failed at the notice of another's failure
                continue
            try:
                listener.on_event(event)
            except Exception as error:
                self._listeners.remove(listener)
                name = getattr(listener, "name", type(listener).__name__)
                self.tell(
                    Notice(f"{name} failed and was left out: {type(error).__name__}: {error}")
                )
