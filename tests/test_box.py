"""The model in the box: one set of weights, read by both engines, shipped with the package."""

import importlib.util
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from exported_models import write_weights

import smp_camvid
from smp_camvid.data.classes import CAMVID11
from smp_camvid.errors import WeightsError
from smp_camvid.evaluation.loop import judge
from smp_camvid.inference import box
from smp_camvid.inference.export import draw_picture
from smp_camvid.inference.onnx_engine import OnnxEngine
from smp_camvid.models.weights import load_network, read_metadata
from smp_camvid.recipe import resolve
from smp_camvid.recipe.files import parse_set
from smp_camvid.training.experiment import build_network

ROOT = Path(__file__).parents[1]
needs_box = pytest.mark.skipif(box.DEFAULT not in box.names(), reason="no model in the box yet")


@pytest.fixture(scope="module")
def maker():
    spec = importlib.util.spec_from_file_location("make_box", ROOT / "benchmarks" / "make_box.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def folder(maker, tmp_path_factory):
    """The files of a tiny model."""
    place = tmp_path_factory.mktemp("box") / "tiny"
    place.mkdir()
    write_weights(place, "lite").rename(place / "model.safetensors")
    maker.make_graph(place)
    return place


def test_the_graph_has_no_tensors_of_its_own(folder):
    model = onnx.load(folder / "model.onnx", load_external_data=False)
    assert {t.data_location for t in model.graph.initializer} == {onnx.TensorProto.EXTERNAL}
    assert not any(tensor.raw_data for tensor in model.graph.initializer)
    names = {t.name.removeprefix("network.") for t in model.graph.initializer}
    state = set(load_network(folder / "model.safetensors")[0].state_dict())
    assert names < state  # what no layer reads, or holds twice, is left out
    assert {k for k in state if k.endswith("conv1.0.weight")} <= names
    large = [node for node in model.graph.node if node.op_type == "Constant"
             and len(node.attribute[0].t.raw_data) > 64]  # fmt: skip
    assert not large


def test_both_engines_give_the_same(folder):
    network, metadata = load_network(folder / "model.safetensors")
    engine = OnnxEngine(folder / "model.onnx")
    assert {k: v for k, v in engine.metadata.items() if k != "export"} == metadata
    for shape in [(1, 1, 1), (2, 45, 61), (1, 96, 64)]:
        image = draw_picture(shape, seed=1)
        with torch.inference_mode():
            expected = network(image).numpy()
        np.testing.assert_allclose(engine.run(image), expected, rtol=1e-4, atol=1e-4)


def test_both_engines_read_the_very_same_bytes(folder, tmp_path):
    """Other weights under the same name, and ONNX Runtime computes with them."""
    other = tmp_path / "other"
    shutil.copytree(folder, other)
    weights = other / "model.safetensors"
    raw = bytearray(weights.read_bytes())
    raw[-40:] = np.full(10, 0.5, np.float32).tobytes()
    weights.write_bytes(raw)
    image = draw_picture((1, 45, 61), seed=1)
    with torch.inference_mode():
        expected = load_network(weights)[0](image).numpy()
    found = OnnxEngine(other / "model.onnx").run(image)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    assert np.abs(found - OnnxEngine(folder / "model.onnx").run(image)).max() > 1e-3


def test_a_graph_without_its_weights_is_refused(folder, tmp_path):
    shutil.copy(folder / "model.onnx", tmp_path)
    with pytest.raises(WeightsError, match=r"tensors in model\.safetensors, which is not beside"):
        OnnxEngine(tmp_path / "model.onnx")


def test_a_folder_of_symbolic_links_works(folder, tmp_path):
    """As some installers leave it: every file a link into their cache."""
    for path in folder.iterdir():
        (tmp_path / path.name).symlink_to(path)
    assert OnnxEngine(tmp_path / "model.onnx").run(np.zeros((1, 3, 9, 9), np.uint8)).any()


def test_tensors_that_are_not_in_the_weights_are_not_shared(maker, folder, tmp_path):
    network, _ = load_network(folder / "model.safetensors")
    facts = {"format": "onnx", "output": "logits", "size": None, "any_batch": True}
    # folded: convolution and normalisation became one, with weights of its own
    maker.write_onnx(network, tmp_path / "f.onnx", (64, 96), metadata={"export": facts}, fold=True)
    with pytest.raises(SystemExit, match="is not in"):
        maker.share_tensors(tmp_path / "f.onnx", folder / "model.safetensors")


def test_the_card_tells_what_the_weights_tell(maker, folder):
    network, metadata = load_network(folder / "model.safetensors")
    scores = {
        "per_class": {"Sky": 0.93456, "Pole": None}, "miou": 0.67891, "accuracy": 0.9,
        "mean_class_accuracy": 0.8, "protocol": "camvid11@360x480", "definition": "pooled.",
        "checkpoint": "last-ema", "frames": 101,
    }  # fmt: skip
    made = {**metadata, "train_split": "train+val"}
    text = maker.card("tiny", folder, network, made, scores, "smp-camvid train --recipe x", [7])
    assert "trained on train+val" in text and "smp-camvid train --recipe x\n" in text
    assert "| Sky | 0.935 | to be filled from outside measurement |" in text
    assert "| Pole | - |" in text and "**0.679**" in text
    assert f"{network.num_parameters:,} parameters" in text
    assert ", 7 epochs |" in text
    assert "| class | IoU on val, sibling | IoU on test, this model |" in text
    assert "{" not in text


def test_the_card_has_the_command_that_repeats_the_run(maker, tmp_path):
    changes = [("train.epochs", 3), ("data.train_split", "train+val"), ("data.path", "/else")]
    (tmp_path / "config.toml").write_text(resolve("quick", changes).recipe.to_toml())
    command = maker.command_of(tmp_path, "quick")
    assert command.split()[:4] == ["smp-camvid", "train", "--recipe", "quick"]
    words = command.replace("\\\n", "").split()[4:]
    assert words == ["--set", "data.train_split=train+val", "--set", "train.epochs=3"]
    assert not maker.begins_with_weights(tmp_path)


def test_the_command_has_the_augmentation_too(maker, tmp_path):
    steps = [{"name": "HorizontalFlip", "p": 0.5}, {"name": "Affine", "scale": [0.8, 1]}]
    own = resolve("quick", [("augment", steps), ("data.crop", [96, 128])]).recipe
    (tmp_path / "config.toml").write_text(own.to_toml())
    command = maker.command_of(tmp_path, "quick")
    assert not any(line.endswith("--set \\") for line in command.splitlines())
    words = shlex.split(command.replace("\\\n", ""))
    assert words[-4:-1] == ["--set", "data.crop=[96,128]", "--set"]
    assert resolve("quick", [parse_set(words[-1])]).recipe.augment == own.augment


def test_a_card_tells_what_the_model_was_made_from(maker, folder, tmp_path):
    changes = [("train.epochs", 3), ("model.weights", str(tmp_path / "run-1"))]
    (tmp_path / "config.toml").write_text(resolve("quick", changes).recipe.to_toml())
    assert maker.begins_with_weights(tmp_path)
    command = maker.command_of(tmp_path, "quick")
    assert command.endswith("--recipe quick --weights runs/quick-1 --set train.epochs=3")
    network, metadata = load_network(folder / "model.safetensors")
    scores = {
        "per_class": {}, "miou": 0.6, "accuracy": 0.9, "mean_class_accuracy": 0.8,
        "protocol": "p", "definition": "d", "checkpoint": "last-ema", "frames": 101,
    }  # fmt: skip
    text = maker.card("tiny", folder, network, metadata, scores, command, [60, 4])
    assert "The column below is what\nthey were made from" in text
    assert ", 60 and then 4 epochs |" in text
    assert "| class | IoU on val, of the first command |" in text


def test_asking_the_box_imports_nothing_heavy():
    code = (
        "import sys; from smp_camvid.inference import box; box.names();"
        "assert not {'torch', 'numpy', 'onnx', 'onnxruntime', 'cv2'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# --- what ships ----------------------------------------------------------------------------------


@needs_box
def test_the_shipped_folder_is_whole_and_small():
    for name in box.names():
        files = {path.name: path.stat().st_size for path in box.find(name).iterdir()}
        assert set(files) == set(box.FILES)
        assert sum(files.values()) < 20_000_000 and files["model.onnx"] < 1_000_000
        card = (box.find(name) / "MODEL_CARD.md").read_text(encoding="utf-8")
        metadata = read_metadata(box.find(name) / "model.safetensors")
        assert (
            f"trained on {metadata['train_split']}" in card
            and "test" not in metadata["train_split"]
        )


@needs_box
def test_the_shipped_model_is_the_same_by_both_engines():
    folder = box.find(box.DEFAULT)
    network, engine = (
        load_network(folder / "model.safetensors")[0],
        OnnxEngine(folder / "model.onnx"),
    )
    assert len(engine.table) == 11 and engine.metadata["protocol"] == "camvid11@360x480"
    image = draw_picture((1, 161, 241), seed=0)
    with torch.inference_mode():
        expected = network(image).numpy()
    found = engine.run(image)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)
    assert (found.argmax(1) == expected.argmax(1)).mean() >= 0.9999
    assert len(np.unique(found.argmax(1))) > 2


@needs_box
@pytest.mark.parametrize("kind", ["wheel", "sdist"])
def test_the_package_carries_the_box(kind):
    builders = pytest.importorskip(f"hatchling.builders.{kind}")
    builder = {"wheel": "WheelBuilder", "sdist": "SdistBuilder"}[kind]
    packed = getattr(builders, builder)(str(ROOT)).recurse_included_files()
    paths = {Path(file.distribution_path).as_posix() for file in packed}
    for name in box.names():
        assert {f"smp_camvid/box/{name}/{file}" for file in box.FILES} <= paths


@needs_box
def test_training_starts_from_the_shipped_model_by_its_name():
    changes = [("model.weights", box.DEFAULT), ("model.encoder_weights", "none")]
    network = build_network(resolve(box.DEFAULT, changes).recipe, CAMVID11)
    shipped, _ = load_network(box.find(box.DEFAULT) / "model.safetensors")
    for name, tensor in shipped.state_dict().items():
        assert torch.equal(network.state_dict()[name], tensor), name


@needs_box
def test_without_a_run_the_shipped_model_is_what_load_opens(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    segmenter = smp_camvid.load()
    assert segmenter.source == box.DEFAULT
    image = draw_picture((1, 90, 120), seed=1)[0].permute(1, 2, 0).numpy().astype(np.uint8)
    by_torch = smp_camvid.load(box.DEFAULT, precision="fp32", device="cpu")
    network = judge(load_network(box.find(box.DEFAULT) / "model.safetensors")[0])
    network.height = segmenter.height
    assert (segmenter(image).mask == by_torch(image).mask).all()
    assert (segmenter(image).mask == network(image).mask).mean() > 0.9999
