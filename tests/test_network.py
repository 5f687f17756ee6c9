"""Network: any picture in, logits of its size out, normalised once."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from smp_camvid.data.classes import CAMVID11
from smp_camvid.errors import UsageError
from smp_camvid.inference.tiling import predict_tiled
from smp_camvid.models.factory import create_model
from smp_camvid.models.network import Network
from smp_camvid.models.pretrained import CAMVID_NORMALIZATION, normalization_for

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.3, 0.25)


def vanilla(depth=2, **options):
    torch.manual_seed(0)
    model = create_model("vanilla", base_channels=4, depth=depth, **options)
    return Network(model, MEAN, STD, CAMVID11).eval()


def picture(height, width, batch=1, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (batch, 3, height, width), dtype=torch.uint8, generator=generator)


def normalised(image):
    """The reference, in float64."""
    x = image.double() / 255
    return ((x - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)).float()


SIZES = [(45, 61), (1, 1), (3, 2), (8, 8), (9, 40)]


@pytest.mark.parametrize("size", SIZES)
def test_valid_padding_sees_numpys_mirrored_border(size):
    network = vanilla()
    image = picture(*size, batch=2)
    border = 20  # 6 * 2^2 - 4
    sizes = [network.padded_size(n) for n in size]
    assert all(s % 4 == 0 and s >= n + 2 * border for s, n in zip(sizes, size, strict=True))
    widths = [(0, 0), (0, 0), *((border, s - n - border) for s, n in zip(sizes, size, strict=True))]
    mode = "edge" if max(size) == 1 else "reflect"
    padded = torch.from_numpy(np.pad(normalised(image).numpy(), widths, mode=mode))
    with torch.inference_mode():
        expected = network.model(padded)[..., : size[0], : size[1]]
        logits = network(image)
    assert logits.shape == (2, 11, *size)
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size", SIZES)
def test_same_padding_is_filled_with_the_mean_colour_and_cropped(size):
    network = vanilla(padding="same", norm="batch")
    image = picture(*size)
    pad = [-n % 4 for n in size]
    with torch.inference_mode():
        padded = F.pad(normalised(image), (0, pad[1], 0, pad[0]))
        expected = network.model(padded)[..., : size[0], : size[1]]
        torch.testing.assert_close(network(image), expected, rtol=1e-4, atol=1e-4)


def test_uint8_and_float_pictures_give_the_same_and_stay_as_they_were():
    network = vanilla(padding="same")
    image = picture(16, 24)
    kept = image.clone()
    as_float = image.float()
    assert torch.equal(network(image), network(as_float))
    assert torch.equal(image, kept) and torch.equal(as_float, kept.float())
    torch.testing.assert_close(network.normalize(image), normalised(image), rtol=1e-5, atol=1e-5)


def test_normalisation_travels_as_buffers_and_properties_tell_the_policy():
    network = vanilla()
    assert {"mean", "std"} <= set(network.state_dict())
    assert network.num_parameters == sum(p.numel() for p in network.model.parameters())
    assert network.size_policy["border"] == "mirror" and network.size_policy["margin"] == 20
    assert network.divisor == 4 and network.normalization == "custom"
    assert network.config["base_channels"] == 4 and network.config["arch"] == "vanilla"
    assert vanilla(depth=3, padding="same").divisor == 8
    assert normalization_for("vanilla") == CAMVID_NORMALIZATION
    assert normalization_for("unet", "resnet34", None) == CAMVID_NORMALIZATION


@pytest.mark.parametrize("padding", ["valid", "same"])
def test_trains_at_any_size_and_the_gradient_reaches_everything(padding):
    network = vanilla(padding=padding, norm="batch").train()
    image, target = picture(21, 34, batch=2), torch.randint(0, 11, (2, 21, 34))
    F.cross_entropy(network(image), target).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


@pytest.mark.parametrize("padding", ["valid", "same"])
def test_autocast_and_channels_last(padding):
    network = vanilla(padding=padding, norm="batch")
    image = picture(45, 61, batch=2)
    with torch.inference_mode():
        expected = network(image)
        network.to(memory_format=torch.channels_last)
        fast = image.contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(network(fast), expected, rtol=1e-4, atol=1e-4)
        with torch.autocast("cpu", torch.bfloat16):
            logits = network(fast)
    assert logits.dtype == torch.bfloat16
    assert F.cosine_similarity(logits.float().flatten(), expected.flatten(), 0) > 0.99


def test_normalising_under_autocast_keeps_full_precision():
    network = vanilla(padding="same")
    with torch.autocast("cpu", torch.bfloat16):
        assert network.normalize(picture(8, 8)).dtype == torch.float32


def test_tiles_through_the_network_equal_the_whole():
    network = vanilla()
    image = picture(90, 70)

    def function(tile):
        with torch.inference_mode():
            x = torch.from_numpy(np.ascontiguousarray(tile.transpose(2, 0, 1)))
            return network.forward_tile(x[None])[0].numpy()

    with torch.inference_mode():
        expected = network(image)[0].numpy()
    tiled = predict_tiled(
        function, image[0].permute(1, 2, 0).numpy(), tile=(80, 84), margin=20, multiple=4
    )
    np.testing.assert_allclose(tiled, expected, rtol=1e-5, atol=1e-5)


def test_logits_of_an_architecture_that_upsamples_less_are_brought_to_size():
    class Half(nn.Module):
        size_policy = {"border": "zero", "margin": 0, "multiple": 2, "minimum": 2}  # noqa: RUF012

        def forward(self, x):
            return F.avg_pool2d(x, 2), "what a classifier says"

    table = type(CAMVID11)("three", ("a", "b", "c"), ((0, 0, 0), (1, 1, 1), (2, 2, 2)))
    network = Network(Half(), MEAN, STD, table)
    image = torch.full((1, 3, 7, 5), 100, dtype=torch.uint8)
    logits = network(image)
    assert logits.shape == (1, 3, 7, 5)
    torch.testing.assert_close(logits[0, :, :5, :3], normalised(image)[0, :, :5, :3])


def test_torch_export_takes_the_network():
    network = vanilla()
    image = picture(20, 28)
    program = torch.export.export(network, (image,))
    torch.testing.assert_close(program.module()(image), network(image))


@pytest.mark.parametrize(
    ("classes", "mean", "std", "named"),
    [(12, MEAN, STD, "12 classes"), (11, MEAN[:1], STD[:1], "3 channels"),
     (11, MEAN, STD[:2], "2 standard"), (11, MEAN, (0.2, 0.0, 0.2), "positive")],
)  # fmt: skip
def test_what_does_not_belong_together_is_refused(classes, mean, std, named):
    model = create_model("vanilla", base_channels=2, depth=1, classes=classes)
    with pytest.raises(UsageError, match=named):
        Network(model, mean, std, CAMVID11)
