"""The class tables of CamVid: names, colours, the 32 -> 11 merge, and how labels are decoded.

One label contract inside the package: an integer map `[H, W]` of class indices,
void is 255.  Files may hold colours (Kaggle) or indices (SegNet); `LabelDecoder`
turns either into that contract through a look-up table and refuses what is not in it.

Sources: Brostow et al. 2008/2009 (the 32 colours), Badrinarayanan et al. 2017
(the 11 classes and the merge).
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from smp_camvid.errors import DataError

VOID = 255
"""The label of pixels that count nowhere: not in the loss, not in any score."""

VOID_NAMES = frozenset({"void", "unlabelled", "unlabeled", "ignore"})
"""Names in a `class_dict.csv` that mean void (compared in lower case)."""

Color = tuple[int, int, int]


@dataclass(frozen=True)
class ClassTable:
    """The classes a model predicts.  `names[i]` and `colors[i]` belong to output channel i.

    `void_index` is the channel, if any, that is never a target (Void of the 32 classes):
    its pixels are stored as 255 and it has no IoU.
    """

    name: str
    names: tuple[str, ...]
    colors: tuple[Color, ...]
    void_index: int | None = None

    def __len__(self) -> int:
        return len(self.names)

    @cached_property
    def palette(self) -> npt.NDArray[np.uint8]:
        """Colours as uint8 `[256, 3]`, indexed by label; void and unused entries are black."""
        palette = np.zeros((256, 3), np.uint8)
        palette[: len(self.colors)] = self.colors
        return palette

    def colorize(self, labels: npt.NDArray[np.integer]) -> npt.NDArray[np.uint8]:
        """`[H, W]` labels -> `[H, W, 3]` RGB."""
        colored: npt.NDArray[np.uint8] = self.palette[labels]
        return colored


# In the order of the Kaggle class_dict.csv.
CAMVID32 = ClassTable(
    "32",
    names=(
        "Animal", "Archway", "Bicyclist", "Bridge", "Building", "Car", "CartLuggagePram", "Child",
        "Column_Pole", "Fence", "LaneMkgsDriv", "LaneMkgsNonDriv", "Misc_Text", "MotorcycleScooter",
        "OtherMoving", "ParkingBlock", "Pedestrian", "Road", "RoadShoulder", "Sidewalk",
        "SignSymbol", "Sky", "SUVPickupTruck", "TrafficCone", "TrafficLight", "Train", "Tree",
        "Truck_Bus", "Tunnel", "VegetationMisc", "Void", "Wall",
    ),
    colors=(
        (64, 128, 64), (192, 0, 128), (0, 128, 192), (0, 128, 64), (128, 0, 0), (64, 0, 128),
        (64, 0, 192), (192, 128, 64), (192, 192, 128), (64, 64, 128), (128, 0, 192), (192, 0, 64),
        (128, 128, 64), (192, 0, 192), (128, 64, 64), (64, 192, 128), (64, 64, 0), (128, 64, 128),
        (128, 128, 192), (0, 0, 192), (192, 128, 128), (128, 128, 128), (64, 128, 192), (0, 0, 64),
        (0, 64, 64), (192, 64, 128), (128, 128, 0), (192, 128, 192), (64, 0, 64), (192, 192, 0),
        (0, 0, 0), (64, 192, 0),
    ),
    void_index=30,
)  # fmt: skip

# 11 -> which of the 32 belong to it, in the order of the SegNet index PNGs.
MERGE: dict[str, tuple[str, ...]] = {
    "Sky": ("Sky",),
    "Building": ("Archway", "Bridge", "Building", "Tunnel", "Wall"),
    "Pole": ("Column_Pole", "TrafficCone"),
    "Road": ("Road", "LaneMkgsDriv", "LaneMkgsNonDriv"),
    "Pavement": ("Sidewalk", "ParkingBlock", "RoadShoulder"),
    "Tree": ("Tree", "VegetationMisc"),
    "SignSymbol": ("SignSymbol", "Misc_Text", "TrafficLight"),
    "Fence": ("Fence",),
    "Car": ("Car", "SUVPickupTruck", "Truck_Bus", "Train", "OtherMoving"),
    "Pedestrian": ("Pedestrian", "Child", "CartLuggagePram", "Animal"),
    "Bicyclist": ("Bicyclist", "MotorcycleScooter"),
}

_COLOR_OF = dict(zip(CAMVID32.names, CAMVID32.colors, strict=True))
# Each merged class is drawn in the colour of the member it is named after.
_NAMED_AFTER = {"Pole": "Column_Pole", "Pavement": "Sidewalk"}

CAMVID11 = ClassTable(
    "11",
    names=tuple(MERGE),
    colors=tuple(_COLOR_OF[_NAMED_AFTER.get(name, name)] for name in MERGE),
)

FIXED_TABLES: Mapping[str, ClassTable] = {table.name: table for table in (CAMVID11, CAMVID32)}
"""The tables that `data.classes` names; that of "dataset" lies beside the frames."""


class LabelDecoder:
    """Decodes label pictures to uint8 `[H, W]` class indices with void 255, by look-up table.

    `colors[i]` becomes `targets[i]`; any other colour is an error.  `indices` does the same
    for single-channel index pictures: index i becomes `indices[i]`, absent means unknown.
    """

    def __init__(
        self,
        colors: Sequence[Color],
        targets: Sequence[int],
        indices: Mapping[int, int] | None = None,
    ) -> None:
        # 0 = unknown, else target + 1.  16 M entries, but only the pages of known colours
        # are ever touched, and one table serves any colour set.
        self._by_color = np.zeros(1 << 24, np.uint16)
        for (r, g, b), target in zip(colors, targets, strict=True):
            self._by_color[r << 16 | g << 8 | b] = target + 1
        self._by_index = np.zeros(256, np.uint16)
        for index, target in (indices or {}).items():
            self._by_index[index] = target + 1
        self.reads_indices = indices is not None
        self.key = f"{[*zip(colors, targets, strict=True)]} {indices}"
        """What is decoded to what, as text: caches of decoded labels are named after it."""

    def knows(self, colors: npt.NDArray[np.uint8]) -> bool:
        """Whether each of the colours `[n, 3]` stands for a class or void."""
        r, g, b = colors.astype(np.uint32).T
        return bool(self._by_color[r << 16 | g << 8 | b].all())

    def no_indices(self, file: Path | str) -> DataError:
        """What to raise for an index picture where only colours can be decoded."""
        return DataError(
            f"{file} holds class indices: labels of 11 classes cannot give 32.",
            "Use --classes 11, or the Kaggle copy of CamVid, whose labels have all 32 colours.",
        )

    def _known_indices(self) -> str:
        """`"0 to 11 and 255"`."""
        known = [int(i) for i in np.flatnonzero(self._by_index)]  # every table begins at 0
        last = next(i for i in known if i + 1 not in known)
        return " and ".join([f"0 to {last}", *(str(i) for i in known if i > last)])

    def decode(
        self, picture: npt.NDArray[np.uint8], file: Path | str = "label"
    ) -> npt.NDArray[np.uint8]:
        """`[H, W]` indices or `[H, W, 3]` RGB -> `[H, W]` uint8.

        Raises DataError naming `file`, the first unknown pixel and its colour.
        """
        if picture.ndim == 2 and not self.reads_indices:
            raise self.no_indices(file)
        if picture.ndim == 2:
            found = self._by_index[picture]
        else:
            rgb = picture.astype(np.uint32)
            found = self._by_color[rgb[..., 0] << 16 | rgb[..., 1] << 8 | rgb[..., 2]]
        if not found.all():
            y, x = (int(i) for i in np.argwhere(found == 0)[0])
            value = picture[y, x]
            colors = picture.ndim == 3
            what = f"colour {','.join(str(int(v)) for v in value)}" if colors else f"index {value}"
            raise DataError(
                f"{file}: unknown {what} at x={x}, y={y}; it stands for no class.",
                "Labels must be lossless PNGs with exact colours (never JPEG, never resized "
                "with interpolation)."
                if colors
                else f"Labels of these classes hold {self._known_indices()}; a dataset's own "
                "table is read with --classes dataset.",
            )
        return (found - 1).astype(np.uint8)


def camvid32_decoder() -> LabelDecoder:
    """Kaggle colours -> the 32 classes, Void to 255."""
    return LabelDecoder(
        CAMVID32.colors,
        [VOID if i == CAMVID32.void_index else i for i in range(len(CAMVID32))],
    )


def camvid11_decoder() -> LabelDecoder:
    """Kaggle colours merged to 11 classes, or SegNet index PNGs (11 and 255 are void)."""
    merged = {member: i for i, members in enumerate(MERGE.values()) for member in members}
    return LabelDecoder(
        CAMVID32.colors,
        [merged.get(name, VOID) for name in CAMVID32.names],
        indices={**{i: i for i in range(11)}, 11: VOID, VOID: VOID},
    )


def read_class_dict(path: Path) -> ClassTable:
    """Reads `class_dict.csv` (`name,r,g,b`; stray spaces allowed) into a table.

    A class named Void, Unlabelled or Ignore keeps its channel and is never a target.
    Raises DataError naming the line.
    """
    names: list[str] = []
    colors: list[Color] = []
    try:
        rows = list(csv.reader(path.read_text(encoding="utf-8-sig").splitlines()))
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {error}.") from error
    for number, row in enumerate(rows, start=1):
        cells = [cell.strip() for cell in row]
        if not any(cells) or (number == 1 and cells[0].lower() == "name"):
            continue
        try:
            name, (r, g, b) = cells[0], (int(cell) for cell in cells[1:4])
            if not name or not all(0 <= value <= 255 for value in (r, g, b)):
                raise ValueError
        except ValueError:
            raise DataError(
                f"{path}, line {number}: {','.join(row)!r} is not 'name,r,g,b' with 0-255 colours."
            ) from None
        if name in names or (r, g, b) in colors:
            raise DataError(f"{path}, line {number}: {name!r} or its colour stands there twice.")
        names.append(name)
        colors.append((r, g, b))
    void = [i for i, name in enumerate(names) if name.lower() in VOID_NAMES]
    if len(void) > 1:
        raise DataError(
            f"{path} names more than one void class: {', '.join(names[i] for i in void)}."
        )
    if len(names) == len(void) or len(names) > 254:
        raise DataError(f"{path} names {len(names)} classes; 1 to 254 are possible.")
    return ClassTable("dataset", tuple(names), tuple(colors), void[0] if void else None)


def table_decoder(table: ClassTable) -> LabelDecoder:
    """Decoder for a dataset's own table: its colours, or indices in its order; 255 is void."""
    targets = [VOID if i == table.void_index else i for i in range(len(table))]
    return LabelDecoder(table.colors, targets, {**dict(enumerate(targets)), VOID: VOID})
