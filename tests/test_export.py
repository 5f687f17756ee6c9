"""Exports do what the network does, say what they are, and are not written otherwise."""

import json

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from command_line import run
from exported_models import CONFIGS, Exports, write_weights
from hypothesis import given, settings
from hypothesis import strategies as st
from timm.layers import padding

import smp_camvid
from smp_camvid.data.classes import CAMVID11
from smp_camvid.errors import UsageError, WeightsError
from smp_camvid.inference import export as exporting
from smp_camvid.inference import graph, tracing
from smp_camvid.inference.export import draw_picture, export
from smp_camvid.inference.onnx_engine import OnnxEngine
from smp_camvid.inference.predictor import Segmenter
from smp_camvid.models.network import Network
from smp_camvid.models.weights import load_network, read_metadata, save_weights


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory) -> Exports:
    return Exports(tmp_path_factory.mktemp("exports"))


def logits_of(network, image):
    with torch.inference_mode():
        return network(torch.as_tensor(image)).numpy()


# --- ONNX ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CONFIGS)
def test_onnx_equals_torch_for_every_size(exports, name):
    done = exports[name]
    network, engine = exports.network(name), OnnxEngine(done.path)
    assert done.facts["size"] is None and done.facts["any_batch"]
    for batch, height, width in [(1, 1, 1), (2, 1, 70), (1, 33, 47), (3, 64, 96), (1, 121, 90)]:
        image = draw_picture((batch, height, width), seed=9)
        found, expected = engine.run(image), logits_of(network, image)
        assert found.shape == expected.shape == (batch, len(network.table), height, width)
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    assert (found.argmax(1) == expected.argmax(1)).mean() >= 0.9999
    assert len(np.unique(found.argmax(1))) > 1


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 80), st.integers(1, 80), st.integers(1, 3), st.integers(0, 99))
def test_torch_and_onnx_agree_on_the_same_picture(exports, height, width, batch, seed):
    if not hasattr(exports, "pair"):
        exports.pair = exports.network("valid"), OnnxEngine(exports["valid"].path)
    network, engine = exports.pair
    image = draw_picture((batch, height, width), seed)
    np.testing.assert_allclose(engine.run(image), logits_of(network, image), rtol=1e-4, atol=1e-4)


def test_the_check_looks_at_sizes_the_graph_was_not_made_with(exports):
    done = exports["unet"]
    assert len({shape[1:] for shape in done.checked}) == 3
    assert {shape[0] for shape in done.checked} == {1, 2}
    assert (1, 60, 80) in done.checked  # that of the frames it was trained with
    assert done.agreement >= 0.9999
    assert done.difference is not None and 0 < done.difference < 1e-3


def test_the_file_says_what_it_is(exports):
    done = exports["classes32"]
    model = onnx.load(done.path)
    onnx.checker.check_model(model, full_check=True)
    (entry,) = model.metadata_props
    content = json.loads(entry.value)
    assert entry.key == "smp_camvid" and entry.value == json.dumps(content, sort_keys=True)
    assert content.pop("export") == done.facts
    assert content == read_metadata(done.source)
    assert len(content["classes"]["names"]) == len(content["classes"]["colors"]) == 32
    assert describe(model.graph.input) == {"image": (1, ["batch", 3, "height", "width"])}
    assert describe(model.graph.output) == {"logits": (1, ["batch", 32, "height", "width"])}


def describe(values):
    """Name -> (element type, sizes and names of the axes)."""
    return {
        value.name: (
            value.type.tensor_type.elem_type,
            [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim],
        )
        for value in values
    }


def test_argmax_gives_the_classes(exports, tmp_path):
    done = export(exports["unet"].source, out=tmp_path / "classes.onnx", argmax=True)
    model = onnx.load(done.path)
    assert describe(model.graph.output) == {
        "classes": (onnx.TensorProto.UINT8, ["batch", "height", "width"])
    }
    assert done.agreement >= 0.9999 and done.difference is None
    image = draw_picture((2, 61, 45), seed=5)
    session = exporting.open_session(done.path)
    (found,) = session.run(None, {"image": image.numpy()})
    expected = logits_of(exports.network("unet"), image).argmax(1)
    assert found.dtype == np.uint8 and (found == expected).mean() >= 0.999
    with pytest.raises(WeightsError, match="exported with --argmax"):
        OnnxEngine(done.path)


def test_equal_weights_give_equal_bytes(exports, tmp_path):
    again = export(exports["same"].source, out=tmp_path / "again.onnx")
    assert again.path.read_bytes() == exports["same"].path.read_bytes()


# --- what is not kept ----------------------------------------------------------------------------


