"""Parameter groups: what decays, what learns slower, and that the order is the module's alone."""

import copy

import pytest
import torch
from torch import nn

from smp_camvid.data.classes import CAMVID11
from smp_camvid.errors import UsageError
from smp_camvid.models.factory import create_model
from smp_camvid.models.network import Network
from smp_camvid.recipe import TrainConfig
from smp_camvid.training.freezing import apply_freezing
from smp_camvid.training.optim import build_optimizer, describe_optimizer, parameter_groups
from smp_camvid.training.supervision import DeepSupervision

SMALL = {"encoder_name": "tu-test_resnet", "encoder_depth": 3, "decoder_channels": [16, 8, 8]}
MODELS = {"vanilla": {"base_channels": 4, "depth": 2, "norm": "batch"}, "unet": SMALL}


def build(arch):
    torch.manual_seed(0)
    return Network(create_model(arch, **MODELS[arch]), (0, 0, 0), (1, 1, 1), CAMVID11)


def names_by_group(module, config):
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    groups = parameter_groups(module, config)
    return {group["name"]: [names[id(p)] for p in group["params"]] for group in groups}


@pytest.mark.parametrize("arch", MODELS)
@pytest.mark.parametrize("supervised", [False, True])
def test_groups_by_part_and_kind_of_layer(arch, supervised):
    """The reference goes by the layers a parameter belongs to, not by its shape."""
    module = DeepSupervision(build(arch)) if supervised else build(arch)
    expected = {}
    for path, layer in module.named_modules():
        for name, _ in layer.named_parameters(recurse=False):
            part = "encoder" if ".encoder." in f".{path}." else "decoder"
            decays = name == "weight" and not isinstance(layer, nn.BatchNorm2d)
            group = part if decays else f"{part} norms and biases"
            expected.setdefault(group, []).append(f"{path}.{name}")
    config = TrainConfig(weight_decay=0.01, lr=0.5, encoder_lr=0.1)
    found = names_by_group(module, config)
    assert found == expected and len(found) == 4
    assert sum(map(len, found.values())) == len(list(module.parameters()))
    assert ("heads.0.weight" in found["decoder"]) == supervised
    for group in parameter_groups(module, config):
        inside = group["name"].startswith("encoder")
        assert group["lr_factor"] == (0.1 if inside else 1)
        assert group["weight_decay"] == (0 if "norms" in group["name"] else 0.01)
    assert parameter_groups(module, config)[0]["lr_factor"] == 1


def test_without_norms_and_biases_there_is_no_such_group():
    groups = parameter_groups(nn.Conv2d(1, 1, 3, bias=False), TrainConfig())
    assert [group["name"] for group in groups] == ["decoder"]


@pytest.mark.parametrize("kind", ["adam", "adamw", "sgd"])
def test_the_encoder_moves_by_its_factor(kind):
    """One step of a method whose step is proportional to the rate, with the Trainer's formula."""
    config = TrainConfig(optimizer=kind, lr=0.3, encoder_lr=0.125, momentum=0.0)
    alike, scaled = build("vanilla"), build("vanilla")
    start = {name: value.clone() for name, value in alike.named_parameters()}
    for network, cfg in ((alike, config.model_copy(update={"encoder_lr": 1.0})), (scaled, config)):
        optimizer = build_optimizer(network, cfg)
        assert optimizer.param_groups[-1]["lr"] == pytest.approx(0.3 * cfg.encoder_lr)
        for group in optimizer.param_groups:
            group["lr"] = 0.01 * group["lr_factor"]
        for parameter in network.parameters():
            parameter.grad = torch.ones_like(parameter)
        optimizer.step()
    for (name, a), b in zip(alike.named_parameters(), scaled.parameters(), strict=True):
        factor = 0.125 if ".encoder." in name else 1
        torch.testing.assert_close(
            b - start[name], factor * (a - start[name]), rtol=1e-4, atol=1e-6
        )


def test_weight_decay_pulls_weights_only():
    """AdamW without a gradient shrinks by lr x decay; norms and biases stay where they are."""
    network = build("vanilla")
    start = {name: value.clone() for name, value in network.named_parameters()}
    optimizer = build_optimizer(network, TrainConfig(optimizer="adamw", lr=0.1, weight_decay=0.5))
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for name, value in network.named_parameters():
        kept = 1 - 0.1 * 0.5 if value.ndim == 4 else 1
        torch.testing.assert_close(value.data, kept * start[name])


def test_a_checkpoint_fits_whatever_is_frozen():
    """Saved with the encoder resting, loaded without: the same parameters in the same places."""
    config = TrainConfig(optimizer="adamw", lr=0.1, encoder_lr=0.5)
    first, second = DeepSupervision(build("unet")), DeepSupervision(build("unet"))
    apply_freezing(first, encoder_frozen=True, norm_frozen=False)
    saver, loader = build_optimizer(first, config), build_optimizer(second, config)
    for parameter in first.parameters():
        if parameter.requires_grad:
            parameter.grad = torch.full_like(parameter, parameter.numel())
    saver.step()
    loader.load_state_dict(copy.deepcopy(saver.state_dict()))
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert (a in saver.state) == (b in loader.state) == a.requires_grad
        if a in saver.state:
            assert torch.equal(saver.state[a]["exp_avg"], loader.state[b]["exp_avg"])
    names = [group["name"] for group in loader.param_groups]
    assert names == [group["name"] for group in build_optimizer(build("unet"), config).param_groups]


def test_resting_parameters_do_not_decay():
    network = build("unet")
    start = {name: value.clone() for name, value in network.named_parameters()}
    optimizer = build_optimizer(network, TrainConfig(optimizer="adamw", lr=0.1, weight_decay=0.5))
    apply_freezing(network.train(), encoder_frozen=True, norm_frozen=False)
    network(torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)).square().mean().backward()
    optimizer.step()
    moved = {n for n, value in network.named_parameters() if not torch.equal(value, start[n])}
    assert moved == {name for name in start if ".encoder." not in name}


def test_an_encoder_rate_needs_an_encoder():
    with pytest.raises(UsageError, match="encoder_lr"):
        build_optimizer(nn.Conv2d(1, 1, 1), TrainConfig(encoder_lr=0.1))


def test_what_verbose_2_tells():
    network = build("unet")
    encoder = sum(p.numel() for p in network.model.encoder.parameters())
    decoder = network.num_parameters - encoder
    config = TrainConfig(optimizer="adamw", encoder_lr=0.1, freeze_encoder=3)
    line = describe_optimizer(build_optimizer(network, config), config)
    assert f"encoder {encoder:,} parameters at 0.1 times the rate" in line
    assert "frozen in the first 3 epochs" in line and f"decoder {decoder:,} at 1 times" in line
    plain = sum(p.numel() for p in network.parameters() if p.ndim == 1)
    assert f"none on {plain:,} (norms, biases)" in line
    whole_run = config.model_copy(update={"freeze_encoder": -1})
    assert "rate, frozen, decoder" in describe_optimizer(
        build_optimizer(network, whole_run), whole_run
    )
    bare = nn.Conv2d(1, 1, 1)
    assert "encoder" not in describe_optimizer(build_optimizer(bare, TrainConfig()), TrainConfig())
