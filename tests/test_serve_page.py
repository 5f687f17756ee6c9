"""The page in a real browser: pictures, classes, downloads, and what goes wrong."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from command_line import array_of
from page_server import KEY, NASTY, page_served, picture_of, png_of, saved
from page_visit import NOTES, ROAD, SHOWN, Visit

import smp_camvid
from smp_camvid.serve.choices import Models

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = pytest.mark.slow


def test_from_a_picture_to_what_is_seen(visit: Visit, tiny_weights: Path, tmp_path: Path) -> None:
    visit.open()
    visit.show(ROAD)
    (tmp_path / "road.png").write_bytes(png_of(120, 180))
    expected = smp_camvid.load(tiny_weights)(tmp_path / "road.png")
    names = visit.page.locator("#legend .name").all_inner_texts()
    found = list(expected.shares())
    assert names[: len(found)] == found and len(names) == 11
    largest = visit.text("#legend li:first-child .share")
    assert largest == f"{100 * expected.shares()[found[0]]:.1f} %"
    assert "road.png · 180 \N{MULTIPLICATION SIGN} 120" in visit.text("#caption")
    colors = visit.page.evaluate(
        """() => {
          const canvas = document.getElementById("layer");
          const data = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
          return btoa(String.fromCharCode(...data.data));
        }"""
    )
    painted = np.frombuffer(base64.b64decode(colors), np.uint8).reshape(120, 180, 4)
    np.testing.assert_array_equal(painted[..., :3], expected.color)
    assert visit.said == []


def test_the_slider_fades_the_colours_without_asking_the_server(visit: Visit) -> None:
    visit.open()
    visit.show(ROAD)
    asked = len(visit.asked)
    seen = {}
    for value in (0, 50, 100):
        visit.page.fill("#opacity", str(value))
        assert visit.text("#percent") == f"{value} %"
        seen[value] = visit.picture()
    assert len(visit.asked) == asked
    assert np.abs(seen[0] - seen[100]).mean() > 10
    between = (seen[0] + seen[100]) / 2
    assert np.abs(seen[50] - between).mean() < 2
    visit.page.eval_on_selector("#layer", "canvas => canvas.remove()")
    np.testing.assert_array_equal(visit.picture(), seen[0])  # nothing but the picture at 0


def test_a_class_can_be_seen_alone(visit: Visit) -> None:
    visit.open()
    visit.show(ROAD)
    visit.page.fill("#opacity", "100")
    everything = visit.picture()
    visit.page.click("#legend button >> nth=0")
    alone = visit.picture()
    assert visit.page.get_attribute("#legend button >> nth=0", "aria-pressed") == "true"
    assert np.abs(alone - everything).mean() > 1
    visit.page.click("#all")
    visit.page.mouse.move(0, 0)
    np.testing.assert_array_equal(visit.picture(), everything)
    assert not visit.page.is_visible("#all")


@pytest.mark.parametrize("kind", ["mask", "color", "overlay"])
def test_a_download_is_the_servers_file(visit: Visit, kind: str, tmp_path: Path) -> None:
    visit.open()
    visit.show(ROAD)
    visit.page.fill("#opacity", "30")
    with (
        visit.page.expect_response(lambda response: f"/{kind}.png" in response.url) as answered,
        visit.page.expect_download() as downloaded,
    ):
        visit.page.click(f"[data-file={kind}]")
    assert downloaded.value.suggested_filename == f"road_{kind}.png"
    downloaded.value.save_as(tmp_path / "file.png")
    answer = answered.value
    assert answer.request.url.endswith("opacity=30")
    again = visit.page.request.get(answer.url, headers={"X-Page-Key": KEY})
    assert (tmp_path / "file.png").read_bytes() == again.body()
    assert array_of(tmp_path / "file.png").shape[:2] == (120, 180)
    assert visit.said == []


def test_a_bad_upload_is_told_and_forgotten(visit: Visit) -> None:
    visit.open()
    visit.page.set_input_files("#file", NOTES)
    visit.page.wait_for_selector("#problem:not([hidden])")
    assert "This file is not a picture" in visit.text("#problem")
    assert visit.page.get_attribute("#problem", "role") == "alert"
    visit.show(ROAD)
    assert not visit.page.is_visible("#problem")
    visit.page.set_input_files("#file", NOTES)
    visit.page.wait_for_selector("#problem:not([hidden])")
    assert visit.page.is_visible("#picture")  # what was there stays
    assert visit.said == []


def test_too_large_a_file_is_not_sent(visit: Visit) -> None:
    visit.open()
    asked = len(visit.asked)
    visit.page.evaluate(
        """() => {
          const data = new DataTransfer();
          data.items.add(new File([new Uint8Array(51 * 2 ** 20)], "huge.png"));
          document.dispatchEvent(new DragEvent("drop", { dataTransfer: data, bubbles: true }));
        }"""
    )
    assert visit.text("#problem") == "huge.png has 51 MB; 50 MB are the most."
    assert len(visit.asked) == asked


@pytest.mark.parametrize("way", ["drop", "paste"])
def test_a_picture_can_be_dropped_and_pasted(visit: Visit, way: str) -> None:
    visit.open()
    visit.page.evaluate(
        """([way, text]) => {
          const data = new DataTransfer();
          const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
          data.items.add(new File([bytes], "road.png", { type: "image/png" }));
          const event = way === "drop"
            ? new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true })
            : new ClipboardEvent("paste", { clipboardData: data, bubbles: true });
          document.body.dispatchEvent(event);
        }""",
        [way, base64.b64encode(png_of()).decode()],
    )
    visit.page.wait_for_selector(SHOWN)
    assert "90 \N{MULTIPLICATION SIGN} 60" in visit.text("#caption")


def test_names_are_text_and_never_markup(visit: Visit, nasty: Path) -> None:
    visit.open()
    visit.page.select_option("#model", label=str(nasty))
    visit.show({**ROAD, "name": "<img src=x onerror=boom()>.png"})
    assert set(visit.page.locator("#legend .name").all_inner_texts()) == set(NASTY.names)
    caption = visit.text("#caption")
    assert caption.startswith("<img src=x onerror=boom()>.png") and str(nasty) in caption
    assert visit.page.locator("main script, #legend img, #caption img").count() == 0
    assert visit.said == []


def test_another_model_gets_the_same_picture(visit: Visit, nasty: Path) -> None:
    visit.open()
    visit.show(ROAD)
    visit.page.select_option("#model", label=str(nasty))
    visit.page.wait_for_selector("#legend li:nth-child(3):last-child")
    assert "road.png" in visit.text("#caption")


def test_a_photo_of_12_megapixels(visit: Visit) -> None:
    visit.open()
    photo = saved(picture_of(3000, 4000), "JPEG")
    visit.show({"name": "photo.jpg", "mimeType": "image/jpeg", "buffer": photo})
    assert "4000 \N{MULTIPLICATION SIGN} 3000" in visit.text("#caption")
    box = visit.page.locator("#frame").bounding_box()
    assert box and box["width"] / box["height"] == pytest.approx(4 / 3, abs=0.01)
    assert visit.said == []


def test_an_old_key_is_told(visit: Visit) -> None:
    visit.page.goto(f"{visit.origin}/#old")
    visit.page.wait_for_selector("#problem:not([hidden])")
    assert "The key of this page is missing or old." in visit.text("#problem")


def test_a_server_that_is_gone_is_told(
    chromium: Browser, tiny_weights: Path, tmp_path: Path
) -> None:
    context = chromium.new_context()
    with page_served(Models([str(tiny_weights)]), tmp_path / "uploads") as running:
        visit = Visit(context.new_page(), running)
        visit.open()
    visit.page.set_input_files("#file", ROAD)
    visit.page.wait_for_selector("#problem:not([hidden])")
    assert "Is smp-camvid serve still running" in visit.text("#problem")
    assert not visit.page.is_visible(".busy")
    context.close()
