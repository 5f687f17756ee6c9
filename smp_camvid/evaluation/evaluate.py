"""The one evaluation loop: the Trainer's validation and the `evaluate` command both run it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

import torch

from smp_camvid.data.cache import FrameCache
from smp_camvid.data.camvid import CamVid, Classes, open_dataset
from smp_camvid.data.hold_out import hold_out_again
from smp_camvid.data.loaders import Batch, eval_loader
from smp_camvid.errors import DataError, UsageError
from smp_camvid.evaluation.metrics import DEFINITION, ConfusionMatrix, Matrix, summarize
from smp_camvid.inference.out_of_memory import judging_told
from smp_camvid.inference.predictor import Segmenter, likeliest, predict_logits
from smp_camvid.models.network import Network

OnStep = Callable[[int, int], None]


class Loss(Protocol):
    """A weighted sum of T terms; sums and counts of several batches add up before `total`."""

    def __call__(
        self, logits: torch.Tensor, target: torch.Tensor, weight: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits `[B, C, H, W]`, target `[B, H, W]` -> sums `[T]` and counts `[T]`."""

    def count(self, target: torch.Tensor, weight: torch.Tensor | None = None) -> torch.Tensor:
        """The counts `[T]`, which need no logits."""

    def total(self, sums: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
        """The value: every term's mean times its weight, added up."""


@dataclass(frozen=True)
class Result:
    """What a pass over a split found."""

    matrix: Matrix
    loss: float
    frames: int


@torch.inference_mode()
def evaluate_batches(
    network: Network,
    batches: Iterable[Batch],
    steps: int = 0,
    *,
    loss: Loss | None = None,
    on_step: OnStep | None = None,
    add: Callable[[torch.Tensor], torch.Tensor] = lambda tensor: tensor,
) -> Result:
    """Runs `network` (left in eval mode) over the batches, on the device it is on, in float32.

    Logits are brought to the labels' size; the loss is that of all batches together.  `steps` is
    only told to `on_step`.  `add` sums a tensor over the processes that share the split.
    """
    network.eval()
    device = network.mean.device
    confusion = ConfusionMatrix(len(network.table), device)
    empty = torch.zeros((1, 1, 1), dtype=torch.long, device=device)
    terms = 1 if loss is None else len(loss.count(empty))
    sums = torch.zeros((2, terms), dtype=torch.float64, device=device)  # losses, counts
    frames = torch.zeros((), dtype=torch.long)
    for step, batch in enumerate(batches, start=1):
        target = batch.target.to(device, non_blocking=True)
        image = batch.image.to(device, non_blocking=True)
        with judging_told(image):
            logits = predict_logits(network, image, (target.shape[-2], target.shape[-1]))
        confusion.update(likeliest(logits), target)
        if loss is not None:
            sums += torch.stack(loss(logits, target))
        frames += len(image)
        if on_step is not None:
            on_step(step, steps)
    add(confusion.counts)
    add(sums)
    value = 0.0 if loss is None else float(loss.total(sums[0], sums[1]))
    return Result(confusion.matrix(), value, int(add(frames)))


def score_size(setting: tuple[int, int] | str, dataset: CamVid) -> tuple[int, int] | None:
    """The label size of a recipe's `data.score_size`; None is every label's own."""
    if isinstance(setting, str):
        return dataset.score_size() if setting == "auto" else None
    return setting


def check_classes(network: Network, dataset: CamVid) -> None:
    """Raises DataError when the model's classes are not those of the dataset."""
    ours, theirs = network.table.names, dataset.table.names
    if ours != theirs:
        raise DataError(
            f"The model knows {len(ours)} classes ({', '.join(ours[:4])}, ...), "
            f"{dataset.root} has {len(theirs)} ({', '.join(theirs[:4])}, ...).",
            "Judge it on the data it was trained for: --data DIR.",
        )


def check_not_enlarged(size: tuple[int, int], dataset: CamVid, split: str) -> None:
    """Raises UsageError when scores would be counted on labels larger than anybody drew."""
    frames = dataset.split(split)
    height, width = dataset.load_label(frames[0]).shape
    if size[0] > height or size[1] > width:
        raise UsageError(
            f"The labels of {dataset.root} are {height}x{width}; a score at {size[0]}x{size[1]} "
            "would count pixels nobody labelled.",
            f"Use --size {height}x{width} or less.",
        )


def evaluate(
    segmenter: Segmenter,
    data: str | Path,
    *,
    split: str = "val",
    size: tuple[int, int] | None = None,
    batch_size: int = 4,
    workers: int = 0,
    on_step: OnStep | None = None,
) -> dict[str, Any]:
    """Scores a model on a split of `data`.

    `size` is the label size scored at (default: what the model's run recorded).  Returns the
    document of `evaluate --json`: miou, accuracy, mean_class_accuracy, per_class (name -> iou,
    None for a class that occurs nowhere), classes_counted, frames, split, protocol, definition,
    model, checkpoint.
    """
    meta = segmenter.metadata
    of_camvid = meta.get("family") == "camvid"
    if len(set(split.split("+"))) != len(split.split("+")):
        raise UsageError(f"--split {split} names a split twice.", "Each counts once: train+val")
    dataset = open_dataset(
        data,
        classes=cast(Classes, segmenter.table.name),
        # Other datasets have no standard split; what such a run recorded says nothing of CamVid.
        split_source="folders" if of_camvid and meta["split_source"] == "folders" else "standard",
        need=() if meta.get("hold_out") else (split,),  # val may be made of train then
    )
    dataset = hold_out_again(dataset, meta)
    check_classes(segmenter.network, dataset)
    if size is not None:
        check_not_enlarged(size, dataset, split)
    recorded = meta.get("score_size", "auto")
    setting = size or (recorded if isinstance(recorded, str) else (recorded[0], recorded[1]))
    label_size = score_size(setting, dataset)
    cache = FrameCache.open(dataset, split, segmenter.height, label_size)
    batches = eval_loader(cache, batch_size=batch_size, workers=workers)
    result = evaluate_batches(segmenter.network, batches, len(batches), on_step=on_step)
    scores = summarize(result.matrix, dataset.table)
    return {
        "miou": scores.miou,
        "accuracy": scores.accuracy,
        "mean_class_accuracy": scores.mean_class_accuracy,
        "per_class": dict(scores.per_class),
        "classes_counted": scores.classes_counted,
        "frames": result.frames,
        "split": split,
        "protocol": dataset.protocol(label_size),
        "definition": DEFINITION,
        "model": segmenter.source,
        "checkpoint": Path(segmenter.source).stem,
    }
