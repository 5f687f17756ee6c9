"""Trained networks as files for other programs, each compared with the network before it is kept.

    smp_camvid.export("runs/vanilla-1", out="vanilla.onnx")

.onnx runs wherever ONNX Runtime does; .pt2 is what `torch.export.load` opens.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from smp_camvid import runs
from smp_camvid.errors import UsageError, WeightsError
from smp_camvid.inference import box
from smp_camvid.inference.graph import Output, least_open_size, write_onnx, write_pt2
from smp_camvid.inference.onnx_engine import open_session
from smp_camvid.inference.opening import find_weights
from smp_camvid.models.network import Network
from smp_camvid.models.weights import load_network

Format = Literal["onnx", "pt2"]
Shape = tuple[int, int, int]

AGREEMENT = 0.9999
"""The share of a picture's pixels that must get the class the network gives them."""

_FREE = ("BHW", "B", "")  # the axes to leave open, of batch, height and width: most first
_SIZES = ((161, 241), (277, 150))  # odd, and large enough for one pixel to be a small share
_FRAME = (360, 480)  # for weights that do not say what they were trained at


@dataclass(frozen=True)
class Exported:
    """A written file, and how it compared with the network it was made from."""

    path: Path
    source: str
    """The weights file it was made from, or the name of the shipped model."""
    facts: dict[str, Any]
    """What the file's metadata say under "export": format, output, size (None: open), any_batch;
    for an open .pt2 also the least size and the multiple it grows by."""
    checked: tuple[Shape, ...]
    """Batch, height and width of the pictures compared."""
    agreement: float
    """The smallest share, of all pictures, of pixels with the same class."""
    difference: float | None
    """The largest difference of two logits; None where the file gives classes."""


def export(
    reference: str | Path | None = None,
    *,
    format: Format = "onnx",
    out: str | Path | None = None,
    argmax: bool = False,
    checkpoint: str = "",
) -> Exported:
    """Writes a model as ONNX file or torch.export archive, if it does what the network does.

    `reference` is a run, a weights file or the name of a shipped model; nothing is the newest
    run, or else the shipped model.  `out` is `<name of the run>.<format>` in the working folder
    if absent.  The input is "image", float32 RGB 0-255 `[batch, 3, height, width]`; the output
    "logits" float32 `[batch, classes, height, width]`, or with `argmax` "classes" uint8
    `[batch, height, width]`.

    An ONNX file takes any size; normalisation, border and its removal are in the graph.  A .pt2
    takes the sizes that the network takes without a border, and gives `margin` pixels less on
    each side for unpadded convolutions.  Where the exporter cannot leave sizes open, the size is
    the one that frames of the training height go through the network in; `facts` tells.

    Raises WeightsError, and leaves the file that was there, when the exporter does not know an
    operation of the model or when less than `AGREEMENT` of a picture agrees.
    """
    if format not in ("onnx", "pt2"):
        raise UsageError(f"--format {format} is not known.", "It is onnx or pt2.")
    weights, name = find_source(reference, checkpoint)
    path = Path(out) if out else Path(f"{name}.{format}")
    if path.suffix != f".{format}":
        raise UsageError(f"--out {path} does not end in .{format}.", f"--out {path}.{format}")
    network, metadata = load_network(weights)
    output: Output = "classes" if argmax else "logits"
    try:
        with runs.atomic_path(path) as temporary:
            result = _first_that_agrees(network, metadata, temporary, format, output)
    except OSError as error:
        raise WeightsError(f"{path} cannot be written: {error.strerror or error}.") from error
    return Exported(path, name if name in box.names() else str(weights), *result)


def find_source(reference: str | Path | None, checkpoint: str = "") -> tuple[Path, str]:
    """The weights file that `reference` means, and the name of what is made from it."""
    weights, shipped = find_weights(reference, checkpoint)
    if shipped is not None:
        return weights, shipped
    if weights.suffix in (".onnx", ".pt2"):
        raise UsageError(f"{weights} is an export.", "Name the run or weights it was made from.")
    run = runs.run_of(weights)
    return weights, run.name if run else weights.stem


Result = tuple[dict[str, Any], tuple[Shape, ...], float, float | None]


def _first_that_agrees(
    network: Network, metadata: dict[str, Any], path: Path, format: Format, output: Output
) -> Result:
    """Writes with as much left open as works.  Raises WeightsError when nothing does."""
    result: Result | None = None
    reason: Exception | None = None
    for free in _FREE:
        try:
            facts = _write(network, metadata, path, format, output, free)
            shapes = shapes_to_check(network, metadata, facts)
            result = (facts, shapes, *compare(network, path, facts, shapes))
        except OSError:
            raise
        except Exception as error:  # exporters and engines raise all kinds of them
            reason = reason or error
        else:
            if result[2] >= AGREEMENT:
                return result
    raise _refusal(format, result, reason) from reason


