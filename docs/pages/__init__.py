"""What the site has beyond its Markdown files.

What stands in a page between the lines `<!-- generated: NAME -->` and `<!-- end of generated -->`
is replaced, when the site is built, by Markdown made from the code: the commands, the recipe's
keys, the public names.  Elsewhere (GitHub) it is what is read.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from pages import api, commands, contents, recipes, source_links

MAKERS: dict[str, Callable[[str], str]] = {
    "api": api.reference,
    "commands": commands.reference,
    "contents": contents.toctrees,
    "recipes": recipes.reference,
}
_MARK = re.compile(
    r"^<!-- generated: (\w+) -->\n.*?^<!-- end of generated -->$", re.MULTILINE | re.DOTALL
)


def fill(app: Any, docname: str, source: list[str]) -> None:
    """Sphinx's `source-read`: puts what a page asks for in the place of its mark."""
    text = source[0]
    source[0] = _MARK.sub(lambda found: MAKERS[found[1]](text), text)


def setup(app: Any) -> dict[str, bool]:
    app.connect("source-read", fill)
    app.add_transform(source_links.SourceLinks)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
