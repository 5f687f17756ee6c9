"""Which folder shapes are datasets, and which label belongs to which frame.

kaggle   train/ train_labels/ val/ val_labels/ test/ test_labels/    label <stem>_L.png
segnet   train/ trainannot/ val/ valannot/ test/ testannot/          label of the same name
plain    images/ labels/ (or masks/, annotations/), with or without train/ val/ test/ inside
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from smp_camvid.errors import DataError

SPLITS = ("train", "val", "test")
_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"})
_FOLDERS = {"train": ("train",), "val": ("val", "valid", "validation"), "test": ("test",)}
_LABEL_FOLDERS = ("labels", "masks", "annotations")


@dataclass(frozen=True)
class Frame:
    """One picture of the dataset and its label, if it has one."""

    stem: str
    image: Path
    label: Path | None

    @property
    def drive(self) -> str:
        """The recording a frame is from: "0016E5" of "0016E5_07959"."""
        return self.stem.split("_", 1)[0]


@dataclass(frozen=True)
class Folder:
    """A folder of frames; `split` is None where the layout does not say."""

    split: str | None
    images: Path
    labels: Path | None


def find_layout(root: Path) -> tuple[Path, str, tuple[Folder, ...]]:
    """(root, layout, folders) of a dataset, or of the one subfolder an archive unpacked into.

    Raises DataError naming what was looked for, or the folder that cannot be read.
    """
    with _readable(root):
        return _find_layout(root)


@contextlib.contextmanager
def _readable(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DataError(
            f"{error.filename or folder} cannot be read: {error.strerror or error}.",
            "Look at its owner and permissions with ls -ld.",
        ) from error


def _find_layout(root: Path) -> tuple[Path, str, tuple[Folder, ...]]:
    candidates = [root, *sorted(p for p in root.iterdir() if p.is_dir() and p.name[0] not in "._")]
    for candidate in candidates if len(candidates) == 2 else candidates[:1]:
        for layout, folders in _layouts(candidate):
            if any(folder.labels for folder in folders):
                return candidate, layout, folders
    if not any(root.iterdir()):
        raise DataError(f"{root} is an empty folder.", "Fill it with: smp-camvid download")
    raise DataError(
        f"{root} does not look like a dataset: it has neither train/ with train_labels/ (Kaggle), "
        "nor train/ with trainannot/ (SegNet), nor images/ with labels/ or masks/.",
        "Name the folder that holds them, or fetch CamVid: smp-camvid download",
    )


def _layouts(root: Path) -> Iterator[tuple[str, tuple[Folder, ...]]]:
    yield "kaggle", tuple(_split_folders(root, root, "_labels"))
    yield "segnet", tuple(_split_folders(root, root, "annot"))
    images = root / "images"
    for labels in (root / name for name in _LABEL_FOLDERS):
        if images.is_dir() and labels.is_dir():
            inside = tuple(_split_folders(images, labels, ""))
            yield "plain", inside or (Folder(None, images, labels),)


def _split_folders(images: Path, labels: Path, suffix: str) -> Iterator[Folder]:
    for split, names in _FOLDERS.items():
        for name in names:
            if (images / name).is_dir():
                folder = labels / f"{name}{suffix}"
                yield Folder(split, images / name, folder if folder.is_dir() else None)
                break


@dataclass(frozen=True)
class Pairing:
    """The frames of a folder by stem, and what keeps it from being one label to one frame."""

    frames: tuple[Frame, ...]
    orphans: tuple[Path, ...]
    """Labels without a frame."""
    twins: tuple[tuple[Path, Path], ...]
    """Files of one stem in one folder; the first is the one that counts."""


def pair_folder(folder: Folder) -> Pairing:
    """Gives each frame `<stem>_L.*` or `<stem>.*` from the label folder.

    Raises DataError only for a folder that cannot be read.
    """
    with _readable(folder.images):
        images, twin_images = _by_stem(folder.images)
        labels, twin_labels = _by_stem(folder.labels) if folder.labels else ({}, [])
    frames = tuple(
        Frame(stem, image, labels.pop(f"{stem}_L", None) or labels.pop(stem, None))
        for stem, image in images.items()
    )
    return Pairing(frames, tuple(labels.values()), (*twin_images, *twin_labels))


def pair_frames(folder: Folder) -> tuple[Frame, ...]:
    """The frames of `pair_folder`.

    Raises DataError when labels are there whose frames are missing, or two files of one stem.
    """
    pairing = pair_folder(folder)
    for first, second in pairing.twins:
        raise DataError(
            f"{first.parent} holds both {first.name} and {second.name}.", "Remove one of the two."
        )
    orphans = pairing.orphans
    if orphans:
        raise DataError(
            f"{count(len(orphans), 'label')} in {folder.labels} "
            f"{'has' if len(orphans) == 1 else 'have'} no frame in {folder.images}: "
            f"{first_few(path.name for path in orphans)}.",
            "Remove it or add the frame; smp-camvid data check lists all.",
        )
    return pairing.frames


def _by_stem(folder: Path) -> tuple[dict[str, Path], list[tuple[Path, Path]]]:
    found: dict[str, Path] = {}
    twins = []
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in _SUFFIXES or path.name.startswith("."):
            continue
        if path.stem in found:
            twins.append((found[path.stem], path))
        else:
            found[path.stem] = path
    return found, twins


def count(number: int, noun: str) -> str:
    """`"1 frame"`, `"2 frames"`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def first_few(names: Iterable[str], limit: int = 3) -> str:
    """`"a, b, c, ..."`."""
    listed = list(names)
    return ", ".join(listed[:limit]) + (", ..." if len(listed) > limit else "")
