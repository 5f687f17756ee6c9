"""Where datasets and caches are on this machine."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import platformdirs

from smp_camvid.errors import DataError

GET_DATA = "smp-camvid download, or without CamVid: smp-camvid train --data synthetic"


def cache_home() -> Path:
    """Where decoded frames and the synthetic dataset are kept; $SMP_CAMVID_CACHE overrides."""
    return Path(os.environ.get("SMP_CAMVID_CACHE") or platformdirs.user_cache_dir("smp-camvid"))


def find_data(path: str | Path | None = None) -> Path:
    """The dataset's folder.  None or "auto": ./data/camvid, ./CamVid, then the user data folder.

    Raises DataError when there is none.
    """
    if path is None or str(path) == "auto":
        user = Path(platformdirs.user_data_dir("smp-camvid")) / "camvid"
        places = [Path("data/camvid"), Path("CamVid"), user]
        for place in places:
            if place.is_dir():
                return place
        listed = ", ".join(f"./{p}" if not p.is_absolute() else str(p) for p in places)
        raise DataError(f"There is no dataset in {listed}.", f"Get it: {GET_DATA}")
    path = Path(path).expanduser()
    try:
        if path.is_file():
            hint = f"Unpack an archive with: smp-camvid download --archive {path}"
            raise DataError(f"{path} is a file; a dataset is a folder.", hint)
        if not path.is_dir():
            raise DataError(f"There is no dataset folder {path}.", f"Get it: {GET_DATA}")
    except OSError as error:  # a folder on the way that may not be entered, a name too long
        raise DataError(f"{path} cannot be opened: {error.strerror or error}.") from error
    return path


def synthetic_data() -> Path:
    """The synthetic dataset in the user cache, drawn on first use; whole or not there at all."""
    from smp_camvid.data import synthetic

    target = cache_home() / f"synthetic-{synthetic.VERSION}"
    if target.is_dir():
        return target
    drawing: Path | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        drawing = Path(tempfile.mkdtemp(prefix=".drawing-", dir=target.parent))
        synthetic.generate(drawing / "data")
        (drawing / "data").rename(target)
    except OSError as error:
        if not target.is_dir():  # else another process was first, and its frames are the same
            raise DataError(
                f"The synthetic dataset cannot be written to {target.parent}: {error}.",
                "Set SMP_CAMVID_CACHE to a folder that can be written.",
            ) from error
    finally:
        if drawing is not None:
            shutil.rmtree(drawing, ignore_errors=True)
    return target
