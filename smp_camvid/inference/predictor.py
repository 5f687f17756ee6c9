"""One predictor behind validation, `evaluate`, `predict` and the library.

A picture goes through `resize_frame` (aspect kept, to the height the net was trained at), the
network, and back: logits are brought to the size asked for, and only then is the class chosen.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from smp_camvid.data.camvid import read_image
from smp_camvid.data.classes import ClassTable
from smp_camvid.data.preprocess import resize_frame
from smp_camvid.errors import DataError
from smp_camvid.inference.device import resolve_device
from smp_camvid.models.network import Network
from smp_camvid.models.weights import load_network
from smp_camvid.runs import find_weights

if TYPE_CHECKING:
    from PIL.Image import Image

Picture = npt.NDArray[np.uint8]


@torch.inference_mode()
def predict_logits(
    network: Network, image: torch.Tensor, out_size: tuple[int, int]
) -> torch.Tensor:
    """uint8 `[B, 3, h, w]` on the network's device -> float32 logits `[B, C, *out_size]`."""
    logits: torch.Tensor = network(image).float()
    if logits.shape[-2:] != out_size:
        # Channels last: resizing a cropped view of another layout is 20 times slower on a CPU.
        logits = logits.contiguous(memory_format=torch.channels_last)
        logits = F.interpolate(logits, out_size, mode="bilinear", align_corners=False)
    return logits


def likeliest(logits: torch.Tensor) -> torch.Tensor:
    """`[B, C, H, W]` -> int64 `[B, H, W]`, the first of equals."""
    # Ten times faster than argmax on a CPU.
    return logits.max(1).indices


def predict_frame(network: Network, frame: Picture, out_size: tuple[int, int]) -> torch.Tensor:
    """uint8 `[h, w, 3]` at the network's scale -> float32 logits `[1, C, *out_size]`."""
    image = torch.tensor(frame, device=network.mean.device).permute(2, 0, 1)[None]
    return predict_logits(network, image, out_size)


@dataclass(frozen=True)
class Prediction:
    """What a model says of one picture, at the picture's own size."""

    image: Picture
    """RGB `[H, W, 3]`."""
    mask: Picture
    """Class index `[H, W]`."""
    probs: npt.NDArray[np.float32]
    """Class probabilities `[C, H, W]`, summing to 1."""
    table: ClassTable

    @cached_property
    def color(self) -> Picture:
        """The mask in the classes' colours, `[H, W, 3]`."""
        return self.table.colorize(self.mask)

    def overlay(self, opacity: float = 0.5) -> Picture:
        """The colours laid over the picture, `[H, W, 3]`."""
        mixed = self.image * (1 - opacity) + self.color * opacity
        return mixed.round().astype(np.uint8)

    def shares(self) -> dict[str, float]:
        """Share of the pixels of each class that occurs, largest first."""
        counts = np.bincount(self.mask.ravel(), minlength=len(self.table))
        order = np.argsort(-counts, kind="stable")
        return {self.table.names[i]: float(counts[i] / counts.sum()) for i in order if counts[i]}


class Segmenter:
    """A trained model, ready for pictures.  Made by `smp_camvid.load`."""

    def __init__(
        self,
        network: Network,
        metadata: dict[str, Any],
        *,
        device: str = "auto",
        scale: str = "train",
        source: str = "",
    ) -> None:
        """`scale`: "train" resizes to the trained height, "native" takes the picture as it is."""
        self.device = resolve_device(device)
        self.network = network.eval().to(self.device)
        self.table = network.table
        self.metadata = metadata
        self.height: int | None = None
        if scale == "train" and "train_size" in metadata:
            self.height = metadata["train_size"][0]
        self.source = source

    def __call__(self, picture: str | Path | Image | Picture) -> Prediction:
        """A path, PIL image or uint8 `[H, W, 3]` RGB array -> its Prediction."""
        return self.predict(as_rgb(picture))

    def predict(self, image: Picture) -> Prediction:
        """uint8 RGB `[H, W, 3]` of any size."""
        size = (image.shape[0], image.shape[1])
        logits = predict_frame(self.network, resize_frame(image, self.height), size)
        mask = likeliest(logits)[0].to(torch.uint8).cpu().numpy()
        return Prediction(image, mask, logits[0].softmax(0).cpu().numpy(), self.table)


def as_rgb(picture: str | Path | Image | Picture) -> Picture:
    """Anything that is one picture -> uint8 `[H, W, 3]` RGB.  Raises DataError otherwise."""
    if isinstance(picture, (str, Path)):
        return read_image(Path(picture))
    array = np.asarray(picture if isinstance(picture, np.ndarray) else picture.convert("RGB"))
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3:
        raise DataError(
            f"A picture must be a uint8 [H, W, 3] RGB array, not {array.dtype} {list(array.shape)}."
        )
    return array


def load(
    reference: str | Path | None = None,
    *,
    checkpoint: str = "",
    device: str = "auto",
    scale: str = "train",
) -> Segmenter:
    """Opens a run folder or weights file (nothing: the newest run) as a Segmenter.  No network."""
    path = find_weights(reference, checkpoint)
    network, metadata = load_network(path)
    return Segmenter(network, metadata, device=device, scale=scale, source=str(path))
