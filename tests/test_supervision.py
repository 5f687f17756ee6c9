"""Deep supervision: inner outputs lie where the labels lie, and disturb nothing else."""

import copy

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from smp_camvid.data.classes import CAMVID11, ClassTable
from smp_camvid.errors import UsageError
from smp_camvid.models.factory import create_model
from smp_camvid.models.network import Network
from smp_camvid.training.recompute import recompute_activations
from smp_camvid.training.supervision import DeepSupervision, inner_maps

TINY = {"encoder_name": "tu-test_resnet", "encoder_depth": 3, "decoder_channels": [16, 8, 8]}
MODELS = {
    "vanilla": {"base_channels": 4, "depth": 3},
    "unet": TINY,
    "unetplusplus": TINY,
}
AXES = ClassTable("dataset", ("x", "y"), ((0, 0, 0), (1, 1, 1)))


def build(arch, seed=0, **options):
    torch.manual_seed(seed)
    model = create_model(arch, **{**MODELS.get(arch, {}), **options})
    return Network(model, (0.4, 0.5, 0.6), (0.2, 0.3, 0.25), CAMVID11)


def picture(height, width, batch=2):
    generator = torch.Generator().manual_seed(3)
    return torch.randint(0, 256, (batch, 3, height, width), dtype=torch.uint8, generator=generator)


def passing_on(padding, depth):
    """A U-Net whose every level hands on channels 0 and 1 of the copied map, cell by cell.

    Average pooling instead of the maximum: a cell then holds the mean over its pixels, which for
    the coordinates of the pixels is its centre.
    """
    model = create_model("vanilla", classes=2, base_channels=2, depth=depth, padding=padding)
    model.encoder.pool = nn.AvgPool2d(2)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                module.weight.zero_()
                module.bias.zero_()
            if isinstance(module, nn.Conv2d):
                middle = module.kernel_size[0] // 2
                for axis in range(2):
                    module.weight[axis, axis, middle, middle] = 1
    return Network(model, (0, 0, 0), (1 / 255,) * 3, AXES)


def coordinates(height, width):
    """A picture of where its pixels are: x, y and nothing, `[1, 3, H, W]`."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([x, y, torch.zeros_like(x)]).float()[None]


def supervised_coordinates(padding, depth, size):
    module = DeepSupervision(passing_on(padding, depth))
    with torch.no_grad():
        for head in module.heads:
            head.weight.zero_()
            head.weight[0, 0] = head.weight[1, 1] = 1
        return module.train()(coordinates(*size)), module


@pytest.mark.parametrize("size", [(64, 96), (75, 101)])
@pytest.mark.parametrize(("padding", "depth"), [("valid", 2), ("valid", 4), ("same", 3)])
def test_inner_outputs_show_each_pixel_where_it_is(padding, depth, size):
    outputs, _ = supervised_coordinates(padding, depth, size)
    truth = coordinates(*size)[:, :2]
    assert len(outputs) == depth
    assert torch.equal(outputs[0], truth)
    # At the border cells hold mirrored pixels (or none) too.
    edge = 2**depth
    for output in outputs[1:]:
        error = (output - truth)[..., edge:-edge, edge:-edge]
        assert error.abs().max() < 1e-3


def test_stretching_the_inner_map_would_shift_it():
    """The negative control: the same truth refuses what one would write first."""
    size, depth = (64, 96), 4
    _, module = supervised_coordinates("valid", depth, size)
    kept = {}
    block = inner_maps(module.network)[0].block
    block.register_forward_hook(lambda m, i, output: kept.update(map=output[:, :2]))
    with torch.no_grad():
        module.network(coordinates(*size))
    stretched = F.interpolate(kept["map"], size, mode="bilinear", align_corners=False)
    error = (stretched - coordinates(*size)[:, :2])[..., 16:-16, 16:-16]
    assert error.abs().max() > 3


@pytest.mark.parametrize(
    ("depth", "size", "extents"), [(4, 388, [416, 400, 392]), (2, 100, [104]), (1, 68, [])]
)
def test_what_the_paper_s_levels_cover(depth, size, extents):
    """572 -> 388 passes 52, 100 and 196: cells of 8, 4 and 2 pixels."""
    network = build("vanilla", depth=depth, base_channels=1)
    widths = []
    if extents:
        for inner in inner_maps(network):
            inner.block.register_forward_hook(
                lambda m, i, output, stride=inner.stride: widths.append(output.shape[-1] * stride)
            )
    with torch.no_grad():
        network(picture(size, size, batch=1))
    assert widths == extents


def inner_by_hand(model, x):
    """Both decoders of smp written out: the maps that are supervised."""
    features = model.encoder(x)[1:][::-1]
    blocks = model.decoder.blocks
    if isinstance(blocks, nn.ModuleList):
        first = blocks[0](features[0], *features[1].shape[2:], skip_connection=features[1])
        return [first, blocks[1](first, *features[2].shape[2:], skip_connection=features[2])]
    shallow = blocks["x_1_1"](features[1], features[2])
    deep = blocks["x_0_0"](features[0], features[1])
    return [shallow, blocks["x_0_1"](deep, torch.cat([shallow, features[2]], 1))]


@pytest.mark.parametrize(("arch", "strides"), [("unet", (4, 2)), ("unetplusplus", (2, 2))])
@pytest.mark.parametrize("size", [(48, 64), (45, 61)])
def test_smp_s_inner_outputs_against_its_decoder_by_hand(arch, strides, size):
    module = DeepSupervision(build(arch)).train()
    module.network.eval()  # statistics at rest, so that a second pass sees the same
    outputs = module(picture(*size))
    assert [tuple(o.shape) for o in outputs] == [(2, 11, *size)] * 3
    full = (48, 64)
    x = F.pad(module.network.normalize(picture(*size)), (0, 64 - size[1], 0, 48 - size[0]))
    for head, stride, inner, output in zip(
        module.heads, strides, inner_by_hand(module.network.model, x), outputs[1:], strict=True
    ):
        assert inner.shape[-2:] == (48 // stride, 64 // stride)
        logits = F.conv2d(inner, head.weight, head.bias)
        expected = F.interpolate(logits, full, mode="bilinear", align_corners=False)
        torch.testing.assert_close(output, expected[..., : size[0], : size[1]])
    assert torch.equal(outputs[0], module.network(picture(*size)))


@pytest.mark.parametrize("arch", MODELS)
def test_eval_mode_is_the_network_alone(arch):
    module = DeepSupervision(build(arch)).eval()
    with torch.no_grad():
        (logits,) = module(picture(40, 56))
        assert torch.equal(logits, module.network(picture(40, 56)))
    hooks = [m._forward_hooks for m in module.modules()]
    assert not any(hooks)


def test_an_encoder_without_a_map_of_half_the_size():
    """It makes smp's inner UNet++ blocks of that row empty: nothing to supervise there."""
    network = build("unetplusplus", encoder_name="tu-convnext_atto", encoder_depth=3)
    (inner,) = inner_maps(network)
    assert inner.block is network.model.decoder.blocks["x_0_1"] and inner.channels == 8
    assert len(DeepSupervision(network).train()(picture(32, 32))) == 2


