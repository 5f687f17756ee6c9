"""Models that segmentation-models-pytorch assembles from an encoder and a decoder.

What is added to smp: names and options are checked before anything is built, a combination
that cannot work is refused with the reason, and pretrained encoder weights may also come from
a file or a pip package (`pretrained.py`).  Without pretrained weights nothing here touches the
network.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import segmentation_models_pytorch as smp
import torch
from torch import nn

from smp_camvid.errors import UsageError
from smp_camvid.models.network import size_policy_of
from smp_camvid.models.pretrained import (
    check_encoder,
    default_encoder,
    hub_access,
    hub_name,
    is_file,
    load_encoder,
    no_weights,
    package_of,
    package_tensors,
    read_tensors,
    silence,
    timm_name,
)
from smp_camvid.registry import ENCODER_OPTIONS, check_options

# timm encoders made for one picture size, and the option of theirs that lifts it
_ANY_SIZE: tuple[dict[str, Any], ...] = (
    {},
    {"dynamic_img_size": True},
    {"strict_img_size": False},
)


def build_smp(
    arch: str,
    *,
    encoder_name: str | None = None,
    encoder_weights: str | Path | None = None,
    in_channels: int = 3,
    classes: int = 11,
    encoder_options: Mapping[str, Any] | None = None,
    **options: Any,
) -> Any:
    """One of smp's architectures, `[B, in_channels, H, W]` -> logits `[B, classes, H, W]`.

    `encoder_weights` is None or "none", "imagenet" or another name that smp or timm knows, or a
    file; `encoder_options` go to the constructor of a timm encoder; `options` are those of smp's
    class.  `model.smp_camvid_encoder_options` tells what the encoder was built with.

    Raises UsageError for unknown names and for a combination that does not work, with the
    reason; WeightsError for weights that cannot be had.
    """
    check_options(arch, list(options))
    smp_class = smp.MODEL_ARCHITECTURES_MAPPING.get(arch)
    if smp_class is None:
        raise UsageError(
            f"smp {smp.__version__} has no architecture {arch!r}.",
            "pip install --upgrade segmentation-models-pytorch",
        )
    name = encoder_name or default_encoder(arch)
    check_encoder(name)
    weights = None if no_weights(encoder_weights) else str(encoder_weights)
    from_hub = weights is not None and not is_file(weights) and not package_of(name, weights)
    tagged = hub_name(name, weights) if weights is not None and from_hub else name
    common = {"in_channels": in_channels, "classes": classes, **options}
    model, extra = _build_any_size(smp_class, arch, name, common, dict(encoder_options or {}))
    if weights is not None and from_hub:
        # built once without weights above, so that what fails here is the hub's doing
        with hub_access(tagged):
            given = True if timm_name(name) else weights
            model = smp_class(encoder_name=tagged, encoder_weights=given, **common, **extra)
    elif weights is not None:
        _load_local(model, name, weights)
    # smp writes this into config.json, and would download when the folder is opened again
    model.config.update(encoder_name=name, encoder_weights=None)
    model.smp_camvid_encoder_options = extra
    return model


def _load_local(model: nn.Module, name: str, weights: str) -> None:
    package = package_of(name, weights)
    if package is not None:
        load_encoder(model.get_submodule("encoder"), package_tensors(package, name), package)
    else:
        load_encoder(model.get_submodule("encoder"), read_tensors(Path(weights)), weights)


def _build_any_size(
    smp_class: Any, arch: str, name: str, common: dict[str, Any], extra: dict[str, Any]
) -> tuple[Any, dict[str, Any]]:
    """The model and the encoder options with which it takes pictures of any size."""
    reason: Exception | None = None
    for way in _ANY_SIZE if timm_name(name) else _ANY_SIZE[:1]:
        chosen = {**extra, **{key: value for key, value in way.items() if key not in extra}}
        try:
            with silence():
                model = smp_class(encoder_name=name, encoder_weights=None, **common, **chosen)
                _try_forward(model, common["in_channels"])
        except Exception as error:  # smp, timm and torch raise all kinds of them for a bad choice
            reason = reason or error
        else:
            return model, chosen
    assert reason is not None
    detail = " ".join(str(reason).split()).rstrip(".")
    raise UsageError(
        f"{arch} cannot be built with the encoder {name} and these options: "
        f"{detail or type(reason).__name__}.",
        f"Options of the encoder itself go into {ENCODER_OPTIONS}.",
    ) from reason


def _try_forward(model: nn.Module, in_channels: int) -> None:
    """Runs the smallest pictures the model should take; some combinations only fail here."""
    policy = size_policy_of(model)
    height, width = policy["minimum"], policy["minimum"] + policy["multiple"]
    model.eval()
    with torch.no_grad():
        model(torch.zeros(1, in_channels, height, width))
    model.train()
