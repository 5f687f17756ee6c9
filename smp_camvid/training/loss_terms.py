"""The terms a loss is summed from.

All read the logarithms of the softmax, computed once for all of them by `Loss`, which has made
them constant under void; void labels are 255.  Pixel terms sum over pixels and count their
weights; frame terms sum over frames and count those with a pixel that is not void.

Why not those of segmentation-models-pytorch (0.6): FocalLoss sums a binary loss per class, not
the softmax form; DiceLoss pools the frames of a batch, counts absent classes as perfect and lets
an infinite logit under void through; LovaszLoss fails on a frame of void alone and takes twice
as long.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from smp_camvid.data.classes import VOID


class Term(nn.Module):
    """One summand of a loss."""

    def forward(self, log_probs: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
        """Log-probabilities `[B, C, H, W]`, target and pixel weight `[B, H, W]` -> a scalar."""
        raise NotImplementedError

    def count(self, target: Tensor, weight: Tensor | None = None) -> Tensor:
        """What the sum is divided by, a float32 scalar."""
        raise NotImplementedError


# --- over pixels -----------------------------------------------------------------------------


class PixelTerm(Term):
    """Counts pixel weight times class weight; `class_weights` is `[C]` or None."""

    class_weights: Tensor | None

    def __init__(self, class_weights: Tensor | None = None) -> None:
        super().__init__()
        self.register_buffer("class_weights", class_weights)

    def count(self, target: Tensor, weight: Tensor | None = None) -> Tensor:
        return self._weights(target, weight).sum()

    def _weights(self, target: Tensor, weight: Tensor | None) -> Tensor:
        """Both kinds of weight multiplied, `[B, H, W]`; 0 under void, whatever `weight` is."""
        weights = pixel_weights(target, weight)
        if self.class_weights is None:
            return weights
        return weights * self.class_weights[target.where(target != VOID, 0)]


class CrossEntropyTerm(PixelTerm):
    """Cross-entropy as torch defines it, label smoothing and class weights included."""

    def __init__(self, class_weights: Tensor | None = None, label_smoothing: float = 0.0) -> None:
        super().__init__(class_weights)
        self.label_smoothing = label_smoothing

    def forward(self, log_probs: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
        losses = negative_log_likelihood(log_probs, target, self.class_weights)
        if self.label_smoothing:
            losses = torch.lerp(losses, self._against_all(log_probs), self.label_smoothing)
        return (losses * pixel_weights(target, weight)).sum()

    def _against_all(self, log_probs: Tensor) -> Tensor:
        """The loss where every class is the target to equal parts, weighted as that class is."""
        if self.class_weights is not None:
            log_probs = log_probs * self.class_weights.to(log_probs.dtype)[:, None, None]
        return -log_probs.mean(1)


class FocalTerm(PixelTerm):
    """(1 - p)^gamma times cross-entropy, p the target's probability (Lin et al. 2017, eq. 5).

    Class weights are the paper's alpha.  gamma = 0 is cross-entropy.
    """

    def __init__(self, class_weights: Tensor | None = None, gamma: float = 2.0) -> None:
        super().__init__(class_weights)
        self.gamma = gamma

    def forward(self, log_probs: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
        losses = negative_log_likelihood(log_probs, target)
        # Clamped because a power below 1 has an infinite slope at 0.
        missed = -torch.expm1(-losses).clamp(max=-torch.finfo(losses.dtype).tiny)
        return (missed**self.gamma * losses * self._weights(target, weight)).sum()


# --- over frames -----------------------------------------------------------------------------


class FrameTerm(Term):
    """Counts the frames that have a pixel to judge; the others add nothing."""

    def count(self, target: Tensor, weight: Tensor | None = None) -> Tensor:
        return (target != VOID).flatten(1).any(1).float().sum()


class DiceTerm(FrameTerm):
    """1 - 2 |P and T| / (|P| + |T|), P probabilities: mean over the classes present in the frame.

    The soft Dice of Milletari et al. 2016 with plain sums in the denominator, unsmoothed.
    """

    def forward(self, log_probs: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
        probs = log_probs.exp()
        truth = one_hot(target, probs.shape[1])  # [B, C, H, W]
        shared = probs.where(truth, 0).sum((2, 3))  # [B, C]
        claimed = probs.where((target != VOID).unsqueeze(1), 0).sum((2, 3))
        there = truth.sum((2, 3))
        present = there > 0
        # The 1 keeps 0 / 0, and its gradient, out of what is left away.
        dice = 2 * shared / (claimed + there).where(present, 1)
        return ((1 - dice).where(present, 0).sum(1) / present.sum(1).clamp(min=1)).sum()


class LovaszTerm(FrameTerm):
    """Lovasz-softmax (Berman et al. 2018): mean over the classes present in the frame."""

    def forward(self, log_probs: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
        probs = log_probs.exp()
        truth = one_hot(target, probs.shape[1])
        errors = torch.where(truth, 1 - probs, probs)  # [B, C, H, W]
        slopes = self._slopes if errors.device.type == "cpu" else self._slopes_at_once
        return (errors * slopes(errors.detach(), truth, target != VOID)).sum()

    @staticmethod
    def _slopes_at_once(errors: Tensor, truth: Tensor, counted: Tensor) -> Tensor:
        """`_slopes` without a look at the data: a GPU would have to be waited for at each."""
        slopes = torch.empty_like(errors, memory_format=torch.contiguous_format)
        present = truth.flatten(2).any(2)
        share = present / present.sum(1, keepdim=True).clamp(min=1)
        for frame in range(len(errors)):  # all at once would take the memory of all
            # void comes behind everything, where slopes are 0
            error = errors[frame].where(counted[frame], -1).flatten(1)
            slope = lovasz_slopes(error, truth[frame].flatten(1))
            weighed = (slope * share[frame, :, None]).where(present[frame, :, None], 0)
            slopes[frame] = weighed.view_as(errors[frame])
        return slopes

    @staticmethod
    def _slopes(errors: Tensor, truth: Tensor, counted: Tensor) -> Tensor:
        """The gradient by the errors; linear between changes of their order, the loss is its
        product with them."""
        slopes = torch.zeros_like(errors, memory_format=torch.contiguous_format)
        present = truth.flatten(2).any(2)
        share = 1 / present.sum(1).clamp(min=1)
        for frame, index in present.nonzero().tolist():
            found = truth[frame, index].flatten()
            error = errors[frame, index].flatten()
            # Below the class's smallest error the slope is 0, so only the rest is sorted: on
            # real frames a quarter of the pixels.  Not ">=": NaN has to come through.
            reach = ~(error < error[found].min()) & counted[frame].flatten()
            kept = reach.nonzero().squeeze(1)
            slope = lovasz_slopes(error[kept], found[kept])
            slopes[frame, index].view(-1)[kept] = slope * share[frame]
        return slopes


def lovasz_slopes(errors: Tensor, truth: Tensor) -> Tensor:
    """Gradient of the Lovasz extension of 1 - Jaccard (Berman et al. 2018, algorithm 1).

    `errors` and `truth` (bool) are `[..., N]`; each row has at least one that is true, else its
    slopes mean nothing.  The differences of the paper's cumulative Jaccard losses are written out,
    since subtracting neighbours would leave two digits of float32: a pixel of the class costs
    1/union, another intersection/(union (union - 1)).
    """
    # stable: ties fall the same way always
    order = errors.argsort(dim=-1, descending=True, stable=True)
    sorted_truth = truth.gather(-1, order)
    found = sorted_truth.cumsum(-1)  # of integers: of floats it is not deterministic on CUDA
    total = found[..., -1:]
    intersection = (total - found).to(errors.dtype)
    rank = torch.arange(1, found.shape[-1] + 1, device=found.device)
    union = (total + rank - found).to(errors.dtype)
    slopes = torch.where(sorted_truth, 1 / union, intersection / (union * (union - 1)))
    return torch.empty_like(errors).scatter_(-1, order, slopes)


class OhemTerm(FrameTerm):
    """Mean cross-entropy of a frame's hardest pixels (Shrivastava et al. 2016).

    `share` of the counted pixels is kept, rounded, at least one.
    """

    def __init__(self, share: float = 0.25) -> None:
        super().__init__()
        self.share = share

    def forward(self, log_probs: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
        losses = negative_log_likelihood(log_probs, target).flatten(1)  # [B, H * W]
        counted = (target != VOID).flatten(1).sum(1)
        kept = (counted * self.share).round().clamp(min=1)
        hardest = self._hardest(losses.detach(), kept)  # void is 0: nothing is easier
        return (losses.where(hardest, 0).sum(1) / kept).sum()

    @staticmethod
    def _hardest(losses: Tensor, kept: Tensor) -> Tensor:
        """The first `kept` `[B]` of each row in falling order, bool `[B, N]`."""
        order = losses.argsort(dim=1, descending=True, stable=True)
        first = torch.arange(losses.shape[1], device=losses.device) < kept.unsqueeze(1)
        return torch.zeros_like(first).scatter(1, order, first)


# --- what the terms share --------------------------------------------------------------------


def negative_log_likelihood(
    log_probs: Tensor, target: Tensor, class_weights: Tensor | None = None
) -> Tensor:
    """`[B, H, W]`; 0 under void."""
    if class_weights is not None:
        class_weights = class_weights.to(log_probs.dtype)  # torch wants them alike
    # Not reduced by torch: its summed form has no deterministic kernel on CUDA.
    return F.nll_loss(log_probs, target, weight=class_weights, ignore_index=VOID, reduction="none")


def pixel_weights(target: Tensor, weight: Tensor | None) -> Tensor:
    """The given weight, or 1; 0 under void even where the weight is NaN there."""
    counted = target != VOID
    return counted.float() if weight is None else weight.where(counted, 0)


def one_hot(target: Tensor, classes: int) -> Tensor:
    """`[B, H, W]` -> bool `[B, classes, H, W]`, false everywhere under void."""
    return target.unsqueeze(1) == torch.arange(classes, device=target.device)[:, None, None]
