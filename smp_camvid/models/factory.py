"""One door to all models: `create_model(arch, **options)`, and back from a saved folder."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from smp_camvid.errors import UsageError, WeightsError
from smp_camvid.models.assembled import build_smp
from smp_camvid.registry import (
    ARCHITECTURES,
    ENCODER_OPTIONS,
    MODELS,
    check_options,
    find_architecture,
    load_entry,
    register_with_smp,
)

_SMP = frozenset(ARCHITECTURES) - {"vanilla"}
_ARCH_KEY = "_smp_camvid_arch"  # smp's loader leaves out what begins with an underscore


def create_model(arch: str = "vanilla", **options: Any) -> Any:
    """Builds a model: `[B, in_channels, H, W]` -> logits `[B, classes, h, w]`.

    `arch` is "vanilla", one of smp's architectures or a plugin's; `registry.options_of(arch)`
    lists its options.  All have `in_channels=3` and `classes=11`; smp's have `encoder_name`
    and `encoder_weights=None`.  `model.smp_camvid_config` is what builds it again, without
    downloading anything.

    Raises UsageError for an unknown name, option or combination, WeightsError for encoder
    weights that cannot be had.
    """
    arch = find_architecture(arch)
    check_options(arch, list(options))
    _plain({name: value for name, value in options.items() if name != "encoder_weights"})
    model: Any
    build: Callable[..., Any]
    if arch in _SMP:
        model = build_smp(arch, **options)
        build = type(model).__init__
        options = {**options, "encoder_name": model.config["encoder_name"]}
        options[ENCODER_OPTIONS] = model.smp_camvid_encoder_options
    else:
        build = load_entry(MODELS, arch)
        model = _call_plugin(build, arch, options)
    options = {"in_channels": 3, "classes": 11, **options}
    model.smp_camvid_config = {"arch": arch, **_plain(_with_defaults(build, options))}
    # Not part of the config, which would fetch them again; it decides the normalisation.
    model.smp_camvid_encoder_weights = options.get("encoder_weights")
    if isinstance(getattr(model, "config", None), dict):
        model.config[_ARCH_KEY] = arch
    return model


def from_pretrained(folder: str | Path) -> Any:
    """The model of a folder that `save_pretrained` wrote, of ours or of smp's; in eval mode.

    Nothing is downloaded.  Raises WeightsError when the folder is not one.
    """
    folder = Path(folder)
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        tensors = load_file(folder / "model.safetensors")
    except (OSError, ValueError, SafetensorError) as error:
        raise WeightsError(
            f"{folder} is not a folder that save_pretrained wrote: {error}.",
            "It holds config.json and model.safetensors.",
        ) from error
    class_name = str(config.get("_model_class", ""))
    arch = config.get(_ARCH_KEY) or class_name.removesuffix("UNet").lower() or class_name.lower()
    options = {k: v for k, v in config.items() if not k.startswith("_")}
    if arch in _SMP:
        options = _sort_smp_options(arch, options)
    model = create_model(arch, **options)
    fill(model, tensors, folder)
    return model.eval()


def fill(model: nn.Module, tensors: Mapping[str, Any], source: object) -> None:
    """Loads all `tensors` into `model`.

    Raises WeightsError, and changes nothing, naming the first that is missing or differs.
    """
    state = model.state_dict()
    for name in sorted(state.keys() ^ tensors.keys()):
        where = "has no tensor" if name in state else "has one tensor more than the model,"
        raise WeightsError(f"{source} {where} {name}.", "It was made by another architecture.")
    for name, tensor in state.items():
        if tensor.shape != tensors[name].shape:
            raise WeightsError(
                f"{source}: {name} has shape {tuple(tensors[name].shape)}, "
                f"the model wants {tuple(tensor.shape)}."
            )
    nn.Module.load_state_dict(model, dict(tensors))


def _call_plugin(build: Callable[..., Any], arch: str, options: dict[str, Any]) -> Any:
    if arch == "vanilla":
        return build(**options)
    try:
        model = build(**options)
    except TypeError as error:
        raise UsageError(f"The plugin {arch!r} refuses these options: {error}.") from error
    if not isinstance(model, nn.Module):
        raise UsageError(f"The plugin {arch!r} gave a {type(model).__name__} and no torch module.")
    return model


def _with_defaults(build: Callable[..., Any], options: dict[str, Any]) -> dict[str, Any]:
    """`options` with what the constructor adds, so that a later default changes no old model."""
    parameters = inspect.signature(build).parameters.values()
    defaults = {p.name: p.default for p in parameters if p.default is not p.empty}
    complete = {**defaults, **options}
    if "encoder_weights" in complete:
        complete["encoder_weights"] = None
    return complete


def _plain(options: dict[str, Any]) -> dict[str, Any]:
    """`options` as JSON keeps them: tuples become lists."""
    try:
        return dict(json.loads(json.dumps(options)))
    except (TypeError, ValueError) as error:
        raise UsageError(
            "Options must be numbers, words, lists or tables, so that they can be kept with the "
            f"weights: {error}."
        ) from error


def _sort_smp_options(arch: str, saved: dict[str, Any]) -> dict[str, Any]:
    """What smp's class was called with -> our options: the rest are options of the encoder."""
    known = ARCHITECTURES[arch]
    extra = {k: v for k, v in saved.items() if k not in known and k != "kwargs"}
    options = {k: v for k, v in saved.items() if k in known}
    return {**options, "encoder_weights": None, ENCODER_OPTIONS: extra}


register_with_smp()
