"""Arrays of differing shapes, kept end to end in one memory-mapped file."""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from smp_camvid.errors import DataError

Array = npt.NDArray[Any]
Make = Callable[[], Iterable[tuple[Array, ...]]]

_INDEX = "index.json"
_UNUSED_DAYS = 60  # entries nobody opened for this long are removed when a new one is built
_ABANDONED_DAYS = 1  # what a killed builder left


class FlatArrays(Sequence[Array]):
    """Read-only arrays by index, from a file (mapped on first use) or from memory."""

    def __init__(
        self,
        shapes: Sequence[Sequence[int]],
        dtype: str,
        file: Path | None = None,
        data: Array | None = None,
    ) -> None:
        self.dtype = np.dtype(dtype)
        self.file = file
        self._shapes = [tuple(shape) for shape in shapes]
        self._ends = np.cumsum([math.prod(shape) for shape in self._shapes])
        self._data = data

    def __len__(self) -> int:
        return len(self._shapes)

    @property
    def size(self) -> int:
        """Number of values in all arrays."""
        return int(self._ends[-1])

    def __getitem__(self, index: Any) -> Any:
        shape = self._shapes[index]
        end = int(self._ends[index])
        return self._values()[end - math.prod(shape) : end].reshape(shape)

    def shape(self, index: int) -> tuple[int, ...]:
        return self._shapes[index]

    def _values(self) -> Array:
        if self._data is None:
            assert self.file is not None
            self._data = np.asarray(np.memmap(self.file, self.dtype, "r"))
        return self._data

    def __getstate__(self) -> dict[str, Any]:
        """A map would be pickled as its whole content; the file is enough."""
        return {**self.__dict__, "_data": None if self.file else self._data}


def keep(
    entry: Path, parts: Mapping[str, str], make: Make, bytes_needed: Callable[[], int]
) -> tuple[FlatArrays, ...]:
    """The arrays kept in folder `entry`, made now if it is not there.

    `parts` maps name to dtype; `make()` yields one array for each part, again and again.  Where
    nothing can be written they are held in memory.  Raises DataError when the disk is too full,
    and whatever `make` raises.
    """
    kept = _read(entry, parts)
    if kept is not None:
        return kept
    try:
        entry.parent.mkdir(parents=True, exist_ok=True)
        building = Path(tempfile.mkdtemp(prefix=".building-", dir=entry.parent))
    except OSError:
        return _in_memory(parts, make())
    try:
        _check_space(entry.parent, bytes_needed())
        _remove_old(entry.parent)
        _write(building, parts, make())
        _publish(building, entry, parts)
    except OSError:
        return _in_memory(parts, make())
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return _read(entry, parts) or _in_memory(parts, make())


def _read(entry: Path, parts: Mapping[str, str]) -> tuple[FlatArrays, ...] | None:
    """The entry's arrays; None when it is absent, damaged or of other parts."""
    try:
        shapes = json.loads((entry / _INDEX).read_text(encoding="utf-8"))
        arrays = tuple(FlatArrays(shapes[n], t, entry / f"{n}.bin") for n, t in parts.items())
        for array in arrays:
            assert array.file is not None
            if array.file.stat().st_size != array.size * array.dtype.itemsize:
                return None
    except (OSError, ValueError, KeyError, TypeError):
        return None
    with contextlib.suppress(OSError):  # a cache that cannot be written is still good to read
        os.utime(entry / _INDEX)
    return arrays


def _write(folder: Path, parts: Mapping[str, str], rows: Iterable[tuple[Array, ...]]) -> None:
    shapes: dict[str, list[tuple[int, ...]]] = {name: [] for name in parts}
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context((folder / f"{name}.bin").open("wb")) for name in parts]
        for row in rows:
            for name, file, array in zip(parts, files, row, strict=True):
                assert array.dtype == parts[name]
                file.write(np.ascontiguousarray(array).data)
                shapes[name].append(array.shape)
        for file in files:
            _flush(file)
    with (folder / _INDEX).open("w", encoding="utf-8") as index:
        json.dump(shapes, index)
        _flush(index)


def _flush(file: IO[Any]) -> None:
    """To the disk: after a power cut a renamed entry must not hold pages of zeros."""
    file.flush()
    os.fsync(file.fileno())


def _publish(building: Path, entry: Path, parts: Mapping[str, str]) -> None:
    try:
        building.rename(entry)
    except OSError:
        if _read(entry, parts) is None:  # not another builder's: damaged
            shutil.rmtree(entry, ignore_errors=True)
            building.rename(entry)


def _in_memory(
    parts: Mapping[str, str], rows: Iterable[tuple[Array, ...]]
) -> tuple[FlatArrays, ...]:
    columns = list(zip(*rows, strict=True))
    return tuple(
        _joined(column, dtype) for column, dtype in zip(columns, parts.values(), strict=True)
    )


def _joined(arrays: Sequence[Array], dtype: str) -> FlatArrays:
    data = np.concatenate([array.ravel() for array in arrays])
    data.flags.writeable = False
    return FlatArrays([array.shape for array in arrays], dtype, data=data)


def _check_space(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed * 1.02:
        raise DataError(
            f"The frame cache needs {needed / 1e9:.1f} GB; {folder} has {free / 1e9:.1f} GB left.",
            "Set SMP_CAMVID_CACHE to a folder on another disk.",
        )


def _remove_old(home: Path) -> None:
    now = time.time()
    for folder, days in _ages(home, now):
        limit = _ABANDONED_DAYS if folder.name.startswith(".building-") else _UNUSED_DAYS
        if days > limit:
            shutil.rmtree(folder, ignore_errors=True)


def _ages(home: Path, now: float) -> Iterator[tuple[Path, float]]:
    """(entry, days since it was last used)."""
    for folder in home.iterdir():
        with contextlib.suppress(OSError):  # another process may be removing it
            index = folder / _INDEX
            used = (index if index.exists() else folder).stat().st_mtime
            yield folder, (now - used) / 86400
