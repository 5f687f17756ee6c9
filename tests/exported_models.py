"""Tiny networks with statistics that moved, their weights files, and exports made once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from smp_camvid.data.classes import CAMVID11, CAMVID32, ClassTable
from smp_camvid.inference.export import Exported, export
from smp_camvid.models.factory import create_model
from smp_camvid.models.network import Network
from smp_camvid.models.weights import load_network, save_weights

RESNET = {"encoder_name": "tu-test_resnet"}
CONFIGS: dict[str, dict[str, Any]] = {
    "valid": {"arch": "vanilla", "base_channels": 2, "depth": 3},
    "same": {
        "arch": "vanilla", "base_channels": 2, "depth": 2, "padding": "same", "norm": "batch",
    },
    "unet": {"arch": "unet", **RESNET, "encoder_depth": 3, "decoder_channels": [16, 8, 8]},
    "unetplusplus": {
        "arch": "unetplusplus", **RESNET, "encoder_depth": 3, "decoder_channels": [8, 8, 8],
    },
    # pools to 6x6 bins, which ONNX has no operation for
    "pspnet": {"arch": "pspnet", **RESNET, "psp_out_channels": 16},
    # its convolutions pad by a formula of the size ("same")
    "lite": {
        "arch": "unet", "encoder_name": "tu-test_efficientnet", "encoder_depth": 3,
        "decoder_channels": [8, 8, 8],
    },
    "classes32": {"arch": "vanilla", "base_channels": 2, "depth": 1, "padding": "same"},
}  # fmt: skip


def make_network(name: str = "unet") -> Network:
    table: ClassTable = CAMVID32 if name == "classes32" else CAMVID11
    torch.manual_seed(0)
    model = create_model(**CONFIGS[name], classes=len(table))
    network = Network(model, (0.4, 0.5, 0.6), (0.3, 0.2, 0.25), table, "camvid")
    network.train()(torch.randint(0, 256, (2, 3, 64, 96)).float())  # moves the statistics
    return network.eval()


def write_weights(folder: Path, name: str = "unet") -> Path:
    path = folder / f"{name}.safetensors"
    extra = {
        "train_size": [60, 80], "protocol": "camvid11@360x480", "recipe": name, "epoch": 3,
        "train_split": "train",
    }  # fmt: skip
    save_weights(make_network(name), path, extra)
    return path


class Exports:
    """Exports by name, made when first asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.made: dict[str, Exported] = {}

    def __getitem__(self, name: str) -> Exported:
        if name not in self.made:
            weights = write_weights(self.folder, name)
            self.made[name] = export(weights, out=self.folder / f"{name}.onnx")
        return self.made[name]

    def network(self, name: str) -> Network:
        return load_network(self[name].source)[0]
