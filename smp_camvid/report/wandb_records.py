"""Reads what Weights & Biases has on disk, which its own library only uploads.

A .wandb file is a LevelDB log (github.com/google/leveldb, doc/log_format.md) whose first block
begins with seven bytes of W&B's own: records of its protobuf schema, cut to fit blocks of 32 KiB.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wandb.proto import wandb_internal_pb2 as schema

_MAGIC, _PREAMBLE_BYTES = b":W&B", 7
_BLOCK_BYTES = 32768
_HEADER = struct.Struct("<IHB")  # checksum, length, kind
_WHOLE, _LAST = 1, 4  # the kinds that end a record; 2 and 3 begin and continue one


def history_rows(path: Path) -> Iterator[dict[str, Any]]:
    """What was logged, row by row: name -> value, a picture's value being a table about its file.

    Ends where the file was cut off.  Raises ValueError for a file of another kind.
    """
    for data in _records(path.read_bytes()):
        record = schema.Record.FromString(data)  # type: ignore[attr-defined]  # made at import
        if record.HasField("history"):
            yield _row(record.history)


def _row(history: Any) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for item in history.item:
        name, *inner = item.nested_key or [item.key]
        value = json.loads(item.value_json)
        if inner:
            row.setdefault(name, {})["/".join(inner)] = value
        else:
            row[name] = value
    return row


def _records(data: bytes) -> Iterator[bytes]:
    if data and not data.startswith(_MAGIC):
        raise ValueError("not a .wandb file")
    at, record = _PREAMBLE_BYTES, b""
    while True:
        left = _BLOCK_BYTES - at % _BLOCK_BYTES
        if left < _HEADER.size:  # too small for a header: zeros to the end of the block
            at += left
        begin = at + _HEADER.size
        if begin > len(data):
            return
        _, length, kind = _HEADER.unpack_from(data, at)
        if begin + length > len(data) or kind == 0:
            return
        record += data[begin : begin + length]
        if kind in (_WHOLE, _LAST):
            yield record
            record = b""
        at = begin + length
