"""The class tables, pinned as published, and the decoding of labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from smp_camvid.data.classes import (
    CAMVID11,
    CAMVID32,
    MERGE,
    VOID,
    camvid11_decoder,
    camvid32_decoder,
    read_class_dict,
    table_decoder,
)
from smp_camvid.errors import DataError

COLORS = """Animal 64 128 64; Archway 192 0 128; Bicyclist 0 128 192; Bridge 0 128 64;
Building 128 0 0; Car 64 0 128; CartLuggagePram 64 0 192; Child 192 128 64;
Column_Pole 192 192 128; Fence 64 64 128; LaneMkgsDriv 128 0 192; LaneMkgsNonDriv 192 0 64;
Misc_Text 128 128 64; MotorcycleScooter 192 0 192; OtherMoving 128 64 64; ParkingBlock 64 192 128;
Pedestrian 64 64 0; Road 128 64 128; RoadShoulder 128 128 192; Sidewalk 0 0 192;
SignSymbol 192 128 128; Sky 128 128 128; SUVPickupTruck 64 128 192; TrafficCone 0 0 64;
TrafficLight 0 64 64; Train 192 64 128; Tree 128 128 0; Truck_Bus 192 128 192; Tunnel 64 0 64;
VegetationMisc 192 192 0; Void 0 0 0; Wall 64 192 0"""

MERGED = {
    "Animal": 9, "Archway": 1, "Bicyclist": 10, "Bridge": 1, "Building": 1, "Car": 8,
    "CartLuggagePram": 9, "Child": 9, "Column_Pole": 2, "Fence": 7, "LaneMkgsDriv": 3,
    "LaneMkgsNonDriv": 3, "Misc_Text": 6, "MotorcycleScooter": 10, "OtherMoving": 8,
    "ParkingBlock": 4, "Pedestrian": 9, "Road": 3, "RoadShoulder": 4, "Sidewalk": 4,
    "SignSymbol": 6, "Sky": 0, "SUVPickupTruck": 8, "TrafficCone": 2, "TrafficLight": 6,
    "Train": 8, "Tree": 5, "Truck_Bus": 8, "Tunnel": 1, "VegetationMisc": 5, "Void": 255, "Wall": 1,
}  # fmt: skip


def published() -> dict[str, tuple[int, ...]]:
    rows = [row.split() for row in COLORS.replace("\n", " ").split(";")]
    return {name: tuple(int(v) for v in color) for name, *color in rows}


def strip(colors: list[tuple[int, ...]]) -> np.ndarray:
    """A one-row label picture `[1, n, 3]`."""
    return np.array([colors], np.uint8)


def test_32_classes_as_published() -> None:
    assert dict(zip(CAMVID32.names, CAMVID32.colors, strict=True)) == published()
    assert len(CAMVID32) == 32
    assert CAMVID32.names[CAMVID32.void_index or 0] == "Void"


def test_11_classes_in_the_order_of_the_index_pngs() -> None:
    names = "Sky Building Pole Road Pavement Tree SignSymbol Fence Car Pedestrian Bicyclist"
    assert CAMVID11.names == tuple(names.split())
    assert len(set(CAMVID11.colors)) == 11
    assert set(CAMVID11.colors) <= set(CAMVID32.colors)


def test_merge_puts_each_class_in_one_place() -> None:
    members = [member for group in MERGE.values() for member in group]
    assert sorted([*members, "Void"]) == sorted(CAMVID32.names)


def test_decoders_agree_with_the_published_tables() -> None:
    names, colors = zip(*published().items(), strict=True)
    picture = strip(list(colors))
    assert camvid11_decoder().decode(picture)[0].tolist() == [MERGED[name] for name in names]
    expected = [VOID if name == "Void" else CAMVID32.names.index(name) for name in names]
    assert camvid32_decoder().decode(picture)[0].tolist() == expected


def test_index_labels() -> None:
    picture = np.array([[*range(12), 255]], np.uint8)
    assert camvid11_decoder().decode(picture)[0].tolist() == [*range(11), 255, 255]
    with pytest.raises(
        DataError, match=r"annot\.png: unknown index 12 at x=0, y=0.* 0 to 11 and 255"
    ):
        camvid11_decoder().decode(np.array([[12]], np.uint8), "annot.png")


@pytest.mark.parametrize("color", [(129, 1, 3), (128, 0, 1), (255, 0, 0), (64, 64, 64)])
def test_unknown_colour_names_file_pixel_and_colour(color: tuple[int, int, int]) -> None:
    # (129, 1, 3) is Building to whoever divides by 64 without looking.
    picture = np.full((4, 5, 3), 128, np.uint8)
    picture[2, 3] = color
    r, g, b = color
    with pytest.raises(DataError, match=rf"a_L\.png: unknown colour {r},{g},{b} at x=3, y=2"):
        camvid32_decoder().decode(picture, Path("a_L.png"))


def test_indices_cannot_give_32_classes() -> None:
    with pytest.raises(DataError, match="labels of 11 classes cannot give 32"):
        camvid32_decoder().decode(np.zeros((2, 2), np.uint8))


def test_colorize_shows_void_black() -> None:
    picture = CAMVID11.colorize(np.array([[0, VOID]], np.uint8))
    assert picture.tolist() == [[[128, 128, 128], [0, 0, 0]]]


def test_own_class_dict_with_stray_spaces(tmp_path: Path) -> None:
    file = tmp_path / "class_dict.csv"
    file.write_text(
        "\ufeffname, r, g ,b\n Lane , 1, 2,3\n\nunlabelled,0,0, 0\nKerb,9,9,9\n", "utf-8"
    )
    table = read_class_dict(file)
    assert table.names == ("Lane", "unlabelled", "Kerb")
    assert table.colors == ((1, 2, 3), (0, 0, 0), (9, 9, 9))
    assert table.void_index == 1
    decoder = table_decoder(table)
    assert decoder.decode(strip([(9, 9, 9), (0, 0, 0), (1, 2, 3)]))[0].tolist() == [2, VOID, 0]
    assert decoder.decode(np.array([[0, 1, 2, 255]], np.uint8))[0].tolist() == [0, VOID, 2, VOID]
    with pytest.raises(DataError, match=r"unknown index 3 .* hold 0 to 2 and 255"):
        decoder.decode(np.array([[3]], np.uint8))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("Lane,1,2", "line 1: 'Lane,1,2' is not"),
        ("Lane,1,2,300", "line 1"),
        ("Lane,1,2,3\nKerb,x,2,3", "line 2"),
        ("Lane,1,2,3\nLane,4,5,6", "line 2: 'Lane' or its colour stands there twice"),
        ("Lane,1,2,3\nKerb,1,2,3", "twice"),
        ("Void,0,0,0", "names 1 classes"),
        ("Void,0,0,0\nignore,1,1,1\nA,2,2,2", "more than one void"),
        ("", "names 0 classes"),
    ],
)
def test_class_dict_mistakes(tmp_path: Path, text: str, reason: str) -> None:
    file = tmp_path / "class_dict.csv"
    file.write_text(text)
    with pytest.raises(DataError, match=reason):
        read_class_dict(file)
