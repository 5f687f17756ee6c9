"""A network run by ONNX Runtime: no torch, and a mask within a second of starting.

ONNX Runtime reports its use to its makers unless told otherwise, on Linux too since 1.29 (its
Privacy.md).  `runtime` is the one place that imports it, with that switched off.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from smp_camvid.errors import DataError, DeviceError, UsageError, WeightsError
from smp_camvid.inference.engine import Maps, NumpyMath
from smp_camvid.models.weights import METADATA_KEY, table_of

_FATAL = 4  # of ONNX Runtime's log levels: what goes wrong is raised, and need not be printed too


def runtime() -> Any:
    """The module onnxruntime, which sends nothing anywhere and keeps no device id.

    A program that imported it before decides that itself.
    """
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # read once, while it is imported
    import onnxruntime

    onnxruntime.disable_telemetry_events()  # what Windows collects does not ask the variable
    onnxruntime.set_default_logger_severity(_FATAL)
    return onnxruntime


def usable_cores() -> int:
    """The cores this process may use; OMP_NUM_THREADS, which torchrun sets, says less."""
    told = os.environ.get("OMP_NUM_THREADS", "")
    if told.isdigit() and int(told):
        return int(told)
    if hasattr(os, "sched_getaffinity"):  # neither macOS nor Windows has it
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def open_session(path: Path, device: str = "cpu") -> Any:
    """An ONNX Runtime session of a file.  Raises WeightsError or DeviceError in words."""
    if not path.is_file():
        raise WeightsError(f"There is no file {path}.", "smp-camvid export RUN --out FILE.onnx")
    onnxruntime = runtime()
    providers = _providers(onnxruntime.get_available_providers(), device, path)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = usable_cores()
    options.log_severity_level = _FATAL
    # Threads that wait turning take a fifth of the time of a first mask from those that decode.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        # Whole paths: an installer may have put symbolic links to its cache into the package,
        # and weights beside the graph are looked for beside the file itself.
        return onnxruntime.InferenceSession(str(path.resolve()), options, providers=providers)
    except Exception as error:  # its errors have no base class of their own
        raise _not_opened(path, str(error), onnxruntime.__version__) from error


_WHERE_IN_ORT = re.compile(r"^.*failed:|\S+\.(cc|h):\d+ .*\)(?= )|\[ONNXRuntimeError\].*? : .*? : ")


def _not_opened(path: Path, reason: str, version: str) -> WeightsError:
    """What ONNX Runtime says of a file, without the places in its sources."""
    if beside := re.search(r"does not exist: \"?([^\"]+)", reason):
        return WeightsError(
            f"{path} has its tensors in {Path(beside[1]).name}, which is not beside it.",
            "Copy both files, or export the model again.",
        )
    said = _WHERE_IN_ORT.sub("", " ".join(reason.split())).strip(" .")[:200]
    return WeightsError(
        f"{path} cannot be opened by ONNX Runtime {version}: {said}.",
        "It may be damaged, or newer than this ONNX Runtime: copy it again, or export it again.",
    )


def _providers(available: list[str], device: str, path: Path) -> list[Any]:
    kind, _, number = device.partition(":")
    gpu = "CUDAExecutionProvider" in available
    if kind == "cuda" and not gpu:
        raise DeviceError(
            f"--device {device}: this ONNX Runtime has no CUDA, which {path.name} would need.",
            "Use --device cpu, name the run itself, or install onnxruntime-gpu instead.",
        )
    if kind not in ("auto", "cpu", "cuda") or (number and not number.isdigit()):
        raise UsageError(
            f"--device {device}: {path.name} runs on cpu or cuda.", "Leave --device out."
        )
    cuda = [("CUDAExecutionProvider", {"device_id": int(number or 0)})]
    return [*(cuda if gpu and kind != "cpu" else []), "CPUExecutionProvider"]


def metadata_of(session: Any, path: Path) -> dict[str, Any]:
    """What `export` wrote into the file.  Raises WeightsError for a file of somebody else."""
    text = session.get_modelmeta().custom_metadata_map.get(METADATA_KEY)
    if text is None:
        raise WeightsError(
            f"{path} was not exported by smp-camvid: it does not say which classes it knows.",
            "smp-camvid export RUN --out FILE.onnx",
        )
    try:
        content = dict(json.loads(text))
        table_of(content)
        if not {"size_policy", "mean", "export"} <= content.keys():
            raise KeyError("size_policy, mean, export")
    except (ValueError, TypeError, KeyError) as error:
        raise WeightsError(f"{path} has damaged metadata: {error!r}.") from error
    return content


class OnnxEngine:
    """An exported network as an `Engine`."""

    def __init__(self, path: str | Path, device: str = "cpu", source: str = "") -> None:
        """Raises WeightsError for a file that cannot be run or gives no scores, DeviceError."""
        path = Path(path)
        self.session = open_session(path, device)
        self.metadata: Mapping[str, Any] = metadata_of(self.session, path)
        facts = self.metadata["export"]
        if facts["output"] != "logits":
            raise WeightsError(
                f"{path} was exported with --argmax: it gives classes, and no scores that could "
                "be brought to another size or become probabilities.",
                "Export the model without --argmax.",
            )
        self.table = table_of(self.metadata)
        self.size_policy: Mapping[str, Any] = self.metadata["size_policy"]
        self.source = source or str(path)
        self.device = "cuda" if "CUDA" in self.session.get_providers()[0] else "cpu"
        self.math = NumpyMath()
        self.size: tuple[int, int] | None = tuple(facts["size"]) if facts["size"] else None
        self.any_batch: bool = facts["any_batch"]

    def run(self, images: Any) -> Maps:
        height, width = images.shape[-2:]
        x = _as_floats(images)
        if self.size:
            x = self._filled_up(x, self.size)
        parts = [x] if self.any_batch else np.split(x, len(x))
        maps = [self.session.run(None, {"image": part})[0] for part in parts]
        return (maps[0] if len(maps) == 1 else np.concatenate(maps))[..., :height, :width]

    def run_tile(self, images: Any) -> Maps:
        margin, multiple = self.size_policy["margin"], self.size_policy["multiple"]
        # The graph adds a border of its own.  Its network pools on a grid that starts with that
        # border and not with the tile, so the tile is moved until both grids meet.
        moved = -margin % multiple
        x = np.pad(_as_floats(images), ((0, 0), (0, 0), (moved, 0), (moved, 0)))
        height, width = x.shape[-2:]
        start = margin + moved
        return self.run(x)[..., start : height - margin, start : width - margin]

    def _filled_up(
        self, x: npt.NDArray[np.float32], size: tuple[int, int]
    ) -> npt.NDArray[np.float32]:
        """A frame smaller than the one size the graph takes, with the mean colour added."""
        height, width = x.shape[-2:]
        if height > size[0] or width > size[1]:
            raise DataError(
                f"{self.source} was exported for frames of {size[0]}x{size[1]}, and this one "
                f"is {height}x{width} at the network's scale.",
                f"--tile {size[0]}x{size[1]} cuts frames to that size.",
            )
        mean = np.array(self.metadata["mean"], np.float32).reshape(-1, 1, 1) * 255
        full = np.empty((*x.shape[:2], *size), np.float32)
        full[:] = mean
        full[..., :height, :width] = x
        return full


def _as_floats(images: Any) -> npt.NDArray[np.float32]:
    on_host = images.cpu() if hasattr(images, "cpu") else images  # a torch tensor
    return np.ascontiguousarray(on_host, dtype=np.float32)
