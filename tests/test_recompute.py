"""Activation checkpointing: less is kept, and not one bit differs after a step."""

import contextlib
import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils._pytree import tree_leaves
from torch.utils.checkpoint import checkpoint

from smp_camvid.data.classes import CAMVID11
from smp_camvid.models.factory import create_model
from smp_camvid.models.network import Network
from smp_camvid.training import recompute
from smp_camvid.training.averaging import Ema
from smp_camvid.training.recompute import blocks_of, recompute_activations

SMALL = {"encoder_name": "tu-test_resnet", "encoder_depth": 3, "decoder_channels": [16, 8, 8]}
MODELS = {
    "vanilla": {"base_channels": 4, "depth": 2, "norm": "batch", "dropout": 0.5},
    "unet": SMALL,
    "unetplusplus": SMALL,
    "deeplabv3plus": {"encoder_name": "mobilenet_v2", "decoder_channels": 16},  # dropout inside
}


def build(arch, **options):
    torch.manual_seed(0)
    model = create_model(arch, **{**MODELS[arch], **options})
    return Network(model, (0.4, 0.5, 0.6), (0.2, 0.3, 0.25), CAMVID11).train()


def batch():
    generator = torch.Generator().manual_seed(3)
    image = torch.randint(0, 256, (2, 3, 48, 64), dtype=torch.uint8, generator=generator)
    return image, torch.randint(0, 11, (2, 48, 64), generator=generator)


def train(network, steps=2, autocast=False):
    """Weights, buffers, gradients and random state after some steps of SGD."""
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    image, target = batch()
    torch.manual_seed(11)
    for _ in range(steps):
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            logits = network(image)
        F.cross_entropy(logits.float(), target).backward()
        optimizer.step()
    gradients = {f"grad {n}": p.grad for n, p in network.named_parameters()}
    return {**network.state_dict(), **gradients, "random": torch.get_rng_state()}


def differing(one, other):
    assert one.keys() == other.keys()
    return [name for name, value in one.items() if not torch.equal(value, other[name])]


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("arch", MODELS)
def test_every_bit_of_a_step_is_the_same(arch, autocast):
    lean = build(arch)
    recompute_activations(lean)
    assert len(blocks_of(lean)) >= 5
    after = train(build(arch), autocast=autocast)
    assert differing(after, train(lean, autocast=autocast)) == []
    other_draws = train(build(arch), steps=3, autocast=autocast)
    assert len(differing(after, other_draws)) > len(after) / 2


def test_statistics_would_be_counted_twice(monkeypatch):
    """The negative control: without the copies, and only then, BatchNorm sees each batch twice."""
    lean = build("vanilla")
    recompute_activations(lean)
    monkeypatch.setattr(recompute, "_statistics_spared", lambda block: contextlib.nullcontext())
    names = differing(train(build("vanilla"), steps=1), train(lean, steps=1))
    assert {name.rpartition(".")[2] for name in names} == {
        "running_mean",
        "running_var",
        "num_batches_tracked",
    }


def test_dropout_inside_a_block_draws_the_same():
    """Vanilla's dropout lies between blocks; here one lies in each, against two controls."""

    def with_dropout():
        network = build("vanilla", norm="none", dropout=0.0)
        for block in blocks_of(network):
            block.append(nn.Dropout(0.3))
        return network

    lean = with_dropout()
    recompute_activations(lean)
    assert differing(train(with_dropout()), train(lean)) == []
    careless = with_dropout()
    for block in blocks_of(careless):
        block.forward = lambda x, forward=block.forward: checkpoint(
            forward, x, use_reentrant=False, preserve_rng_state=False
        )
    assert "grad model.encoder.levels.0.0.weight" in differing(
        train(with_dropout()), train(careless)
    )


