"""How every picture of this package looks, and how it becomes a file.

Figures are made from `matplotlib.figure.Figure` and never through pyplot, so nothing here touches
the state of a notebook or needs a display; a style the notebook has set does not reach them
either.  matplotlib is imported when the first one is drawn.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from PIL import Image, ImageFont

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import PowerNorm
    from matplotlib.figure import Figure

INK, SOFT, FAINT, GRID = "#1f2933", "#52606d", "#b8c2cc", "#d9dee3"
ORANGE, BLUE, GREY, PALE = "#c2570c", "#1d5fa8", "#4b5563", "#c6dbef"
"""Of data: told apart by colour-blind eyes and in grey.  Train is orange, val blue, test grey; pale
is what something lies over."""
SHARES = "Blues"
"""The colour map of cells that hold a share."""
LARGE, TITLE, LABEL, NOTE = 13, 12, 11, 10
"""Points: 13 is 22 pixels high at 120 to the inch."""
DPI = 120
_LETTERS_PER_INCH = 9.5  # of a title

P = ParamSpec("P")
R = TypeVar("R")


@contextmanager
def our_style() -> Iterator[None]:
    """Matplotlib's own defaults, whatever the user's matplotlibrc or notebook says."""
    import matplotlib.style

    # Text stays text in an SVG: it can be searched, edited and read aloud.  Verdana, which
    # Windows and macOS have, is as wide as DejaVu Sans, so labels fit where that is missing.
    ours = {
        "svg.fonttype": "none",
        "svg.hashsalt": "smp-camvid",
        "font.sans-serif": ["DejaVu Sans", "Verdana", "sans-serif"],
    }
    with matplotlib.style.context(ours, after_reset=True):
        yield


def styled(draw: Callable[P, R]) -> Callable[P, R]:
    """A function that draws, in our style."""

    @wraps(draw)
    def drawing(*args: P.args, **kwargs: P.kwargs) -> R:
        with our_style():
            return draw(*args, **kwargs)

    return drawing


def blank_figure(width: float, height: float, title: str = "") -> Figure:
    """White, of `width` x `height` inches, laid out by itself; pyplot knows nothing of it."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained", facecolor="white")
    figure.set_layout_engine("constrained", w_pad=0.12, h_pad=0.12)
    if title:
        lines = (fill(line, round(_LETTERS_PER_INCH * width)) for line in title.split("\n"))
        title = "\n".join(lines)
        figure.suptitle(title, x=0.01, ha="left", color=INK, fontsize=LARGE, parse_math=False)
    return figure


def heading(axes: Axes, text: str, note: str = "") -> None:
    """What axes show, above them on the left, and a figure worth knowing on the right."""
    axes.set_title(text, loc="left", color=INK, fontsize=TITLE, parse_math=False)
    axes.set_title(note, loc="right", color=SOFT, fontsize=NOTE, parse_math=False)


def plot_frame(axes: Axes, x: str = "", y: str = "") -> None:
    """A grid behind the data, thin lines left and below, and what the axes count."""
    axes.grid(color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(GRID)
    axes.tick_params(colors=SOFT, labelsize=NOTE)
    axes.set_xlabel(x, color=SOFT, fontsize=LABEL)
    axes.set_ylabel(y, color=SOFT, fontsize=LABEL)


def table_frame(axes: Axes) -> None:
    """Names at the sides and no lines: for rows and columns of classes, splits, drives."""
    axes.tick_params(length=0, labelsize=NOTE, colors=INK)
    axes.spines[:].set_visible(False)
    axes.set_axisbelow(True)
    for label in (*axes.get_xticklabels(), *axes.get_yticklabels()):
        label.set_parse_math(False)


def share_norm(most: float = 1) -> PowerNorm:
    """Shares as the depth of a colour: the root lets one per cent show beside ninety."""
    from matplotlib.colors import PowerNorm

    return PowerNorm(0.5, vmin=0, vmax=most)


def ink_on(value: float, most: float = 1) -> str:
    """The colour of a figure on a cell of that share: white on the dark ones."""
    return "white" if value > 0.3 * most else INK


def sheet_font(size: int) -> ImageFont.FreeTypeFont:
    """Matplotlib's own DejaVu Sans: on every machine, and with more letters than Pillow's."""
    import matplotlib

    path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
    return ImageFont.truetype(str(path), size)


def png_bytes(picture: Figure | Image.Image) -> bytes:
    """A figure or a sheet as a PNG file; the same picture is the same bytes."""
    buffer = io.BytesIO()
    if isinstance(picture, Image.Image):
        picture.save(buffer, "PNG")
    else:
        _save(picture, buffer, "png", {"Software": None})
    return buffer.getvalue()


def svg_bytes(figure: Figure) -> bytes:
    """A figure as an SVG file, without the date and with names that do not change."""
    buffer = io.BytesIO()
    _save(figure, buffer, "svg", {"Date": None, "Creator": None})
    return buffer.getvalue()


def _save(figure: Figure, buffer: io.BytesIO, form: str, metadata: dict[str, Any]) -> None:
    with our_style():
        figure.savefig(buffer, format=form, metadata=metadata)
