"""What the figures are drawn with: an SVG file with text, boxes and arrows, dark on white."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

PICTURES = Path(__file__).parents[1] / "pictures"
INK = "#1f2933"
_HEAD = 9  # length of an arrow's head

Point = tuple[float, float]


class Drawing:
    """`width` x `height` units on white; `title` and `description` are for screen readers."""

    def __init__(self, width: float, height: float, title: str, description: str) -> None:
        self.root = ET.Element(
            "svg", xmlns="http://www.w3.org/2000/svg", viewBox=f"0 0 {width:g} {height:g}",
            role="img", **{"font-family": "Helvetica, Arial, sans-serif", "font-size": "16"},
        )  # fmt: skip
        ET.SubElement(self.root, "title").text = title
        ET.SubElement(self.root, "desc").text = description
        self.box(0, 0, width, height, fill="#ffffff", stroke="none")

    def add(self, tag: str, **attributes: str | float) -> ET.Element:
        """An element; numbers are rounded, `_` in names is `-`."""
        shown = {
            key.replace("_", "-"): f"{value:g}" if not isinstance(value, str) else value
            for key, value in attributes.items()
        }
        return ET.SubElement(self.root, tag, shown)

    def box(
        self, x: float, y: float, width: float, height: float, **style: str | float
    ) -> ET.Element:
        return self.add(
            "rect", x=round(x, 2), y=round(y, 2), width=round(width, 2), height=round(height, 2),
            **{"fill": "none", "stroke": INK, **style},
        )  # fmt: skip

    def text(self, x: float, y: float, words: str, **style: str | float) -> None:
        """Centred at x unless `text_anchor` says otherwise; y is the base line."""
        style = {"text_anchor": "middle", "fill": INK, **style}
        self.add("text", x=round(x, 2), y=round(y, 2), **style).text = words

    def line(self, start: Point, end: Point, color: str, **style: str | float) -> None:
        ends = {"x1": start[0], "y1": start[1], "x2": end[0], "y2": end[1]}
        rounded = {key: round(value, 2) for key, value in ends.items()}
        self.add("line", stroke=color, **{"stroke_width": 3, **rounded, **style})

    def arrow(self, start: Point, end: Point, color: str) -> None:
        """Along one axis, with its head at `end`."""
        along = 0 if start[1] == end[1] else 1
        forward = 1 if end[along] > start[along] else -1
        neck = list(end)
        neck[along] -= forward * _HEAD
        self.line(start, (neck[0], neck[1]), color)
        corners = [end]
        for side in (-6, 6):
            corner = list(neck)
            corner[1 - along] += side
            corners.append((corner[0], corner[1]))
        points = " ".join(f"{round(x, 2):g},{round(y, 2):g}" for x, y in corners)
        self.add("polygon", points=points, fill=color)

    def text_of_file(self) -> str:
        ET.indent(self.root)
        return ET.tostring(self.root, encoding="unicode") + "\n"

    def save(self, name: str) -> Path:
        path = PICTURES / name
        path.write_text(self.text_of_file(), encoding="utf-8")
        return path
