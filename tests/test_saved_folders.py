"""`save_pretrained` folders come back through `smp_camvid.from_pretrained` without a network."""

import socket

import pytest
import torch
from exported_models import CONFIGS

import smp_camvid
from smp_camvid.inference import box
from smp_camvid.models.weights import load_network

SHIPPED_LIKE = {
    "arch": "unet", "encoder_name": "tu-tf_efficientnet_lite0",
    "decoder_channels": [128, 64, 48, 32, 16],
}  # fmt: skip


@pytest.fixture
def unplugged(monkeypatch):
    def refuse(*args, **options):
        raise OSError("there is no network in this test")

    for name in ("getaddrinfo", "create_connection"):
        monkeypatch.setattr(socket, name, refuse)
    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, refuse)


def test_the_guard_refuses(unplugged):
    with pytest.raises(OSError, match="no network in this test"):
        socket.create_connection(("127.0.0.1", 9))
    with socket.socket() as plain, pytest.raises(OSError, match="no network in this test"):
        plain.connect(("127.0.0.1", 9))


def shipped():
    """The network in the box, or while there is none one built like it."""
    if box.DEFAULT in box.names():
        return load_network(box.find(box.DEFAULT) / "model.safetensors")[0].model
    return smp_camvid.create_model(**SHIPPED_LIKE, classes=11).eval()


@pytest.mark.parametrize("name", ["valid", "unet", "shipped"])
def test_a_saved_folder_comes_back_without_a_network(tmp_path, unplugged, name):
    torch.manual_seed(0)
    model = shipped() if name == "shipped" else smp_camvid.create_model(**CONFIGS[name]).eval()
    model.save_pretrained(tmp_path / "saved")
    again = smp_camvid.from_pretrained(tmp_path / "saved")
    assert type(again) is type(model) and not again.training
    assert again.smp_camvid_config == model.smp_camvid_config
    assert again.state_dict().keys() == model.state_dict().keys()
    x = torch.randn(1, 3, 96, 96) if name != "valid" else torch.randn(1, 3, 100, 108)
    with torch.inference_mode():
        assert torch.equal(again(x), model(x))
