"""Parts of a network that stay as they are while the rest learns."""

from __future__ import annotations

from torch import nn

from smp_camvid.errors import UsageError
from smp_camvid.models.network import Network
from smp_camvid.recipe import TrainConfig

_THAWS = "_smp_camvid_thaws"  # on a parameter: frozen here, so it is thawed here


def encoder_of(module: nn.Module) -> nn.Module | None:
    """The encoder of the Network in `module`, however that is wrapped; None where it has none."""
    network = next((part for part in module.modules() if isinstance(part, Network)), None)
    encoder = getattr(getattr(network, "model", None), "encoder", None)
    return encoder if isinstance(encoder, nn.Module) else None


def encoder_frozen(config: TrainConfig, epoch: int) -> bool:
    """Whether the encoder rests in `epoch`, which counts from 1."""
    return config.freeze_encoder < 0 or epoch <= config.freeze_encoder


def apply_freezing(module: nn.Module, encoder_frozen: bool, norm_frozen: bool) -> bool:
    """Freezes and thaws; call it after every `module.train()`, which sets all layers learning.

    A frozen encoder gets no gradients and its normalisations keep their running statistics (and
    normalise by them); `norm_frozen` is the latter for every normalisation, whose weights still
    learn.  What somebody else froze, by `requires_grad = False`, stays frozen.

    Returns whether it changed which parameters get gradients: DistributedDataParallel looks at
    that when it is built, so it must then be built anew.  Raises UsageError where there is no
    encoder to freeze.
    """
    encoder = encoder_of(module)
    if encoder is None:
        if encoder_frozen:
            raise UsageError(
                "This model has no part named encoder that could be frozen.",
                "Leave train.freeze_encoder at 0.",
            )
        changed = False
    else:
        changed = _freeze(encoder) if encoder_frozen else _thaw(encoder)
        if encoder_frozen:
            _keep_statistics(encoder)
    if norm_frozen:
        _keep_statistics(module)
    return changed


def _freeze(part: nn.Module) -> bool:
    learning = [parameter for parameter in part.parameters() if parameter.requires_grad]
    for parameter in learning:
        parameter.requires_grad_(False)
        setattr(parameter, _THAWS, True)
    return bool(learning)


def _thaw(part: nn.Module) -> bool:
    resting = [parameter for parameter in part.parameters() if hasattr(parameter, _THAWS)]
    for parameter in resting:
        parameter.requires_grad_(True)
        delattr(parameter, _THAWS)
    return bool(resting)


def _keep_statistics(part: nn.Module) -> None:
    # Only these layers: dropout and stochastic depth still regularise what comes after them.
    for layer in part.modules():
        if getattr(layer, "running_mean", None) is not None:
            layer.eval()
