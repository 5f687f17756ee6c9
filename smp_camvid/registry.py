"""Which architectures and data sources there are, without importing any of them.

Built-in names and their options stand in a table, so that recipes and `--help` need neither
torch nor timm; a test holds the table against the constructors of the installed
segmentation-models-pytorch.  Third parties add to it through the entry-point groups
`smp_camvid.models` (a class or function `(in_channels, classes, **options) -> torch module`),
`smp_camvid.sources` and `smp_camvid.loggers` (`training.listening.OpenLogger`).  A broken plugin is
named when asked for and never stops the others.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import importlib.metadata
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType, ModuleType
from typing import Any

from smp_camvid.errors import UsageError, did_you_mean

MODELS = "smp_camvid.models"
SOURCES = "smp_camvid.sources"
LOGGERS = "smp_camvid.loggers"

# What this package itself puts into the groups: a checkout that was never installed has no
# entry points, and a plugin cannot take these names.
BUILT_IN: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        MODELS: {"vanilla": "smp_camvid.models.vanilla:VanillaUNet"},
        SOURCES: {
            "kaggle": "smp_camvid.data.kaggle_source:KaggleSource",
            "segnet": "smp_camvid.data.segnet_source:SegnetSource",
            "synthetic": "smp_camvid.data.synthetic:SyntheticSource",
        },
        LOGGERS: {
            "tensorboard": "smp_camvid.report.tensorboard_log:TensorBoardLogger",
            "wandb": "smp_camvid.report.wandb_log:WandbLogger",
        },
    }
)

_ENDS = ("in_channels", "classes", "activation", "aux_params")
_UNET = (
    "encoder_name", "encoder_depth", "encoder_weights", "decoder_use_norm", "decoder_channels",
    "decoder_attention_type", "decoder_interpolation", *_ENDS,
)  # fmt: skip
_ENCODER = ("encoder_name", "encoder_depth", "encoder_weights")
_DEEPLAB = (
    *_ENCODER, "encoder_output_stride", "decoder_channels", "decoder_atrous_rates",
    "decoder_aspp_separable", "decoder_aspp_dropout", *_ENDS, "upsampling",
)  # fmt: skip

ARCHITECTURES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "vanilla": (
            "in_channels", "classes", "norm", "padding", "base_channels", "depth", "dropout",
        ),
        "unet": _UNET,
        "unetplusplus": _UNET,
        "manet": (
            *_ENCODER, "decoder_use_norm", "decoder_channels", "decoder_pab_channels",
            "decoder_interpolation", *_ENDS,
        ),
        "linknet": (*_ENCODER, "decoder_use_norm", *_ENDS),
        "fpn": (
            *_ENCODER, "decoder_pyramid_channels", "decoder_segmentation_channels",
            "decoder_merge_policy", "decoder_dropout", "decoder_interpolation", *_ENDS,
            "upsampling",
        ),
        "pspnet": (
            *_ENCODER, "psp_out_channels", "decoder_use_norm", "psp_dropout", *_ENDS, "upsampling",
        ),
        "deeplabv3": _DEEPLAB,
        "deeplabv3plus": _DEEPLAB,
        "pan": (
            *_ENCODER, "encoder_output_stride", "decoder_channels", "decoder_interpolation",
            *_ENDS, "upsampling",
        ),
        "upernet": (*_ENCODER, "decoder_channels", "decoder_use_norm", *_ENDS, "upsampling"),
        "segformer": (*_ENCODER, "decoder_segmentation_channels", *_ENDS, "upsampling"),
        "dpt": (
            *_ENCODER, "encoder_output_indices", "decoder_readout",
            "decoder_intermediate_channels", "decoder_fusion_channels", *_ENDS,
        ),
    }
)  # fmt: skip
"""Architecture -> the options of its constructor."""

ENCODER_OPTIONS = "encoder_options"
"""Our option of every smp architecture: a table handed on to the constructor of a timm encoder."""


def architecture_names() -> tuple[str, ...]:
    """All architectures: vanilla, smp's twelve, then plugins by name."""
    return (*ARCHITECTURES, *(n for n in plugin_names(MODELS) if n not in ARCHITECTURES))


def find_architecture(name: str) -> str:
    """The registered spelling of `name`.  Raises UsageError with a did-you-mean."""
    for spelling in (name, name.lower()):
        if spelling in ARCHITECTURES:  # without a look at what else is installed
            return spelling
    known = architecture_names()
    if name in known:
        return name
    raise UsageError(
        f"There is no architecture {name!r}; there are {', '.join(known)}.",
        did_you_mean(name.lower(), known),
    )


