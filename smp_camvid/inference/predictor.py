"""One predictor behind validation, `evaluate`, `predict`, the page and the library.

A picture goes through `resize_frame` (aspect kept, to the height the net was trained at), the
network, and back: scores are brought to the size asked for, and only then is the class chosen.
Which engine runs the network makes no difference here, and none of them is imported before it
is needed.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from smp_camvid.data.classes import ClassTable
from smp_camvid.data.preprocess import resize_frame, resize_picture
from smp_camvid.inference.engine import Engine, MapMath, Maps, NumpyMath, Picture, Size
from smp_camvid.inference.looks import check_precision, check_scale, checked_tile, tta_scales
from smp_camvid.inference.prediction import AnyPicture, Prediction, as_rgb
from smp_camvid.inference.tiling import predict_blended, predict_tiled

WHOLE_PIXELS = 2**21
"""Frames with more are cut into tiles: a full-HD frame still goes through whole."""
AUTO_TILE = 1024


class Segmenter:
    """A trained model, ready for pictures.  Made by `smp_camvid.load`."""

    def __init__(
        self,
        engine: Engine,
        *,
        scale: str = "train",
        tile: Size | None = None,
        tta: bool | Sequence[float] = False,
    ) -> None:
        """`scale`: "train" resizes to the trained height, "native" takes the picture as it is.

        `tile`: height and width of the parts a frame goes through in, enlarged to what the network
        takes; None cuts only frames above `WHOLE_PIXELS`.  `tta` averages the probabilities of
        the frame at the scales given (True: `TTA_SCALES`) and of its mirror image at each.
        """
        check_scale(scale)
        self.engine = engine
        trained = engine.metadata.get("train_size")
        self.height: int | None = trained[0] if scale == "train" and trained else None
        self.tile = None if tile is None else self._valid_tile(checked_tile(tile))
        factors = tta_scales(tta)
        self.on_tile: Callable[[int, None], None] | None = None
        """Called after each tile of a frame with how many are done: a large one takes minutes."""
        self.views = [(factor, mirrored) for factor in factors for mirrored in (False, True)]

    @property
    def table(self) -> ClassTable:
        return self.engine.table

    @property
    def metadata(self) -> Mapping[str, Any]:
        return self.engine.metadata

    @property
    def source(self) -> str:
        """What was loaded: a path, or the name of a shipped model."""
        return self.engine.source

    @property
    def device(self) -> str:
        return self.engine.device

    def __call__(self, picture: AnyPicture) -> Prediction:
        """A path, PIL image, uint8 array `[H, W, 3]` or tensor `[3, H, W]`, RGB -> Prediction."""
        return self.predict(as_rgb(picture))

    def predict(self, image: Picture) -> Prediction:
        """uint8 RGB `[H, W, 3]` of any size."""
        return next(self.predict_many([image]))

    def predict_many(
        self, pictures: Iterable[AnyPicture], batch_size: int = 1
    ) -> Iterator[Prediction]:
        """The predictions of pictures, each as `__call__` takes it, in order.

        Neighbours that are equally large for the network go through it together, up to
        `batch_size` of them; `pictures` is read no further ahead than that.
        """
        images = map(as_rgb, pictures)
        for group in _equally_large(images, partial(resize_frame, height=self.height), batch_size):
            frames = np.stack([frame for _, frame in group]).transpose(0, 3, 1, 2)
            maps = self.scores(frames)
            math = self._math(maps)
            for number, (image, _) in enumerate(group):
                size = (image.shape[0], image.shape[1])
                own = maps[number : number + 1]
                probs = partial(_probs, math, own, size)
                yield Prediction(image, math.likeliest(own, size)[0], self.table, probs)

    def scores(self, frames: Any) -> Maps:
        """uint8 frames `[B, 3, h, w]` at the network's scale -> maps `[B, C, h, w]`.

        Their softmax are the probabilities: logits, or with TTA the logarithms of the averages.
        """
        if not self.views:
            return self._pass(frames)
        return self._averaged(np.asarray(frames))

    def resized_scores(self, frames: Any, size: Size) -> Maps:
        """`scores` brought to `size`: what `evaluate` compares with the labels."""
        maps = self.scores(frames)
        return self._math(maps).resize(maps, size)

    # --- one pass, whole or in tiles ------------------------------------------------------------

    def _averaged(self, frames: Picture) -> Maps:
        size = (frames.shape[2], frames.shape[3])
        total: Any = 0
        for factor, mirrored in self.views:
            maps = self._pass(_view(frames, factor, mirrored))
            math = self._math(maps)
            maps = math.mirror(maps) if mirrored else maps
            total = total + math.softmax(math.resize(maps, size))
        return self._math(total).log(total / len(self.views))

    def _pass(self, frames: Any) -> Maps:
        height, width = frames.shape[-2:]
        tile = self.tile
        if tile is None and height * width > WHOLE_PIXELS:
            tile = self._valid_tile((AUTO_TILE, AUTO_TILE))
        if tile is None or (tile[0] >= height and tile[1] >= width):
            return self.engine.run(frames)
        pictures = np.asarray(frames).transpose(0, 2, 3, 1)
        return np.stack([self._in_tiles(picture, tile) for picture in pictures])

    def _in_tiles(self, picture: Picture, tile: Size) -> Maps:
        policy = self.engine.size_policy
        done = itertools.count(1)
        if policy["border"] == "mirror":
            function = partial(self._one, self.engine.run_tile, done)
            margin, multiple = policy["margin"], policy["multiple"]
            return predict_tiled(function, picture, tile=tile, margin=margin, multiple=multiple)
        function = partial(self._one, self.engine.run, done)
        return predict_blended(function, picture, tile=tile, multiple=policy["multiple"])

    def _one(self, run: Any, done: Iterator[int], picture: Picture) -> npt.NDArray[np.float32]:
        """`[h, w, 3]` -> `[C, h, w]` in the memory of the host, where tiles are put together."""
        maps: npt.NDArray[np.float32] = self.engine.math.to_numpy(
            run(np.ascontiguousarray(picture)[None].transpose(0, 3, 1, 2))
        )[0]
        if self.on_tile:
            self.on_tile(next(done), None)
        return maps

    def _valid_tile(self, tile: Size) -> Size:
        """The smallest sizes from `tile` on that the network takes without a border of its own."""
        policy = self.engine.size_policy
        least, multiple = policy["minimum"], policy["multiple"]
        # Less would not advance: a tile's inner part has to be as wide as the pooling grid.
        least = max(least, 2 * policy["margin"] + multiple)
        height, width = (
            policy["minimum"] + -(-(max(n, least) - policy["minimum"]) // multiple) * multiple
            for n in tile
        )
        return height, width

    def _math(self, maps: Maps) -> MapMath:
        return NumpyMath() if isinstance(maps, np.ndarray) else self.engine.math


def _equally_large(
    images: Iterable[Picture], resize: Any, batch_size: int
) -> Iterator[list[tuple[Picture, Picture]]]:
    """(picture, its frame) in groups of neighbours whose frames have one size."""
    group: list[tuple[Picture, Picture]] = []
    for image in images:
        frame = resize(image)
        if group and (len(group) == batch_size or group[0][1].shape != frame.shape):
            yield group
            group = []
        group.append((image, frame))
    if group:
        yield group


def _view(frames: Picture, factor: float, mirrored: bool) -> Picture:
    """Frames `[B, 3, h, w]` resized by `factor`, left and right exchanged if asked."""
    height, width = frames.shape[-2:]
    size = (max(1, round(height * factor)), max(1, round(width * factor)))
    pictures = [
        resize_picture(np.ascontiguousarray(frame.transpose(1, 2, 0)), size) for frame in frames
    ]
    seen = np.stack([p[:, ::-1] if mirrored else p for p in pictures])
    return np.ascontiguousarray(seen).transpose(0, 3, 1, 2)


def _probs(math: MapMath, maps: Maps, size: Size) -> npt.NDArray[np.float32]:
    probs: npt.NDArray[np.float32] = math.to_numpy(math.softmax(math.resize(maps, size)))[0]
    return probs


def load(
    reference: str | Path | None = None,
    *,
    checkpoint: str = "",
    device: str = "auto",
    scale: str = "train",
    tile: Size | None = None,
    tta: bool | Sequence[float] = False,
    precision: str = "auto",
) -> Segmenter:
    """Opens a model as a Segmenter: a run folder, a .safetensors or .onnx file, the name of a
    shipped model; nothing is the newest run under ./runs, or else the shipped model.

    `checkpoint` chooses among a run's weights; `precision` is auto (float32 on a CPU, bf16 or
    fp16 on a GPU), fp32, bf16 or fp16; the others are those of `Segmenter`.  No network access,
    and no torch for .onnx files and, on a CPU, the shipped model.
    """
    from smp_camvid.inference.opening import open_model

    check_precision(precision)
    engine = open_model(reference, checkpoint, device, precision)
    return Segmenter(engine, scale=scale, tile=tile, tta=tta)
