"""Weights files: round trips, equal bytes, and every way in which a file can be wrong."""

import json
import os
import pickle
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from smp_camvid import __version__
from smp_camvid.data.classes import CAMVID11, CAMVID32, ClassTable
from smp_camvid.errors import WeightsError
from smp_camvid.models.factory import create_model
from smp_camvid.models.network import Network
from smp_camvid.models.weights import load_into, load_network, read_metadata, save_weights

VANILLA = {"arch": "vanilla", "base_channels": 2, "depth": 2, "norm": "batch"}
UNET = {"arch": "unet", "encoder_name": "tu-test_resnet", "encoder_depth": 3,
        "decoder_channels": [16, 8, 8]}  # fmt: skip
PAIR = ClassTable("dataset", ("road", "rest"), ((1, 2, 3), (4, 5, 6)))


def network(config=VANILLA, table=CAMVID11, seed=0, mean=(0.1, 0.2, 0.3), **options):
    torch.manual_seed(seed)
    model = create_model(**{**config, "classes": len(table), **options})
    result = Network(model, mean, (0.3, 0.2, 0.1), table, "camvid")
    result.train()(torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8))  # moves statistics
    return result.eval()


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "weights" / "last.safetensors"
    save_weights(network(), path, {"protocol": "camvid11@360x480", "epoch": 3})
    return path


@pytest.mark.parametrize("config", [VANILLA, UNET])
@pytest.mark.parametrize("table", [CAMVID11, CAMVID32, PAIR], ids=lambda t: t.name)
def test_round_trip(tmp_path, config, table):
    path = tmp_path / "w.safetensors"
    ours = network(config, table)
    save_weights(ours, path, {"epoch": 7, "train_size": [180, 240], "protocol": "p"})
    state = torch.get_rng_state()
    again, metadata = load_network(path)
    assert torch.equal(torch.get_rng_state(), state)
    image = torch.randint(0, 256, (2, 3, 45, 61), dtype=torch.uint8)
    assert torch.equal(again(image), ours(image))
    assert again.table == table and again.config == ours.config and not again.training
    assert again.normalization == "camvid" and again.size_policy == ours.size_policy
    assert metadata == read_metadata(path)
    assert metadata["epoch"] == 7 and metadata["package_version"] == __version__
    assert metadata["classes"]["names"] == list(table.names)
    assert metadata["mean"] == pytest.approx([0.1, 0.2, 0.3])
    assert list(tmp_path.iterdir()) == [path]


def test_equal_networks_give_equal_bytes_whatever_their_memory_format(tmp_path):
    extra = {"b": 1, "a": {"d": 2, "c": [3]}}
    for number, reorder in ((1, False), (2, True)):
        ours = network(UNET)
        if reorder:
            ours.to(memory_format=torch.channels_last)
            extra = dict(reversed(extra.items()))
        save_weights(ours, tmp_path / f"{number}.safetensors", extra)
    one, two = ((tmp_path / f"{n}.safetensors").read_bytes() for n in (1, 2))
    assert one == two


def test_the_metadata_is_one_sorted_json_string(file):
    from safetensors import safe_open

    with safe_open(file, "pt") as opened:
        metadata = opened.metadata()
    assert list(metadata) == ["smp_camvid"]
    content = json.loads(metadata["smp_camvid"])
    assert metadata["smp_camvid"] == json.dumps(content, sort_keys=True)
    assert content["options"]["norm"] == "batch" and content["arch"] == "vanilla"


