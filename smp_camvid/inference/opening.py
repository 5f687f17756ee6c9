"""From what the user names to an engine.  torch is imported only where it will run."""

from __future__ import annotations

import shutil
from pathlib import Path

from smp_camvid import runs
from smp_camvid.errors import UsageError, did_you_mean
from smp_camvid.inference import box
from smp_camvid.inference.engine import Engine


def open_model(
    reference: str | Path | None, checkpoint: str, device: str, precision: str
) -> Engine:
    """See `predictor.load`.  Raises RunError, WeightsError, UsageError or DeviceError."""
    if reference is not None and not str(reference):
        raise UsageError("The name of the model is empty.", "Leave it out for the newest run.")
    path, name = find_weights(reference, checkpoint)
    if name is not None:
        return _open_shipped(name, device, precision)
    if path.suffix == ".onnx":
        return _open_onnx(path, str(path), device, precision)
    return _open_torch(path, str(path), device, precision)


def find_weights(reference: str | Path | None, checkpoint: str = "") -> tuple[Path, str | None]:
    """The weights file that `reference` means, and the name of the shipped model if it is one."""
    name = shipped_name(reference)
    if name is None:
        _check_name(str(reference or ""))
        return runs.find_weights(reference, checkpoint), None
    if checkpoint:
        raise UsageError(f"--checkpoint goes with a run folder; {name} has one set of weights.")
    return box.find(name) / "model.safetensors", name


def _check_name(reference: str) -> None:
    """Raises UsageError for a bare word that names neither a file, a folder nor a shipped model."""
    path = Path(reference)
    if not reference or path.exists() or path.suffix or path.name != reference:
        return
    runs_here = [str(run) for run in sorted(Path("runs").glob("*")) if run.is_dir()]
    known = [*runs_here, *box.names()]
    raise UsageError(
        f"There is no model {reference}.",
        did_you_mean(reference, known)
        or f"Name a run folder, a .safetensors or .onnx file, or {' or '.join(box.names())}.",
    )


def shipped_name(reference: str | Path | None) -> str | None:
    """The shipped model that `reference` means, if it means one; a path that is there comes first,
    and nothing means the newest run while there is one."""
    if reference is None or str(reference) == "":
        ships = box.DEFAULT in box.names()
        return box.DEFAULT if ships and runs.newest_run() is None else None
    name = str(reference)
    return name if name in box.names() and not Path(name).exists() else None


def _open_shipped(name: str, device: str, precision: str) -> Engine:
    folder = box.find(name)
    runs_here = device in ("auto", "cpu") and precision in ("auto", "fp32")
    if runs_here and not (device == "auto" and gpu_present()):
        return _open_onnx(folder / "model.onnx", name, "cpu", precision)
    return _open_torch(folder / "model.safetensors", name, device, precision)


def _open_onnx(path: Path, source: str, device: str, precision: str) -> Engine:
    from smp_camvid.inference.onnx_engine import OnnxEngine

    if precision not in ("auto", "fp32"):
        raise UsageError(
            f"--precision {precision}: {source} computes as it was exported.",
            "Leave --precision out, or name the run it was exported from.",
        )
    return OnnxEngine(path, device=device, source=source)


def _open_torch(path: Path, source: str, device: str, precision: str) -> Engine:
    from smp_camvid.inference.torch_engine import open_engine
    from smp_camvid.models.weights import load_network

    network, metadata = load_network(path)
    return open_engine(network, metadata, source, device, precision)


def gpu_present() -> bool:
    """Whether the machine seems to have an NVIDIA GPU; asking torch would take seconds."""
    return Path("/proc/driver/nvidia/version").exists() or shutil.which("nvidia-smi") is not None