def options_of(arch: str) -> tuple[str, ...]:
    """The options `create_model(arch, ...)` takes.

    Raises UsageError for an unknown architecture or a plugin that does not import.
    """
    arch = find_architecture(arch)
    if arch == "vanilla":
        return ARCHITECTURES[arch]
    if arch in ARCHITECTURES:
        return (*ARCHITECTURES[arch], ENCODER_OPTIONS)
    parameters = inspect.signature(load_entry(MODELS, arch)).parameters.values()
    return tuple(p.name for p in parameters if p.kind is not p.VAR_KEYWORD)


def check_options(arch: str, options: Sequence[str]) -> None:
    """Raises UsageError that lists what `arch` takes when one of `options` is not among it."""
    known = options_of(arch)
    unknown = [name for name in options if name not in known]
    if unknown:
        raise UsageError(
            f"{arch} has no option {', '.join(repr(name) for name in unknown)}; "
            f"it takes {', '.join(known)}.",
            did_you_mean(unknown[0], known),
        )


def plugin_names(group: str) -> tuple[str, ...]:
    """Names in an entry-point group, the built-in ones first, the others sorted."""
    built_in = BUILT_IN[group]
    return (*built_in, *sorted(set(_entry_points(group)) - set(built_in)))


def load_entry(group: str, name: str) -> Any:
    """The object that a plugin registered as `name`.

    Raises UsageError for an unknown name, and for a plugin that fails to import, with its reason.
    """
    target = BUILT_IN[group].get(name)
    if target is not None:
        module, _, attribute = target.partition(":")
        return getattr(importlib.import_module(module), attribute)
    entry = _entry_points(group).get(name)
    if entry is None:
        known = plugin_names(group)
        raise UsageError(
            f"Nothing called {name!r} is registered; there are {', '.join(known)}.",
            did_you_mean(name, known),
        )
    try:
        return entry.load()
    except Exception as error:
        raise UsageError(
            f"The plugin {name!r} ({entry.value}) does not load: {type(error).__name__}: {error}.",
            "Reinstall or uninstall the package that brings it.",
        ) from error


def check_loggers(names: Iterable[str]) -> None:
    """Raises UsageError for a logger that is unknown, broken or not installed, with what to do.

    The built-in ones are not imported for it: each needs the distribution of its own name, which
    the extra of that name installs.
    """
    for name in names:
        if name not in BUILT_IN[LOGGERS]:
            load_entry(LOGGERS, name)
        elif not _is_installed(name):
            raise UsageError(
                f"The logger {name} is not installed.", f"pip install 'smp-camvid[{name}]'"
            )


def _is_installed(distribution: str) -> bool:
    """By its metadata: a folder ./wandb would pass for the module."""
    try:
        importlib.metadata.distribution(distribution)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def broken_plugins(group: str) -> dict[str, str]:
    """Plugins that do not load or want a built-in name, each with the reason."""
    broken = {}
    # all of them, since two packages may want one name
    for entry in importlib.metadata.entry_points(group=group):
        name = entry.name
        target = BUILT_IN[group].get(name)
        taken = target or (group == MODELS and name in ARCHITECTURES)
        if taken and entry.value != target:
            broken[name] = f"{entry.value} wants a name that is taken"
        elif not taken:
            try:
                load_entry(group, name)
            except UsageError as error:
                broken[name] = error.message
    return broken


def _entry_points(group: str) -> dict[str, importlib.metadata.EntryPoint]:
    return {entry.name: entry for entry in importlib.metadata.entry_points(group=group)}


class _AfterImport(importlib.abc.MetaPathFinder):
    """Calls back once, right after a module was imported by somebody."""

    def __init__(self, name: str, callback: Callable[[ModuleType], None]) -> None:
        self.name, self.callback = name, callback

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != self.name:
            return None
        sys.meta_path.remove(self)  # the search below must not come back here
        spec = importlib.util.find_spec(fullname)
        sys.meta_path.insert(0, self)  # who only asked for the spec has not imported it yet
        if spec is None or spec.loader is None:
            return spec
        run = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            run(module)
            if self in sys.meta_path:
                sys.meta_path.remove(self)
            self.callback(module)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def _add_vanilla_to_smp(smp: ModuleType) -> None:
    def vanilla(encoder_name: str = "", encoder_weights: object = None, **options: Any) -> Any:
        """Drops the encoder that smp hands to every architecture; this one has its own."""
        return load_entry(MODELS, "vanilla")(**options)

    smp.MODEL_ARCHITECTURES_MAPPING.setdefault("vanilla", vanilla)


def register_with_smp() -> None:
    """Makes `smp.create_model("vanilla", ...)` work, now or as soon as somebody imports smp.

    smp's own dictionary gets one entry and smp is not imported for it, so that
    `import smp_camvid` stays light.
    """
    name = "segmentation_models_pytorch"
    if name in sys.modules:
        _add_vanilla_to_smp(sys.modules[name])
    elif not any(isinstance(finder, _AfterImport) for finder in sys.meta_path):
        sys.meta_path.insert(0, _AfterImport(name, _add_vanilla_to_smp))
