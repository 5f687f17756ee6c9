"""The table of contents of the site: the lists of links on its first page."""

from __future__ import annotations

import re

_PART = re.compile(r"^## (.+)$", re.MULTILINE)
_PAGE = re.compile(r"^\* \[[^\]]+\]\(([\w-]+)\.(?:md|ipynb)\)", re.MULTILINE)


def toctrees(page: str) -> str:
    """A hidden `toctree` for each heading of `page` that has a list of links to pages."""
    _, *parts = _PART.split(page)
    trees = []
    for caption, text in zip(parts[::2], parts[1::2], strict=True):
        if names := _PAGE.findall(text):
            lines = "\n".join(names)
            trees.append(f"```{{toctree}}\n:hidden:\n:caption: {caption}\n\n{lines}\n```")
    return "\n\n".join(trees)
