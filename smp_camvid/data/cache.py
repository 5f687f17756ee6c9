"""Frames decoded once and kept as flat memory-mapped files.

An entry is named after everything that shapes it (paths, sizes and times of the files, target
sizes, class table), so nothing in it can be stale.  It is built in a temporary folder and
renamed into place: a reader sees a whole entry or none, and of two builders the second uses
what the first made.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy.typing as npt

from smp_camvid.data.border import BorderWeight, border_weight_map
from smp_camvid.data.camvid import CamVid, Size
from smp_camvid.data.classes import ClassTable
from smp_camvid.data.flat import FlatArrays, keep
from smp_camvid.data.layouts import Frame, count
from smp_camvid.data.pictures import Picture, picture_size
from smp_camvid.data.places import cache_home
from smp_camvid.data.preprocess import resize_frame, resize_label
from smp_camvid.errors import DataError

OnProgress = Callable[[int, int], None]
LabelSize = Size | Literal["image"] | None

_FORMAT = 1  # of an entry's content; raise it when decoding or resizing changes
_AT_ONCE = 32  # frames in flight: bounds memory, and how much is decoded after a bad file


@dataclass(frozen=True)
class FrameCache:
    """The decoded frames and labels of one split.  Made by `FrameCache.open`.

    Small to pickle: a worker maps the same files again (frames held in memory do travel).
    """

    frames: tuple[Frame, ...]
    table: ClassTable
    protocol: str
    """What scores on these labels are called; see `CamVid.protocol`."""
    key: str
    images: FlatArrays
    labels: FlatArrays
    home: Path
    """Folder of all entries."""

    @property
    def location(self) -> Path | None:
        """The entry's folder; None when nothing could be written and memory holds the frames."""
        return self.images.file.parent if self.images.file else None

    def __len__(self) -> int:
        return len(self.frames)

    def image(self, index: int) -> Picture:
        """uint8 `[h, w, 3]` RGB, read-only."""
        image: Picture = self.images[index]
        return image

    def label(self, index: int) -> Picture:
        """uint8 `[H, W]` class indices, void 255, read-only."""
        label: Picture = self.labels[index]
        return label

    @classmethod
    def open(
        cls,
        dataset: CamVid,
        split: str,
        image_height: int | None,
        label_size: LabelSize,
        cache_dir: Path | None = None,
        on_progress: OnProgress | None = None,
    ) -> FrameCache:
        """Decodes a split, or maps what an earlier call decoded.

        `image_height`: frames are brought to it, aspect kept; None is native.
        `label_size`: height and width of the labels, "image" for that of their frame here, None
        for native.  Raises DataError naming every bad file found, or when the disk is too full.
        """
        frames = dataset.split(split)
        home = (cache_dir or cache_home()) / "frames"
        key = _key(_FORMAT, dataset, frames, image_height, label_size)
        images, labels = keep(
            home / key,
            {"images": "uint8", "labels": "uint8"},
            lambda: _decode(dataset, frames, image_height, label_size, on_progress),
            lambda: _bytes_needed(frames, image_height, label_size),
        )
        protocol = dataset.protocol(label_size if isinstance(label_size, tuple) else None)
        return cls(frames, dataset.table, protocol, key, images, labels, home)

    def border_weights(
        self, border: BorderWeight, on_progress: OnProgress | None = None
    ) -> FlatArrays:
        """Each label's border weight map, float32 `[H, W]`, computed once and kept likewise."""
        key = _digest(f"{_FORMAT} {self.key} {border}")

        def maps() -> Iterator[tuple[npt.NDArray[Any], ...]]:
            with ThreadPoolExecutor(_threads()) as pool:
                computed = pool.map(lambda label: border_weight_map(label, border), self.labels)
                for done, weights in enumerate(computed, start=1):
                    yield (weights,)
                    if on_progress is not None:
                        on_progress(done, len(self))

        (weights,) = keep(
            self.home / key, {"weights": "float32"}, maps, lambda: 4 * self.labels.size
        )
        return weights


def _key(
    version: int,
    dataset: CamVid,
    frames: tuple[Frame, ...],
    image_height: int | None,
    label_size: LabelSize,
) -> str:
    parts = [str((version, image_height, label_size, dataset.table, dataset.decoder.key))]
    for frame in frames:
        for path in (frame.image, frame.label):
            assert path is not None  # CamVid.split saw to it
            stat = path.stat()
            parts.append(f"{path.resolve()} {stat.st_size} {stat.st_mtime_ns}")
    return _digest("\n".join(parts))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _threads() -> int:
    return min(4, os.cpu_count() or 1)


def _bytes_needed(
    frames: tuple[Frame, ...], image_height: int | None, label_size: LabelSize
) -> int:
    total = 0
    for height, width in (picture_size(frame.image) for frame in frames):
        native = height * width
        image = (
            native if image_height is None else image_height * round(width * image_height / height)
        )
        if isinstance(label_size, tuple):
            label = label_size[0] * label_size[1]
        else:
            label = native if label_size is None else image
        total += 3 * image + label
    return total


def _decode(
    dataset: CamVid,
    frames: tuple[Frame, ...],
    image_height: int | None,
    label_size: LabelSize,
    on_progress: OnProgress | None,
) -> Iterator[tuple[Picture, Picture]]:
    """(image, label) of each frame in order.  Raises one DataError for all bad files of a batch."""

    def pair(frame: Frame) -> tuple[Picture, Picture] | DataError:
        try:
            image = resize_frame(dataset.load_image(frame), image_height)
            label = dataset.load_label(frame)
        except DataError as error:
            return error
        size = (image.shape[0], image.shape[1]) if label_size == "image" else label_size
        return image, label if size is None else resize_label(label, size)

    with ThreadPoolExecutor(_threads()) as pool:
        for start in range(0, len(frames), _AT_ONCE):
            batch = list(pool.map(pair, frames[start : start + _AT_ONCE]))
            _raise_all([found for found in batch if isinstance(found, DataError)])
            for done, found in enumerate(batch, start=start + 1):
                assert not isinstance(found, DataError)
                yield found
                if on_progress is not None:
                    on_progress(done, len(frames))


def _raise_all(errors: list[DataError]) -> None:
    if len(errors) == 1:
        raise errors[0]
    if errors:
        listed = "".join(f"\n  - {error.message}" for error in errors)
        raise DataError(f"{count(len(errors), 'file')} cannot be used:{listed}", errors[0].hint)
