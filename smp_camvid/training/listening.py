"""Telling listeners: in order, in the main process, and never at the cost of the run."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path

from smp_camvid.recipe import TrainConfig
from smp_camvid.training.events import Event, History, Listener, Notice

# By name, so that training does not import the report package it stands below.
CONSOLE = "smp_camvid.report.console:ConsoleListener"
PLOTS = "smp_camvid.report.plots:PlotListener"


def default_listeners(config: TrainConfig, run_dir: Path, history: History) -> list[Listener]:
    """The console, and the plots when the run wants them; `history` holds the epochs before."""
    chosen: list[Listener] = []
    if config.verbose:
        chosen.append(_load(CONSOLE)(verbose=config.verbose))
    if config.save_plots or config.show_plots:
        chosen.append(
            _load(PLOTS)(run_dir, config.save_every, show=config.show_plots, history=history)
        )
    return chosen


def _load(reference: str):  # type: ignore[no-untyped-def]  # whatever the name stands for
    module, _, name = reference.partition(":")
    return getattr(importlib.import_module(module), name)


class Audience:
    """The listeners of one run.  One that raises is named once and left out from then on."""

    def __init__(self, listeners: Sequence[Listener] | None) -> None:
        self._given = listeners
        self._listeners: list[Listener] = []

    def open(self, default: Sequence[Listener]) -> None:
        """Those given to the Trainer, else the default ones."""
        self._listeners = list(default if self._given is None else self._given)

    def tell(self, event: Event) -> None:
        for listener in list(self._listeners):
            try:
                listener.on_event(event)
            except Exception as error:
                self._listeners.remove(listener)
                name = type(listener).__name__
                self.tell(
                    Notice(f"{name} failed and was left out: {type(error).__name__}: {error}")
                )
