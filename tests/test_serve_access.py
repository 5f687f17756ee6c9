"""The page in a real browser: by keyboard, by name, on any screen, in light and dark."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from page_visit import NOTES, ROAD, SHOWN, Visit

if TYPE_CHECKING:
    pass

pytestmark = pytest.mark.slow


def test_everything_can_be_done_with_the_keyboard(visit: Visit) -> None:
    visit.open()
    page = visit.page
    # Playwright would begin to listen only with `expect`, and Enter can be faster than that.
    page.on("filechooser", lambda chooser: None)

    def tab_to(selector: str) -> None:
        for _ in range(30):
            if page.evaluate("s => document.activeElement.matches(s)", selector):
                return
            page.keyboard.press("Tab")
        pytest.fail(f"Tab does not reach {selector}")

    tab_to("#model")
    tab_to("#file")
    with page.expect_file_chooser() as chooser:
        page.keyboard.press("Enter")
    chooser.value.set_files(ROAD)
    page.wait_for_selector(SHOWN)
    assert page.inner_text("#status").startswith("Done.")
    tab_to("#opacity")
    page.keyboard.press("End")
    assert visit.text("#percent") == "100 %"
    tab_to("#legend button")
    page.keyboard.press("Space")
    assert page.get_attribute("#legend button >> nth=0", "aria-pressed") == "true"
    tab_to("[data-file=mask]")
    with page.expect_download() as downloaded:
        page.keyboard.press("Enter")
    assert downloaded.value.suggested_filename == "road_mask.png"
    assert visit.said == []


def test_everything_has_a_name(visit: Visit) -> None:
    visit.open()
    visit.show(ROAD)
    nameless = visit.page.evaluate(
        """() => [...document.querySelectorAll("input, select, button, img, canvas")]
          .filter((one) => !(one.labels?.length || one.textContent.trim() || one.title
            || one.getAttribute("aria-label") || one.hasAttribute("alt")))
          .map((one) => one.outerHTML)"""
    )
    assert nameless == []


# WCAG 2.2, 1.4.3: luminance of what is drawn behind and in front of each piece of text.
CONTRASTS = """() => {
  const parse = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = (rgb) => {
    const [r, g, b] = rgb.slice(0, 3).map((v) => v / 255)
      .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (one) => {
    for (; one; one = one.parentElement) {
      const rgb = parse(getComputedStyle(one).backgroundColor);
      if (rgb.length < 4 || rgb[3] > 0) return rgb;
    }
  };
  return [...document.querySelectorAll("body *")]
    .filter((one) => one.checkVisibility() && [...one.childNodes].some((node) => node.nodeType === 3
      && node.textContent.trim()))
    .map((one) => {
      const pair = [light(parse(getComputedStyle(one).color)), light(behind(one))];
      return [(Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05), one.outerHTML];
    });
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_it_can_be_read_on_any_screen(visit: Visit, scheme: str, width: int) -> None:
    visit.page.emulate_media(color_scheme=scheme)
    visit.page.set_viewport_size({"width": width, "height": 800})
    visit.open()
    states = [visit.page.evaluate(CONTRASTS)]
    visit.show(ROAD)
    visit.page.set_input_files("#file", NOTES)
    visit.page.wait_for_selector("#problem:not([hidden])")
    states.append(visit.page.evaluate(CONTRASTS))
    assert min(map(len, states)) > 5
    assert [(ratio, one) for state in states for ratio, one in state if ratio < 4.5] == []
    wide = visit.page.evaluate("document.documentElement.scrollWidth")
    assert wide <= width
    ground = visit.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, ground[4:-1].split(","))) < 200) == (scheme == "dark")
