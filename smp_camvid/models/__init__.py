"""The two model families and what carries their weights.  Nothing heavy is imported until used."""

from __future__ import annotations

import importlib
from typing import Any

_WHERE = {
    "VanillaUNet": "vanilla",
    "build_smp": "assembled",
    "create_model": "factory",
    "from_pretrained": "factory",
    "Network": "network",
    "Normalization": "pretrained",
    "normalization_for": "pretrained",
    "load_into": "weights",
    "load_network": "weights",
    "read_metadata": "weights",
    "save_weights": "weights",
}

__all__ = sorted(_WHERE)


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_WHERE[name]}"), name)