def test_heads_start_from_the_seed_and_draw_nothing_else():
    state = torch.get_rng_state()
    first = DeepSupervision(build("unet"), seed=7).heads.state_dict()
    torch.set_rng_state(state)
    network = build("unet")
    before = torch.get_rng_state()
    torch.manual_seed(1234)  # whatever was drawn before
    again = DeepSupervision(network, seed=7).heads.state_dict()
    torch.manual_seed(0)
    network = build("unet")
    assert torch.equal(before, torch.get_rng_state())
    DeepSupervision(network, seed=7)
    assert torch.equal(before, torch.get_rng_state())
    other = DeepSupervision(network, seed=8).heads.state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["0.weight"], other["0.weight"])
    assert all(torch.isfinite(value).all() for value in first.values())


@pytest.mark.parametrize("arch", MODELS)
def test_every_parameter_learns_and_weights_files_do_not_know_the_heads(arch):
    module = DeepSupervision(build(arch)).train()
    for place, logits in enumerate(module(picture(40, 56))[1:]):
        module.zero_grad(set_to_none=True)
        logits.square().sum().backward(retain_graph=True)
        learned = {n for n, p in module.named_parameters() if p.grad is not None and p.grad.any()}
        assert {n for n in learned if n.startswith("heads")} == {
            f"heads.{place}.weight",
            f"heads.{place}.bias",
        }
        assert any(n.startswith("network.model.encoder") for n in learned)
        assert not any(n.startswith("network.model.segmentation_head") for n in learned)
    assert not [name for name in module.network.state_dict() if "heads" in name]


def test_a_copy_made_while_it_trains_leaves_the_original_alone():
    module = DeepSupervision(build("vanilla")).train()
    twin = copy.deepcopy(module)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.zero_()
    outputs = module(picture(40, 56))
    assert all(output.abs().sum() > 0 for output in outputs)
    assert all(not output.any() for output in twin(picture(40, 56)))


def test_under_autocast_with_recomputed_activations():
    plain, lean = DeepSupervision(build("unet")).train(), DeepSupervision(build("unet")).train()
    recompute_activations(lean.network)
    for module in (plain, lean):
        with torch.autocast("cpu", torch.bfloat16):
            outputs = module(picture(40, 56))
        # Enlarged in float32, where a cell's gradient is the sum of its pixels' gradients.
        auxiliary = [torch.float32] * (len(outputs) - 1)
        assert [output.dtype for output in outputs] == [torch.bfloat16, *auxiliary]
        sum(output.float().square().mean() for output in outputs).backward()
    for a, b in zip(plain.parameters(), lean.parameters(), strict=True):
        assert torch.equal(a.grad, b.grad)
    assert all(head.weight.grad.any() for head in lean.heads)


@pytest.mark.parametrize(("arch", "depth"), [("linknet", None), ("vanilla", 1)])
def test_who_cannot_is_told_who_can(arch, depth):
    options = {"depth": depth} if depth else {"encoder_name": "tu-test_resnet", "encoder_depth": 3}
    with pytest.raises(UsageError, match=r"Deep supervision .*\b(unet|deeper)\b"):
        DeepSupervision(build(arch, **options))


@pytest.fixture
def one_process(tmp_path):
    """A group of one: DistributedDataParallel does all it does, with nobody."""
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/meet", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.parametrize("arch", MODELS)
def test_distributed_training_finds_no_unused_parameter(arch, one_process):
    module = DistributedDataParallel(DeepSupervision(build(arch)).train())
    for _ in range(2):
        sum(output.square().mean() for output in module(picture(40, 56))).backward()


def test_distributed_training_would_complain_of_an_output_left_out(one_process):
    module = DistributedDataParallel(DeepSupervision(build("unet")).train())
    module(picture(40, 56))[0].square().mean().backward()
    with pytest.raises(RuntimeError, match="not used in producing loss"):
        module(picture(40, 56))
