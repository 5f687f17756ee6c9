"""What the page of `smp-camvid serve`, or a report, looks like: light, dark, as wide as a phone.

    python benchmarks/screenshots.py [PICTURE] [--model RUN|FILE|NAME] [--out demo/page]
    python benchmarks/screenshots.py --report runs/vanilla-1/report.html [--out demo/page]

PICTURE is a drawn street if absent, the model is the one `serve` would take.  A report is also
printed.  Needs playwright and Chromium (its own, or the system's).  The network is not used.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

from smp_camvid.data.synthetic import plan, render

LOOKS = {
    "light": {"color_scheme": "light", "viewport": {"width": 1280, "height": 860}},
    "dark": {"color_scheme": "dark", "viewport": {"width": 1280, "height": 860}},
    "phone": {
        "color_scheme": "light",
        "viewport": {"width": 390, "height": 844},
        "device_scale_factor": 2,
    },
    "phone-dark": {
        "color_scheme": "dark",
        "viewport": {"width": 390, "height": 844},
        "device_scale_factor": 2,
    },
}


@contextmanager
def served(model: str | None) -> Iterator[str]:
    """The address of a running page."""
    words = ["-m", "smp_camvid", "serve", "--port", "0", *(["--model", model] if model else [])]
    server = subprocess.Popen([sys.executable, *words], stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout
        yield server.stdout.readline().strip() or sys.exit("The page did not start.")
    finally:
        server.terminate()
        server.wait()


def show(page: Page, picture: Path) -> None:
    page.set_input_files("#file", picture)
    page.wait_for_selector("[data-state=shown]:not(.computing)", timeout=120_000)


def take(browser: Browser, address: str, look: str, picture: Path, out: Path) -> None:
    """`look`-empty, -shown, -one-class and -problem, whole pages."""
    context = browser.new_context(**LOOKS[look])
    page = context.new_page()

    def shoot(state: str) -> None:
        page.screenshot(path=out / f"{look}-{state}.png", full_page=True)
        print(out / f"{look}-{state}.png")

    page.goto(address)
    page.wait_for_selector("#model option", state="attached")
    shoot("empty")
    show(page, picture)
    shoot("shown")
    page.click("#legend button >> nth=0")
    page.focus("#opacity")
    page.keyboard.press("End")
    shoot("one-class")
    page.set_input_files("#file", {"name": "notes.txt", "mimeType": "", "buffer": b"not a picture"})
    page.wait_for_selector("#problem:not([hidden])")
    shoot("problem")
    context.close()


def take_report(browser: Browser, report: Path, look: str, out: Path) -> None:
    """The whole page as it opens; its sections, the frames as errors with the other palette."""
    context = browser.new_context(**LOOKS[look])
    context.set_offline(True)
    page = context.new_page()
    page.goto(report.absolute().as_uri())
    page.wait_for_selector("html.painted", state="attached")
    page.screenshot(path=out / f"report-{look}.png", full_page=True)
    print(out / f"report-{look}.png")
    page.click("[data-palette=safe]")
    page.click("[data-all='3']")
    page.eval_on_selector("nav", "nav => { nav.style.position = 'static'; }")  # else it covers some
    for section in page.locator("section").all():
        path = out / f"report-{look}-{section.get_attribute('id')}.png"
        section.screenshot(path=path)
        print(path)
    if look == "light":
        page.pdf(path=out / "report.pdf", format="A4", print_background=True)
        print(out / "report.pdf")
    context.close()


def drawn_street(folder: Path) -> Path:
    (shot,) = plan({"test": 1})
    frame, _ = render(shot, (720, 960), 0)
    Image.fromarray(frame).save(folder / "street.png")
    return folder / "street.png"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("picture", nargs="?", type=Path)
    parser.add_argument("--model")
    parser.add_argument("--report", type=Path, metavar="FILE.html")
    parser.add_argument("--out", type=Path, default=Path("demo/page"))
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        if arguments.report:
            for look in LOOKS:
                take_report(browser, arguments.report, look, arguments.out)
            return
        with tempfile.TemporaryDirectory() as folder, served(arguments.model) as address:
            picture = arguments.picture or drawn_street(Path(folder))
            for look in LOOKS:
                take(browser, address, look, picture, arguments.out)


if __name__ == "__main__":
    main()
