"""The models the page offers: those named, the runs under ./runs, the shipped ones.

A browser names a model by its id in this list and can name nothing else.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from smp_camvid.errors import UsageError
from smp_camvid.inference import box
from smp_camvid.inference.opening import shipped_name
from smp_camvid.inference.predictor import Segmenter, load
from smp_camvid.runs import find_weights, trained_runs


@dataclass(frozen=True)
class Choice:
    """A model that can be loaded."""

    reference: str
    """What `predictor.load` takes."""
    label: str
    stamp: int = 0
    """When its weights were written; a run that went on training is loaded anew."""

    @property
    def id(self) -> str:
        return hashlib.sha256(self.reference.encode()).hexdigest()[:16]


class Models:
    """The list, and the one model in memory.  `load` belongs to one thread at a time."""

    def __init__(self, named: Sequence[str] = (), device: str = "auto") -> None:
        """Raises RunError or UsageError for a name that leads to no weights."""
        self._named = [choice_of(reference) for reference in named]
        self._device = device
        self._loaded: tuple[Choice, Segmenter] | None = None

    def choices(self) -> dict[str, Choice]:
        """By id; the first is the default: what was named first, else what `predict` would use."""
        runs_here = (choice_of(str(run)) for run in trained_runs())
        found = [*self._named, *runs_here, *map(choice_of, box.names())]
        return {choice.id: choice for choice in found}

    def load(self, id: str) -> Segmenter:
        """The model with this id; the one before leaves the memory first.

        Raises UsageError for an id that is not in the list, and what `predictor.load` raises.
        """
        choice = self.choices().get(id)
        if choice is None:
            raise UsageError("This model is no longer there.", "Pick another one.")
        if self._loaded is None or self._loaded[0] != choice:
            self._loaded = None
            self._loaded = choice, load(choice.reference, device=self._device)
        return self._loaded[1]

    def load_default(self) -> Segmenter:
        """Raises RunError when there is no model at all."""
        ids = list(self.choices())
        if not ids:
            find_weights(None)  # says what to do
        return self.load(ids[0])


def choice_of(reference: str) -> Choice:
    """RUN | FILE | NAME of a shipped model -> Choice.  Raises RunError or UsageError."""
    shipped = shipped_name(reference)
    if shipped is not None:
        return Choice(shipped, f"{shipped} (shipped)")
    stamp = find_weights(reference).stat().st_mtime_ns
    if Path(reference).is_dir():
        return Choice(reference, f"{Path(reference).resolve().name} (run)", stamp)
    return Choice(reference, reference, stamp)