def tampered(network, path, size, **options):
    """Writes another graph than that of the network: one bias is off."""
    graph.write_onnx(network, path, size, **options)
    model = onnx.load(path)
    head = [t for t in model.graph.initializer if t.name.endswith("segmentation_head.bias")]
    values = onnx.numpy_helper.to_array(head[0]).copy()
    values[0] += 0.05
    head[0].CopyFrom(onnx.numpy_helper.from_array(values, head[0].name))
    onnx.save(model, path)


@pytest.mark.parametrize("before", [None, b"the file before"])
def test_a_graph_that_does_something_else_is_not_kept(tmp_path, monkeypatch, before):
    weights = write_weights(tmp_path, "same")
    out = tmp_path / "made" / "same.onnx"
    out.parent.mkdir()
    if before:
        out.write_bytes(before)
    monkeypatch.setattr(exporting, "write_onnx", tampered)
    done = run("export", weights, "--out", out)
    assert done.exit_code == 1 and not done.stdout
    assert "of a picture's pixels the class that the network gives them" in done.stderr
    assert [path.read_bytes() for path in out.parent.iterdir()] == ([before] if before else [])


def test_a_model_the_exporter_cannot_write_is_refused_in_words(tmp_path, monkeypatch):
    def fails(*args, **options):
        raise RuntimeError("Exporting the operator 'aten::thing' is not supported.\nMore.")

    weights = write_weights(tmp_path, "same")
    monkeypatch.setattr(exporting, "write_onnx", fails)
    done = run("export", weights, "--out", tmp_path / "x.onnx")
    assert done.exit_code == 1 and "aten::thing" in done.stderr and "More" not in done.stderr
    assert "--format pt2" in done.stderr and not (tmp_path / "x.onnx").exists()


@pytest.mark.slow
def test_the_exporter_prints_nothing_when_it_gives_up(tmp_path, capfd):
    """A vision transformer resizes its positions by an operation that ONNX does not have."""
    torch.manual_seed(0)
    model = smp_camvid.create_model(
        "dpt", encoder_name="tu-test_vit", encoder_depth=2, decoder_intermediate_channels=[8, 8],
        decoder_fusion_channels=8,
    )  # fmt: skip
    network = Network(model, (0.5,) * 3, (0.5,) * 3, CAMVID11).eval()
    save_weights(network, tmp_path / "w.safetensors")
    with pytest.raises(WeightsError, match="bicubic2d_aa"):
        export(tmp_path / "w.safetensors", out=tmp_path / "w.onnx")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--format", "tflite"], "--format tflite is not known. It is onnx or pt2."),
        (["--out", "model.bin"], "does not end in .onnx"),
        (["--checkpoint", "best"], "--checkpoint goes with a run folder"),
    ],
)
def test_wrong_options_are_told_before_anything_is_made(tmp_path, here, words, reason):
    weights = write_weights(tmp_path, "same")
    done = run("export", weights, *words)
    assert done.exit_code == 2 and reason in done.stderr
    assert not list(here.iterdir())


def test_an_export_is_not_exported_again(exports):
    with pytest.raises(UsageError, match="is an export"):
        export(exports["same"].path)


# --- one size only -------------------------------------------------------------------------------


def only_fixed(free_enough):
    """An exporter that cannot leave sizes open."""

    def write(network, path, size, *, free, **options):
        if len(free) > free_enough:
            raise RuntimeError("no symbolic sizes")
        graph.write_onnx(network, path, size, free=free, **options)

    return write


@pytest.mark.parametrize("free_enough", [1, 0])
def test_a_size_that_cannot_stay_open_is_fixed_and_said(tmp_path, monkeypatch, free_enough):
    weights = write_weights(tmp_path, "unet")
    monkeypatch.setattr(exporting, "write_onnx", only_fixed(free_enough))
    done = run("export", weights, "--out", tmp_path / "fixed.onnx")
    assert done.exit_code == 0, done.stderr
    assert "frames of 64x80 only" in done.stdout
    engine = OnnxEngine(tmp_path / "fixed.onnx")
    assert engine.size == (64, 80) and engine.any_batch == bool(free_enough)
    network = load_network(weights)[0]
    for size in [(64, 80), (60, 80), (50, 70)]:  # smaller ones get the mean colour around them
        image = draw_picture((3, *size), seed=1)
        expected = logits_of(network, image_filled(image, (64, 80)))[..., : size[0], : size[1]]
        np.testing.assert_allclose(engine.run(image), expected, rtol=1e-4, atol=1e-4)
    own = logits_of(network, draw_picture((3, 60, 80), seed=1))  # which pads to 64 by itself
    found = engine.run(draw_picture((3, 60, 80), seed=1))
    np.testing.assert_allclose(found, own, rtol=1e-4, atol=1e-4)
    large = np.zeros((90, 131, 3), np.uint8)
    with pytest.raises(smp_camvid.SmpCamvidError, match="--tile 64x80"):
        Segmenter(engine, scale="native")(large)
    assert Segmenter(engine, scale="native", tile=(64, 80))(large).mask.shape == (90, 131)


