"""The vanilla U-Net against the paper's numbers and a forward written from F alone."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from smp_camvid.errors import UsageError
from smp_camvid.models.vanilla import VanillaUNet, margin, valid_input_size


def reference_forward(state, x, depth, norm, padding):
    """Figure 1 in torch.nn.functional, reading the weights by their order and nothing else."""
    weights = iter([t for n, t in state.items() if not n.endswith("num_batches_tracked")])

    def double_conv(x):
        for _ in range(2):
            weight = next(weights)
            bias = next(weights) if norm == "none" else None
            x = F.conv2d(x, weight, bias, padding=1 if padding == "same" else 0)
            if norm == "batch":
                gamma, beta, mean, var = (next(weights) for _ in range(4))
                x = F.batch_norm(x, mean, var, gamma, beta, training=False, eps=1e-5)
            x = F.relu(x)
        return x

    copies = []
    for _ in range(depth):
        x = double_conv(x)
        copies.append(x)
        x = F.max_pool2d(x, 2)
    x = double_conv(x)
    ups = [(next(weights), next(weights)) for _ in range(depth)]
    for weight, bias in ups:
        x = F.conv_transpose2d(x, weight, bias, stride=2)
        copied = copies.pop()
        border = (copied.shape[-1] - x.shape[-1]) // 2
        copied = F.pad(copied, (-border,) * 4)
        x = double_conv(torch.cat([copied, x], 1))
    x = F.conv2d(x, next(weights), next(weights))
    assert next(weights, None) is None
    return x


def randomised(model, seed=0):
    """Eval mode with statistics and biases that are not the trivial ones."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.3, generator=generator)
                module.running_var.uniform_(0.5, 2, generator=generator)
                module.weight.uniform_(0.5, 2, generator=generator)
            if getattr(module, "bias", None) is not None:
                module.bias.normal_(0, 0.3, generator=generator)
    return model.eval()


@pytest.mark.parametrize(
    ("in_channels", "classes", "parameters"), [(1, 2, 31_030_658), (3, 11, 31_032_395)]
)
def test_parameter_counts_of_the_paper(in_channels, classes, parameters):
    with torch.device("meta"):
        model = VanillaUNet(in_channels, classes)
    assert sum(p.numel() for p in model.parameters()) == parameters


def test_23_convolution_layers_and_572_gives_388():
    with torch.device("meta"):
        model = VanillaUNet(1, 2)
        assert model(torch.empty(1, 1, 572, 572)).shape == (1, 2, 388, 388)
        assert model(torch.empty(1, 1, 556, 668)).shape == (1, 2, 372, 484)
    convolutions = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]
    assert len(convolutions) == 23
    assert model.encoder.out_channels == [64, 128, 256, 512, 1024]


@pytest.mark.parametrize("depth", [1, 2, 3, 4, 5])
def test_margin_and_valid_sizes_follow_from_the_layers(depth):
    def output(size):  # by walking the layers; None where the paper's condition fails
        sizes = []
        for _ in range(depth):
            size -= 4
            if size < 2 or size % 2:
                return None
            sizes.append(size)
            size //= 2
        size -= 4
        for _ in range(depth):
            size = 2 * size - 4
        return size if size >= 1 else None

    permitted = {n: output(n) for n in range(1, 420) if output(n) is not None}
    assert all((n - out) == 2 * margin(depth) for n, out in permitted.items())
    for size in range(1, 200):
        smallest = min(n for n in permitted if n >= size)
        assert valid_input_size(size, depth) == smallest
    if depth == 4:
        assert margin() == 92 and all(n % 16 == 12 for n in permitted)
        assert valid_input_size(360 + 184) == 556 and valid_input_size(480 + 184) == 668


