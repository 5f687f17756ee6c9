"""Links of the pages to files of the repository: to the source as the site shows it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.transforms import SphinxTransform
from sphinx.util.osutil import relative_uri

from pages.api import MODULES

ROOT = Path(__file__).parents[2]


def module_of(target: str) -> str | None:
    """`../smp_camvid/models/vanilla.py` -> its module, if the API reference documents it."""
    path = (ROOT / "docs" / target).resolve()
    if path.suffix != ".py" or not path.is_relative_to(ROOT):
        return None
    module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    return module if module in MODULES else None


class SourceLinks(SphinxTransform):
    """A link to a documented module opens its source page; any other file is downloaded."""

    default_priority = 200

    def apply(self, **kwargs: Any) -> None:
        for node in list(self.document.findall(addnodes.download_reference)):
            module = module_of(str(node.get("reftarget", "")))
            if module is None:
                continue
            page = "_modules/" + module.replace(".", "/")
            builder = self.app.builder
            uri = relative_uri(
                builder.get_target_uri(self.env.docname), builder.get_target_uri(page)
            )
            link = nodes.reference("", "", *node.children, refuri=uri, internal=True)
            node.replace_self(link)
