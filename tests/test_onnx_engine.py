"""ONNX Runtime as an engine: the same maps as torch, without torch, and silent."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from exported_models import Exports

from smp_camvid.errors import DeviceError, UsageError, WeightsError
from smp_camvid.inference.export import draw_picture
from smp_camvid.inference.onnx_engine import OnnxEngine, usable_cores
from smp_camvid.inference.predictor import Segmenter
from smp_camvid.inference.torch_engine import TorchEngine
from smp_camvid.models.weights import load_network


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory) -> Exports:
    return Exports(tmp_path_factory.mktemp("exports"))


def pictures(batch, height, width, seed=0):
    return draw_picture((batch, height, width), seed).to(torch.uint8)


def engines(exports, name):
    done = exports[name]
    network, metadata = load_network(done.source)
    return OnnxEngine(done.path), TorchEngine(network, metadata)


# --- the same as torch ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["valid", "unet"])
def test_both_engines_say_the_same_of_themselves_and_of_pictures(exports, name):
    ours, theirs = engines(exports, name)
    assert ours.table == theirs.table and ours.size_policy == theirs.size_policy
    assert {k: v for k, v in ours.metadata.items() if k != "export"} == theirs.metadata
    assert ours.source == str(exports[name].path) and ours.device == "cpu"
    assert OnnxEngine(exports[name].path, source="the model in the box").source.endswith("box")
    image = pictures(2, 45, 61)
    expected = theirs.run(image).numpy()
    for given in (image, image.numpy(), image.numpy()[:, :, ::1]):
        found = ours.run(given)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["valid", "unet"])
@pytest.mark.parametrize("steps", [(0, 0), (3, 5)])
def test_a_tile_gives_what_torch_gives(exports, name, steps):
    ours, theirs = engines(exports, name)
    policy = ours.size_policy
    size = [policy["minimum"] + n * policy["multiple"] for n in steps]
    tile = pictures(1, *size)
    found, expected = ours.run_tile(tile), theirs.run_tile(tile).numpy()
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_a_tile_beside_the_pooling_grid_would_give_something_else(exports):
    """Negative control: why `run_tile` moves a tile before the graph adds its own border."""
    ours, theirs = engines(exports, "valid")
    margin = ours.size_policy["margin"]
    tile = pictures(1, *[ours.size_policy["minimum"] + 24] * 2)
    inner = ours.run(tile)[..., margin:-margin, margin:-margin]
    expected = theirs.run_tile(tile).numpy()
    assert inner.shape == expected.shape and np.abs(inner - expected).max() > 1e-3


@pytest.mark.parametrize(("name", "tile"), [("valid", (100, 108)), ("unet", (64, 64))])
def test_tiles_and_tta_give_the_masks_that_torch_gives(exports, name, tile):
    image = pictures(1, 90, 131)[0].permute(1, 2, 0).numpy()
    for how in ({"tile": tile, "scale": "native"}, {"tta": True}, {}):
        ours, theirs = (Segmenter(engine, **how)(image) for engine in engines(exports, name))
        np.testing.assert_allclose(ours.probs, theirs.probs, atol=1e-4)
        assert (ours.mask == theirs.mask).mean() > 0.999


# --- what is no model of ours --------------------------------------------------------------------


def foreign(path: Path) -> Path:
    """A sound ONNX file of somebody else."""
    helper = onnx.helper
    axes = ["batch", 3, "height", "width"]
    float32 = onnx.TensorProto.FLOAT
    values = [helper.make_tensor_value_info(name, float32, axes) for name in ("image", "logits")]
    node = helper.make_node("Identity", ["image"], ["logits"])
    made = helper.make_graph([node], "g", values[:1], values[1:])
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(made, opset_imports=opset, ir_version=8), path)
    return path


def test_a_file_that_is_not_there():
    with pytest.raises(WeightsError, match=r"There is no file nowhere\.onnx.*smp-camvid export"):
        OnnxEngine("nowhere.onnx")


@pytest.mark.parametrize(
    "content", [b"", b"not a graph", b"\x08\x08\x12\x07pytorch" + b"\xff" * 99]
)
def test_a_damaged_file_is_refused_in_words(tmp_path, content, capfd):
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(
        WeightsError,
        match=r"model\.onnx cannot be opened by ONNX Runtime [\d.]+: \w",
    ):
        OnnxEngine(path)
    assert capfd.readouterr() == ("", "")


def test_a_file_cut_short_is_refused(tmp_path, exports, capfd):
    path = tmp_path / "model.onnx"
    whole = exports["unet"].path.read_bytes()
    for size in range(1000, len(whole), len(whole) // 7):
        path.write_bytes(whole[:size])
        with pytest.raises(WeightsError, match=r"damaged|not exported by"):
            OnnxEngine(path)
    assert capfd.readouterr() == ("", "")


def test_a_file_of_somebody_else_is_refused_by_name(tmp_path):
    with pytest.raises(WeightsError, match=r"theirs\.onnx was not exported by smp-camvid"):
        OnnxEngine(foreign(tmp_path / "theirs.onnx"))


@pytest.mark.parametrize("text", ["{", "[1]", "{}", '{"classes": {"names": ["a"]}}'])
def test_damaged_metadata(tmp_path, text):
    model = onnx.load(foreign(tmp_path / "ours.onnx"))
    onnx.helper.set_model_props(model, {"smp_camvid": text})
    onnx.save(model, tmp_path / "ours.onnx")
    with pytest.raises(WeightsError, match="damaged metadata"):
        OnnxEngine(tmp_path / "ours.onnx")


def test_devices(exports):
    path = exports["unet"].path
    assert OnnxEngine(path, device="auto").device in ("cpu", "cuda")
    with pytest.raises(UsageError, match="runs on cpu or cuda"):
        OnnxEngine(path, device="mps")
    import onnxruntime

    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        with pytest.raises(DeviceError, match="has no CUDA"):
            OnnxEngine(path, device="cuda:1")


# --- the process ---------------------------------------------------------------------------------

HEAVY = ("torch", "torchvision", "segmentation_models_pytorch", "timm", "albumentations", "onnx")
RUN = f"""
import sys
import numpy as np
from smp_camvid.inference.onnx_engine import OnnxEngine
from smp_camvid.inference.predictor import Segmenter
engine = OnnxEngine(sys.argv[1])
assert Segmenter(engine)(np.zeros((40, 50, 3), np.uint8)).mask.shape == (40, 50)
assert not set({HEAVY!r}) & set(sys.modules), sorted(sys.modules)
print(*(f"{{name}} " for name in sorted(map(str, __import__("pathlib").Path.home().rglob("*")))))
"""


def test_a_process_with_an_onnx_model_imports_no_torch_and_reports_to_nobody(exports, tmp_path):
    """With telemetry ONNX Runtime keeps a device id and a queue of reports under the home."""
    kept = {k: v for k, v in os.environ.items() if k in ("PATH", "LANG", "SYSTEMROOT", "TMP")}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", RUN, str(exports["unet"].path)],
        capture_output=True, text=True, check=False, timeout=120,
        env={**kept, "HOME": str(tmp_path), "USERPROFILE": str(tmp_path)},
    )  # fmt: skip
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "", "")


def test_threads(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if hasattr(os, "sched_getaffinity"):
        assert usable_cores() == len(os.sched_getaffinity(0))
        monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 1, 5})
        assert usable_cores() == 3
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert usable_cores() == 1
    monkeypatch.setenv("OMP_NUM_THREADS", "4,2")  # nested levels: not ours to read
    assert usable_cores() >= 1