@pytest.mark.parametrize(
    ("norm", "padding", "size"),
    [("none", "valid", (60, 76)), ("batch", "valid", (76, 60)), ("batch", "same", (24, 40)),
     ("none", "same", (8, 8))],
)  # fmt: skip
@pytest.mark.parametrize("depth", [2, 3])
def test_logits_equal_the_reference_forward(norm, padding, size, depth):
    torch.manual_seed(1)
    model = randomised(VanillaUNet(3, 5, norm, padding, base_channels=4, depth=depth))
    size = [valid_input_size(s, depth) if padding == "valid" else s for s in size]
    x = torch.randn(2, 3, *size)
    with torch.inference_mode():
        expected = reference_forward(model.state_dict(), x, depth, norm, padding)
        torch.testing.assert_close(model(x), expected, rtol=1e-5, atol=1e-5)
        assert torch.equal(model.predict(x), model(x))  # smp's door


def test_paper_depth_equals_the_reference_forward():
    torch.manual_seed(1)
    model = randomised(VanillaUNet(1, 2, base_channels=2))
    x = torch.randn(1, 1, 204, 188)
    with torch.inference_mode():
        expected = reference_forward(model.state_dict(), x, 4, "none", "valid")
        assert expected.shape == (1, 2, 20, 4)
        torch.testing.assert_close(model(x), expected, rtol=1e-5, atol=1e-5)


