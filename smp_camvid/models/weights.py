"""Weights files: safetensors with one metadata key that rebuilds the model.

The key `smp_camvid` holds sorted JSON: architecture and options, class names and colours,
normalisation, size policy, protocol, package version and what the caller adds.  One key, since
safetensors writes several in random order and equal weights should give equal bytes.  Loading
runs no code from the file and downloads nothing.

Torch is imported only where it is used: reading the metadata needs none.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import smp_camvid
from smp_camvid.data.classes import ClassTable
from smp_camvid.errors import WeightsError
from smp_camvid.runs import atomic_path

if TYPE_CHECKING:
    from torch import Tensor

    from smp_camvid.models.network import Network

METADATA_KEY = "smp_camvid"
FORMAT = 1
_HEADER_LIMIT = 100 * 2**20  # what safetensors itself refuses beyond
_HEAD = "model.segmentation_head."


def save_weights(
    network: Network, path: str | Path, extra: Mapping[str, Any] | None = None
) -> None:
    """Writes `network` to `path`, whole or not at all; the file before stays until then.

    `extra` adds to the metadata: protocol, train_size, epoch, and so on.  Equal weights and
    metadata give equal bytes.  Raises WeightsError when the file cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    path = Path(path)
    text = json.dumps({**(extra or {}), **_describe(network)}, sort_keys=True, allow_nan=True)
    try:
        with atomic_path(path) as temporary:
            save_file(_tensors_of(network), temporary, metadata={METADATA_KEY: text})
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"{path} cannot be written: {error}.") from error


def _describe(network: Network) -> dict[str, Any]:
    config, table = network.config, network.table
    assert config, "a model that create_model built knows how it was built"
    return {
        "format": FORMAT,
        "package_version": smp_camvid.__version__,
        "arch": config.pop("arch"),
        "options": config,
        "classes": {
            "table": table.name,
            "names": list(table.names),
            "colors": [list(color) for color in table.colors],
            "void_index": table.void_index,
        },
        "normalization": network.normalization,
        "mean": network.mean.flatten().tolist(),
        "std": network.std.flatten().tolist(),
        "size_policy": network.size_policy,
    }


def _tensors_of(network: Network) -> dict[str, Tensor]:
    seen: set[int] = set()
    tensors = {}
    for name, tensor in network.state_dict().items():
        tensor = tensor.detach().cpu().contiguous()
        if tensor.data_ptr() in seen:  # two names for one tensor: safetensors wants two tensors
            tensor = tensor.clone()
        seen.add(tensor.data_ptr())
        tensors[name] = tensor
    return tensors


def read_metadata(path: str | Path) -> dict[str, Any]:
    """What `save_weights` wrote beside the tensors.  Needs no torch.

    Raises WeightsError when there is no such file, it is cut short, is not safetensors (a pickle
    is recognised and left alone) or was not written by this package.
    """
    metadata = _read_header(Path(path)).get("__metadata__", {}).get(METADATA_KEY)
    if metadata is None:
        raise WeightsError(
            f"{path} was not written by smp-camvid: it does not say which model it belongs to."
        )
    try:
        content = json.loads(metadata)
        if content["format"] > FORMAT:
            raise WeightsError(
                f"{path} was written by smp-camvid {content.get('package_version')}, which is "
                "newer than this one.",
                "pip install --upgrade smp-camvid",
            )
    except (ValueError, TypeError, KeyError) as error:
        raise WeightsError(f"{path} has damaged metadata: {error}.") from error
    return dict(content)


def _read_header(path: Path) -> dict[str, Any]:
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(8)
            length = struct.unpack("<Q", start)[0] if len(start) == 8 else _HEADER_LIMIT
            if length > min(_HEADER_LIMIT, size - 8):
                raise _not_safetensors(path, start)
            header = dict(json.loads(file.read(length)))
            ends = [entry["data_offsets"][1] for n, entry in header.items() if n[:2] != "__"]
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror or error}.") from error
    except (ValueError, TypeError, KeyError, IndexError) as error:
        raise WeightsError(f"{path} is not a safetensors file: its header is damaged.") from error
    if max(ends, default=0) != size - 8 - length:
        raise WeightsError(
            f"{path} is cut short: {size - 8 - length} bytes of tensors instead of "
            f"{max(ends, default=0)}.",
            "Copy it again.",
        )
    return header


