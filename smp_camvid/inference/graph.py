"""A `Network` as a graph that other programs run: ONNX and torch.export.

Both exporters watch one forward pass and write down what it computes.  What depends on the size
of the picture must therefore be computed by tensor operations, where `Network` uses Python's
numbers; `AnySize` is the same forward pass written that way.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from smp_camvid.inference.tracing import traceable, unprinted
from smp_camvid.models.network import Network
from smp_camvid.models.weights import METADATA_KEY

PT2_METADATA = f"{METADATA_KEY}.json"
"""Name of the extra file of a .pt2 archive that holds the metadata."""

Output = Literal["logits", "classes"]
_OPSET = 17  # has LayerNormalization; every ONNX Runtime since 1.12 reads it
_LARGEST = 2**20  # pixels of a side, and frames of a batch; torch.export wants a bound


class AnySize(nn.Module):
    """float32 RGB 0-255 `[B, 3, H, W]` -> logits `[B, classes, H, W]`, or classes uint8
    `[B, H, W]`; traceable, since in a trace the sizes are tensors."""

    def __init__(self, network: Network, output: Output) -> None:
        super().__init__()
        self.network = network
        self.output = output
        self.upsampled = _upsamples_less(network)

    def forward(self, image: Tensor) -> Tensor:
        policy = self.network.size_policy
        margin = policy["margin"]
        height, width = image.shape[-2:]
        padded_h, padded_w = self._padded(height), self._padded(width)
        if policy["border"] == "mirror":
            rows = _mirror_indices(height, margin, padded_h - height - margin)
            columns = _mirror_indices(width, margin, padded_w - width - margin)
            x = self.network.normalize(image.index_select(-2, rows).index_select(-1, columns))
        else:
            x = F.pad(self.network.normalize(image), (0, padded_w - width, 0, padded_h - height))
        logits = _first(self.network.model(x))
        if self.upsampled:
            size = (padded_h - 2 * margin, padded_w - 2 * margin)
            logits = F.interpolate(logits, size, mode="bilinear", align_corners=False)
        return _as_output(logits[..., :height, :width], self.output)

    def _padded(self, size: Any) -> Any:
        """`Network.padded_size` of a size that is a tensor."""
        policy = self.network.size_policy
        minimum, multiple = policy["minimum"], policy["multiple"]
        beyond = torch.clamp(size + 2 * policy["margin"] - minimum, min=0)
        return minimum + (beyond + multiple - 1) // multiple * multiple


class ValidSize(nn.Module):
    """The same for sizes the network takes as they are; unpadded networks return less."""

    def __init__(self, network: Network, output: Output) -> None:
        super().__init__()
        self.network = network
        self.output = output

    def forward(self, image: Tensor) -> Tensor:
        return _as_output(self.network.forward_tile(image), self.output)


def write_onnx(
    network: Network,
    path: Path,
    size: tuple[int, int],
    *,
    output: Output = "logits",
    free: str = "BHW",
    metadata: Mapping[str, Any],
    fold: bool = True,
) -> None:
    """Writes the graph of `network` in eval mode, traced with a picture of `size`.

    `free` names the axes that stay open, of B, H and W.  Without `fold` every tensor of the
    network stands in the graph under its own name and with its own bytes, after `network.`.
    Raises what the exporter raises for an operation that it does not know.
    """
    axes = {axis: name for axis, name in _AXES.items() if name[0].upper() in free}
    spatial = {axis - (output == "classes"): name for axis, name in axes.items() if axis}
    outer = {axis: name for axis, name in axes.items() if not axis}
    mode = torch.onnx.TrainingMode.EVAL if fold else torch.onnx.TrainingMode.PRESERVE
    batch = 2 if "B" in free else 1
    with traceable(), unprinted():
        torch.onnx.export(
            AnySize(network, output).eval(),
            (torch.zeros(batch, len(network.mean), *size),),
            str(path),
            dynamo=False,  # the other exporter does not end for sizes that stay open
            opset_version=_OPSET,
            training=mode,
            do_constant_folding=fold,
            input_names=["image"],
            output_names=[output],
            dynamic_axes={"image": axes, output: {**outer, **spatial}},
        )
    _add_metadata(path, metadata)


_AXES = {0: "batch", 2: "height", 3: "width"}


def _add_metadata(path: Path, metadata: Mapping[str, Any]) -> None:
    import onnx

    model = onnx.load(str(path))
    onnx.helper.set_model_props(
        model, {METADATA_KEY: json.dumps(metadata, sort_keys=True, allow_nan=True)}
    )
    onnx.save(model, str(path))


def write_pt2(
    network: Network,
    path: Path,
    size: tuple[int, int],
    *,
    output: Output = "logits",
    free: str = "BHW",
    metadata: Mapping[str, Any],
) -> None:
    """`torch.export` of `network` for sizes its policy allows, `size` being one of them."""
    policy = network.size_policy
    multiple, rest = policy["multiple"], policy["minimum"] % policy["multiple"]
    static: Any = torch.export.Dim.STATIC
    dims = [static] * 4
    if "B" in free:
        dims[0] = torch.export.Dim("batch", min=1, max=_LARGEST)
    for axis in (2, 3) if "H" in free else ():
        steps = torch.export.Dim(f"n{axis}", min=least_open_size(network) // multiple, max=_LARGEST)
        dims[axis] = multiple * steps + rest if rest else multiple * steps
    batch = 2 if "B" in free else 1  # torch.export takes a size of one for a constant
    example = torch.zeros(batch, len(network.mean), *size)
    with traceable(), torch.no_grad():
        program = torch.export.export(
            ValidSize(network, output).eval(), (example,), dynamic_shapes=(tuple(dims),)
        )
    text = json.dumps(metadata, sort_keys=True, allow_nan=True)
    torch.export.save(program, path, extra_files={PT2_METADATA: text})


def least_open_size(network: Network) -> int:
    """The least height and width of a .pt2 whose size is open, beyond the network's own.

    torch.export takes a map of one pixel for a case of its own, and some encoders go down to a
    32nd of the size without anybody using it.
    """
    minimum, multiple = network.size_policy["minimum"], network.size_policy["multiple"]
    beyond = max(multiple, 64 - minimum)
    return int(minimum + -(-beyond // multiple) * multiple)


def _upsamples_less(network: Network) -> bool:
    policy = network.size_policy
    side = policy["minimum"] + policy["multiple"]
    with torch.no_grad():
        logits = _first(network.model(torch.zeros(1, len(network.mean), side, side)))
    return bool(logits.shape[-1] != side - 2 * policy["margin"])


def _first(output: Any) -> Tensor:
    # aux_params of smp add the output of a classifier
    logits: Tensor = output[0] if isinstance(output, tuple) else output
    return logits


def _as_output(logits: Tensor, output: Output) -> Tensor:
    return logits if output == "logits" else logits.argmax(1).to(torch.uint8)


def _mirror_indices(size: Any, before: int, after: Any) -> Tensor:
    # The positions of inference/tiling.py once more, of a size that is a tensor.
    period = torch.clamp(2 * (size - 1), min=1)
    position = torch.arange(-before, size + after) % period
    return torch.minimum(position, period - position)
