"""The one door for picture files: frames to RGB, labels to indices or colours, sizes from headers.

Pillow decodes, because it notices truncated files; OpenCV returns the part it could read.  Only
formats that people keep pictures in are opened: others of Pillow's run programs (EPS) or are hardly
ever used by anybody but attackers.  A damaged JPEG of full length cannot be told from a good one:
the format has no checksums.
"""

from __future__ import annotations

import importlib.util
import stat
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from smp_camvid.errors import DataError

Picture = npt.NDArray[np.uint8]
Result = TypeVar("Result")

FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "DIB", "GIF", "PPM", "JPEG2000") + (
    ("AVIF",) if importlib.util.find_spec("PIL.AvifImagePlugin") else ()  # from Pillow 11.3 on
)
_ORIENTATION = 0x0112  # EXIF tag; 5 to 8 lie on their side
# catch_warnings swaps a process-wide list, and frames are decoded by several threads.
_parsing = threading.Lock()
# Of odd headers Pillow warns while it decodes, too, where no lock may be held.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")


def read_image(path: str | Path) -> Picture:
    """A picture file of any mode -> uint8 `[H, W, 3]` RGB, turned upright by its EXIF orientation.

    Alpha is dropped, 16-bit greys are divided by 257, CMYK is converted; of several pages or
    frames it is the first.  Raises DataError for what is missing, not a picture, truncated,
    float-valued or absurdly large.
    """
    return read_picture(path)[0]


def read_picture(path: str | Path, shown: str = "") -> tuple[Picture, tuple[str, ...]]:
    """`read_image`, and what the user should know of the file; `shown` is its name in errors."""
    with _opened(Path(path), shown) as image:
        picture = to_rgb(_upright(image))
        return picture, _notes(image)


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
        turned = "exif" in image.info and _orientation(image) >= 5
    return (width, height) if turned else (height, width)


def holds_indices(path: str | Path, are_classes: Callable[[Picture], bool]) -> bool:
    """Whether `read_label` would give indices rather than colours, from the header alone."""
    with _opened(Path(path)) as image:
        return _is_index(image, are_classes)


@contextmanager
def _opened(path: Path, shown: str = "") -> Iterator[Image.Image]:
    """The file with its header read; whatever goes wrong until it is closed is a DataError."""
    name = shown or str(path)
    try:
        kind = path.stat().st_mode
        if not (stat.S_ISREG(kind) or stat.S_ISDIR(kind)):  # reading a pipe would wait for ever
            raise DataError("this is a pipe or a device, not a picture file.", "Remove it.")
        with _quietly(lambda: Image.open(path, formats=FORMATS)) as image:
            if min(image.size) < 1:
                raise DataError("this picture has no pixels.")
            yield image
    except DataError as error:
        raise DataError(f"{name}: {error.message}", error.hint) from error
    except FileNotFoundError as error:
        raise DataError(f"{name} does not exist.") from error
    except (IsADirectoryError, PermissionError) as error:
        raise DataError(f"{name} cannot be read: {error.strerror}.") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(
            f"{name} claims more than {Image.MAX_IMAGE_PIXELS or 0:,} pixels and was not opened.",
            "Scale it down first if it really is that large.",
        ) from error
    except UnidentifiedImageError as error:
        raise DataError(
            f"{name} is not a picture, or of a format that cannot be read.",
            "PNG, JPEG, WebP, TIFF, BMP, GIF, PPM and JPEG 2000 can.",
        ) from error
    except Exception as error:
        # A damaged file makes decoders raise anything: OSError, SyntaxError, struct.error ...
        raise DataError(
            f"{name} cannot be read: the file is truncated or damaged ({error}).",
            "Fetch or save it again.",
        ) from error


def _quietly(work: Callable[[], Result]) -> Result:
    """With Pillow's warning of a huge picture as an error and its others unheard."""
    with _parsing, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        return work()


def _orientation(image: Image.Image) -> int:
    value = _quietly(lambda: image.getexif().get(_ORIENTATION, 1))
    return value if isinstance(value, int) else 1


def _upright(image: Image.Image) -> Image.Image:
    image.load()  # outside the lock; a PNG may have its EXIF data behind the pixels
    return ImageOps.exif_transpose(image) if _orientation(image) in range(2, 9) else image


def _notes(image: Image.Image) -> tuple[str, ...]:
    if image.format == "MPO":  # a phone's JPEG with previews of itself
        return ()
    try:
        _quietly(lambda: image.seek(1))  # counting all of them would read the whole file
    except Exception:  # there is none, or it is damaged, which is not what was asked for
        return ()
    return ("has several pages or frames; the first was taken",)


def to_rgb(image: Image.Image) -> Picture:
    """A PIL image of any mode -> uint8 `[H, W, 3]`.

    Raises DataError for 32 bits, floats and CIELAB.
    """
    if image.mode.startswith("I"):
        wide = np.asarray(image)
        if wide.min() < 0 or wide.max() > 65535:
            raise DataError("pictures have 8 or 16 bits a channel, this one has 32.")
        grey = ((wide.astype(np.uint32) + 128) // 257).astype(np.uint8)  # rounded
        return np.repeat(grey[..., None], 3, axis=2)
    if image.mode == "F":
        raise DataError("pictures have 8 or 16 bits a channel, this one holds floats.")
    if image.mode == "LAB":
        raise DataError("pictures are RGB or grey, this one is CIELAB.", "Convert it to RGB.")
    if image.mode in ("La", "RGBa"):  # the colours are multiplied by alpha
        image = image.convert({"La": "LA", "RGBa": "RGBA"}[image.mode])
    if image.mode in ("P", "PA") and (image.mode == "PA" or "transparency" in image.info):
        image = image.convert("RGBA")  # straight to RGB warns about the transparency
    return np.array(image.convert("RGB"))


def _to_label(image: Image.Image, are_classes: Callable[[Picture], bool]) -> Picture:
    if not _is_index(image, are_classes):
        return to_rgb(_upright(image))
    indices = np.asarray(_upright(image))
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
