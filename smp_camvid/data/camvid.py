"""CamVid, or a dataset of its shape, opened in place: frames, labels, splits and classes.

The standard 367/101/233 split goes by file stem, because the folders of the Kaggle copy hold
another one.  Nothing in the dataset's folder is ever written.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

from smp_camvid.data.classes import (
    CAMVID11,
    CAMVID32,
    ClassTable,
    LabelDecoder,
    camvid11_decoder,
    camvid32_decoder,
    read_class_dict,
    table_decoder,
)
from smp_camvid.data.layouts import SPLITS, Frame, count, find_layout, first_few, pair_frames
from smp_camvid.data.pictures import Picture, holds_indices, picture_size, read_label
from smp_camvid.data.pictures import read_image as read_image
from smp_camvid.data.places import GET_DATA, synthetic_data
from smp_camvid.data.places import find_data as find_data
from smp_camvid.errors import DataError, UsageError

Classes = Literal["11", "32", "dataset"]
SplitSource = Literal["standard", "folders"]
Size = tuple[int, int]

HEADLINE_SIZE: Size = (360, 480)
"""Height and width of the labels that published CamVid scores are counted on."""


@dataclass(frozen=True)
class CamVid:
    """An opened dataset.  Made by `open_dataset`."""

    root: Path
    layout: str
    """"kaggle", "segnet" or "plain"."""
    table: ClassTable
    """What a model predicts."""
    decoder: LabelDecoder
    splits: Mapping[str, tuple[Frame, ...]]
    """"train", "val", "test" (those present), each sorted by stem."""
    family: str
    """"camvid", "synthetic" or "dataset"."""
    split_source: str
    """"standard" or "folders"."""
    held_out: str = ""
    """The drive that val is instead and train lacks; see `hold_out.hold_out`."""

    def split(self, name: str) -> tuple[Frame, ...]:
        """The frames of a split; "train+val" joins two.

        Raises DataError when there are none, or when one has no label.
        """
        frames = [f for part in name.split("+") for f in self._present(part)]
        bare = [f for f in frames if f.label is None]
        if bare:
            raise DataError(
                f"{count(len(bare), 'frame')} of the {name} split of {self.root} "
                f"{'has' if len(bare) == 1 else 'have'} no label: "
                f"{first_few(f.image.name for f in bare)}.",
                "A label is called <stem>_L.png or <stem>.png, in the label folder.",
            )
        return tuple(sorted(frames, key=lambda frame: frame.stem))

    def _present(self, name: str) -> tuple[Frame, ...]:
        if not self.splits.get(name):
            there = ", ".join(f"{k} ({len(v)})" for k, v in self.splits.items() if v) or "nothing"
            if name not in self.splits and name not in ("train", "val", "test"):
                raise UsageError(f"{self.root} has no split {name}; it holds {there}.")
            raise DataError(
                f"{self.root} has no frames in its {name} split; it holds {there}.",
                "Name one of these splits, or get the dataset whole: smp-camvid download",
            )
        return self.splits[name]

    def shortfall(self, name: str) -> int:
        """How many frames of the standard split are not here; 0 for other splits."""
        if self.split_source != "standard" or self.held_out:
            return 0
        return sum(len(standard_stems(p)) - len(self.splits.get(p, ())) for p in name.split("+"))

    def score_size(self) -> Size | None:
        """Label size scores are counted at unless somebody says otherwise; None is native."""
        return None if self._kind() == "dataset" else HEADLINE_SIZE

    def protocol(self, size: Size | None) -> str:
        """What a score on labels of `size` is called, such as `camvid11@360x480`."""
        where = f"{size[0]}x{size[1]}" if size else "native"
        folders = self._kind() == "camvid" and self.split_source == "folders"
        splits = "+folders" if folders else ""
        splits += f"+held-out-{self.held_out}" if self.held_out else ""
        return f"{self._kind()}{len(self.table)}@{where}{splits}"

    def _kind(self) -> str:
        # A table of one's own makes a protocol of one's own, on whatever frames.
        return "dataset" if self.table.name == "dataset" else self.family

    def load_image(self, frame: Frame) -> Picture:
        """uint8 `[H, W, 3]` RGB."""
        return read_image(frame.image)

    def load_label(self, frame: Frame) -> Picture:
        """uint8 `[H, W]` class indices, void 255.

        Raises DataError for a label that is missing, unreadable, of unknown colours or not of
        its frame's size.
        """
        if frame.label is None:
            raise DataError(f"{frame.image} has no label.")
        label = self.decoder.decode(read_label(frame.label, self.decoder.knows), frame.label)
        size = picture_size(frame.image)
        if label.shape != size:
            raise DataError(
                f"{frame.label} is {label.shape[1]}x{label.shape[0]} pixels, "
                f"its frame {frame.image.name} is {size[1]}x{size[0]}.",
                "A label has exactly the size of its frame.",
            )
        return label


@lru_cache
def standard_stems(name: str) -> tuple[str, ...]:
    """The stems of "train", "val" or "test" in CamVid's standard 367/101/233 split."""
    if name not in SPLITS:
        return ()
    return tuple((Path(__file__).parent / "splits" / f"{name}.txt").read_text().split())


