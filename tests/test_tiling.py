"""Overlap tiles: the plan covers, the border mirrors, tiles equal the whole and 388 does not."""

import numpy as np
import pytest
import torch

from smp_camvid.errors import UsageError
from smp_camvid.inference.tiling import (
    Tile,
    mirror_indices,
    mirror_pad,
    plan_tiles,
    predict_tiled,
)
from smp_camvid.models.vanilla import VanillaUNet, margin, valid_input_size


def test_the_papers_tile_advances_by_384():
    tiles = plan_tiles((700, 960), (572, 572), (388, 388), 16)
    assert sorted({t.left for t in tiles}) == [0, 384, 768]
    assert sorted({t.top for t in tiles}) == [0, 384]
    assert plan_tiles((360, 480), (556, 668), (372, 484), 16) == [Tile(0, 0, 360, 480)]


def test_tiles_cover_every_pixel_once_and_stay_on_the_grid():
    rng = np.random.default_rng(0)
    for _ in range(200):
        multiple = int(2 ** rng.integers(0, 6))
        size = tuple(int(n) for n in rng.integers(1, 300, 2))
        inner = tuple(int(n) for n in rng.integers(multiple, 120, 2)) if multiple < 120 else (1, 1)
        outer = tuple(n + 2 * int(rng.integers(0, 50)) for n in inner)
        seen = np.zeros(size, int)
        for tile in plan_tiles(size, outer, inner, multiple):
            assert tile.top % multiple == tile.left % multiple == 0
            assert 0 < tile.bottom - tile.top <= inner[0]
            assert 0 < tile.right - tile.left <= inner[1]
            seen[tile.top : tile.bottom, tile.left : tile.right] += 1
        assert (seen == 1).all()


def test_a_tile_that_cannot_advance_is_refused():
    with pytest.raises(UsageError, match=r"predicts 4 of them.*Use a tile of 200 or more"):
        plan_tiles((100, 100), (188, 188), (4, 4), 16)
    assert plan_tiles((4, 3), (188, 188), (4, 4), 16) == [Tile(0, 0, 4, 3)]  # nothing to advance


@pytest.mark.parametrize("shape", [(2, 3), (7, 5, 3), (30, 2, 3)])
def test_mirrored_border_equals_numpys_reflection(shape):
    array = np.arange(np.prod(shape)).reshape(shape)
    widths = ((13, 4), (0, 9), (0, 0))[: len(shape)]
    np.testing.assert_array_equal(
        mirror_pad(array, 13, 4, 0, 9), np.pad(array, widths, mode="reflect")
    )


def test_mirrored_border_of_one_pixel_repeats_it():
    assert mirror_indices(3, 4, 3).tolist() == [0, 1, 2, 1, 0, 1, 2, 1, 0, 1]
    assert (mirror_pad(np.full((1, 1, 3), 9, np.uint8), 2, 3, 4, 5) == 9).all()


def runner(model):
    def function(tile):
        with torch.inference_mode():
            x = torch.from_numpy(np.ascontiguousarray(tile.transpose(2, 0, 1)))[None].float() / 255
            return model(x)[0].numpy()

    return function


def whole(model, image, depth):
    height, width = image.shape[:2]
    border = margin(depth)
    sizes = [valid_input_size(n + 2 * border, depth) for n in (height, width)]
    padded = mirror_pad(
        image, border, sizes[0] - height - border, border, sizes[1] - width - border
    )
    return runner(model)(padded)[:, :height, :width]


@pytest.mark.parametrize("size", [(100, 75), (37, 130), (5, 3), (1, 1)])
def test_tiles_equal_the_whole_picture(size):
    depth, multiple = 2, 4
    torch.manual_seed(0)
    model = VanillaUNet(3, 4, base_channels=4, depth=depth).eval()
    image = np.random.default_rng(1).integers(0, 256, (*size, 3), dtype=np.uint8)
    tile = (valid_input_size(64, depth), valid_input_size(72, depth))
    tiled = predict_tiled(runner(model), image, tile=tile, margin=margin(depth), multiple=multiple)
    np.testing.assert_allclose(tiled, whole(model, image, depth), atol=1e-5)


@pytest.mark.slow
def test_the_papers_tile_equals_the_whole_at_384_and_not_at_388():
    torch.manual_seed(0)
    model = VanillaUNet(3, 2, base_channels=2).eval()
    image = np.random.default_rng(1).integers(0, 256, (410, 500, 3), dtype=np.uint8)
    expected = whole(model, image, 4)
    arguments = {"tile": (572, 572), "margin": 92}
    at_384 = predict_tiled(runner(model), image, multiple=16, **arguments)
    np.testing.assert_allclose(at_384, expected, atol=1e-5)
    at_388 = predict_tiled(runner(model), image, multiple=4, **arguments)  # 97 * 4 = 388
    first = np.abs(at_388 - expected)[:, :384, :384]
    assert first.max() < 1e-5  # the first tile lies right
    beyond = np.abs(at_388 - expected)[:, :388, 388:]
    assert beyond.max() > 0.05 * np.abs(expected).max()


def test_same_padding_tiles_lose_their_margin():
    """A local function of the picture comes out whole, whatever it makes of a tile's border."""

    def blur(image):  # 3x3 mean with a wrong (zero) border, like a padded convolution
        grey = np.pad(image.astype(np.float64).mean(-1), 1)
        rows = grey[:-2] + grey[1:-1] + grey[2:]
        return (rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:])[None] / 9

    image = np.random.default_rng(0).integers(0, 256, (50, 41, 3), dtype=np.uint8)
    expected = blur(mirror_pad(image, 1, 1, 1, 1))[:, 1:-1, 1:-1]
    tiled = predict_tiled(blur, image, tile=(24, 32), margin=4, multiple=8)
    np.testing.assert_allclose(tiled, expected)


def test_tiling_needs_neither_torch_nor_smp():
    import subprocess
    import sys

    code = "import sys, smp_camvid.inference.tiling; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
