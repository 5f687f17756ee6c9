"""The static table of architectures against the installed smp, and plugins good and bad."""

import inspect
import subprocess
import sys
import textwrap

import pytest

from smp_camvid import registry
from smp_camvid.errors import UsageError


def test_the_table_is_what_the_installed_constructors_take():
    import segmentation_models_pytorch as smp

    from smp_camvid.models.vanilla import VanillaUNet

    installed = dict(smp.MODEL_ARCHITECTURES_MAPPING)
    installed["vanilla"] = VanillaUNet
    assert set(registry.ARCHITECTURES) == set(installed)
    for arch, model_class in installed.items():
        parameters = list(inspect.signature(model_class.__init__).parameters.values())[1:]
        takes = {p.name for p in parameters if p.kind is not p.VAR_KEYWORD}
        assert set(registry.ARCHITECTURES[arch]) == takes, arch


def test_registry_imports_neither_torch_nor_smp():
    code = """
        import sys
        from smp_camvid import registry
        registry.architecture_names(), registry.options_of("unet"), registry.options_of("vanilla")
        registry.register_with_smp()
        assert not {"torch", "timm", "segmentation_models_pytorch"} & set(sys.modules)
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True)


@pytest.mark.parametrize("smp_first", [True, False])
def test_smp_create_model_knows_vanilla_whichever_is_imported_first(smp_first):
    smp_import = "import segmentation_models_pytorch as smp"
    ours = "from smp_camvid import registry; registry.register_with_smp()"
    code = f"""
        import importlib.util, sys
        {smp_import if smp_first else ours}
        importlib.util.find_spec("segmentation_models_pytorch")  # looking is not importing
        {ours if smp_first else smp_import}
        model = smp.create_model("Vanilla", in_channels=1, classes=2, base_channels=2, depth=1)
        assert type(model).__name__ == "VanillaUNet"
        assert len(smp.MODEL_ARCHITECTURES_MAPPING) == 13
        assert not any("AfterImport" in type(f).__name__ for f in sys.meta_path)
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True)


def test_unknown_architecture_and_option_are_named_with_the_nearest():
    with pytest.raises(UsageError, match="Did you mean 'unetplusplus'"):
        registry.find_architecture("unetplusplu")
    assert registry.find_architecture("DeepLabV3Plus") == "deeplabv3plus"
    with pytest.raises(UsageError, match=r"'encoder_nam'.*takes encoder_name") as caught:
        registry.check_options("unet", ["encoder_nam", "classes"])
    assert "Did you mean 'encoder_name'?" in str(caught.value)
    with pytest.raises(UsageError, match="encoder_name"):
        registry.check_options("vanilla", ["encoder_name"])


@pytest.fixture
def plugins(tmp_path, monkeypatch):
    """A real installed distribution with one good, one broken and one greedy entry point."""
    (tmp_path / "road_plugin.py").write_text(
        "from torch import nn\n"
        "class RoadNet(nn.Module):\n"
        "    def __init__(self, in_channels=3, classes=11, width=4):\n"
        "        super().__init__()\n"
        "        self.segmentation_head = nn.Conv2d(in_channels, classes, 1)\n"
        "    def forward(self, x):\n"
        "        return self.segmentation_head(x)\n"
    )
    (tmp_path / "broken_plugin.py").write_text("raise RuntimeError('no licence')\n")
    info = tmp_path / "road_plugin-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: road-plugin\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[smp_camvid.models]\nroadnet = road_plugin:RoadNet\nbroken = broken_plugin:Net\n"
        "unet = road_plugin:RoadNet\n[smp_camvid.sources]\nroads = road_plugin:Missing\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("road_plugin", None)


def test_plugins_are_listed_and_a_broken_one_is_named_but_not_fatal(plugins):
    assert registry.architecture_names()[-2:] == ("broken", "roadnet")
    assert registry.options_of("roadnet") == ("in_channels", "classes", "width")
    assert "encoder_name" in registry.options_of("unet")  # the greedy one changed nothing
    with pytest.raises(UsageError, match=r"'broken'.*no licence"):
        registry.load_entry(registry.MODELS, "broken")
    bad = registry.broken_plugins(registry.MODELS)
    assert set(bad) == {"broken", "unet"}
    assert set(registry.broken_plugins(registry.SOURCES)) == {"roads"}
    assert registry.plugin_names(registry.SOURCES) == ("kaggle", "segnet", "synthetic", "roads")


def test_a_plugin_model_goes_through_the_same_door(plugins, tmp_path):
    import torch

    from smp_camvid.data.classes import CAMVID11
    from smp_camvid.models.factory import create_model
    from smp_camvid.models.network import Network
    from smp_camvid.models.weights import load_network, save_weights

    model = create_model("roadnet", width=8)
    assert model.smp_camvid_config == {
        "arch": "roadnet", "in_channels": 3, "classes": 11, "width": 8,
    }  # fmt: skip
    network = Network(model, (0.4,) * 3, (0.3,) * 3, CAMVID11).eval()
    save_weights(network, tmp_path / "w.safetensors")
    again, _ = load_network(tmp_path / "w.safetensors")
    image = torch.randint(0, 256, (1, 3, 5, 7), dtype=torch.uint8)
    assert torch.equal(network(image), again(image))
    with pytest.raises(UsageError, match="no option 'depth'"):
        create_model("roadnet", depth=3)


def test_sources_and_unknown_entries():
    assert "synthetic" in registry.plugin_names(registry.SOURCES)
    with pytest.raises(UsageError, match="Did you mean 'synthetic'"):
        registry.load_entry(registry.SOURCES, "syntetic")
