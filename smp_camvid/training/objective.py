"""The loss of a recipe, with the class weights counted on the labels it will see."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor

from smp_camvid.data.border import BorderWeight
from smp_camvid.errors import UsageError
from smp_camvid.recipe import LossConfig
from smp_camvid.training.losses import CrossEntropy, class_weights, count_frequencies


def build_loss(config: LossConfig, train_loader: Iterable[Any], classes: int) -> CrossEntropy:
    """Cross-entropy as `config` says.  Raises UsageError when the frequencies cannot be known."""
    if config.class_weights == "none" or config.border_w0:
        # With border weights the class weights are part of the map (paper, equation 2).
        return CrossEntropy(None, config.label_smoothing)
    cache = getattr(getattr(train_loader, "dataset", None), "cache", None)
    if cache is None:
        raise UsageError(
            f"Class weights {config.class_weights!r} are counted on the labels of our loaders.",
            "Use smp_camvid.loaders, or pass loss=CrossEntropy(weights).",
        )
    return CrossEntropy(counted_weights(config, cache.labels, classes), config.label_smoothing)


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
    return class_weights(config.class_weights, frequencies, config.log_offset)
