"""Predictor: any picture in, classes of its size out, the same by every way that leads there."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from smp_camvid.data.classes import CAMVID11
from smp_camvid.data.preprocess import ENLARGED_PIXELS, frame_size
from smp_camvid.errors import DataError, UsageError
from smp_camvid.evaluation.loop import evaluate_batches, judge
from smp_camvid.inference.engine import NumpyMath
from smp_camvid.inference.prediction import as_rgb
from smp_camvid.inference.predictor import Segmenter
from smp_camvid.inference.torch_engine import TorchEngine, TorchMath
from smp_camvid.models.factory import create_model
from smp_camvid.models.network import Network


def make_network(**options):
    torch.manual_seed(0)
    model = create_model("vanilla", base_channels=4, depth=2, norm="batch", **options)
    return Network(model, (0.4, 0.5, 0.6), (0.2, 0.3, 0.25), CAMVID11)


def segmenter(network=None, height=24, **how):
    network = network or make_network(padding="same")
    return Segmenter(TorchEngine(network, {"train_size": [height, 32]}), **how)


def picture(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


class Brightness(torch.nn.Module):
    """A network whose answer is known: class 1 where the picture is bright, else class 0."""

    def forward(self, x):
        bright = x.mean(1, keepdim=True)
        return torch.cat([-bright, bright, *[bright * 0 - 1e3] * 9], 1)


def brightness(height=24, **how):
    network = Network(Brightness(), (0.5,) * 3, (0.25,) * 3, CAMVID11)
    return segmenter(network, height, **how)


# --- sizes ---------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 90), st.integers(1, 90), st.sampled_from(["train", "native"]))
def test_the_mask_has_the_size_of_the_picture(height, width, scale):
    prediction = SAME[scale](picture(height, width))
    assert prediction.mask.shape == (height, width)
    assert prediction.mask.dtype == np.uint8
    assert prediction.probs.shape == (11, height, width)
    np.testing.assert_allclose(prediction.probs.sum(0), 1, atol=1e-5)


SAME = {scale: segmenter(scale=scale) for scale in ("train", "native")}


@pytest.mark.parametrize("size", [(1, 4000), (4000, 1), (1, 1), (4320, 7680)])
def test_extreme_sizes_come_back_as_they_are(size):
    prediction = SAME["train"](np.zeros((*size, 3), np.uint8))
    assert prediction.mask.shape == size


def test_a_strip_is_not_enlarged_beyond_measure():
    assert frame_size((1, 4000), 360) == (23, 91589)
    assert frame_size((1, 4000), 360)[0] * frame_size((1, 4000), 360)[1] <= 1.01 * ENLARGED_PIXELS
    assert frame_size((100, 50), 360) == (360, 180)  # an ordinary picture is
    assert frame_size((1, 3_000_000), 360) == (1, 3_000_000)


@pytest.mark.parametrize("size", [(48, 64), (12, 16), (36, 48), (25, 33)])
def test_an_edge_stays_on_its_pixel(size):
    """Left half dark, right half bright, at several scales: resizing shifts nothing."""
    image = np.zeros((*size, 3), np.uint8)
    middle = size[1] // 2
    image[:, middle:] = 255
    mask = brightness()(image).mask
    edges = np.abs(np.diff(mask.astype(int), axis=1)).argmax(1) + 1
    assert (np.abs(edges - middle) <= (0 if size[1] % 2 == 0 else 1)).all()
    image = image.transpose(1, 0, 2)
    assert (brightness()(image).mask[:middle] == 0).mean() > 0.95


# --- the same by every way -----------------------------------------------------------------------


def test_evaluate_counts_what_predict_says():
    one = segmenter(make_network())
    image, truth = picture(24, 32), picture(24, 32, seed=1)[..., 0] % 11
    batch = batch_of(image, truth)
    result = evaluate_batches(one, [batch])
    expected = np.zeros((11, 11), np.int64)
    np.add.at(expected, (truth.ravel(), one(image).mask.ravel()), 1)
    assert (result.matrix == expected).all()
    assert (evaluate_batches(judge(one.engine.network), [batch]).matrix == expected).all()


def test_evaluate_with_tta_and_tiles_counts_what_predict_says():
    one = segmenter(make_network(padding="same"), tta=(0.75, 1.0), tile=(16, 16))
    image, truth = picture(24, 40), picture(24, 40, seed=1)[..., 0] % 11
    expected = np.zeros((11, 11), np.int64)
    np.add.at(expected, (truth.ravel(), one(image).mask.ravel()), 1)
    assert (evaluate_batches(one, [batch_of(image, truth)]).matrix == expected).all()


def batch_of(image, truth):
    from smp_camvid.data.loaders import Batch

    target = torch.from_numpy(truth.astype(np.int64))[None]
    return Batch(torch.from_numpy(image).permute(2, 0, 1)[None], target, torch.zeros(1), None)


def test_a_batch_of_eight_equals_eight_of_one():
    images = [picture(30, 41, seed) for seed in range(8)]
    one = segmenter(make_network())
    together = list(one.predict_many(iter(images), batch_size=8))
    for image, prediction in zip(images, together, strict=True):
        np.testing.assert_allclose(prediction.probs, one(image).probs, atol=1e-5)
        assert (prediction.image == image).all()


def test_pictures_of_several_sizes_come_back_in_order():
    sizes = [(30, 41), (30, 41), (20, 41), (30, 41), (60, 82)]
    images = [picture(*size, seed) for seed, size in enumerate(sizes)]
    predictions = list(SAME["train"].predict_many(images, batch_size=4))
    assert [p.mask.shape for p in predictions] == sizes
    for image, prediction in zip(images, predictions, strict=True):
        np.testing.assert_allclose(prediction.probs, SAME["train"](image).probs, atol=1e-5)


def test_predict_many_reads_no_further_than_a_batch():
    read = []

    def images():
        for number in range(100):
            read.append(number)
            yield picture(24, 32, number)

    next(SAME["train"].predict_many(images(), batch_size=3))
    assert len(read) <= 4


@pytest.mark.parametrize("size", [(33, 20), (12, 16), (70, 91)])
def test_numpy_and_torch_do_the_same_with_maps(size):
    maps = np.random.default_rng(0).normal(size=(2, 11, 24, 32)).astype(np.float32)
    tensor = torch.from_numpy(maps)
    ours, theirs = NumpyMath(), TorchMath()
    expected = F.interpolate(tensor, size, mode="bilinear", align_corners=False)
    for found in (ours.resize(maps, size), theirs.resize(tensor, size)):
        np.testing.assert_allclose(found, expected, atol=1e-5)
    for name in ("softmax", "mirror"):
        found = getattr(theirs, name)(tensor)
        np.testing.assert_allclose(getattr(ours, name)(maps), found, atol=1e-6)
    assert (ours.likeliest(maps, size) == expected.argmax(1).numpy()).all()
    assert (theirs.likeliest(tensor, size) == expected.argmax(1).numpy()).all()
    by_class = theirs._likeliest_by_class(tensor, size)
    assert (by_class.numpy() == expected.argmax(1).numpy()).all()


# --- tiles ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("tile", [(44, 44), (60, 52)])
def test_tiles_of_the_unpadded_net_equal_the_whole(tile):
    network = make_network()
    whole = segmenter(network, scale="native").scores(frames(70, 99))
    tiled = segmenter(network, scale="native", tile=tile).scores(frames(70, 99))
    np.testing.assert_allclose(tiled, whole, rtol=1e-5, atol=1e-5)


def test_tiles_off_the_grid_do_not_equal_the_whole():
    """Negative control: one pixel beside the pooling grid, and the seams show."""
    network = make_network()
    one = segmenter(network, scale="native", tile=(48, 48))
    whole = segmenter(network, scale="native").scores(frames(70, 99))
    one.engine.size_policy = {**network.size_policy, "multiple": 7}
    shifted = one.scores(frames(70, 99))
    assert np.abs(shifted - whole.numpy()).max() > 1e-3


def test_blended_tiles_agree_with_the_whole_away_from_false_borders():
    network = make_network(padding="same")
    whole = segmenter(network, scale="native").scores(frames(120, 160)).numpy()
    tiled = segmenter(network, scale="native", tile=(96, 96)).scores(frames(120, 160))
    assert tiled.shape == whole.shape
    assert np.median(np.abs(tiled - whole)) < 1e-3
    assert (tiled.argmax(1) == whole.argmax(1)).mean() > 0.97


def test_a_frame_beyond_the_limit_is_cut_by_itself(monkeypatch):
    monkeypatch.setattr("smp_camvid.inference.predictor.WHOLE_PIXELS", 70 * 98)
    monkeypatch.setattr("smp_camvid.inference.predictor.AUTO_TILE", 44)
    network = make_network()
    one, seen = segmenter(network, scale="native"), []
    run = one.engine.run_tile
    monkeypatch.setattr(one.engine, "run_tile", lambda tile: seen.append(tile.shape) or run(tile))
    cut = one.scores(frames(70, 99))
    whole = network(torch.from_numpy(frames(70, 99))).detach()
    assert set(seen) == {(1, 3, 44, 44)}
    np.testing.assert_allclose(cut, whole, rtol=1e-5, atol=1e-5)


def test_a_tile_gets_a_size_the_net_takes():
    assert segmenter(make_network(), tile=(30, 45)).tile == (44, 48)
    assert segmenter(make_network(padding="same"), tile=(30, 45)).tile == (32, 48)


def frames(height, width):
    return picture(height, width)[None].transpose(0, 3, 1, 2)


# --- test-time augmentation ----------------------------------------------------------------------


def test_tta_is_the_mean_of_what_each_view_says():
    one = SAME["train"]
    image = picture(24, 32)
    mirrored = one(np.ascontiguousarray(image[:, ::-1])).probs[..., ::-1]
    expected = (one(image).probs + mirrored) / 2
    found = segmenter(one.engine.network, tta=(1.0,))(image)
    np.testing.assert_allclose(found.probs, expected, atol=1e-5)
    assert (found.mask == expected.argmax(0)).mean() > 0.999


def test_tta_of_a_mirrored_picture_is_the_mirrored_tta():
    one = segmenter(tta=True)
    image = picture(24, 32)
    mirrored = one(np.ascontiguousarray(image[:, ::-1])).probs
    np.testing.assert_allclose(mirrored[..., ::-1], one(image).probs, atol=1e-4)
    plain = SAME["train"](image).probs - SAME["train"](image[:, ::-1].copy()).probs[..., ::-1]
    assert np.abs(plain).max() > 1e-3  # the net alone is not symmetric


def test_scales_of_tta_see_the_edge_where_it_is():
    image = np.zeros((24, 32, 3), np.uint8)
    image[:, 16:] = 255
    assert (brightness(tta=True)(image).mask == brightness()(image).mask).all()


# --- what counts as a picture --------------------------------------------------------------------


def test_paths_pictures_arrays_and_tensors_are_the_same_picture(tmp_path):
    image = picture(20, 30)
    Image.fromarray(image).save(tmp_path / "a.png")
    ways = [
        tmp_path / "a.png", str(tmp_path / "a.png"), Image.fromarray(image), image,
        torch.from_numpy(image), torch.from_numpy(image).permute(2, 0, 1),
        torch.from_numpy(image).permute(2, 0, 1)[None],
    ]  # fmt: skip
    assert all((as_rgb(way) == image).all() for way in ways)
    grey = as_rgb(image[..., 0])
    assert grey.shape == image.shape and (grey[..., 2] == image[..., 0]).all()


@pytest.mark.parametrize(
    "wrong", [np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8), torch.rand(3, 4, 4), 7, None]
)
def test_what_is_no_picture_is_refused_in_words(wrong):
    with pytest.raises(DataError, match="picture"):
        as_rgb(wrong)


def test_the_overlay_mixes_picture_and_colours():
    prediction = SAME["train"](picture(20, 30))
    mixed = 0.7 * prediction.image + 0.3 * prediction.color
    assert np.abs(prediction.overlay(0.3) - mixed).max() <= 1
    assert (prediction.overlay(0.0) == prediction.image).all()
    assert (prediction.overlay(1.0) == prediction.color).all()


def test_an_unknown_scale_is_refused():
    with pytest.raises(UsageError, match="train or native"):
        segmenter(scale="big")
