"""A report as one HTML file that opens from disk: nothing in it is loaded from anywhere.

Templates, styles and scripts lie in page/.  Whatever comes from outside (class names, paths, a
recipe) is escaped by the template engine, and the page's own policy lets no other script run.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from smp_camvid import __version__
from smp_camvid.data.classes import FIXED_TABLES, ClassTable
from smp_camvid.report import html_charts, html_figures, html_view
from smp_camvid.report.frame_pictures import ERROR_COLORS, HATCH, HATCH_PERIOD, colour_blind_palette
from smp_camvid.report.html_gallery import GROUPS, Shot
from smp_camvid.report.html_records import RunRecord
from smp_camvid.report.tables import number

PAGE = Path(__file__).parent / "page"
ICON = Path(__file__).parents[1] / "serve" / "page" / "icon.svg"
STYLES = ("theme.css", "page.css", "charts.css", "frames.css", "print.css")
SCRIPTS = ("choices.js", "charts.js", "tables.js", "frames.js")
STOPS = ("Frame", "Truth", "Prediction", "Errors")


@dataclass(frozen=True)
class Report:
    """What a report is made from.

    `document` is that of `evaluate` for one record, and that of `compare` for several, in their
    order; `commands` are pairs of words and a command line.
    """

    document: Mapping[str, Any]
    table: ClassTable
    records: tuple[RunRecord, ...]
    shots: tuple[Shot, ...] = ()
    commands: tuple[tuple[str, str], ...] = ()
    missing: tuple[str, ...] = ()
    made: datetime = field(default_factory=lambda: datetime.now().astimezone())

    @property
    def several(self) -> bool:
        return len(self.records) > 1


def render(report: Report) -> str:
    """The whole file."""
    figures = html_figures.Figures(clean(report.document))
    models = _models(report, figures)
    table, documents = report.table, [model.document for model in models]
    charts = html_charts.run_charts(report.records)
    class_charts = html_charts.class_charts(report.records, [row["name"] for row in models[0].rows])
    frame_chart = html_charts.frame_chart(documents)
    drawn = {chart.name: chart.data() for chart in (*charts, *class_charts, frame_chart)}
    said = [text for record in report.records for text in record.missing]
    template = environment().get_template("report.html")
    return template.render(
        title=title_of(report),
        made=f"{report.made:%Y-%m-%d %H:%M}",
        several=report.several,
        document=figures.value(),
        models=models,
        differences=html_view.difference_views(figures, models),
        reading=html_view.reading(documents),
        level="{:.0%}".format(documents[0]["intervals"]["level"]).replace("%", " %"),
        missing=[*report.missing, *dict.fromkeys(said)],
        charts=charts,
        class_charts=class_charts,
        frame_chart=frame_chart,
        shots=report.shots,
        groups=GROUPS,
        stops=STOPS,
        named=[(i, name) for i, name in enumerate(table.names) if i != table.void_index],
        colors=[hex_of(color) for color in table.colors],
        palette_name="CamVid's colours" if table.name in FIXED_TABLES else "Own colours",
        commands=report.commands,
        data=page_data(report, drawn),
    )


def _models(report: Report, figures: html_figures.Figures) -> list[html_view.ModelView]:
    return [
        html_view.ModelView(
            i, figures.inside("models", i) if report.several else figures, record, report.table
        )
        for i, record in enumerate(report.records)
    ]


def page_data(report: Report, charts: Mapping[str, Any]) -> dict[str, Any]:
    """What the page's scripts work with."""
    return {
        "charts": charts,
        "shots": [shot.data() for shot in report.shots],
        "stops": STOPS,
        "classes": class_data(report.table),
        "errors": {what: hex_of(color) for what, color in ERROR_COLORS.items()},
        "hatch": {"color": hex_of(HATCH), "period": HATCH_PERIOD},
    }


def title_of(report: Report) -> str:
    return " and ".join(record.name for record in report.records[:2]) + (
        f" and {len(report.records) - 2} more" if len(report.records) > 2 else ""
    )


def class_data(table: ClassTable) -> list[dict[str, Any]]:
    """Name and both colours of each class, in the order of its index."""
    safe = colour_blind_palette(table)
    return [
        {"name": name, "color": hex_of(color), "safe": hex_of(tuple(safe[i]))}
        for i, (name, color) in enumerate(zip(table.names, table.colors, strict=True))
    ]


def hex_of(color: tuple[int, ...]) -> str:
    return "#" + "".join(f"{int(part):02x}" for part in color)


def clean(value: Any) -> Any:
    """Without the nan and infinity that JSON does not have: None stands for them."""
    if isinstance(value, Mapping):
        return {key: clean(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [clean(one) for one in value]
    return html_charts.finite(value) if isinstance(value, float) else value


@cache
def environment() -> Environment:
    """The template engine with what never changes."""
    made = Environment(
        loader=FileSystemLoader(PAGE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style, script = joined(STYLES), joined(SCRIPTS)
    made.globals |= {
        "version": __version__,
        "style": Markup(style),
        "script": Markup(script),
        "policy": policy(style, script),
        "icon": f"data:image/svg+xml;base64,{base64.b64encode(ICON.read_bytes()).decode()}",
        "number": number,
        "tick": lambda value: "–" if value is None else f"{value:.3g}",  # noqa: RUF001
        "short": lambda value: f"{value:,.0f}" if value >= 100 else f"{value:.3g}",
        "millions": lambda value: f"{value / 1e6:.2f} M",
        "billions": lambda value: f"{value / 1e9:.1f}",
        "per_cent": html_figures.per_cent,
        "signed": html_figures.signed,
        "whole": html_figures.whole,
    }
    return made


def joined(names: tuple[str, ...]) -> str:
    """Files of page/ one after the other, as they go between two tags."""
    text = "\n".join((PAGE / name).read_text(encoding="utf-8") for name in names)
    assert "</" not in text, "it would end its element"
    return text


def policy(style: str, script: str) -> str:
    """Only this style and this script, pictures only from inside the file, and no connections."""
    return (
        f"default-src 'none'; img-src data:; style-src '{digest(style)}'; "
        f"script-src '{digest(script)}'; base-uri 'none'; form-action 'none'"
    )


def digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