def only_through(model, level, depth):
    """Weights with which a pixel passes unchanged, and only over the skip of `level`.

    Every 3x3 convolution is its centre tap on channel 0 and every up-convolution copies a pixel
    to its 2x2.  After a concatenation, `level` reads the copied map, which comes first, and the
    finer levels read what comes from below.  `level == depth` is the way without any skip.
    """
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.Conv2d):
                module.weight.zero_()
                centre = module.kernel_size[0] // 2
                module.weight[0, 0, centre, centre] = 1
            elif isinstance(module, nn.ConvTranspose2d):
                module.weight.zero_()
                module.weight[0, 0] = 1
        for finer in range(level):
            first = model.decoder.levels[depth - 1 - finer][0].weight
            first[0, 0, 1, 1], first[0, first.shape[1] // 2, 1, 1] = 0, 1
    return model.eval()


@pytest.mark.parametrize(("padding", "size"), [("valid", 204), ("same", 64)])
@pytest.mark.parametrize("level", range(5))
def test_an_impulse_lands_where_it_was_through_every_skip(padding, size, level):
    depth = 4
    model = only_through(VanillaUNet(1, 1, padding=padding, base_channels=2), level, depth)
    border = margin(depth) if padding == "valid" else 0
    out_size = size - 2 * border
    # After `level` poolings a pixel is a cell of 2^level pixels.  The grid of cells starts where
    # the convolutions before have eaten 2 pixels of each finer map.
    cell = 2**level
    start = 2 * (cell - 1) if padding == "valid" else 0
    for y, x in ((3, 7), (out_size - 2, 5), (0, out_size - 1)):
        image = torch.zeros(1, 1, size, size)
        image[0, 0, y + border, x + border] = 1
        expected = torch.zeros(out_size, out_size)
        top, left = ((p + border - start) // cell * cell + start - border for p in (y, x))
        expected[max(top, 0) : top + cell, max(left, 0) : left + cell] = 1
        assert expected[y, x] == 1
        torch.testing.assert_close(model(image)[0, 0], expected)


@pytest.mark.parametrize("norm", ["none", "batch"])
def test_initialisation_follows_the_papers_rule(norm):
    torch.manual_seed(0)
    model = VanillaUNet(3, 11, norm=norm, base_channels=32, depth=2)
    checked = 0
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            incoming = module.weight[0].numel()  # 9 C, or C in the 1x1 head
        elif isinstance(module, nn.ConvTranspose2d):
            incoming = module.weight.shape[0]  # one tap of every input channel
        else:
            continue
        expected, count = math.sqrt(2 / incoming), module.weight.numel()
        # the standard error of a standard deviation is sigma / sqrt(2 n)
        assert abs(module.weight.std() - expected) < 5 * expected / math.sqrt(2 * count)
        assert abs(module.weight.mean()) < 5 * expected / math.sqrt(count)
        assert module.bias is None or not module.bias.any()
        checked += 1
    assert checked == 2 * 3 + 2 + 2 * 2 + 1
    # negative control: torch's own rule would be off for the up-convolution
    up = model.decoder.ups[0].weight
    fan_in = nn.init._calculate_fan_in_and_fan_out(up)[0]
    assert abs(up.std() - math.sqrt(2 / fan_in)) > 0.2 * up.std()


def test_activations_keep_unit_variance_through_the_contracting_path():
    """What the rule is for (section 3): without it the signal would grow or die."""
    torch.manual_seed(0)
    model = VanillaUNet(3, 11, padding="same", base_channels=32, depth=3, dropout=0)
    with torch.inference_mode():
        maps = model.encoder(torch.randn(2, 3, 64, 64))
    assert all(0.3 < m.square().mean() < 30 for m in maps)


def test_switches():
    model = VanillaUNet(norm="batch", base_channels=4, depth=3, dropout=0.25)
    assert model.encoder.dropout.p == 0.25 and len(model.encoder.levels) == 4
    convolutions = [
        m for m in model.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)
    ]
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(norms) == len(convolutions) == 14 and all(c.bias is None for c in convolutions)
    assert not [m for m in VanillaUNet(base_channels=2).modules() if isinstance(m, nn.BatchNorm2d)]


def test_dropout_acts_at_the_lowest_map_and_only_in_training():
    torch.manual_seed(0)
    model = VanillaUNet(3, 2, padding="same", base_channels=2, depth=2, dropout=0.9)
    x = torch.randn(1, 3, 64, 64)
    maps, again = model.encoder(x), model.encoder(x)
    assert torch.equal(maps[0], again[0]) and torch.equal(maps[1], again[1])
    assert (maps[2] == 0).float().mean() > 0.85 and not torch.equal(maps[2], again[2])
    model.eval()
    assert torch.equal(model(x), model(x))


def test_freeze_encoder_stops_gradients_and_statistics():
    model = VanillaUNet(norm="batch", padding="same", base_channels=2, depth=2)
    model.freeze_encoder()
    model.train()
    before = {k: v.clone() for k, v in model.encoder.state_dict().items()}
    model(torch.randn(2, 3, 16, 16)).sum().backward()
    assert all(p.grad is None for p in model.encoder.parameters())
    assert all(p.grad is not None for p in model.decoder.parameters())
    assert all(torch.equal(v, before[k]) for k, v in model.encoder.state_dict().items())
    model.unfreeze_encoder()
    model(torch.randn(2, 3, 16, 16)).sum().backward()
    assert all(p.grad is not None for p in model.encoder.parameters())


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"norm": "group"}, "norm must be 'none' or 'batch', not 'group'"),
        ({"padding": "reflect"}, "padding must be"),
        ({"base_channels": 0}, "base_channels"),
        ({"depth": 0}, "depth"),
        ({"depth": 9}, "depth must be at most 8"),
        ({"depth": 2.0}, "depth"),
        ({"classes": True}, "classes"),
        ({"in_channels": -1}, "in_channels"),
        ({"dropout": 1.0}, "dropout"),
        ({"dropout": "0.5"}, "dropout"),
        ({"norm": "x", "padding": "y"}, "norm .*; padding"),
    ],
)
def test_bad_options_are_refused_in_words(options, named):
    with pytest.raises(UsageError, match=named):
        VanillaUNet(**options)


@pytest.mark.parametrize(
    ("padding", "size"), [("valid", (572, 571)), ("valid", (172, 188)), ("same", (64, 65))]
)
def test_sizes_that_do_not_fit_are_refused_in_words(padding, size):
    model = VanillaUNet(padding=padding, base_channels=1)
    with pytest.raises(UsageError, match=f"{size[0]}x{size[1]}.*multiple of 16"):
        model(torch.zeros(1, 3, *size))
