"""A tab of a real browser at a report on the disk, with the network off."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pytest
from report_made import colored, how, without_networks, write_roads, write_run

from smp_camvid.report.html import render
from smp_camvid.report.html_making import make_report

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

Pixels = npt.NDArray[np.uint8]
PAINTED = "html.painted"


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with roads, two runs, `one.html` and `two.html`."""
    root = tmp_path_factory.mktemp("<b>reports")
    write_roads(root / "roads")
    runs = [write_run(root / "runs" / "one-1"), write_run(root / "runs" / "<i>two-1", shift=0.5)]
    models = [colored(runs[0]), colored(runs[1], seed=2, noise=60.0)]
    with without_networks():
        for name, some in (("one", models[:1]), ("two", models)):
            page = render(make_report(some, how(root / "roads")))
            (root / f"{name}.html").write_text(page, encoding="utf-8")
    return root


class Reading:
    """A tab with a report in it, and all it said and asked for."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.said: list[str] = []
        self.asked: list[str] = []
        page.on("console", lambda message: self.said.append(message.text))
        page.on("pageerror", lambda error: self.said.append(str(error)))
        page.on("dialog", lambda dialog: self.said.append(f"dialog {dialog.message}"))
        page.on("request", lambda request: self.asked.append(request.url))

    def open(self, path: Path) -> Reading:
        self.page.goto(path.as_uri())
        self.page.wait_for_selector(PAINTED, state="attached")
        return self

    def canvas(self, shot: int, layer: str) -> Pixels:
        """RGBA `[H, W, 4]` of a layer over a frame."""
        found: dict[str, Any] = self.page.evaluate(
            """([shot, layer]) => {
              const figure = document.querySelector(`[data-shot="${shot}"]`);
              const canvas = figure.querySelector(`[data-layer="${layer}"] canvas`);
              const { width, height } = canvas;
              const copy = new OffscreenCanvas(width, height).getContext("2d");
              copy.drawImage(canvas, 0, 0);
              const bytes = [...copy.getImageData(0, 0, width, height).data];
              const data = btoa(bytes.map((byte) => String.fromCharCode(byte)).join(""));
              return { size: [height, width], data };
            }""",
            [shot, layer],
        )  # fmt: skip
        pixels = np.frombuffer(base64.b64decode(found["data"]), np.uint8)
        return pixels.reshape(*found["size"], 4)

    def clips(self, shot: int) -> list[tuple[float, float]]:
        """Per cent cut off truth, prediction and errors, left and right."""
        selector = f"[data-shot='{shot}'] [data-layer]"
        found = self.page.eval_on_selector_all(selector, "all => all.map(l => l.style.clipPath)")
        # Top, right, bottom, left; browsers leave out what repeats.
        edges = [[float(edge) for edge in re.findall(r"[\d.]+", value)] for value in found]
        return [(some[3] if len(some) == 4 else some[1], some[1]) for some in edges]

    def texts(self, selector: str) -> list[str]:
        return self.page.locator(selector).all_inner_texts()


@pytest.fixture
def reading(chromium: Browser) -> Iterator[Callable[..., Reading]]:
    """Opens tabs; at the end none of them may have asked for anything but its own file."""
    contexts, tabs = [], []

    def visit(path: Path, **look: Any) -> Reading:
        context = chromium.new_context(**{"viewport": {"width": 1200, "height": 900}, **look})
        context.set_offline(True)
        context.set_default_timeout(60_000)
        contexts.append(context)
        tabs.append(Reading(context.new_page()))
        return tabs[-1].open(path)

    yield visit
    outside = [url for tab in tabs for url in tab.asked if not url.startswith(("file:", "data:"))]
    for context in contexts:
        context.close()
    assert outside == []
    assert [line for tab in tabs for line in tab.said] == []
