"""Frames to measure with: drawn ones in the layout of the SegNet copy, or somebody's real ones."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import albumentations as A
import cv2
from albumentations.pytorch import ToTensorV2
from PIL import Image
from torch.utils.data import Dataset

from smp_camvid.data.camvid import CamVid, Size, open_dataset
from smp_camvid.data.classes import CAMVID11, CAMVID32, VOID, camvid11_decoder
from smp_camvid.data.synthetic import plan, render
from smp_camvid.models.pretrained import CAMVID_NORMALIZATION
from smp_camvid.recipe import resolve

_, MEAN, STD = CAMVID_NORMALIZATION
_UNLABELLED = len(CAMVID11)  # what the SegNet copy writes for void


def draw(root: Path, size: Size, train: int, val: int = 1) -> Path:
    """`train` and `val` PNG frames with index labels; those of train are 50 scenes, linked."""
    decoder = camvid11_decoder()
    for split, count in (("train", train), ("val", val)):
        folders = [root / split, root / f"{split}annot"]
        for folder in folders:
            folder.mkdir(parents=True, exist_ok=True)
        shots = [shot for shot in plan({"train": 50, "val": 30, "test": 0}) if shot.split == split]
        for number in range(count):
            files = [folder / f"{split}{number:06}.png" for folder in folders]
            first = number - number % len(shots)
            if number >= len(shots):
                for file in files:
                    os.link(file.with_name(f"{split}{number - first:06}.png"), file)
                continue
            image, label = render(shots[number], size, seed=0)
            classes = decoder.decode(CAMVID32.palette[label], files[1])
            classes[classes == VOID] = _UNLABELLED
            Image.fromarray(image).save(files[0])
            Image.fromarray(classes).save(files[1])
    return root


def opened(root: Path) -> CamVid:
    """Its own folders are the splits, unless it is CamVid itself."""
    try:
        return open_dataset(root, "11", "standard", need=("train", "val"))
    except Exception:  # drawn frames are in no standard split
        return open_dataset(root, "11", "folders", need=("train", "val"))


def base_steps() -> list[dict[str, Any]]:
    """The augmentation of the recipe `base`: scale, mirror, colours."""
    return [step.model_dump() for step in resolve("base").recipe.augment]


def plain_transform(
    steps: Sequence[dict[str, Any]],
    size: Size,
    smaller: bool,
    mean: Sequence[float] = MEAN,
    std: Sequence[float] = STD,
) -> Any:
    """The same steps as one writes them down with albumentations."""
    made = [getattr(A, step["name"])(**_known(step)) for step in steps]
    height, width = size
    return A.Compose(
        [
            *([A.Resize(height, width)] if smaller else []),
            *made,
            *(
                [A.PadIfNeeded(height, width, border_mode=cv2.BORDER_CONSTANT, fill_mask=VOID),
                 A.RandomCrop(height, width)] if made else []
            ),
            A.Normalize(mean, std),
            ToTensorV2(),
        ]
    )  # fmt: skip


def _known(step: dict[str, Any]) -> dict[str, Any]:
    return {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in step.items()
        if key != "name"
    }


class PlainFrames(Dataset[Any]):
    """cv2.imread and albumentations: each frame decoded each time, float32 when it leaves."""

    def __init__(self, dataset: CamVid, split: str, transform: Any) -> None:
        self.frames, self.transform = dataset.split(split), transform

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, index: int) -> Any:
        frame = self.frames[index]
        image = cv2.cvtColor(cv2.imread(str(frame.image)), cv2.COLOR_BGR2RGB)
        label = cv2.imread(str(frame.label), cv2.IMREAD_GRAYSCALE)
        label[label == _UNLABELLED] = VOID
        found = self.transform(image=image, mask=label)
        return found["image"], found["mask"].long()


def endless(loader: Any) -> Iterator[Any]:
    """Batches without an end, epoch after epoch."""
    epoch = 0
    while True:
        epoch += 1
        sampler = getattr(loader, "sampler", None)
        if hasattr(sampler, "set_epoch"):
            sampler.set_epoch(epoch)
        yield from loader
