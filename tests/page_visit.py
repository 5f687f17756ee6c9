"""A tab of a real browser at the page of `serve`; the browser reaches nothing else."""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pytest
from page_server import KEY, NASTY, PageServer, page_served, png_of, weights_file
from PIL import Image

from smp_camvid.serve.choices import Models

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

SHOWN = "[data-state=shown]:not(.computing)"
ROAD = {"name": "road.png", "mimeType": "image/png", "buffer": png_of(120, 180)}
NOTES = {"name": "notes.txt", "mimeType": "text/plain", "buffer": b"this is no picture"}


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """The system's Chromium, else Playwright's own, with every name unresolvable."""
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    own = shutil.which("chromium") or shutil.which("google-chrome")
    words = ["--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1"]
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        words.append("--no-sandbox")  # which root cannot have
    with api.sync_playwright() as playwright:
        try:
            browser = playwright.chromium.launch(executable_path=own, args=words)
        except api.Error as error:
            reason = f"no Chromium starts: {str(error).splitlines()[0]}"
            if os.environ.get("SMP_CAMVID_REQUIRE_BROWSER") == "1":
                pytest.fail(reason)
            pytest.skip(reason)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def nasty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return weights_file(tmp_path_factory.mktemp("<b>nasty") / "&lt;.safetensors", NASTY)


@pytest.fixture(scope="module")
def offered(
    tiny_weights: Path, nasty: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[PageServer]:
    folder = tmp_path_factory.mktemp("uploads")
    with page_served(Models([str(tiny_weights), str(nasty)]), folder) as running:
        yield running


class Visit:
    """A tab at the page, and all it said and asked for."""

    def __init__(self, page: Page, server: PageServer) -> None:
        self.page, self.origin = page, server.origin
        self.said: list[str] = []
        self.asked: list[str] = []
        page.on("console", lambda message: self.said.append(message.text))
        page.on("pageerror", lambda error: self.said.append(str(error)))
        page.on("dialog", lambda dialog: self.said.append(f"dialog {dialog.message}"))
        page.on("request", lambda request: self.asked.append(request.url))

    def open(self, key: str = KEY) -> None:
        self.page.goto(f"{self.origin}/#{key}")
        self.page.wait_for_selector("#most:not(:empty)", state="attached")

    def show(self, file: dict[str, object]) -> None:
        self.page.set_input_files("#file", file)
        self.page.wait_for_selector(SHOWN)

    def text(self, selector: str) -> str:
        return self.page.inner_text(selector)

    def picture(self) -> npt.NDArray[np.int16]:
        """What is seen in the frame, as pixels."""
        shot = self.page.locator("#frame").screenshot()
        return np.asarray(Image.open(io.BytesIO(shot)).convert("RGB")).astype(np.int16)


@pytest.fixture
def visit(chromium: Browser, offered: PageServer) -> Iterator[Visit]:
    context = chromium.new_context(viewport={"width": 1100, "height": 800}, accept_downloads=True)
    context.set_default_timeout(60_000)
    visit = Visit(context.new_page(), offered)
    yield visit
    outside = [url for url in visit.asked if not url.startswith((f"{offered.origin}/", "blob:"))]
    context.close()
    assert outside == []
