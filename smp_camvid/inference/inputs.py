"""What `predict` is given: files, folders, patterns, addresses, a stream; in a fixed order.

Nothing is opened here.  The order depends on names only, so that processes which share the work
come to the same list.
"""

from __future__ import annotations

import functools
import glob
import os
import re
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import unquote, urlsplit

from smp_camvid.errors import DataError, UsageError
from smp_camvid.inference import video
from smp_camvid.inference.files import KINDS, file_name
from smp_camvid.inference.manifest import HOME

PICTURES = frozenset({
    ".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".tif", ".tiff", ".bmp", ".dib",
    ".gif", ".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".j2k", ".avif",
})  # fmt: skip
STDIN = "-"
_URL = re.compile(r"https?://", re.IGNORECASE)
_COUNTER = re.compile(r"%0?(\d*)d")  # frame_%05d.png
OURS = re.compile(rf".+_({'|'.join(KINDS)})\.(png|npz|mp4|mkv)")


@dataclass(frozen=True, slots=True)
class Input:
    """A picture or a video, and where its predictions go."""

    name: str
    """A path, an address, or "-"."""
    below: str = ""
    """Folder below the output folder; "" is that folder."""
    with_suffix: bool = False
    """Its files are named after `name` with its suffix: another of its folder has the stem."""

    @property
    def stem(self) -> str:
        """What the names of its files begin with."""
        if self.name == STDIN:
            return "stdin"
        if self.is_url:
            last = Path(unquote(urlsplit(self.name).path)).stem
            # what a server calls a file is no path here, nor a hidden file
            return re.sub(r"[^\w.-]+", "_", last).lstrip(".")[:100] or "picture"
        path = Path(self.name)
        return path.name if self.with_suffix else path.stem

    @property
    def output(self) -> str:
        """`below/stem`: one input's alone."""
        return f"{self.below}/{self.stem}" if self.below else self.stem

    @property
    def is_url(self) -> bool:
        return bool(_URL.match(self.name))

    @property
    def is_file(self) -> bool:
        return self.name != STDIN and not self.is_url

    @property
    def is_video(self) -> bool:
        return self.is_file and video.is_video(self.name)

    @property
    def shown(self) -> str:
        """The name in messages and manifests: an address without what may be secret in it."""
        if not self.is_url:
            return self.name
        parts = urlsplit(self.name)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"

    def file_name(self, kind: str) -> str:
        """Of what is written, below the output folder."""
        if self.is_video:
            return f"{self.output}_{kind}.{video.KINDS[kind]}"
        return file_name(self.output, kind)


def find_inputs(
    words: Sequence[str], recursive: bool = False, out: Path | None = None
) -> list[Input]:
    """INPUT... of the command line -> inputs, each once.

    A folder gives the pictures and videos in it, with `recursive` those below it too, but neither
    hidden ones nor earlier predictions in `out` or any other folder.  Of those in a folder that
    differ in nothing but the suffix, the first has the stem to itself.  Raises DataError for a path
    that is not there and for a folder or pattern without pictures.
    """
    made = out.resolve() if out else None
    found: dict[str, Input] = {}
    for word in words:
        for one in _reachable(word, recursive, made):
            found.setdefault(os.path.normpath(one.name) if one.is_file else one.name, one)
    return _told_apart(list(found.values()))


def _reachable(word: str, recursive: bool, made: Path | None) -> Iterable[Input]:
    try:
        return _expanded(word, recursive, made)
    except OSError as error:
        raise DataError(f"{word} cannot be read: {error.strerror}.") from None


def _told_apart(inputs: list[Input]) -> list[Input]:
    firsts: dict[str, Input] = {}
    for number, one in enumerate(inputs):
        first = firsts.setdefault(one.output, one)
        if first is not one and first.is_file and one.is_file:
            here, there = Path(one.name), Path(first.name)
            if here.parent == there.parent and here.suffix != there.suffix:
                inputs[number] = replace(one, with_suffix=True)
    return inputs


