"""What is minimised: a weighted sum of terms, in which void pixels do not exist."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from smp_camvid.data.classes import VOID
from smp_camvid.training.loss_terms import CrossEntropyTerm, Term


class Loss(nn.Module):
    """Sum over terms of weight * sum / count; sums and counts are handed out apart.

    Batches of one optimizer step, or of several processes, add up their sums and their counts
    before `total`, so that unequal numbers of void pixels are averaged rightly: 2 x 4 frames are
    8 frames.  `terms` and `weights` have the same names.
    """

    weights: Tensor  # [T]

    def __init__(self, terms: Mapping[str, Term], weights: Mapping[str, float]) -> None:
        super().__init__()
        self.terms = nn.ModuleDict(dict(terms))
        self.register_buffer("weights", torch.tensor([float(weights[name]) for name in terms]))

    def forward(
        self, logits: Tensor, target: Tensor, weight: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Logits `[B, C, H, W]`, target int64 `[B, H, W]`, pixel weight `[B, H, W]` or None.

        Returns the terms' sums and counts, `[T]` each.  The sums are float32 for logits of any
        lower precision and differentiable.  What is under void, logits or weight, changes
        neither value nor gradient, be it NaN.
        """
        log_probs = log_softmax_outside_void(logits, target)
        sums = [term(log_probs, target, weight) for term in self.terms.values()]
        return torch.stack(sums), self.count(target, weight)

    def count(self, target: Tensor, weight: Tensor | None = None) -> Tensor:
        """What the sums are divided by, `[T]`; it needs no logits, so it is known beforehand."""
        return torch.stack([term.count(target, weight) for term in self._terms()])

    def total(self, sums: Tensor, counts: Tensor) -> Tensor:
        """The value: a scalar; 0 where nothing at all was counted."""
        return (self.weights * sums / counts.clamp(min=1e-12)).sum()

    def _terms(self) -> list[Term]:
        return [term for term in self.terms.values() if isinstance(term, Term)]


class CrossEntropy(Loss):
    """Pixel-wise cross-entropy alone: `F.cross_entropy(..., ignore_index=255)` of torch.

    `class_weights` is `[C]` or None.
    """

    def __init__(self, class_weights: Tensor | None = None, label_smoothing: float = 0.0) -> None:
        term = CrossEntropyTerm(class_weights, label_smoothing)
        super().__init__({"cross_entropy": term}, {"cross_entropy": 1.0})


def log_softmax_outside_void(logits: Tensor, target: Tensor) -> Tensor:
    """`log_softmax` over dimension 1 in float32 at least, and that of equal logits under void: no
    term can see what was there, and no gradient goes back there, be it NaN or infinite."""
    void = (target == VOID).unsqueeze(1)
    log_probs: Tensor = _LogSoftmaxOutsideVoid.apply(logits, void)
    return log_probs


class _LogSoftmaxOutsideVoid(torch.autograd.Function):
    """One pass makes the copy, the precision and the layout; autograd of the parts makes three."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, void: Tensor) -> Tensor:
        dtype = torch.promote_types(logits.dtype, torch.float32)
        lifted = logits.to(dtype, memory_format=torch.contiguous_format, copy=True)
        # Filled rather than multiplied: 0 times an infinite logit or gradient would be NaN.
        log_probs = lifted.masked_fill_(void, 0).log_softmax(1)
        ctx.save_for_backward(log_probs, void)
        ctx.dtype = logits.dtype
        return log_probs

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        log_probs, void = ctx.saved_tensors
        by_logits = torch.ops.aten._log_softmax_backward_data(
            gradients[0], log_probs, 1, log_probs.dtype
        )
        return by_logits.masked_fill_(void, 0).to(ctx.dtype), None
