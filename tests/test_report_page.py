"""The report in a real browser, from disk, without a network: what can be done with it."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from report_made import EPOCHS, HARM, colored
from report_visit import Pixels, Reading, reading, reports

from smp_camvid.evaluation.split import open_split
from smp_camvid.report.frame_pictures import (
    FramePicture,
    colour_blind_palette,
    error_map,
    frame_pictures,
)

if TYPE_CHECKING:
    from playwright.sync_api import Browser

__all__ = ["reading", "reports"]  # fixtures
pytestmark = pytest.mark.slow
Visit = Callable[..., Reading]
OPAQUE = 255


def pictures(reports: Path, tab: Reading, run: str = "one-1", **model: Any) -> list[FramePicture]:
    """The frames of the gallery in its order, as the model sees them."""
    segmenter = colored(reports / "runs" / run, **model)
    names = [str(alt).removeprefix("Frame ") for alt in alts(tab)]
    frames = [{"frame": n, "drive": "", "miou": None} for n in names]
    return frame_pictures(
        segmenter, open_split(segmenter, reports / "roads"), names, {"per_frame": frames}
    )


def alts(tab: Reading) -> list[str]:
    found: list[str] = tab.page.eval_on_selector_all(".layer img", "all => all.map(i => i.alt)")
    return found


def painted(table_colors: Pixels, labels: Pixels, void: tuple[int, ...]) -> Pixels:
    colors = np.array(table_colors)
    colors[255] = void
    return colors[labels]


VOID = (160, 168, 176)


def test_the_layers_are_truth_prediction_and_errors(reading: Visit, reports: Path) -> None:
    tab = reading(reports / "one.html")
    seen = pictures(reports, tab)
    for shot, picture in enumerate(seen):
        for layer, expected in (
            ("truth", painted(HARM.palette, picture.truth, VOID)),
            ("prediction", painted(HARM.palette, picture.prediction, VOID)),
            ("errors", error_map(picture.truth, picture.prediction)),
        ):
            found = tab.canvas(shot, layer)
            np.testing.assert_array_equal(found[..., :3], expected)
            assert (found[..., 3] == OPAQUE).all()
    assert any((picture.truth == 255).any() for picture in seen)
    assert all((picture.truth != picture.prediction).any() for picture in seen)


def test_the_slider_goes_from_frame_to_errors_by_keyboard(reading: Visit, reports: Path) -> None:
    tab = reading(reports / "one.html")
    page, slider = tab.page, "[data-shot='0'] input"
    gone, whole = (0, 100), (0, 0)
    assert tab.clips(0)[1] == whole  # the prediction is what is seen first
    page.focus(slider)
    page.keyboard.press("Home")
    assert tab.clips(0) == [gone] * 3
    assert page.get_attribute(slider, "aria-valuetext") == "Frame"
    frame = page.locator("[data-shot='0'] .layers").screenshot()
    page.keyboard.press("PageUp")
    assert tab.clips(0) == [whole, gone, gone]
    assert page.get_attribute(slider, "aria-valuetext") == "Truth"
    assert page.locator("[data-shot='0'] .layers").screenshot() != frame
    for _ in range(4):
        page.keyboard.press("ArrowRight")
    assert tab.clips(0)[:2] == [(40, 0), (0, 60)]
    assert page.get_attribute(slider, "aria-valuetext") == "Truth, 40 % covered by Prediction"
    page.keyboard.press("End")
    assert tab.clips(0)[2] == whole
    assert tab.clips(1)[2] == gone  # the others stay
    page.click("[data-all='3']")
    assert tab.clips(1)[2] == whole
    assert page.get_attribute("[data-all='3']", "aria-pressed") == "true"


def test_a_class_is_seen_alone(reading: Visit, reports: Path) -> None:
    tab = reading(reports / "one.html")
    picture = pictures(reports, tab)[0]
    tab.page.focus("[data-filter='1']")
    tab.page.keyboard.press("Enter")
    assert tab.page.get_attribute("[data-filter='1']", "aria-pressed") == "true"
    for layer, labels in (("truth", picture.truth), ("prediction", picture.prediction)):
        np.testing.assert_array_equal(tab.canvas(0, layer)[..., 3] == OPAQUE, labels == 1)
    concerned = (picture.truth == 1) | ((picture.prediction == 1) & (picture.truth != 255))
    np.testing.assert_array_equal(tab.canvas(0, "errors")[..., 3] == OPAQUE, concerned)
    tab.page.click("#all-classes")
    assert (tab.canvas(0, "truth")[..., 3] == OPAQUE).all()
    assert not tab.page.is_visible("#all-classes")


def test_the_palette_can_be_colour_blind_safe(reading: Visit, reports: Path) -> None:
    tab = reading(reports / "one.html")
    picture, safe = pictures(reports, tab)[0], colour_blind_palette(HARM)
    assert not np.array_equal(safe[:4], HARM.palette[:4])
    tab.page.click("[data-palette=safe]")
    np.testing.assert_array_equal(
        tab.canvas(0, "truth")[..., :3], painted(safe, picture.truth, VOID)
    )
    fills = tab.page.eval_on_selector_all(
        "[data-class='1']", "all => all.map(r => r.getAttribute('fill'))"
    )
    assert set(fills) == {"#" + bytes(safe[1]).hex()}
    tab.page.click("[data-palette=color]")
    np.testing.assert_array_equal(
        tab.canvas(0, "truth")[..., :3], painted(HARM.palette, picture.truth, VOID)
    )


def test_curves_tell_their_values_by_keyboard_and_pointer(reading: Visit, reports: Path) -> None:
    tab = reading(reports / "one.html")
    area, values = "[data-chart=loss] .area", "[data-chart=loss] .readout b"
    last = [f"{2 / EPOCHS:.3g}"] * 2
    assert tab.texts(values) == last
    tab.page.focus(area)
    tab.page.keyboard.press("Home")
    assert tab.texts(values) == ["2", "–"]  # noqa: RUF001  # val is scored every second epoch
    tab.page.keyboard.press("ArrowRight")
    assert tab.texts(values) == ["1", "1"]
    assert tab.page.get_attribute(area, "aria-valuetext") == "epoch 2: train 1, val 1"
    assert tab.texts("[data-chart=loss] .where") == ["epoch 2"]
    tab.page.keyboard.press("Tab")
    assert tab.texts(values) == last
    box = tab.page.locator(area).bounding_box()
    assert box
    tab.page.mouse.move(box["x"] + box["width"] * 0.6, box["y"] + 9)
    assert tab.texts(values) == ["0.5", "0.5"]
    tab.page.mouse.move(0, 0)
    assert tab.texts(values) == last


def test_frames_are_named_under_the_pointer(reading: Visit, reports: Path) -> None:
    tab = reading(reports / "one.html")
    tab.page.focus("[data-chart=frames] .area")
    tab.page.keyboard.press("Home")
    assert tab.texts("[data-chart=frames] .where") == ["frame x<b>val_00.png"]


def test_train_and_val_can_be_left_out(reading: Visit, reports: Path) -> None:
    tab = reading(reports / "one.html")
    lines = "[data-chart=loss] .line[data-split={}]"
    for split, other in (("train", "val"), ("val", "train")):
        tab.page.click(f"[data-toggle-split={split}]")
        assert not tab.page.locator(lines.format(split)).is_visible()
        assert tab.page.locator(lines.format(other)).is_visible()
        tab.page.click(f"[data-toggle-split={split}]")
        assert tab.page.locator(lines.format(split)).is_visible()


def test_another_classes_curve_can_be_chosen(reading: Visit, reports: Path) -> None:
    tab = reading(reports / "one.html")
    assert tab.page.locator("[data-curve]:visible").count() == 1
    tab.page.select_option("#class-curve", label=HARM.names[1])
    (shown,) = tab.page.locator("[data-curve]:visible").all()
    assert shown.get_attribute("data-curve") == tab.page.input_value("#class-curve")


def test_the_class_table_sorts(reading: Visit, reports: Path) -> None:
    tab = reading(reports / "one.html")

    def column(number: int) -> list[float]:
        return [float(text) for text in tab.texts(f".sortable tbody td:nth-child({number})")]

    assert column(2) == sorted(column(2))  # worst first
    tab.page.click(".sortable th button >> text=recall")
    assert column(6) == sorted(column(6))
    tab.page.keyboard.press("Enter")
    assert column(6) == sorted(column(6), reverse=True)
    assert tab.page.locator(".sortable [aria-sort]").count() == 1
    assert tab.page.get_attribute(".sortable th:nth-child(6)", "aria-sort") == "descending"


def test_the_matrix_is_of_truth_or_of_prediction(reading: Visit, reports: Path) -> None:
    tab = reading(reports / "one.html")
    pixels = np.array(
        tab.page.evaluate(
            "JSON.parse(document.getElementById('document').textContent).confusion.pixels"
        )
    )[:4]

    def shown() -> list[str]:
        return tab.texts(".matrix tbody td")

    def words(share: Any) -> list[str]:
        return [
            "" if s < 0.001 else "<1" if s < 0.005 else f"{100 * s:.0f}" for s in share.flatten()
        ]

    at_first = shown()
    assert at_first == words(pixels / pixels.sum(1, keepdims=True))
    tab.page.click("[data-share=column]")
    assert shown() == words(pixels / np.maximum(1, pixels.sum(0, keepdims=True))) != at_first
    assert "precision" in tab.page.inner_text("#confusion .soft")
    tab.page.click("[data-share=row]")
    assert shown() == at_first


def test_harmful_names_are_seen_and_not_run(reading: Visit, reports: Path) -> None:
    for name in ("one", "two"):
        tab = reading(reports / f"{name}.html")
        assert set(HARM.names[:4]) <= set(tab.texts(".legend button span"))
        options = tab.page.eval_on_selector_all("option", "all => all.map(o => o.textContent)")
        assert set(options) == set(HARM.names[:4])
        assert tab.page.locator("script").count() == 3
        assert tab.page.locator("section [onerror], section b:not([class]) b").count() == 0
        tab.page.hover("[data-shot='0'] .layers")
        assert tab.page.inner_text("[data-shot='0'] .under") != ""


def test_the_policy_stops_what_is_not_ours(chromium: Browser, reports: Path) -> None:
    context = chromium.new_context()
    tab = Reading(context.new_page()).open(reports / "one.html")
    tab.page.evaluate(
        """() => {
          const script = document.createElement("script");
          script.textContent = "window.ran = true";
          document.body.append(script);
          new Image().src = "http://example.org/x.png";
        }"""
    )
    assert tab.page.evaluate("window.ran") is None
    assert any("Content Security Policy" in line for line in tab.said)
    context.close()


def test_another_model_can_be_looked_at(reading: Visit, reports: Path) -> None:
    tab = reading(reports / "two.html")
    assert (
        tab.texts("#classes caption") == ["A one-1"] or "one-1" in tab.texts("#classes caption")[0]
    )
    assert tab.page.locator("#classes table:visible, #confusion table:visible").count() == 2
    expected = pictures(reports, tab, "<i>two-1", seed=2, noise=60.0)[0].prediction
    before = tab.canvas(0, "prediction")
    tab.page.click("[data-show-model='1']")
    found = tab.canvas(0, "prediction")[..., :3]
    np.testing.assert_array_equal(found, painted(HARM.palette, expected, VOID))
    assert not np.array_equal(before[..., :3], found)
    assert "<i>two-1" in tab.page.inner_text("#classes caption:visible")
    assert tab.page.locator("#differences .verdict.worse").count() >= 1
    assert tab.texts("[data-chart=loss] .readout li")[0].strip().startswith("A train")


@pytest.mark.parametrize("name", ["one", "two"])
@pytest.mark.parametrize("width", [360, 1400])
def test_nothing_hangs_over_the_side(reading: Visit, reports: Path, name: str, width: int) -> None:
    tab = reading(reports / f"{name}.html", viewport={"width": width, "height": 800})
    assert tab.page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_can_be_read_in_light_and_dark(reading: Visit, reports: Path, scheme: str) -> None:
    """WCAG's contrast of 4.5 for what is written, 3 for lines of curves."""
    tab = reading(reports / "one.html", color_scheme=scheme)
    names = ["--text", "--soft", "--accent", "--bad", "--good", *(f"--line-{i}" for i in range(6))]
    read = "name => getComputedStyle(document.documentElement).getPropertyValue(name)"
    for name in names:
        grounds = {"--bad": ["--bad-ground"], "--good": ["--good-ground"]}.get(
            name, ["--card", "--ground"]
        )
        least = 3.0 if name.startswith("--line") else 4.5
        for ground in grounds:
            ratio = contrast(tab.page.evaluate(read, name), tab.page.evaluate(read, ground))
            assert ratio >= least, (name, ground, ratio)
    ground = tab.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (int(re.findall(r"\d+", ground)[0]) < 60) == (scheme == "dark")


