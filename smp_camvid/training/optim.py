"""Optimizers from a recipe: which parameters decay, and how fast each part learns."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from smp_camvid.errors import UsageError
from smp_camvid.recipe import TrainConfig
from smp_camvid.training.freezing import encoder_of

REST = " norms and biases"
"""Ends the name of a group that does not decay."""


def parameter_groups(module: nn.Module, config: TrainConfig) -> list[dict[str, Any]]:
    """Decoder and encoder, of each the weights that decay and the norms and biases that do not.

    A group has `params`, `weight_decay`, `name` ("decoder", "decoder norms and biases", ...) and
    `lr_factor`, which the Trainer multiplies the learning rate with.  All that is not in the
    encoder, heads of deep supervision too, counts as decoder.  Whether a parameter is frozen at
    the moment plays no part, so that groups and their order depend on nothing but the module and
    checkpoints fit.  Empty groups are left out; the first group has lr_factor 1.

    Raises UsageError when the recipe speaks of an encoder that the model does not have.
    """
    encoder = encoder_of(module)
    if encoder is None and config.encoder_lr != 1:
        raise UsageError(
            "This model has no part named encoder that could learn at another rate.",
            "Leave train.encoder_lr at 1.",
        )
    inside = set() if encoder is None else {id(parameter) for parameter in encoder.parameters()}
    everything = list(module.parameters())
    parts = [
        ("decoder", 1.0, [p for p in everything if id(p) not in inside]),
        ("encoder", config.encoder_lr, [p for p in everything if id(p) in inside]),
    ]
    groups: list[dict[str, Any]] = []
    for name, factor, parameters in parts:
        # Biases, and the scale and shift of a normalisation, have one dimension.
        weights = [p for p in parameters if p.ndim > 1]
        rest = [p for p in parameters if p.ndim <= 1]
        common = {"lr_factor": factor, "lr": config.lr * factor}
        groups += [
            {"params": weights, "weight_decay": config.weight_decay, "name": name, **common},
            {"params": rest, "weight_decay": 0.0, "name": name + REST, **common},
        ]
    return [group for group in groups if group["params"]]


def build_optimizer(module: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """Adam (Kingma & Ba 2015), AdamW (Loshchilov & Hutter 2019) or SGD with momentum.

    `module` is what is trained: a Network, or DeepSupervision around it.
    """
    groups = parameter_groups(module, config)
    # One kernel for all parameters instead of several a tensor; the same numbers.
    fused = next(module.parameters()).device.type in ("cpu", "cuda")
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum, fused=fused)
    kind = torch.optim.Adam if config.optimizer == "adam" else torch.optim.AdamW
    return kind(groups, lr=config.lr, betas=(config.momentum, 0.999), fused=fused)


def describe_optimizer(optimizer: torch.optim.Optimizer, config: TrainConfig) -> str:
    """One line for `--verbose 2`."""
    sizes = {g["name"]: sum(p.numel() for p in g["params"]) for g in optimizer.param_groups}
    plain = sum(size for name, size in sizes.items() if name.endswith(REST))
    encoder = sum(size for name, size in sizes.items() if name.startswith("encoder"))
    everything = sum(sizes.values())
    line = (
        f"{type(optimizer).__name__}, peak learning rate {config.lr:g}, {config.schedule} schedule"
        f" (warm-up {config.warmup_epochs:g} epochs), momentum {config.momentum:g}, weight decay "
        f"{config.weight_decay:g} on {everything - plain:,} parameters, none on {plain:,} "
        "(norms, biases)"
    )
    if encoder:
        line += (
            f"; encoder {encoder:,} parameters at {config.encoder_lr:g} times the rate"
            f"{_rest(config)}, decoder {everything - encoder:,} at 1 times"
        )
    return line


def _rest(config: TrainConfig) -> str:
    epochs = config.freeze_encoder
    if not epochs:
        return ""
    return ", frozen" if epochs < 0 else f" (frozen in the first {epochs} epochs)"