def test_reading_metadata_needs_no_torch(file):
    code = (
        "import sys; from smp_camvid.models.weights import read_metadata; "
        "assert read_metadata(sys.argv[1])['epoch'] == 3; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(file)], check=True)


def test_a_failed_write_leaves_the_old_file_and_no_rest(file, monkeypatch):
    before = file.read_bytes()

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(WeightsError, match="No space left"):
        save_weights(network(seed=1), file)
    assert file.read_bytes() == before and list(file.parent.iterdir()) == [file]


def test_a_folder_that_cannot_be_written_is_a_plain_message(tmp_path):
    (tmp_path / "plain").write_text("a file, not a folder")
    with pytest.raises(WeightsError, match="cannot be written"):
        save_weights(network(), tmp_path / "plain" / "w.safetensors")


class Bomb:
    def __reduce__(self):
        return (os.system, ("touch exploded",))


@pytest.mark.parametrize("how", ["torch", "torch-old", "pickle"])
def test_a_pickle_bomb_is_recognised_and_nothing_runs(tmp_path, monkeypatch, how):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "w.safetensors"
    if how == "pickle":
        path.write_bytes(pickle.dumps(Bomb()))
    else:
        torch.save({"w": Bomb()}, path, _use_new_zipfile_serialization=how == "torch")
    for load in (read_metadata, load_network, lambda p: load_into(network(), p)):
        with pytest.raises(WeightsError, match=r"is a pickle.*left alone"):
            load(path)
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize("keep", [0, 4, 8, 9, 500, -1])
def test_a_truncated_file_is_a_plain_message(file, keep):
    file.write_bytes(file.read_bytes()[:keep])
    for load in (read_metadata, load_network, lambda p: load_into(network(), p)):
        with pytest.raises(WeightsError, match=r"cut short|not a safetensors|damaged"):
            load(file)


def test_every_header_length_is_read(tmp_path):
    """The first byte of a file is the header's length: 0x80 there is no pickle."""
    ours, seen = network(), set()
    for padding in range(0, 300, 8):
        save_weights(ours, tmp_path / "w.safetensors", {"note": "x" * padding})
        seen.add((tmp_path / "w.safetensors").read_bytes()[0])
        assert len(read_metadata(tmp_path / "w.safetensors")["note"]) == padding
    assert 0x80 in seen


@pytest.mark.parametrize("content", [b"", b"hello", b"{}" * 40, b"\xff" * 64, b"\0" * 64])
def test_other_files_are_not_weights(tmp_path, content):
    path = tmp_path / "w.safetensors"
    path.write_bytes(content)
    with pytest.raises(WeightsError):
        read_metadata(path)
    with pytest.raises(WeightsError, match="cannot be read"):
        read_metadata(tmp_path / "missing.safetensors")
    with pytest.raises(WeightsError, match="cannot be read"):
        read_metadata(tmp_path)


def test_safetensors_of_others_and_of_the_future(tmp_path, file):
    save_file({"w": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(WeightsError, match="not written by smp-camvid"):
        read_metadata(tmp_path / "other.safetensors")
    metadata = {**read_metadata(file), "format": 99, "package_version": "9.0"}
    save_file(load_file(file), file, metadata={"smp_camvid": json.dumps(metadata)})
    with pytest.raises(WeightsError, match=r"9\.0, which is newer"):
        load_network(file)
    save_file(load_file(file), file, metadata={"smp_camvid": '{"format": 1}'})
    with pytest.raises(WeightsError, match="incomplete metadata"):
        load_network(file)


def test_load_into_starts_from_the_weights_and_their_normalisation(file):
    source, _ = load_network(file)
    target = network(seed=9, mean=(0.5, 0.5, 0.5))
    assert load_into(target, file) == []
    image = torch.randint(0, 256, (1, 3, 20, 30), dtype=torch.uint8)
    assert torch.equal(target.eval()(image), source(image))


def test_another_class_count_names_reset_head_and_reset_head_loads_the_rest(file):
    target = network(table=PAIR, seed=9)
    before = {k: v.clone() for k, v in target.state_dict().items()}
    with pytest.raises(WeightsError, match=r"11 classes .*, this run has 2 .*--reset-head"):
        load_into(target, file)
    assert all(torch.equal(v, before[k]) for k, v in target.state_dict().items())
    kept = load_into(target, file, reset_head=True)
    source = load_file(file)
    assert sorted(kept) == ["model.segmentation_head.bias", "model.segmentation_head.weight"]
    for name, tensor in target.state_dict().items():
        assert torch.equal(tensor, before[name] if name in kept else source[name]), name


def test_reset_head_keeps_a_fresh_head_of_the_same_count(file):
    target = network(seed=9)
    head = target.model.segmentation_head.weight.clone()
    load_into(target, file, reset_head=True)
    assert torch.equal(target.model.segmentation_head.weight, head)


@pytest.mark.parametrize("config", [UNET, {**VANILLA, "base_channels": 4}, {**VANILLA, "depth": 1}])
@pytest.mark.parametrize("reset_head", [True, False])
def test_another_architecture_is_refused_and_nothing_changes(file, config, reset_head):
    target = network(config, seed=9)
    before = {k: v.clone() for k, v in target.state_dict().items()}
    with pytest.raises(WeightsError, match=r"does not fit this .*first difference is model\."):
        load_into(target, file, reset_head=reset_head)
    assert all(torch.equal(v, before[k]) for k, v in target.state_dict().items())
