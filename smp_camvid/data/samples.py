"""A few frames of a dataset, as they are or as the network will see them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from smp_camvid.data.camvid import CamVid
from smp_camvid.data.layouts import Frame
from smp_camvid.data.pictures import Picture
from smp_camvid.data.preprocess import resize_frame, resize_label

if TYPE_CHECKING:
    from smp_camvid.recipe import Recipe


@dataclass(frozen=True)
class Pick:
    """A frame somebody wants to see; `index` is its place in the split."""

    split: str
    index: int
    frame: Frame


def evenly_spaced(dataset: CamVid, splits: Sequence[str], number: int) -> list[Pick]:
    """`number` frames spread over the splits, first and last among them, fewer if there are."""
    every = [
        Pick(split, index, frame)
        for split in splits
        for index, frame in enumerate(dataset.split(split))
    ]
    places = np.linspace(0, len(every) - 1, min(number, len(every))).round()
    return [every[int(place)] for place in places]


def as_they_are(dataset: CamVid, picks: Sequence[Pick]) -> Iterator[tuple[Picture, Picture]]:
    """(frame uint8 `[H, W, 3]`, label uint8 `[H, W]` with void 255) at their own size."""
    for pick in picks:
        yield dataset.load_image(pick.frame), dataset.load_label(pick.frame)


def as_trained(
    dataset: CamVid, picks: Sequence[Pick], recipe: Recipe, epoch: int = 1
) -> Iterator[tuple[Picture, Picture]]:
    """The same as `recipe` shows them to the network: resized, those of train also augmented and
    cropped, as in `epoch`.

    The draw is that of the run itself, for the recipe's seed; crops are plain ones, also where the
    run has rare-class crops or several sizes.
    """
    from smp_camvid.data.transforms import build_augmentation

    steps = [step.model_dump() for step in recipe.augment]
    augmentation = build_augmentation(steps, recipe.data.crop or recipe.data.size)
    for pick, (image, label) in zip(picks, as_they_are(dataset, picks), strict=True):
        image = resize_frame(image, recipe.data.size[0])
        label = resize_label(label, (image.shape[0], image.shape[1]))
        if pick.split == "train":
            seed = (recipe.train.seed, epoch, pick.index)
            image, label, _ = augmentation(image, label, seed)
        yield image, label
