"""Figures of a report: each is a value of the document, says which, and is escaped.

`<data value="0.6852..." data-key='["miou"]'>0.685</data>`: what is seen is rounded, what is meant
is there in full, under the keys that lead to it in the document of `evaluate --json`
(`compare --json` for several models).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from markupsafe import Markup

from smp_camvid.report.tables import number

Key = str | int


class Figures:
    """Writes values of a document; `inside` narrows it to a part of it."""

    def __init__(self, document: Mapping[str, Any], path: tuple[Key, ...] = ()) -> None:
        self._document, self._path = document, path

    def inside(self, *path: Key) -> Figures:
        return Figures(self._document, (*self._path, *path))

    def value(self, *path: Key) -> Any:
        """What the document has there."""
        found: Any = self._document
        for key in (*self._path, *path):
            found = found[key]
        return found

    def __call__(self, *path: Key, form: Callable[[Any], str] = number) -> Markup:
        """The value there as `form` writes it; a dash for one that does not exist."""
        value = self.value(*path)
        keys = json.dumps([*self._path, *path], ensure_ascii=False)
        if value is None:
            return Markup("<data value='' data-key='{}'>–</data>").format(keys)  # noqa: RUF001
        return Markup("<data value='{}' data-key='{}'>{}</data>").format(value, keys, form(value))

    def span(self, *path: Key, form: Callable[[Any], str] = number) -> Markup:
        """An interval, `0.655 to 0.704`; nothing where there is none."""
        if self.value(*path) is None:
            return Markup("")
        return self(*path, 0, form=form) + Markup(" to ") + self(*path, 1, form=form)


def signed(value: float) -> str:
    """`+0.012`, with a real minus sign."""
    return f"{value:+.3f}".replace("-", "\N{MINUS SIGN}")


def per_cent(value: float) -> str:
    """`93.0 %`; what is hardly there stays visible."""
    return "< 0.1 %" if 0 < value < 0.001 else f"{value:.1%}".replace("%", " %")


def whole(value: float) -> str:
    """`1,601,620`."""
    return f"{value:,.0f}"