def _not_safetensors(path: Path, start: bytes) -> WeightsError:
    if path.suffix == ".pt2":
        return WeightsError(
            f"{path} is an archive of torch.export, which torch.export.load opens.",
            "Name the run it was made from, or an ONNX export of it.",
        )
    if start[:4] == b"PK\x03\x04" or start[:1] == b"\x80":
        return WeightsError(
            f"{path} is a pickle (.pt, .pth, .ckpt), which can run code when opened; "
            "it was left alone.",
            "Weights of smp-camvid are .safetensors files.",
        )
    return WeightsError(f"{path} is not a safetensors file, or is cut short.")


def table_of(metadata: Mapping[str, Any]) -> ClassTable:
    """The classes that metadata of a weights file or an export names."""
    classes = metadata["classes"]
    return ClassTable(
        classes["table"],
        tuple(classes["names"]),
        tuple((r, g, b) for r, g, b in classes["colors"]),
        classes["void_index"],
    )


def load_network(path: str | Path, device: str = "cpu") -> tuple[Network, dict[str, Any]]:
    """The network of a weights file, in eval mode on `device`, and the file's metadata.

    Encoder weights are never downloaded.  Raises WeightsError, or UsageError when the
    architecture is a plugin that is not installed.
    """
    from smp_camvid.models.factory import fill

    metadata = read_metadata(path)
    tensors = _read_tensors(Path(path), device)
    network = untrained_network(metadata, path).to(device)
    fill(network, tensors, path)
    return network.eval(), metadata


def untrained_network(metadata: Mapping[str, Any], path: str | Path) -> Network:
    """The network that the metadata of `path` describes, without its weights.

    Raises WeightsError, or UsageError when the architecture is a plugin that is not installed.
    """
    import torch

    from smp_camvid.models.factory import create_model
    from smp_camvid.models.network import Network

    try:
        table, options = table_of(metadata), metadata["options"]
        with torch.random.fork_rng(devices=[]):  # the draws it fills the model with are not used
            model = create_model(metadata["arch"], **options)
        return Network(model, metadata["mean"], metadata["std"], table, metadata["normalization"])
    except (KeyError, TypeError, ValueError) as error:
        raise WeightsError(f"{path} has incomplete metadata: {error!r}.") from error


def load_into(network: Network, path: str | Path, reset_head: bool = False) -> list[str]:
    """Starts `network` from the weights of a file; returns the names it kept as they were.

    Takes over the normalisation that the weights were trained with.  With `reset_head` the
    segmentation head keeps its fresh weights and everything else is loaded.  Raises WeightsError
    before anything is changed: another class count names --reset-head, another architecture
    names the first tensor that differs.
    """
    metadata = read_metadata(path)
    tensors = _read_tensors(Path(path), "cpu")
    theirs, ours = list(metadata["classes"]["names"]), list(network.table.names)
    if theirs != ours and not reset_head:
        raise WeightsError(
            f"{path} predicts {len(theirs)} classes ({', '.join(theirs[:3])}, ...), this run has "
            f"{len(ours)} ({', '.join(ours[:3])}, ...).",
            "Add --reset-head to keep everything but the last layer.",
        )
    state = network.state_dict()
    kept = [name for name in state if name.startswith(_HEAD)] if reset_head else []
    for name in sorted({*state, *tensors} - {*kept}):
        if name.startswith(_HEAD) and reset_head:
            continue
        if name not in state or name not in tensors or state[name].shape != tensors[name].shape:
            raise WeightsError(
                f"{path} holds a {metadata['arch']} that does not fit this "
                f"{network.config.get('arch', 'model')}; the first difference is {name}.",
                f"smp-camvid train --arch {metadata['arch']} with the options it was made with "
                "takes it.",
            )
    network.load_state_dict({**tensors, **{name: state[name] for name in kept}}, strict=False)
    network.normalization = metadata["normalization"]
    return kept


def _read_tensors(path: Path, device: str) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return dict(load_file(path, device=device))
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path} cannot be read: {error}.") from error
