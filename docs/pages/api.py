"""The API reference: the public names, then the modules that the concept pages explain."""

from __future__ import annotations

import smp_camvid

MODULES = {
    "smp_camvid.models.vanilla": "The paper's U-Net.",
    "smp_camvid.models.network": "A model with its normalisation and its sizes.",
    "smp_camvid.inference.tiling": "Tiles, mirrored borders, blending.",
    "smp_camvid.evaluation.metrics": "The confusion matrix and what follows from it.",
    "smp_camvid.evaluation.definitions": "What others call mIoU.",
    "smp_camvid.evaluation.bootstrap": "Intervals from blocks of frames.",
    "smp_camvid.data.classes": "Class tables.",
    "smp_camvid.data.synthetic": "Drawn road scenes.",
    "smp_camvid.training.events": "What a training tells its listeners.",
}
"""Modules whose every public name is documented, with a word on each."""


def reference(page: str) -> str:
    """Markdown with autodoc directives."""
    names = [name for name in smp_camvid.__all__ if not name.startswith("_")]
    public = "\n".join(map(public_name, names))
    inner = "\n\n".join(
        f"### `{module}`\n\n{words}\n\n" + rst(f".. automodule:: {module}\n   :members:\n")
        for module, words in MODULES.items()
    )
    return f"## Public names\n\n{public}\n\n## Modules behind the concepts\n\n{inner}"


def public_name(name: str) -> str:
    found = getattr(smp_camvid, name)
    kind = "autofunction" if not isinstance(found, type) else "autoclass"
    if isinstance(found, type) and issubclass(found, BaseException):
        kind = "autoexception"
    members = "   :members:\n" if isinstance(found, type) else ""
    return f"### `{name}`\n\n" + rst(f".. {kind}:: smp_camvid.{name}\n{members}")


def rst(text: str) -> str:
    return f"```{{eval-rst}}\n{text}```\n"
