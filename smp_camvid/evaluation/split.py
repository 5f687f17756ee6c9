"""The frames a model is judged on: its split, its classes, and labels of the right size."""

from __future__ import annotations

from pathlib import Path
from typing import cast

from smp_camvid.data.cache import FrameCache
from smp_camvid.data.camvid import CamVid, Classes, open_dataset
from smp_camvid.data.classes import ClassTable
from smp_camvid.data.hold_out import hold_out_again
from smp_camvid.errors import DataError, UsageError
from smp_camvid.inference.predictor import Segmenter


def open_split(
    segmenter: Segmenter, data: str | Path, split: str = "val", size: tuple[int, int] | None = None
) -> FrameCache:
    """The frames of a split of `data`, as this model's scores are counted.

    They have the height the model was trained at; labels have `size`, or what the model's run
    recorded.  The split is divided as in that run.  Raises DataError or UsageError.
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
    check_classes(segmenter.table, dataset)
    if size is not None:
        check_not_enlarged(size, dataset, split)
    recorded = meta.get("score_size", "auto")
    setting = size or (recorded if isinstance(recorded, str) else (recorded[0], recorded[1]))
    return FrameCache.open(dataset, split, segmenter.height, score_size(setting, dataset))


def score_size(setting: tuple[int, int] | str, dataset: CamVid) -> tuple[int, int] | None:
    """The label size of a recipe's `data.score_size`; None is every label's own."""
    if isinstance(setting, str):
        return dataset.score_size() if setting == "auto" else None
    return setting


def check_classes(table: ClassTable, dataset: CamVid) -> None:
    """Raises DataError when the model's classes `table` are not those of the dataset."""
    ours, theirs = table.names, dataset.table.names
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
