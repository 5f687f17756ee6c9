"""Frozen parts stay bit for bit as they are; everything else learns."""

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from smp_camvid.data.classes import CAMVID11
from smp_camvid.errors import UsageError
from smp_camvid.models.factory import create_model
from smp_camvid.models.network import Network
from smp_camvid.recipe import TrainConfig
from smp_camvid.training.freezing import apply_freezing, encoder_frozen, encoder_of
from smp_camvid.training.supervision import DeepSupervision

SMALL = {"encoder_name": "tu-test_resnet", "encoder_depth": 3, "decoder_channels": [16, 8, 8]}
MODELS = {
    "vanilla": {"base_channels": 4, "depth": 2, "norm": "batch"},
    "unet": SMALL,
    "fpn": {"encoder_name": "tu-test_resnet"},  # group normalisation: no statistics
}


def build(arch="unet"):
    torch.manual_seed(0)
    network = Network(create_model(arch, **MODELS[arch]), (0, 0, 0), (1, 1, 1), CAMVID11)
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.weight, 0.5, 1.5)  # some start at 0 and let nothing through
    return network


def train(module, steps=2, *, frozen=False, norms=False):
    """The names of what some steps of SGD change."""
    before = {name: value.clone() for name, value in module.state_dict().items()}
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    generator = torch.Generator().manual_seed(3)
    image = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8, generator=generator)
    for _ in range(steps):
        module.train()
        apply_freezing(module, frozen, norms)
        optimizer.zero_grad()
        outputs = module(image)
        outputs = outputs if isinstance(outputs, list) else [outputs]
        target = torch.randint(0, 11, (2, 64, 64), generator=generator)
        sum(F.cross_entropy(logits, target) for logits in outputs).backward()
        optimizer.step()
    after = module.state_dict()
    return {name for name, value in before.items() if not torch.equal(value, after[name])}


def statistics(module):
    return {name for name, _ in module.named_buffers() if "running" in name or "num_b" in name}


def weights(module):
    return {name for name, _ in module.named_parameters()}


def inside(names):
    return {name for name in names if ".encoder." in name}


@pytest.mark.parametrize(
    ("arch", "supervised"), [*((arch, False) for arch in MODELS), ("vanilla", True), ("unet", True)]
)
def test_what_moves_and_what_stays(arch, supervised):
    def fresh():
        return DeepSupervision(build(arch)) if supervised else build(arch)

    module = fresh()
    everything, counted = weights(module), statistics(module)
    assert inside(everything) and inside(counted)
    assert train(fresh()) == everything | counted  # the control: nothing stays by itself
    rest = (everything | counted) - inside(everything | counted)
    assert train(fresh(), frozen=True) == rest
    assert train(fresh(), norms=True) == everything
    assert train(fresh(), frozen=True, norms=True) == everything - inside(everything)


def test_frozen_normalisation_uses_the_statistics_it_keeps():
    """The decoder of a frozen encoder sees features that do not depend on the rest of the batch."""
    network = build().train()
    image = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8)
    features = lambda x: network.model.encoder(network.normalize(x))[-1]  # noqa: E731
    assert not torch.allclose(features(image)[:1], features(image[:1]), atol=1e-3)
    apply_freezing(network, encoder_frozen=True, norm_frozen=False)
    torch.testing.assert_close(features(image)[:1], features(image[:1]), rtol=1e-4, atol=1e-5)


def test_dropout_after_a_frozen_encoder_still_works():
    network = build("vanilla").train()
    apply_freezing(network, encoder_frozen=True, norm_frozen=True)
    assert network.model.encoder.dropout.training
    modes = {m.training for m in network.modules() if isinstance(m, nn.BatchNorm2d)}
    assert modes == {False}


def test_thawing_is_complete_and_tells_when_gradients_change():
    network = build()
    assert not apply_freezing(network.train(), False, False)
    assert apply_freezing(network.train(), True, False)
    assert not apply_freezing(network.train(), True, True)
    assert apply_freezing(network.train(), False, False)
    assert not apply_freezing(network.train(), False, False)
    assert train(network) == weights(network) | statistics(network)


def test_what_somebody_else_froze_stays_frozen():
    network = build()
    theirs = next(iter(network.model.encoder.parameters()))
    theirs.requires_grad_(False)
    for frozen in (False, True, False):
        apply_freezing(network.train(), frozen, False)
        assert not theirs.requires_grad
    assert all(p.requires_grad for p in network.parameters() if p is not theirs)


@pytest.mark.parametrize(
    ("value", "frozen"), [(0, []), (1, [1]), (3, [1, 2, 3]), (-1, [1, 2, 3, 4])]
)
def test_epochs_of_a_frozen_encoder(value, frozen):
    config = TrainConfig(freeze_encoder=value)
    assert [epoch for epoch in range(1, 5) if encoder_frozen(config, epoch)] == frozen


def test_the_encoder_is_found_in_any_wrapping():
    network = build()
    holder = nn.Module()
    holder.module = DeepSupervision(network)
    assert encoder_of(network) is encoder_of(holder) is network.model.encoder
    assert encoder_of(nn.Conv2d(1, 1, 1)) is None


def test_no_encoder_to_freeze():
    plain = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3))
    assert not apply_freezing(plain.train(), False, True)
    assert not plain[1].training
    with pytest.raises(UsageError, match="no part named encoder"):
        apply_freezing(plain, True, False)


@pytest.fixture
def one_process(tmp_path):
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/meet", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def test_distributed_training_is_built_anew_where_gradients_change(one_process):
    """Why `apply_freezing` tells: the first wrapper waits for gradients that never come."""
    image = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)

    def step(wrapped):
        wrapped(image).square().mean().backward()

    network = build().train()
    wrapped = DistributedDataParallel(network)
    step(wrapped)
    assert apply_freezing(network, True, False)
    step(wrapped)
    with pytest.raises(RuntimeError, match="not used in producing loss"):
        step(wrapped)
    wrapped = DistributedDataParallel(network)
    for _ in range(2):
        step(wrapped)
