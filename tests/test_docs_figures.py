"""The figures of the docs show what the code does."""

from __future__ import annotations

import re
import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch

from smp_camvid.models.vanilla import VanillaUNet

DOCS = Path(__file__).parents[1] / "docs"
SVG = "{http://www.w3.org/2000/svg}"

# Ronneberger et al. 2015, figure 1: channels and side of every map, level by level.
DOWN = [
    [(64, 570), (64, 568)], [(64, 284), (128, 282), (128, 280)],
    [(128, 140), (256, 138), (256, 136)], [(256, 68), (512, 66), (512, 64)],
    [(512, 32), (1024, 30), (1024, 28)],
]  # fmt: skip
UP = [
    [(1024, 56), (512, 54), (512, 52)], [(512, 104), (256, 102), (256, 100)],
    [(256, 200), (128, 198), (128, 196)], [(128, 392), (64, 390), (64, 388)],
]  # fmt: skip


@pytest.fixture(scope="module")
def figures() -> Iterator[tuple[ModuleType, ModuleType]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(DOCS / "figures"))
        import overlap_tile
        import unet

        yield unet, overlap_tile
        for name in ("unet", "overlap_tile", "drawing"):
            sys.modules.pop(name, None)


def words_of(text: str) -> list[str]:
    return [node.text or "" for node in ET.fromstring(text).iter(f"{SVG}text")]


def test_the_traced_maps_are_those_of_the_paper(figures: tuple[ModuleType, ModuleType]) -> None:
    unet, _ = figures
    found = unet.trace(unet.network_on_paper())
    down, up = (
        [[(m.channels, m.side) for m in level] for level in s] for s in (found.down, found.up)
    )
    assert down == [[(3, 572), *DOWN[0]], *DOWN[1:]]
    assert up == [*UP[:-1], [*UP[-1], (11, 388)]]
    assert [level[0].copied for level in found.up] == [512, 256, 128, 64]


def test_the_trace_is_that_of_a_real_pass(figures: tuple[ModuleType, ModuleType]) -> None:
    """Shapes on the meta device are those of numbers; another network gives another figure."""
    unet, _ = figures
    network = VanillaUNet(1, 2, base_channels=2, depth=2)
    found = unet.trace(VanillaUNet(1, 2, base_channels=2, depth=2).to("meta"), 60)
    with torch.no_grad():
        logits = network.eval()(torch.zeros(1, 1, 60, 60))
    assert found.up[-1][-1] == unet.Map(logits.shape[1], logits.shape[2])
    assert [len(found.down), len(found.up)] == [3, 2]


def test_the_unet_in_the_docs_is_the_one_drawn_now(
    figures: tuple[ModuleType, ModuleType],
) -> None:
    unet, _ = figures
    drawn = unet.UShape(unet.trace(unet.network_on_paper())).draw().text_of_file()
    kept = (DOCS / "pictures" / "unet.svg").read_text(encoding="utf-8")
    assert kept == drawn, "python docs/figures/unet.py"
    shown = " ".join(words_of(kept))
    for channels, side in (m for level in (*DOWN, *UP) for m in level):
        assert re.search(rf"\b{channels}\b", shown) and f"{side}²" in shown


def test_the_tiles_in_the_docs_are_the_ones_drawn_now(
    figures: tuple[ModuleType, ModuleType],
) -> None:
    """Lines and words; the picture inside is a JPEG, whose bytes a library may change."""
    _, tiles = figures

    def without_picture(text: str) -> str:
        return re.sub(r"base64,[^\"]+", "", text)

    kept = (DOCS / "pictures" / "overlap-tile.svg").read_text(encoding="utf-8")
    drawn = tiles.draw().text_of_file()
    assert without_picture(kept) == without_picture(drawn), "python docs/figures/overlap_tile.py"
    assert (tiles.TILE_IN, tiles.TILE_OUT, tiles.MARGIN) == (572, 388, 92)
    assert [tile.left for tile in tiles.tiles()[:3]] == [0, 384, 768]
    assert "384 pixels further" in " ".join(words_of(kept))


def test_one_number_at_the_bottom_sees_140_pixels() -> None:
    """As docs/concepts-unet.md says: that far reaches the gradient of one of them."""
    encoder = VanillaUNet(1, 2, base_channels=1, dropout=0.0).encoder
    encoder.pool = torch.nn.AvgPool2d(2)  # the same windows; the largest would hide the other three
    for parameter in encoder.parameters():
        torch.nn.init.constant_(parameter, 0.2)
    picture = torch.ones(1, 1, 204, 204, requires_grad=True)
    encoder(picture)[-1][0, 0, 1, 1].backward()
    assert picture.grad is not None
    rows = picture.grad[0, 0].abs().sum(1).nonzero().flatten()
    assert rows.tolist() == list(range(16, 16 + 140))