def _write(
    network: Network,
    metadata: dict[str, Any],
    path: Path,
    format: Format,
    output: Output,
    free: str,
) -> dict[str, Any]:
    """Returns what the file says of itself as an export."""
    policy = network.size_policy
    least = least_open_size(network)
    traced = (least + 2 * policy["multiple"], least + 3 * policy["multiple"])
    facts: dict[str, Any] = {"format": format, "output": output, "torch": torch.__version__}
    facts |= {"size": None, "any_batch": "B" in free}
    if "H" not in free:
        height, width = _trained_size(metadata)
        traced = network.padded_size(height), network.padded_size(width)
        facts["size"] = list(traced)
    elif format == "pt2":
        facts |= {"least": least, "multiple": policy["multiple"]}
    write = write_onnx if format == "onnx" else write_pt2
    write(network, path, traced, output=output, free=free, metadata={**metadata, "export": facts})
    return facts


def _trained_size(metadata: dict[str, Any]) -> tuple[int, int]:
    height, width = metadata.get("train_size", _FRAME)
    return height, width


def shapes_to_check(
    network: Network, metadata: dict[str, Any], facts: dict[str, Any]
) -> tuple[Shape, ...]:
    """Three pictures the graph was not traced with; where one size is fixed, three of that."""
    if facts["size"]:
        sizes = [tuple(facts["size"])] * 3
    elif facts["format"] == "onnx":
        sizes = [*_SIZES, _trained_size(metadata)]
    else:
        height, width = _trained_size(metadata)
        own = network.padded_size(height), network.padded_size(width)
        least, multiple = facts["least"], facts["multiple"]
        sizes = [
            tuple(least + -(-max(n - least, 0) // multiple) * multiple for n in size)
            for size in (*_SIZES, own)
        ]
    batches = (1, 2, 1) if facts["any_batch"] else (1, 1, 1)
    return tuple((batch, h, w) for batch, (h, w) in zip(batches, sizes, strict=True))


@torch.inference_mode()
def compare(
    network: Network, path: Path, facts: dict[str, Any], shapes: tuple[Shape, ...]
) -> tuple[float, float | None]:
    """The smallest share of agreeing pixels of a picture, and the largest difference of logits."""
    run = _opened(path, facts["format"])
    reference = network if facts["format"] == "onnx" else network.forward_tile
    agreement, difference = 1.0, 0.0
    for seed, shape in enumerate(shapes):
        image = draw_picture(shape, seed)
        expected, found = reference(image), run(image)
        if facts["output"] == "logits":
            if found.shape != expected.shape:
                return 0.0, None
            difference = max(difference, float((found - expected).abs().max()))
            found = found.argmax(1)
        same = found == expected.argmax(1)
        agreement = min(agreement, float(same.float().mean(dtype=torch.float64)))
    return agreement, difference if facts["output"] == "logits" else None


def _opened(path: Path, format: Format) -> Callable[[Tensor], Tensor]:
    if format == "pt2":
        return torch.export.load(path).module()
    session = open_session(path)
    return lambda image: torch.from_numpy(session.run(None, {"image": image.numpy()})[0])


def draw_picture(shape: Shape, seed: int) -> Tensor:
    """float32 0-255 `[B, 3, H, W]`, always the same: soft patches, hard edges, a little grain."""
    batch, height, width = shape
    rng = torch.Generator().manual_seed(seed)
    random = partial(torch.rand, generator=rng)
    coarse = random((batch, 3, height // 24 + 2, width // 24 + 2))
    picture = F.interpolate(coarse, (height, width), mode="bicubic", align_corners=False)
    for _ in range(12):
        top, left = int(random(()) * height), int(random(()) * width)
        part = picture[..., top : top + height // 3, left : left + width // 4]
        part.copy_(part * 0.3 + random((batch, 3, 1, 1)) * 0.7)
    picture += (random(picture.shape) - 0.5) * 0.06
    return (picture * 255).clamp(0, 255).round()


def _refusal(format: Format, result: Result | None, reason: Exception | None) -> WeightsError:
    other = f"--format {'pt2' if format == 'onnx' else 'onnx'} may do better."
    if result is not None:
        return WeightsError(
            f"The {format} graph gives only {result[2]:.3%} of a picture's pixels the class that "
            f"the network gives them, and {AGREEMENT:.2%} are wanted; nothing was written.",
            other,
        )
    words = str(reason).strip().splitlines() or [type(reason).__name__]
    return WeightsError(
        f"torch {torch.__version__} cannot write this model as {format}: "
        f"{words[0].rstrip('.')[:300]}.",
        other,
    )