def contrast(first: str, second: str) -> float:
    """By WCAG 2.2, of two hex colours."""

    def light(color: str) -> float:
        parts = np.array([int(color.strip()[i : i + 2], 16) for i in (1, 3, 5)]) / 255
        linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    high, low = sorted([light(first), light(second)], reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_what_is_seen_has_words(reading: Visit, reports: Path) -> None:
    tab = reading(reports / "two.html")
    nameless = tab.page.evaluate(
        """() => [...document.querySelectorAll(
          "canvas, svg[role=img], [role=slider], input, [role=group], [role=region]")]
          .filter((one) => !one.getAttribute("aria-label")).map((one) => one.outerHTML)"""
    )
    assert nameless == []
    silent = "svg:not([role=img]):not([aria-hidden=true])"
    assert (
        tab.page.locator(f":not(svg) > {silent}").count() <= tab.page.locator(".line svg").count()
    )


def test_paper_has_all_pictures_and_models(reading: Visit, reports: Path) -> None:
    tab = reading(reports / "two.html", color_scheme="dark")
    tab.page.emulate_media(media="print")
    assert not tab.page.is_visible("nav") and not tab.page.is_visible(".shot input >> nth=0")
    boxes = [layer.bounding_box() for layer in tab.page.locator("[data-shot='0'] .layer").all()]
    lefts = [box["x"] for box in boxes if box]
    assert len(lefts) == 4 and lefts == sorted(set(lefts))
    assert tab.page.locator("#classes table:visible").count() == 2
    ground = tab.page.evaluate(
        "getComputedStyle(document.documentElement).getPropertyValue('--card')"
    )
    assert ground.strip() == "#ffffff"


def test_without_scripts_the_figures_are_there(chromium: Browser, reports: Path) -> None:
    context = chromium.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto((reports / "one.html").as_uri())
    assert page.inner_text(".score strong")[:2] == "0."
    assert page.locator("[data-chart=loss] polyline").count() >= 2
    assert not page.is_visible("[data-palette=safe]") and page.is_visible("noscript")
    context.close()
