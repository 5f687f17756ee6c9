"""Optimizers from a recipe."""

from __future__ import annotations

import torch
from torch import nn

from smp_camvid.recipe import TrainConfig


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Two groups: weights that decay; norms and biases (one-dimensional) that do not."""
    trained = [p for p in model.parameters() if p.requires_grad]
    return [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]


def build_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """Adam (Kingma & Ba 2015), AdamW (Loshchilov & Hutter 2019) or SGD with momentum."""
    groups = parameter_groups(model, config.weight_decay)
    # One kernel for all parameters instead of several a tensor; the same numbers.
    fused = next(model.parameters()).device.type in ("cpu", "cuda")
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum, fused=fused)
    kind = torch.optim.Adam if config.optimizer == "adam" else torch.optim.AdamW
    return kind(groups, lr=config.lr, betas=(config.momentum, 0.999), fused=fused)


def describe_optimizer(optimizer: torch.optim.Optimizer, config: TrainConfig) -> str:
    """One line for `--verbose 2`."""
    decayed, plain = (sum(p.numel() for p in g["params"]) for g in optimizer.param_groups)
    return (
        f"{type(optimizer).__name__}, peak learning rate {config.lr:g}, {config.schedule} schedule"
        f" (warm-up {config.warmup_epochs:g} epochs), momentum {config.momentum:g}, weight decay "
        f"{config.weight_decay:g} on {decayed:,} parameters, none on {plain:,} (norms, biases)"
    )