def image_filled(image, size):
    """The mean colour of the test networks below and right of pictures, to `size`."""
    mean = torch.tensor((0.4, 0.5, 0.6)).view(3, 1, 1) * 255
    filled = mean.expand(*image.shape[:2], *size).clone()
    filled[..., : image.shape[-2], : image.shape[-1]] = image
    return filled


# --- torch.export --------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", ["valid", "lite"])
def test_pt2_equals_the_network_where_it_needs_no_border(tmp_path, name):
    weights = write_weights(tmp_path, name)
    done = export(weights, format="pt2", out=tmp_path / "model.pt2")
    network = load_network(weights)[0]
    extra = {"smp_camvid.json": ""}
    program = torch.export.load(done.path, extra_files=extra).module()
    content = json.loads(extra["smp_camvid.json"])
    assert content.pop("export") == done.facts and content == read_metadata(weights)
    least, multiple = done.facts["least"], done.facts["multiple"]
    assert least >= 64
    assert (
        network.padded_size(least - 2 * network.size_policy["margin"]) == least
    )  # a size it takes
    for batch, rows, columns in [(1, 0, 0), (3, 2, 5)]:
        image = draw_picture((batch, least + rows * multiple, least + columns * multiple), 3)
        with torch.inference_mode():
            expected = network.forward_tile(image)
            torch.testing.assert_close(program(image), expected, rtol=1e-4, atol=1e-4)
    assert done.agreement >= 0.9999 and len(set(done.checked)) == 3


@pytest.mark.slow
def test_a_pt2_with_argmax(tmp_path):
    weights = write_weights(tmp_path, "same")
    done = export(weights, format="pt2", out=tmp_path / "model.pt2", argmax=True)
    image = draw_picture((2, 64, 72), 3)
    found = torch.export.load(done.path).module()(image)
    network = load_network(weights)[0]
    assert found.dtype == torch.uint8 and done.difference is None
    assert (found.numpy() == logits_of(network, image).argmax(1)).mean() >= 0.999


# --- the layers that are replaced while a graph is made ------------------------------------------


@pytest.mark.parametrize("bins", [2, 3, 6, (1, 4), 1])
@pytest.mark.parametrize("size", [(6, 6), (7, 13), (45, 60), (4, 3)])
def test_means_of_bins_are_adaptive_pooling(bins, size):
    x = torch.randn(2, 5, *size)
    expected = F.adaptive_avg_pool2d(x, bins)
    torch.testing.assert_close(tracing._bin_means(x, bins), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kernel", [1, 2, 3, 5, 7])
@pytest.mark.parametrize("stride", [1, 2, 4])
def test_the_constant_padding_is_that_of_every_multiple_of_the_stride(kernel, stride):
    for dilation in (1, 2):
        constant = tracing._constant_same_padding(None, kernel, stride, dilation)
        for steps in (1, 2, 7):
            size = steps * stride
            assert constant == padding.get_same_padding(size, kernel, stride, dilation)
    other = [padding.get_same_padding(n, kernel, stride, 1) for n in range(stride * 3, stride * 4)]
    assert stride == 1 or kernel < 2 or len(set(other)) > 1  # negative control: others differ


def test_the_layers_are_put_back():
    before = padding.get_same_padding, F.adaptive_avg_pool2d
    with pytest.raises(RuntimeError, match="inside"), tracing.traceable():
        assert padding.get_same_padding is not before[0]
        raise RuntimeError("inside")
    assert (padding.get_same_padding, F.adaptive_avg_pool2d) == before


# --- the command ---------------------------------------------------------------------------------


def test_the_command_says_what_it_made_and_what_comes_next(tmp_path, here):
    weights = write_weights(tmp_path, "unet")
    done = run("export", weights)
    assert done.exit_code == 0, done.stderr
    first, second, third = done.stdout.splitlines()
    size = (here / "unet.onnx").stat().st_size / 1e6
    assert first == f"{weights} -> unet.onnx ({size:.1f} MB), frames of any size, any batch"
    assert "161x241" in second and "% of the pixels have the same class" in second
    assert "logits differ by at most" in second
    assert third == "smp-camvid predict img.png --model unet.onnx"
    assert [path.name for path in here.iterdir()] == ["unet.onnx"]
