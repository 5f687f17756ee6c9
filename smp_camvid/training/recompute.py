"""Activation checkpointing: inner activations are computed again when backward needs them.

T. Chen et al.: Training Deep Nets with Sublinear Memory Cost.  arXiv:1604.06174.  The work is
torch.utils.checkpoint's; decided here is what a block is, and that computing a block twice
leaves the same weights, statistics and random numbers as computing it once.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_unflatten
from torch.utils.checkpoint import checkpoint

_LISTS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


def recompute_activations(network: nn.Module) -> None:
    """Makes the blocks of encoder and decoder keep only their inputs between the two passes.

    Weights, buffers, gradients and the state of the random generators after a step are those of
    a network without it, bit for bit.  Modules, their names and the state_dict stay as they are;
    copies of the network behave alike.  Nothing changes in eval mode and without gradients.
    """
    for block in blocks_of(network):
        # A bound method, which deepcopy binds to the copy of the block; a closure would make
        # the averaged network run the blocks of the one in training.
        block.forward = MethodType(_recomputed, block)


def blocks_of(network: nn.Module) -> list[nn.Module]:
    """Residual blocks, transformer blocks, double convolutions: the composed elements of lists.

    Whether a list is called whole or walked through is the affair of each architecture; its
    elements are called either way.
    """
    model = getattr(network, "model", network)
    parts = [getattr(model, name, None) for name in ("encoder", "decoder")]
    return [block for part in parts if isinstance(part, nn.Module) for block in _blocks(part)]


def _blocks(module: nn.Module) -> Iterator[nn.Module]:
    listed = isinstance(module, _LISTS)
    for child in module.children():
        if not any(True for _ in child.children()):
            continue  # a single layer
        if listed and not _only_lists_blocks(child):
            yield child
        else:
            yield from _blocks(child)


def _only_lists_blocks(module: nn.Module) -> bool:
    """A stage: a plain list of composed elements, such as the residual blocks of one size."""
    inner = module.children()
    return type(module) in _LISTS and all(any(True for _ in each.children()) for each in inner)


def _recomputed(block: nn.Module, *args: Any, **kwargs: Any) -> Any:
    forward = type(block).forward
    learning = block.training and torch.is_grad_enabled()
    if not learning or torch.compiler.is_compiling():  # a compiler decides by itself what to keep
        return forward(block, *args, **kwargs)
    # Every tensor goes in by itself: then torch notices when one was changed in place before
    # backward, and a block that writes into a list of maps gets a new list the second time.
    leaves, structure = tree_flatten((args, kwargs))

    def run(*leaves: Any) -> Any:
        args, kwargs = tree_unflatten(leaves, structure)
        return forward(block, *args, **kwargs)

    def contexts() -> tuple[Any, Any]:
        return contextlib.nullcontext(), _statistics_spared(block)

    return checkpoint(run, *leaves, use_reentrant=False, context_fn=contexts)


@contextlib.contextmanager
def _statistics_spared(block: nn.Module) -> Iterator[None]:
    """Running statistics have seen this batch already: a second look goes into copies."""
    kept: list[tuple[nn.Module, dict[str, Tensor]]] = []
    for layer in block.modules():
        if layer.training and getattr(layer, "running_mean", None) is not None:
            kept.append((layer, dict(layer.named_buffers(recurse=False))))
    try:
        for layer, buffers in kept:
            for name, buffer in buffers.items():
                setattr(layer, name, buffer.clone())
        yield
    finally:
        for layer, buffers in kept:
            for name, buffer in buffers.items():
                setattr(layer, name, buffer)
