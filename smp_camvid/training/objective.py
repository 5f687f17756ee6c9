"""The loss of a recipe, with the class weights counted on the labels it will see."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from smp_camvid.data.border import BorderWeight
from smp_camvid.errors import UsageError
from smp_camvid.recipe import LossConfig
from smp_camvid.training.class_weights import class_weights, count_frequencies
from smp_camvid.training.loss_terms import (
    CrossEntropyTerm,
    DiceTerm,
    FocalTerm,
    LovaszTerm,
    OhemTerm,
    Term,
)
from smp_camvid.training.losses import Loss

TERMS: dict[str, Callable[[LossConfig, Tensor | None], Term]] = {
    "cross_entropy": lambda config, weights: CrossEntropyTerm(weights, config.label_smoothing),
    "focal": lambda config, weights: FocalTerm(weights, config.focal_gamma),
    "dice": lambda config, weights: DiceTerm(),
    "lovasz": lambda config, weights: LovaszTerm(),
    "ohem": lambda config, weights: OhemTerm(config.ohem_share),
}
"""The weights in LossConfig by the name of their field -> the term, given class weights `[C]`."""


def build_loss(config: LossConfig, train_loader: Iterable[Any], classes: int) -> Loss:
    """The terms `config` gives a weight.  Raises UsageError when frequencies cannot be known."""
    counted = _class_weights_of_loader(config, train_loader, classes)
    weights = {name: getattr(config, name) for name in TERMS if getattr(config, name)}
    return Loss({name: TERMS[name](config, counted) for name in weights}, weights)


def _class_weights_of_loader(
    config: LossConfig, train_loader: Iterable[Any], classes: int
) -> Tensor | None:
    if config.class_weights == "none" or config.border_w0:
        # With border weights the class weights are part of the map (paper, equation 2).
        return None
    cache = getattr(getattr(train_loader, "dataset", None), "cache", None)
    if cache is None:
        raise UsageError(
            f"Class weights {config.class_weights!r} are counted on the labels of our loaders.",
            "Use smp_camvid.loaders, or pass loss=CrossEntropy(weights).",
        )
    return counted_weights(config, cache.labels, classes)


def build_border_weight(
    config: LossConfig, labels: Iterable[Any], classes: int
) -> BorderWeight | None:
    """The paper's w_c + w0 exp(...) when the recipe asks for it; w_c are its class weights."""
    if not config.border_w0:
        return None
    weights = counted_weights(config, labels, classes)
    listed = None if weights is None else tuple(float(w) for w in weights)
    return BorderWeight(config.border_w0, config.border_sigma, listed)


def counted_weights(config: LossConfig, labels: Iterable[Any], classes: int) -> Tensor | None:
    """Class weights `[C]` from label maps `[H, W]`; None for "none"."""
    if config.class_weights == "none":
        return None
    frequencies = count_frequencies(labels, classes)
    weights = class_weights(config.class_weights, frequencies, config.log_offset)
    return None if weights is None else torch.from_numpy(weights)
