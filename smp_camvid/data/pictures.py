"""The one door for picture files: frames to RGB, labels to indices or colours, sizes from headers.

Pillow decodes, because it notices truncated files; OpenCV returns the part it could read.
"""

from __future__ import annotations

import stat
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from smp_camvid.errors import DataError

Picture = npt.NDArray[np.uint8]

_ORIENTATION = 0x0112  # EXIF tag; 5 to 8 lie on their side
# catch_warnings swaps a process-wide list, and frames are decoded by several threads.
_opening = threading.Lock()


def read_image(path: str | Path) -> Picture:
    """A picture file of any mode -> uint8 `[H, W, 3]` RGB, turned upright by its EXIF orientation.

    Alpha is dropped, 16-bit greys are divided by 257, CMYK is converted.  Raises DataError for
    what is missing, not a picture, truncated, float-valued or absurdly large.
    """
    with _opened(Path(path)) as image:
        return _to_rgb(ImageOps.exif_transpose(image))


def read_label(path: str | Path, are_classes: Callable[[Picture], bool]) -> Picture:
    """A label file -> uint8 `[H, W]` indices (grey, palette) or `[H, W, 3]` colours.

    A palette picture means its indices, except when every colour of its palette is a class
    colour (`are_classes([n, 3])`): then it is a colour label that some tool made smaller, and
    its indices follow no class order.
    """
    with _opened(Path(path)) as image:
        return _to_label(image, are_classes)


def picture_size(path: str | Path) -> tuple[int, int]:
    """Height and width as `read_image` would return them, from the header alone."""
    with _opened(Path(path)) as image:
        width, height = image.size
        # Asking a PNG for EXIF data that its header does not announce would decode it whole.
        turned = "exif" in image.info and image.getexif().get(_ORIENTATION, 1) >= 5
    return (width, height) if turned else (height, width)


def holds_indices(path: str | Path, are_classes: Callable[[Picture], bool]) -> bool:
    """Whether `read_label` would give indices rather than colours, from the header alone."""
    with _opened(Path(path)) as image:
        return _is_index(image, are_classes)


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """The file with its header read; whatever goes wrong until it is closed is a DataError."""
    try:
        kind = path.stat().st_mode
        if not (stat.S_ISREG(kind) or stat.S_ISDIR(kind)):  # reading a pipe would wait for ever
            raise DataError("this is a pipe or a device, not a picture file.", "Remove it.")
        with _opening, warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(path)
        with image:
            yield image
    except DataError as error:
        raise DataError(f"{path}: {error.message}", error.hint) from error
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist.") from error
    except (IsADirectoryError, PermissionError) as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(
            f"{path} claims more than {Image.MAX_IMAGE_PIXELS or 0:,} pixels and was not opened.",
            "Scale it down first if it really is that large.",
        ) from error
    except UnidentifiedImageError as error:
        raise DataError(f"{path} is not a picture, or of a format that cannot be read.") from error
    except Exception as error:
        # A damaged file makes decoders raise anything: OSError, SyntaxError, struct.error ...
        raise DataError(
            f"{path} cannot be read: the file is truncated or damaged ({error}).",
            "Fetch or save it again.",
        ) from error


def _to_rgb(image: Image.Image) -> Picture:
    if image.mode.startswith("I"):
        wide = np.asarray(image).astype(np.int64)
        if wide.min() < 0 or wide.max() > 65535:
            raise DataError("pictures have 8 or 16 bits a channel, this one has 32.")
        grey = np.rint(wide / 257).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)
    if image.mode == "F":
        raise DataError("pictures have 8 or 16 bits a channel, this one holds floats.")
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # straight to RGB warns about the transparency
    return np.array(image.convert("RGB"))


def _to_label(image: Image.Image, are_classes: Callable[[Picture], bool]) -> Picture:
    if not _is_index(image, are_classes):
        return _to_rgb(ImageOps.exif_transpose(image))
    indices = np.asarray(ImageOps.exif_transpose(image))
    if indices.ndim == 3:  # grey with alpha
        indices = indices[..., 0]
    if indices.min() < 0 or indices.max() > 255:
        raise DataError(f"label value {indices.max()} stands for no class; 0 to 255 can.")
    return indices.astype(np.uint8)


def _is_index(image: Image.Image, are_classes: Callable[[Picture], bool]) -> bool:
    if image.mode == "P" and image.palette is not None:
        return not are_classes(_palette(image))
    return image.mode in ("1", "L", "LA", "P", "I") or image.mode.startswith("I;")


def _palette(image: Image.Image) -> Picture:
    """The colours `[n, 3]` of the palette as it stands in the file."""
    assert image.palette is not None
    mode, raw = image.palette.mode, bytes(image.palette.palette)
    return np.frombuffer(raw, np.uint8).reshape(-1, len(mode))[:, :3]
