"""What stands in the way of a trace that holds for every size, taken out of it for a while.

An exporter watches one forward pass.  Some layers below look at sizes as numbers, or compute with
them what no exporter can write down; inside `traceable` they do the same by other means.
"""

from __future__ import annotations

import contextlib
import os
import sys
import warnings
from collections.abc import Iterator
from typing import Any

import timm.layers.padding as timm_padding
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.jit import TracerWarning  # type: ignore[attr-defined]  # not in its __all__


@contextlib.contextmanager
def traceable() -> Iterator[None]:
    """Layers below whose code depends on the size are written so that a trace holds for all.

    Every map's size is a multiple of the strides still to come, because `Network` pads: then
    timm's "same" padding is a constant.  As the formula for any size, which timm computes in
    every layer, it keeps torch.export busy for minutes and then fails.
    """
    kept = timm_padding.get_same_padding, F.adaptive_avg_pool2d
    timm_padding.get_same_padding = _constant_same_padding
    F.adaptive_avg_pool2d = _bin_means  # type: ignore[assignment]
    try:
        with warnings.catch_warnings():
            for message, category in _EXPECTED:
                warnings.filterwarnings("ignore", message, category)
            yield
    finally:
        timm_padding.get_same_padding, F.adaptive_avg_pool2d = kept


_EXPECTED: tuple[tuple[str, type[Warning]], ...] = (
    ("You are using the legacy TorchScript-based ONNX export", DeprecationWarning),
    ("The feature will be removed", DeprecationWarning),
    ("Constant folding - ", UserWarning),
    ("", TracerWarning),  # what they fear is what `export` checks afterwards
)


@contextlib.contextmanager
def unprinted() -> Iterator[None]:
    """Keeps from the terminal the thousands of lines the ONNX exporter prints before it raises."""
    torch._C._jit_set_onnx_log_output_stream("stderr")  # on stdout they would come out later
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with open(os.devnull, "wb") as nowhere:  # noqa: PTH123
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _constant_same_padding(x: Any, kernel_size: int, stride: int, dilation: int) -> int:
    return max((kernel_size - 1) * dilation + 1 - stride, 0)


def _bin_means(x: Tensor, output_size: Any) -> Tensor:
    """`adaptive_avg_pool2d` as two matrix products: ONNX has no operation for it."""
    rows, columns = (output_size,) * 2 if isinstance(output_size, int) else output_size
    if (rows, columns) == (1, 1):
        return x.mean((-2, -1), keepdim=True)
    means: Tensor = _bins(x.shape[-2], rows, x) @ x @ _bins(x.shape[-1], columns, x).transpose(0, 1)
    return means


def _bins(length: Any, count: int, x: Tensor) -> Tensor:
    """`[count, length]`: row i averages the pixels from i*length/count to (i+1)*length/count."""
    index = torch.arange(count, device=x.device)[:, None]
    position = torch.arange(length, device=x.device)
    start = index * length // count
    end = ((index + 1) * length + count - 1) // count
    inside = ((position >= start) & (position < end)).to(x.dtype)
    weights: Tensor = inside / inside.sum(1, keepdim=True)
    return weights
