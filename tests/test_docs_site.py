"""The built site: no warnings, no dead links, nothing of it from elsewhere, the notebook run."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

import pytest
from docs_blocks import PAGES, ROOT, inline_commands
from kaggle_server import clean_environment

import smp_camvid
from smp_camvid import recipe
from smp_camvid.cli import COMMANDS
from smp_camvid.recipe import Recipe

if TYPE_CHECKING:
    from playwright.sync_api import Browser

TINY = {"EPOCHS": "1", "FRAMES": "8", "HEIGHT": "48", "CHANNELS": "4"}
"""The notebook, in seconds."""

BUILD = """
import fcntl, socket, struct, sys
if "--loopback" in sys.argv:  # alone in a network namespace; the notebook's kernel answers on it
    sys.argv.remove("--loopback")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, 0x8914, struct.pack("16sh", b"lo", 0x41))
from sphinx.cmd.build import main
sys.exit(main(sys.argv[1:]))
"""


def can_leave_the_network() -> bool:
    program = shutil.which("unshare")
    alone = [str(program), "-rn", "true"]
    return program is not None and subprocess.run(alone, capture_output=True).returncode == 0


def build(source: Path, out: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Builds the site as `make docs` does, where possible on a machine without any network."""
    command = [sys.executable, "-c", BUILD, "-W", "--keep-going", "-q", *words, source, out]
    if can_leave_the_network():
        command = ["unshare", "-rn", *command, "--loopback"]
    variables = {f"SMP_CAMVID_NOTEBOOK_{name}": value for name, value in TINY.items()}
    return subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, check=False, timeout=540,
        env={**clean_environment(), **variables, "OMP_WAIT_POLICY": "passive"},
    )  # fmt: skip


@dataclass
class Page(HTMLParser):
    """What a built page holds, loads and points to."""

    path: Path
    ids: set[str] = field(default_factory=set)
    loads: list[str] = field(default_factory=list)
    links: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()
        self.feed(self.path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name == "id":
                self.ids.add(value or "")
            elif name == "href" and tag == "a":
                self.links.append(value or "")
            elif name in ("src", "href", "srcset", "poster", "data") and tag != "a":
                self.loads.append(value or "")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("docs") / "html"
    done = build(ROOT / "docs", out)
    assert done.returncode == 0, done.stderr
    # The kernel's remark on its sockets apart, which stay on this machine.
    assert [line for line in done.stderr.splitlines() if "[IPKernelApp]" not in line] == []
    return out


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Page]:
    return {path: Page(path) for path in site.rglob("*.html")}


@pytest.mark.slow
def test_every_page_is_built_and_in_the_contents(site: Path, pages: dict[Path, Page]) -> None:
    written = [page for page in PAGES if page.parent.name == "docs"]
    assert len(written) > 15
    contents = {link.partition("#")[0] for link in pages[site / "tutorial.html"].links}
    for name in [page.stem for page in written] + ["first-steps"]:
        assert site / f"{name}.html" in pages
        assert name in ("index", "tutorial") or f"{name}.html" in contents


@pytest.mark.slow
def test_links_and_anchors_lead_somewhere(site: Path, pages: dict[Path, Page]) -> None:
    dead, seen = [], 0
    for path, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            seen += 1
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            anchor = unquote(parts.fragment)
            there = target.is_file() and (
                not anchor or target.suffix != ".html" or anchor in pages[target].ids
            )
            if not there:
                dead.append(f"{path.relative_to(site)}: {link}")
    assert not dead and seen > 1000


@pytest.mark.slow
def test_nothing_is_loaded_from_elsewhere(site: Path, pages: dict[Path, Page]) -> None:
    for path, page in pages.items():
        assert page.loads
        for url in page.loads:
            assert urlsplit(url).scheme in ("", "data") and not url.startswith("//"), (path, url)
    for sheet in site.rglob("*.css"):
        urls = re.findall(r"url\(['\"]?([^)'\"]*)|@import ['\"]([^'\"]*)", sheet.read_text())
        assert not [url for pair in urls for url in pair if re.match(r"https?:|//", url)], sheet