def _expanded(word: str, recursive: bool, made: Path | None) -> Iterable[Input]:
    path = Path(word)
    if not word:
        raise UsageError("An INPUT is empty.", "Name a picture or a folder; . is this one.")
    if word == STDIN or _URL.match(word):
        return [_checked(Input(word))]
    if path.is_dir():
        inputs = list(_in_folder(path, "", recursive, made))
        if not inputs:
            raise DataError(
                f"There is no picture in {word}.",
                "" if recursive else "--recursive also looks into the folders in it.",
            )
        return inputs
    if path.exists():
        return [Input(word)]
    if glob.has_magic(word):
        return _matches(word, recursive, made)
    if _COUNTER.search(path.name):
        return _numbered(path)
    raise DataError(
        f"There is no file or folder {word}.", "Name a picture or a folder of pictures."
    )


def _checked(one: Input) -> Input:
    try:
        urlsplit(one.name)
    except ValueError as error:
        raise UsageError(f"{one.name} is no address: {error}.") from None
    return one


def _matches(pattern: str, recursive: bool, made: Path | None) -> list[Input]:
    """What a shell would give, `**` included; the folders from the first wildcard on stay."""
    parts = Path(pattern).parts
    fixed = Path(*parts[: next(n for n, part in enumerate(parts) if glob.has_magic(part))])
    found: list[Input] = []
    for name in sorted(glob.glob(pattern, recursive=True)):  # noqa: PTH207  # leaves out hidden ones
        path = Path(name)
        if path.is_dir() and "**" not in parts:  # with ** the pattern says how deep
            found += _in_folder(path, _below(path, fixed), recursive, made)
        elif _is_input(path.name, _among_predictions(path.parent, made)) and _is_meant(path):
            found.append(Input(name, _below(path.parent, fixed)))
    if not found:
        raise DataError(f"No picture matches {pattern}.")
    return found


def _below(folder: Path, root: Path) -> str:
    return "" if folder == root else folder.relative_to(root).as_posix()


def _numbered(pattern: Path) -> list[Input]:
    """`frame_%05d.png`: every number that is there, in order."""
    before, width, after = _COUNTER.split(pattern.name, maxsplit=1)
    form = re.compile(rf"{re.escape(before)}(\d+){re.escape(after)}")
    there = pattern.parent.iterdir() if pattern.parent.is_dir() else ()
    numbers = [
        (int(match[1]), path)
        for path in there
        if (match := form.fullmatch(path.name)) and match[1] == f"{int(match[1]):0{width or 1}d}"
    ]
    if not numbers:
        raise DataError(f"There is no picture {pattern}, with any number.")
    return [Input(str(path)) for _, path in sorted(numbers)]


def _in_folder(folder: Path, below: str, recursive: bool, made: Path | None) -> Iterator[Input]:
    """Sorted by path; scandir asks the disk once for a folder, not once for each file.

    A folder that cannot be listed is an input, which will fail and be told of.
    """
    try:
        with os.scandir(folder) as listing:
            entries = sorted(listing, key=lambda entry: entry.name)
    except OSError:
        yield Input(str(folder), below)
        return
    inside = _among_predictions(folder, made)
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if entry.is_dir(follow_symlinks=False):
            # earlier predictions; in a folder that is asked for as such their names tell
            if recursive and (inside or Path(entry.path).resolve() != made):
                deeper = f"{below}/{entry.name}" if below else entry.name
                yield from _in_folder(Path(entry.path), deeper, recursive, made)
        elif _is_input(entry.name, inside) and (
            entry.is_file(follow_symlinks=False) or _is_meant(entry)  # the first asks no disk
        ):
            yield Input(entry.path, below)


def _is_meant(entry: os.DirEntry[str] | Path) -> bool:
    """A file, or a link that leads to none, which is told of like any bad file; no pipe or device,
    which might never end."""
    try:
        return stat.S_ISREG(entry.stat().st_mode)
    except OSError:
        return True


@functools.cache
def _among_predictions(folder: Path, made: Path | None) -> bool:
    """Whether it is in `made`, or in a folder that a job of `predict` has written to."""
    place = folder.resolve()
    if made is not None and place.is_relative_to(made):
        return True
    return any((above / HOME).is_dir() for above in (place, *place.parents))


def _is_input(name: str, among_predictions: bool) -> bool:
    """Whether a file that nobody named is meant."""
    if name.startswith(".") or (among_predictions and OURS.fullmatch(name)):
        return False
    return Path(name).suffix.lower() in PICTURES or video.is_video(name)
