"""What the scripts compare with: a training loop as one writes it in a first notebook.

Adam on cross-entropy plus .001 times the sum of all squared weights; after each step loss,
prediction and target go to numpy, and a loop over the classes makes mIoU of them.
"""

from __future__ import annotations

import contextlib

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

PENALTY = 1e-3


class PlainLoop:
    """`amp` switches on autocast in that precision, `channels_last` the layout, both by hand."""

    def __init__(
        self,
        model: nn.Module,
        classes: int,
        device: torch.device,
        amp: torch.dtype | None = None,
        channels_last: bool = False,
        penalty: float = PENALTY,
    ) -> None:
        self.layout = torch.channels_last if channels_last else torch.contiguous_format
        self.model = model.to(device).to(memory_format=self.layout).train()
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=2e-4)
        self.classes, self.device, self.amp, self.penalty = classes, device, amp, penalty
        self.scaler = torch.amp.GradScaler(device.type, enabled=amp is torch.float16)

    def step(self, image: Tensor, target: Tensor) -> tuple[float, float]:
        """float32 normalised `[B, 3, H, W]`, int64 `[B, H, W]` void 255 -> loss and mIoU."""
        x = image.to(self.device, memory_format=self.layout)
        y = target.to(self.device)
        self.optimizer.zero_grad()
        cast = torch.autocast(self.device.type, self.amp) if self.amp else contextlib.nullcontext()
        with cast:
            logits = self.model(x)
            loss = F.cross_entropy(logits, y, ignore_index=255)
            loss = loss + self.penalty * sum((p**2).sum() for p in self.model.parameters())
        self.scaler.scale(loss).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        prediction = torch.argmax(logits, dim=1).detach().cpu().numpy()
        return float(loss.detach().cpu().numpy()), mean_iou(
            prediction, y.detach().cpu().numpy(), self.classes
        )


def mean_iou(
    prediction: npt.NDArray[np.int64], target: npt.NDArray[np.int64], classes: int
) -> float:
    """Of one batch, class by class."""
    found = []
    for index in range(classes):
        there, said = target == index, (prediction == index) & (target != 255)
        union = np.logical_or(there, said).sum()
        if union:
            found.append(np.logical_and(there, said).sum() / union)
    return float(np.mean(found))