def open_dataset(
    path: str | Path | None = None,
    classes: Classes = "11",
    split_source: SplitSource = "standard",
    need: Sequence[str] = ("train",),
) -> CamVid:
    """Opens a folder (see `find_data`), or "synthetic", which is drawn on its first use.

    `classes`: "11" merged, "32" as annotated, "dataset" for the folder's own class_dict.csv.
    `need`: splits that must be there, each frame with its label.  Raises DataError.
    """
    root, layout, folders = find_layout(locate(path))
    found = [(folder.split, frame) for folder in folders for frame in pair_frames(folder)]
    if not found:
        raise DataError(f"{root} holds no pictures.", f"Get some: {GET_DATA}")
    family = family_of(root, [frame for _, frame in found])
    standard = family == "camvid" and split_source == "standard"
    splits = _standard_splits(root, found) if standard else _folder_splits(root, found, family)
    table, decoder = read_classes(root, classes)
    source = "standard" if standard else "folders"
    dataset = CamVid(root, layout, table, decoder, splits, family, source)
    for name in need:
        _check_label_kind(dataset, dataset.split(name)[0])
    return dataset


def locate(path: str | Path | None = None) -> Path:
    """The folder of `find_data`, or of "synthetic", which is drawn on its first use."""
    return synthetic_data() if str(path) == "synthetic" else find_data(path)


def family_of(root: Path, frames: Sequence[Frame]) -> str:
    """ "camvid" when half of the stems are CamVid's, "synthetic" when the manifest says so,
    else "dataset"."""
    try:
        manifest = json.loads((root / "manifest.json").read_text(encoding="utf-8"))
        if isinstance(manifest, dict) and manifest.get("source") == "synthetic":
            return "synthetic"
    except (OSError, ValueError):
        pass  # other datasets may have a manifest.json of another kind, or none
    known = {stem for name in SPLITS for stem in standard_stems(name)}
    ours = sum(frame.stem in known for frame in frames)
    return "camvid" if 2 * ours >= len(frames) else "dataset"


def _standard_splits(
    root: Path, found: Iterable[tuple[str | None, Frame]]
) -> dict[str, tuple[Frame, ...]]:
    frames: dict[str, Frame] = {}
    for _, frame in found:
        if frame.stem in frames:
            raise DataError(
                f"{root} holds {frame.image.name} twice, also in {frames[frame.stem].image}.",
                "A frame belongs to one split; remove one. All that is odd: smp-camvid data check",
            )
        frames[frame.stem] = frame
    splits = {}
    for name in SPLITS:
        stems = [stem for stem in standard_stems(name) if stem in frames]
        splits[name] = tuple(frames.pop(stem) for stem in sorted(stems))
    if frames:
        raise DataError(
            f"{count(len(frames), 'frame')} of {root} "
            f"{'is' if len(frames) == 1 else 'are'} in no list of CamVid's standard split: "
            f"{first_few(frames)}.",
            "To go by the folders instead: --split-source folders",
        )
    return {name: frames_of for name, frames_of in splits.items() if frames_of}


def _folder_splits(
    root: Path, found: Sequence[tuple[str | None, Frame]], family: str
) -> dict[str, tuple[Frame, ...]]:
    if any(split is None for split, _ in found):
        raise DataError(
            f"{root} does not say which frames to learn from"
            f"{' by its folders' if family == 'camvid' else ''}.",
            "Sort images/ and labels/ into train/ and val/ folders; keep frames of one drive "
            "together.",
        )
    splits = {name: [frame for split, frame in found if split == name] for name in SPLITS}
    return {
        name: tuple(sorted(frames, key=lambda frame: frame.stem))
        for name, frames in splits.items()
        if frames
    }


def read_classes(root: Path, classes: str) -> tuple[ClassTable, LabelDecoder]:
    """What "11", "32" or "dataset" means for the dataset in `root`.

    Raises DataError when its class_dict.csv is missing, broken or not CamVid's.
    """
    own = root / "class_dict.csv"
    if classes == "dataset":
        if not own.is_file():
            raise DataError(
                f"{root} has no class_dict.csv, so its own classes are not known.",
                "Write one: a line `name,r,g,b` for each class.",
            )
        table = read_class_dict(own)
        return table, table_decoder(table)
    if own.is_file():
        strange = set(_named_colors(read_class_dict(own))) - set(_named_colors(CAMVID32))
        if strange:
            name, color = min(strange)
            raise DataError(
                f"{own} names {name} {color}, which is not one of CamVid's 32 classes.",
                "To learn the dataset's own classes: --classes dataset",
            )
    if classes == "32":
        return CAMVID32, camvid32_decoder()
    return CAMVID11, camvid11_decoder()


def _named_colors(table: ClassTable) -> list[tuple[str, tuple[int, int, int]]]:
    return [(n.lower(), c) for n, c in zip(table.names, table.colors, strict=True)]


def _check_label_kind(dataset: CamVid, frame: Frame) -> None:
    """One header tells whether 32 classes can be had at all, before anything is decoded."""
    decoder = dataset.decoder
    if not decoder.reads_indices and frame.label and holds_indices(frame.label, decoder.knows):
        raise decoder.no_indices(frame.label)