@pytest.mark.slow
def test_the_reference_has_every_command_key_and_name(site: Path, pages: dict[Path, Page]) -> None:
    commands = re.sub("<[^>]+>", "", (site / "reference-commands.html").read_text(encoding="utf-8"))
    for name in COMMANDS:
        assert f"smp-camvid-{name}" in pages[site / "reference-commands.html"].ids
    assert "--max-restarts N" in commands and "--tile HxW" in commands and "<int" not in commands
    keys = (site / "reference-recipes.html").read_text(encoding="utf-8")
    for section in ("model", "data", "loss", "train"):
        for name, about in type(getattr(Recipe(), section)).model_fields.items():
            assert f"{section}.{name}<" in keys and about.description
    for name in recipe.recipe_names():
        assert name in pages[site / "reference-recipes.html"].ids
    for name in smp_camvid.__all__:
        assert (
            name.startswith("_") or f"smp_camvid.{name}" in pages[site / "reference-api.html"].ids
        )


@pytest.mark.slow
def test_the_notebook_ran(site: Path) -> None:
    """Pictures of frames, of the training and of a prediction; its score; and no error."""
    page = (site / "first-steps.html").read_text(encoding="utf-8")
    assert len(re.findall(r'<img [^>]*src="_images/[0-9a-f]{64}\.png"', page)) >= 6
    assert "parameters" in page and "8 frames to train on" in page
    assert re.search(r"mIoU 0\.\d{3}", page)
    assert "Traceback" not in page


def test_the_notebook_is_committed_without_outputs() -> None:
    import nbformat

    notebook = nbformat.read(ROOT / "docs" / "first-steps.ipynb", 4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert len(code) > 8
    assert all(not cell.outputs and cell.execution_count is None for cell in code)


@pytest.mark.slow
def test_in_a_browser(site: Path, chromium: Browser) -> None:
    """From disk, with every name unresolvable: nothing asked for elsewhere, no error, a search."""
    context = chromium.new_context(viewport={"width": 390, "height": 800})
    page = context.new_page()
    said: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    for name in ("index", "concepts-unet", "first-steps", "reference-recipes"):
        page.goto((site / f"{name}.html").as_uri())
        pictures = "[...document.images].every(image => image.complete && image.naturalWidth > 0)"
        assert page.evaluate(pictures)
        wide = page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
        assert wide <= 0, name
    page.goto((site / "search.html").as_uri() + "?q=overlap")
    page.wait_for_selector("#search-results li")
    assert "overlap-tile" in page.inner_text("#search-results").lower()
    context.close()
    assert said == []
    assert asked and all(url.startswith(("file:", "data:")) for url in asked)


@pytest.mark.slow
@pytest.mark.parametrize(
    "text",
    ["[gone](gone.md)", "[gone](page.md#gone)", "```{nothing}\n```", "![gone](gone.png)"],
)
def test_a_mistake_in_a_page_fails_the_build(tmp_path: Path, text: str) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "index.md").write_text(f"# Page\n\n[page](page.md)\n\n{text}\n")
    (tmp_path / "in" / "page.md").write_text("---\norphan: true\n---\n\n# Page\n")
    conf = "extensions = ['myst_parser']\nmyst_heading_anchors = 3\n"
    (tmp_path / "in" / "conf.py").write_text(conf)
    assert build(tmp_path / "in", tmp_path / "out").returncode == 1


# --- as GitHub shows it ------------------------------------------------------------------------

DOCUMENTS = [*PAGES, ROOT / "CHANGELOG.md"]


def without_blocks(document: Path) -> str:
    text = document.read_text(encoding="utf-8")
    return re.sub(r"^```.*?^```$|`[^`\n]*`", "", text, flags=re.MULTILINE | re.DOTALL)


def anchors_of(document: Path) -> set[str]:
    """Of its headings, as GitHub makes them."""
    text = re.sub(r"^```.*?^```$", "", document.read_text(encoding="utf-8"), flags=re.M | re.S)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", one.lower()).replace(" ", "-") for one in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_hold_on_github_too(document: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", without_blocks(document)):
        parts = urlsplit(target)
        if parts.scheme:
            assert parts.scheme in ("http", "https") and "." in parts.netloc, target
            continue
        file = (document.parent / parts.path).resolve() if parts.path else document
        assert file.exists() and file.is_relative_to(ROOT), f"{document.name}: {target}"
        if parts.fragment:
            assert parts.fragment in anchors_of(file), f"{document.name}: {target}"


def test_every_page_of_the_docs_can_be_found_from_the_readme() -> None:
    """By links alone, as somebody on GitHub would."""
    found, queue = set(), [ROOT / "README.md"]
    while queue:
        page = queue.pop()
        if page in found or page.suffix != ".md":
            continue
        found.add(page)
        links = re.findall(r"\]\(([^)#\s]+)", without_blocks(page))
        queue += [(page.parent / link).resolve() for link in links if "://" not in link]
    assert {page for page in PAGES if page.parent.name == "docs"} <= found
    assert inline_commands(ROOT / "README.md")
