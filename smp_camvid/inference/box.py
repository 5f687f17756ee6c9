"""The models that ship with the package.  No torch, nothing heavy: `predict` asks here first.

A folder `smp_camvid/box/<name>/` holds `model.safetensors` (an ordinary weights file),
`model.onnx` (the graph alone: its tensors are those of the weights file, read from there) and
`MODEL_CARD.md`.  `benchmarks/make_box.py` makes it.
"""

from __future__ import annotations

from pathlib import Path

DEFAULT = "camvid-lite0"
FILES = ("model.safetensors", "model.onnx", "MODEL_CARD.md")

_BOX = Path(__file__).parent.parent / "box"


def names() -> tuple[str, ...]:
    """Names of the shipped models."""
    return tuple(sorted(path.parent.name for path in _BOX.glob(f"*/{FILES[0]}")))


def find(name: str) -> Path:
    """The folder of the shipped model `name`, which is one of `names()`."""
    return _BOX / name
