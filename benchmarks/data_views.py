"""Pictures of what `data check`, `data stats`, `data show` and `doctor` look like.

    python benchmarks/data_views.py [DIR] [--out demo/views]

Each table as a terminal of 80 columns shows it, dark and light, as SVG and PNG, and the pictures
the commands write.  DIR is a dataset; the synthetic scenes if absent.  The broken dataset is
always made of synthetic scenes, in a temporary folder.
"""

from __future__ import annotations

import argparse
import io
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont
from rich.color import Color
from rich.console import Console, RenderableType
from rich.segment import Segment
from rich.terminal_theme import DEFAULT_TERMINAL_THEME, MONOKAI, TerminalTheme

from smp_camvid import recipe
from smp_camvid.data import samples
from smp_camvid.data.camvid import CamVid, open_dataset
from smp_camvid.data.checks import check_dataset
from smp_camvid.data.places import synthetic_data
from smp_camvid.data.statistics import collect_statistics
from smp_camvid.report.contact_sheet import contact_sheet
from smp_camvid.report.data_tables import check_view, statistics_view, suggested_weights
from smp_camvid.report.doctor import doctor_view, examine
from smp_camvid.report.statistics_figure import statistics_figure
from smp_camvid.report.style import png_bytes

COLUMNS = 80
THEMES = {"dark": MONOKAI, "light": DEFAULT_TERMINAL_THEME}
CELL = (9, 19)  # pixels of one character


def terminal_view(view: RenderableType, path: Path, theme: TerminalTheme) -> None:
    """`path`.svg and `path`.png: the view in a terminal with the theme's colours."""
    console = Console(
        record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True,
        color_system="truecolor", markup=False, emoji=False, highlight=False,
    )  # fmt: skip
    lines = console.render_lines(view, pad=False)
    draw_terminal(lines, theme).save(path.with_suffix(".png"))
    console.print(view)
    console.save_svg(str(path.with_suffix(".svg")), title=path.stem, theme=theme)


def draw_terminal(lines: Iterable[Iterable[Segment]], theme: TerminalTheme) -> Image.Image:
    rows = [list(line) for line in lines]
    fonts = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    plain, bold = (
        ImageFont.truetype(str(fonts / f"DejaVuSansMono{kind}.ttf"), 15) for kind in ("", "-Bold")
    )
    paper = tuple(theme.background_color)
    size = ((COLUMNS + 2) * CELL[0], (len(rows) + 1) * CELL[1])
    picture = Image.new("RGB", size, paper)
    draw = ImageDraw.Draw(picture)
    for y, row in enumerate(rows):
        x = 1
        for segment in row:
            style = segment.style
            color = (style.color if style else None) or Color.default()
            ink = np.array(color.get_truecolor(theme))
            if style and style.dim:
                ink = (ink + np.array(paper)) // 2
            font = bold if style and style.bold else plain
            for character in segment.text:
                place = (x * CELL[0], y * CELL[1] + CELL[1] // 2)
                draw.text(place, character, tuple(int(v) for v in ink), font)
                x += 1
    return picture


def broken_copy(folder: Path) -> Path:
    """A dataset in which each kind of error is once, and some warnings."""
    root = folder / "camvid"
    shutil.copytree(synthetic_data(), root)
    train, val = (sorted((root / split).glob("*.png")) for split in ("train", "val"))
    labels = sorted((root / "train_labels").glob("*.png"))
    labels[0].unlink()
    labels[1].write_bytes(labels[1].read_bytes()[:2000])
    spoil = np.array(Image.open(labels[2]))
    spoil[100, 200] = (129, 1, 3)
    Image.fromarray(spoil).save(labels[2])
    Image.open(labels[3]).resize((240, 180), Image.Resampling.NEAREST).save(labels[3])
    shutil.copy(train[5], val[5])
    near = np.roll(np.array(Image.open(train[7])), 2, axis=1)
    Image.fromarray((near * 0.95).astype(np.uint8)).save(val[7])
    for path in val[10:]:
        (root / "val_labels" / f"{path.stem}_L.png").unlink()
    return root


def views(dataset: CamVid, broken: Path) -> dict[str, RenderableType]:
    splits = [name for name in ("train", "val", "test") if dataset.splits.get(name)]
    statistics = collect_statistics(dataset, splits)
    return {
        "check": check_view(check_dataset(dataset.root)),
        "check-broken": check_view(check_dataset(broken)),
        "stats": statistics_view(statistics, suggested_weights(statistics)),
        "doctor": doctor_view(examine()),
    }


def pictures(dataset: CamVid) -> dict[str, bytes]:
    splits = [name for name in ("train", "val", "test") if dataset.splits.get(name)]
    statistics = collect_statistics(dataset, splits)
    found = {"stats-picture": png_bytes(statistics_figure(statistics))}
    vanilla = recipe.resolve("vanilla").recipe
    picks = samples.evenly_spaced(dataset, splits, 8)
    for name, shown in (
        ("show", samples.as_they_are(dataset, picks)),
        ("show-augment", samples.as_trained(dataset, picks, vanilla)),
    ):
        frames = [
            (f"{pick.frame.stem}  {pick.split}", image, label)
            for pick, (image, label) in zip(picks, shown, strict=True)
        ]
        found[name] = png_bytes(contact_sheet(frames, dataset.table, name))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dataset", nargs="?", default="synthetic")
    parser.add_argument("--out", type=Path, default=Path("demo/views"))
    options = parser.parse_args()
    dataset = open_dataset(options.dataset)
    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        for name, view in views(dataset, broken_copy(Path(folder))).items():
            for theme, colors in THEMES.items():
                terminal_view(view, options.out / f"{name}-{theme}", colors)
    for name, data in pictures(dataset).items():
        (options.out / f"{name}.png").write_bytes(data)
    for path in sorted(options.out.iterdir()):
        print(path)


if __name__ == "__main__":
    main()
