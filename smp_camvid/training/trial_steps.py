"""Training steps that are taken on trial, and whose every effect is taken back."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from contextlib import AbstractContextManager
from itertools import count, islice

import torch

from smp_camvid.data.loaders import Batch
from smp_camvid.training.batches import batches_of, check_batch, move_batch
from smp_camvid.training.learner import Learner
from smp_camvid.training.trainer import Trainer


@contextlib.contextmanager
def left_as_found(learner: Learner) -> Iterator[None]:
    """Weights, statistics, optimizer, averages and random generators are put back at the end."""
    before = copy.deepcopy(learner.state_dict())
    with generators_spared(learner.arithmetic.device):
        try:
            yield
        finally:
            learner.load_state_dict(before)
            learner.optimizer.zero_grad(set_to_none=True)


def generators_spared(device: torch.device) -> AbstractContextManager[None]:
    """Random generators of torch are after the block what they were before."""
    return torch.random.fork_rng(devices=[device] if device.type == "cuda" else [])


def endless_groups(trainer: Trainer) -> Iterator[list[Batch]]:
    """The batches of each optimizer step on the trainer's device, epoch after epoch."""
    for epoch in count(1):
        batches = batches_of(trainer.train_loader, epoch, 0)
        while group := list(islice(batches, trainer.config.accumulate)):
            checked = [check_batch(batch, len(trainer.table), epoch == 1) for batch in group]
            yield [move_batch(batch, trainer.device) for batch in checked]
