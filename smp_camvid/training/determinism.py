"""`--deterministic`: kernels that give the same numbers again, else their names."""

from __future__ import annotations

import contextlib
import os
import re
import warnings
from collections.abc import Iterator

import torch

_NAMED = re.compile(r"^(\S+) does not have a deterministic implementation")


class Determinism:
    """On a CPU the same seed gives the same weights anyway; on CUDA slower kernels are asked for.

    Where torch has none for an operation the step goes on, and `names` gets the operation.
    """

    def __init__(self, asked: bool) -> None:
        self.asked = asked
        self.names: set[str] = set()
        self._told: set[str] = set()
        if asked:  # cuBLAS reads it when the device is first used
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

    def switch(self) -> None:
        """Sets torch's global switch for the run that begins."""
        torch.use_deterministic_algorithms(self.asked, warn_only=True)
        # cuDNN tries its kernels for each new shape and keeps the fastest; a run has few shapes
        torch.backends.cudnn.benchmark = not self.asked

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Notes the operations that torch warns of in a step."""
        if not self.asked:
            yield
            return
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield
        for warning in caught:
            found = _NAMED.match(str(warning.message))
            if found is None:
                warnings.warn_explicit(
                    warning.message, warning.category, warning.filename, warning.lineno
                )
            else:
                self.names.add(found.group(1))

    def notice(self) -> str:
        """A sentence for the operations named since the last call, or nothing."""
        new = sorted(self.names - self._told)
        self._told |= self.names
        if not new:
            return ""
        return (
            f"Not deterministic on this device: {', '.join(new)}. Two runs with one seed may "
            "differ in the last digits."
        )