def kept_bytes(network):
    """What the graph of a forward pass holds on to: saved tensors, and the inputs of blocks.

    Each piece of memory counts once; weights and pictures are there anyway.
    """
    kept, image = {}, batch()[0]
    anyway = {t.untyped_storage().data_ptr() for t in [*network.state_dict().values(), image]}

    def note(tensor):
        memory = tensor.untyped_storage()
        if memory.data_ptr() not in anyway:
            kept[memory.data_ptr()] = memory
        return tensor

    def inputs(block, args, kwargs):
        if "forward" in vars(block):
            for leaf in tree_leaves((args, kwargs)):
                if isinstance(leaf, torch.Tensor):
                    note(leaf)

    hooks = [b.register_forward_pre_hook(inputs, with_kwargs=True) for b in blocks_of(network)]
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        logits = network(image)
    for hook in hooks:
        hook.remove()
    del logits
    return sum(memory.nbytes() for memory in kept.values())


@pytest.mark.parametrize(("arch", "share"), [("vanilla", 0.5), ("unet", 0.4)])
def test_less_is_kept_between_the_passes(arch, share):
    network = build(arch)
    before = kept_bytes(network)
    recompute_activations(network)
    assert 0 < kept_bytes(network) < share * before


def test_nothing_else_about_the_network_changes():
    network, lean = build("vanilla"), build("vanilla")
    recompute_activations(lean)
    assert [n for n, _ in lean.named_modules()] == [n for n, _ in network.named_modules()]
    assert list(lean.state_dict()) == list(network.state_dict())
    assert [type(m) for m in lean.modules()] == [type(m) for m in network.modules()]
    image = batch()[0]
    with torch.no_grad():
        assert torch.equal(network.eval()(image), lean.eval()(image))


def test_a_copy_runs_its_own_blocks():
    lean = build("vanilla")
    recompute_activations(lean)
    twin = copy.deepcopy(lean)
    with torch.no_grad():
        for parameter in lean.parameters():
            parameter.zero_()
    assert differing(train(build("vanilla")), train(twin)) == []
    averaged = Ema(lean, 0.9).network
    with torch.no_grad():
        assert not averaged(batch()[0]).any() and twin.eval()(batch()[0]).any()


def test_an_input_changed_in_place_is_refused_and_a_changed_list_is_not():
    class Block(nn.Module):
        def __init__(self, in_place):
            super().__init__()
            self.layers, self.in_place = nn.Sequential(nn.Linear(3, 3)), in_place

        def forward(self, maps):
            if self.in_place:
                maps[0].mul_(2)
            maps[0] = torch.tanh(self.layers(maps[0]))  # writes into the caller's list
            return maps[0].sin()

    class Model(nn.Module):
        def __init__(self, in_place):
            super().__init__()
            self.encoder = nn.Module()
            self.encoder.blocks = nn.ModuleList([Block(in_place)])

    torch.manual_seed(0)
    x = torch.randn(4, 3)
    model, careless = Model(False), Model(True)
    model.encoder.blocks[0]([x.clone()]).sum().backward()
    expected = model.encoder.blocks[0].layers[0].weight.grad.clone()
    model.zero_grad()
    for each in (model, careless):
        recompute_activations(each)
    model.encoder.blocks[0]([x.clone()]).sum().backward()
    assert torch.equal(model.encoder.blocks[0].layers[0].weight.grad, expected)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        careless.encoder.blocks[0]([x.clone()]).sum().backward()


def test_a_frozen_network_keeps_its_statistics():
    """Blocks in training whose normalisations are not: neither pass touches a buffer."""
    lean = build("unet")
    recompute_activations(lean)
    for module in lean.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    before = {name: value.clone() for name, value in lean.named_buffers()}
    after = train(lean)
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert lean.model.decoder.blocks[0].conv1[0].weight.grad.any()


def test_a_compiler_decides_by_itself():
    network, lean = build("vanilla", dropout=0.0), build("vanilla", dropout=0.0)
    recompute_activations(lean)
    compiled = torch.compile(lean, backend="eager")
    assert differing(train(network, steps=1), train(lean, steps=1)) == []
    torch.testing.assert_close(compiled(batch()[0]), network(batch()[0]))
