"""Damaged and hostile picture files: a DataError or a picture, in bounded time and memory.

A third of the mutants and more reach the pixel decoders: where a format has checksums they are
right again after the mutation.
"""

from __future__ import annotations

import io
import json
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

PER_FORMAT = 100
SIZE = (96, 128)
Rng = np.random.Generator
EXTREMES = (b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff", b"\0\0\0\1")


# --- mutants --------------------------------------------------------------------------------------


def frame() -> Image.Image:
    """A picture with edges, gradients and noise: every decoder has something to do."""
    height, width = SIZE
    y, x = np.mgrid[:height, :width]
    planes = np.stack([x * 2, y * 2, (x // 16 + y // 16) % 2 * 200], -1)
    noise = np.random.default_rng(7).integers(0, 20, planes.shape)
    return Image.fromarray((planes + noise).clip(0, 255).astype(np.uint8))


def encoded(format: str, **options: object) -> bytes:
    file = io.BytesIO()
    frame().save(file, format, **options)
    return file.getvalue()


def originals() -> dict[str, list[bytes]]:
    exif = frame().getexif()
    exif[0x0112] = 6
    return {
        "png": [encoded("PNG"), encoded("PNG", exif=exif)],
        "jpg": [encoded("JPEG", quality=90), encoded("JPEG", progressive=True, exif=exif)],
        "tif": [
            encoded("TIFF"), encoded("TIFF", compression="tiff_lzw"),
            encoded("TIFF", compression="tiff_adobe_deflate", exif=exif),
            encoded("TIFF", compression="jpeg"),
        ],
        "webp": [encoded("WEBP", lossless=True), encoded("WEBP", quality=80, exif=exif)],
    }  # fmt: skip


def mutate(data: bytes, rng: Rng) -> bytes:
    """One to four wounds: flipped bits, other bytes, a hole, a copy, an end."""
    wounded = bytearray(data or b"\0")
    for _ in range(rng.integers(1, 5)):
        at = int(rng.integers(len(wounded)))
        length = int(rng.integers(1, 40))
        kind = rng.integers(6)
        if kind == 0:
            wounded[at] ^= 1 << int(rng.integers(8))
        elif kind == 1:
            wounded[at : at + length] = rng.bytes(length)
        elif kind == 2:
            wounded[at : at + 4] = EXTREMES[int(rng.integers(len(EXTREMES)))]
        elif kind == 3:
            del wounded[at + 1 : at + length]
        elif kind == 4:
            wounded[at:at] = wounded[at : at + length]
        elif len(wounded) > 200:
            del wounded[max(100, at) :]
    return bytes(wounded)


def chunks(png: bytes) -> list[tuple[bytes, bytes]]:
    found, at = [], 8
    while at + 8 <= len(png):
        (length,) = struct.unpack(">I", png[at : at + 4])
        found.append((png[at + 4 : at + 8], png[at + 8 : at + 8 + length]))
        at += 12 + length
    return found


def png_of(parts: list[tuple[bytes, bytes]]) -> bytes:
    body = b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in parts
    )
    return b"\x89PNG\r\n\x1a\n" + body


def repaired_png(png: bytes, rng: Rng) -> bytes:
    """Wounds inside one chunk; lengths and CRCs are right, and every other time zlib's too."""
    parts = chunks(png)
    number = int(rng.integers(len(parts)))
    name, data = parts[number]
    if name == b"IDAT" and rng.integers(2):
        parts[number] = (name, zlib.compress(mutate(zlib.decompress(data), rng)))
    else:
        parts[number] = (name, mutate(data or b"\0", rng))
    return png_of(parts)


def behind_the_header(data: bytes, rng: Rng) -> bytes:
    """Wounds in what the header of a JPEG, TIFF or WebP announces."""
    cut = len(data) // 3
    return data[:cut] + mutate(data[cut:], rng)


def mutants(folder: Path) -> int:
    """Writes them; the same ones every time."""
    rng = np.random.default_rng(20)
    for suffix, files in originals().items():
        deep = repaired_png if suffix == "png" else behind_the_header
        for number in range(PER_FORMAT):
            wound: Callable[[bytes, Rng], bytes] = deep if number % 2 else mutate
            path = folder / f"{number:03}.{suffix}"
            path.write_bytes(wound(files[number % len(files)], rng))
    return len(list(folder.iterdir()))


# --- a process with a limit on its memory reads them ----------------------------------------------

_READER = """
import json, resource, sys, time
from pathlib import Path
import numpy as np
from PIL import Image, ImageFile, features
from smp_camvid.data.pictures import read_image
from smp_camvid.errors import DataError

folder, room = Path(sys.argv[1]), int(sys.argv[2])
read_image(folder.parent / "good.png")  # all that is imported late is there now
Image.init()
used, resident = (
    int(pages) * resource.getpagesize()
    for pages in Path("/proc/self/statm").read_text().split()[:2]
)
resource.setrlimit(resource.RLIMIT_AS, (used + room, used + room))

reached = False
decoder = Image._getdecoder
def noted(*words, **options):
    global reached
    reached = True
    return decoder(*words, **options)
Image._getdecoder = noted
from PIL import WebPImagePlugin
webp = WebPImagePlugin.WebPImageFile._get_next
def webp_noted(self):
    global reached
    reached = True
    return webp(self)
WebPImagePlugin.WebPImageFile._get_next = webp_noted

def timed(path):
    global reached
    reached = False
    began = time.process_time()
    try:
        picture = read_image(path)
        assert picture.ndim == 3 and picture.dtype == np.uint8
        said = ""
    except DataError as error:
        said = str(error)
        assert said.startswith(str(path)) and "\\n" not in said, said
    return {"name": path.name, "said": said, "reached": reached,
            "seconds": time.process_time() - began}

good = [timed(folder.parent / "good.png")["seconds"] for _ in range(20)]
rows = [timed(path) for path in sorted(folder.iterdir())]
status = Path("/proc/self/status").read_text()
peak = int(status.partition("VmHWM:")[2].split()[0]) * 1024 - resident
print(json.dumps({"good": sorted(good)[10], "rows": rows, "peak": peak}))
"""
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits and /proc of Linux")


def read_all(folder: Path, room: int) -> dict:
    """Reads every file with `room` bytes of memory to take; a traceback fails the test."""
    frame().save(folder.parent / "good.png")
    child = subprocess.run(
        [sys.executable, "-c", _READER, str(folder), str(room)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert child.returncode == 0, child.stderr
    assert "Warning" not in child.stderr  # what else is there libtiff itself prints
    return json.loads(child.stdout)


def test_mutants_give_a_picture_or_a_sentence(tmp_path: Path) -> None:
    folder = tmp_path / "mutants"
    folder.mkdir()
    count = mutants(folder)
    assert count >= 300
    result = read_all(folder, room=300 * 2**20)
    rows = result["rows"]
    assert len(rows) == count
    assert sum(row["reached"] for row in rows) >= count / 3
    for suffix in originals():  # of each kind some are read, some refused, some get to the pixels
        kind = [row for row in rows if row["name"].endswith(suffix)]
        assert 0 < sum(bool(row["said"]) for row in kind) < len(kind), suffix
        assert sum(row["reached"] for row in kind) >= len(kind) / 4, suffix
    slowest = max(rows, key=lambda row: row["seconds"])
    assert slowest["seconds"] < 200 * max(result["good"], 0.005), slowest


# --- bombs ----------------------------------------------------------------------------------------


def header(width: int, height: int, depth: int = 8, colour: int = 2) -> tuple[bytes, bytes]:
    return b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)


@lru_cache
def zeros(count: int) -> bytes:
    """So many zero bytes, compressed a thousandfold."""
    squeeze = zlib.compressobj(9)
    parts = [squeeze.compress(bytes(2**20)) for _ in range(count >> 20)]
    return b"".join(parts) + squeeze.flush()


def tiff(tags: list[tuple[int, int, int, int]]) -> bytes:
    """A little-endian TIFF of one directory of (tag, type, count, value) entries."""
    rows = b"".join(struct.pack("<HHII", *row) for row in tags)
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + rows + b"\0\0\0\0" + bytes(64)


def tiff_tags(width: int, height: int, *more: tuple[int, int, int, int]) -> bytes:
    fixed = [(256, 4, 1, width), (257, 4, 1, height), (258, 3, 1, 8), (262, 3, 1, 1)]
    return tiff([*fixed, (277, 3, 1, 1), *more])


def bombs() -> dict[str, bytes]:
    end = (b"IEND", b"")
    tiny = (b"IDAT", zlib.compress(bytes(4)))
    text = b"Comment\0\0" + zeros(2**28)
    some_text = (b"zTXt", b"k\0\0" + zlib.compress(bytes(2**20 - 1024)))
    strip = ((259, 3, 1, 8), (273, 4, 1, 8), (278, 4, 1, 60000), (279, 4, 1, 64))
    tile = ((259, 3, 1, 8), (322, 4, 1, 60000), (323, 4, 1, 60000), (324, 4, 1, 8), (325, 4, 1, 64))
    return {
        "claims.png": png_of([header(60000, 60000), tiny, end]),
        "claims_more.png": png_of([header(2**31 - 1, 2**31 - 1), tiny, end]),
        "text.png": png_of([header(1, 1), (b"zTXt", text), tiny, end]),
        "itext.png": png_of([header(1, 1), (b"iTXt", b"k\0\1\0\0\0" + zeros(2**28)), tiny, end]),
        "texts.png": png_of([header(1, 1), *[some_text] * 500, tiny, end]),
        "profile.png": png_of([header(1, 1), (b"iCCP", b"icc\0\0" + zeros(2**28)), tiny, end]),
        "claims.tif": tiff_tags(60000, 60000, *strip),
        "tile.tif": tiff_tags(64, 64, *tile),
        "tags.tif": tiff_tags(64, 64, (270, 2, 2**32 - 1, 8), *strip),
        "claims.webp": b"RIFF" + struct.pack("<I", 30) + b"WEBPVP8X" + struct.pack("<I", 10)
        + b"\0\0\0\0" + b"\xff\xff\xff" * 2 + bytes(8),
        "claims.bmp": b"BM" + struct.pack("<IHHI", 99, 0, 0, 54)
        + struct.pack("<IiiHHIIiiII", 40, 60000, 60000, 1, 24, 0, 0, 0, 0, 0, 0) + bytes(9),
        "claims.ppm": b"P6 60000 60000 255\n" + bytes(9),
        "claims.gif": b"GIF89a" + struct.pack("<HH", 65535, 65535) + b"\0\0\0," +
        struct.pack("<HHHH", 0, 0, 65535, 65535) + b"\0\2\2\x44\1\0;",
    }  # fmt: skip


def test_bombs_are_refused_before_they_go_off(tmp_path: Path) -> None:
    folder = tmp_path / "bombs"
    folder.mkdir()
    for name, data in bombs().items():
        assert len(data) < 2**20
        (folder / name).write_bytes(data)
    result = read_all(folder, room=200 * 2**20)
    read = [row["name"] for row in result["rows"] if not row["said"]]
    assert not read
    claims = [row["said"] for row in result["rows"] if row["name"].startswith("claims")]
    assert sum("was not opened" in said for said in claims) >= 5, claims
    slowest = max(result["rows"], key=lambda row: row["seconds"])
    assert slowest["seconds"] < 1000 * max(result["good"], 0.005), slowest


def test_what_expands_behind_its_last_row_is_harmless(tmp_path: Path) -> None:
    """256 MB of zeros in the pixel data of one row: what is decoded is the row."""
    folder = tmp_path / "tail"
    folder.mkdir()
    long = png_of([header(8, 1), (b"IDAT", zeros(2**28)), (b"IEND", b"")])
    (folder / "long.png").write_bytes(long)
    assert read_all(folder, room=60 * 2**20)["peak"] < 30 * 2**20
