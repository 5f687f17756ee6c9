"""Opening datasets in place: layouts, splits, pictures of every mode, and what is refused."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from smp_camvid.data.camvid import find_data, open_dataset, read_image, standard_stems
from smp_camvid.data.classes import CAMVID11, CAMVID32, MERGE, VOID
from smp_camvid.errors import DataError

MakeDataset = Callable[..., Path]


def tree(root: Path) -> dict[str, tuple[int, int]]:
    files = (path for path in root.rglob("*") if path.is_file())
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in files}


# --- splits and layouts ----------------------------------------------------------------------


def test_standard_lists() -> None:
    lists = {name: set(standard_stems(name)) for name in ("train", "val", "test")}
    assert {name: len(stems) for name, stems in lists.items()} == {
        "train": 367, "val": 101, "test": 233,
    }  # fmt: skip
    assert len(set().union(*lists.values())) == 701
    assert {stem.split("_")[0] for stem in lists["val"]} == {"0016E5"}


def test_real_frames_follow_the_standard_split(real_data: Path) -> None:
    dataset = open_dataset(real_data, need=("train", "val"))
    assert (dataset.layout, dataset.family, dataset.split_source) == (
        "segnet",
        "camvid",
        "standard",
    )
    assert len(dataset.split("train")) == 367
    assert len(dataset.split("val")) == 101
    assert not {f.stem for f in dataset.split("train+val")} & set(standard_stems("test"))
    assert dataset.shortfall("train+val") == 0
    frame = dataset.split("val")[0]
    assert (frame.stem, frame.drive) == ("0016E5_07959", "0016E5")
    assert dataset.load_image(frame).shape == (360, 480, 3)
    expected = np.array(Image.open(real_data / "valannot" / "0016E5_07959.png"))
    expected[expected == 11] = VOID
    assert np.array_equal(dataset.load_label(frame), expected)


def test_standard_split_whatever_the_folder(make_kaggle: MakeDataset) -> None:
    train, val = standard_stems("train")[:4], standard_stems("val")[:2]
    root = make_kaggle({"train": [*train[:3], val[0]], "val": [train[3], val[1]]})
    before = tree(root)
    dataset = open_dataset(root, need=("train", "val"))
    assert [f.stem for f in dataset.split("train")] == sorted(train)
    assert [f.stem for f in dataset.split("val")] == sorted(val)
    assert dataset.protocol((360, 480)) == "camvid11@360x480"
    assert dataset.score_size() == (360, 480)
    assert dataset.shortfall("val") == 99
    folders = open_dataset(root, split_source="folders")
    assert [f.stem for f in folders.split("val")] == sorted([train[3], val[1]])
    assert folders.protocol((720, 960)) == "camvid11@720x960+folders"
    assert tree(root) == before


def test_kaggle_labels_in_32_and_11_classes(kaggle_data: Path) -> None:
    fine, merged = open_dataset(kaggle_data, "32"), open_dataset(kaggle_data, "11")
    assert fine.protocol((360, 480)) == "camvid32@360x480"
    frame = fine.split("train")[0]
    assert frame.label is not None
    assert frame.label.name == f"{frame.stem}_L.png"
    colors = np.array(Image.open(frame.label))
    label = fine.load_label(frame)
    assert np.array_equal(CAMVID32.colorize(label), colors)
    group = {m: i for i, members in enumerate(MERGE.values()) for m in members}
    lut = np.full(256, VOID)
    lut[:32] = [group.get(name, VOID) for name in CAMVID32.names]
    assert np.array_equal(merged.load_label(frame), lut[label])


def test_32_classes_of_11_class_labels(segnet_data: Path) -> None:
    with pytest.raises(DataError, match="labels of 11 classes cannot give 32") as caught:
        open_dataset(segnet_data, "32")
    assert "--classes 11" in caught.value.hint


def test_own_classes(own_data: Path) -> None:
    dataset = open_dataset(own_data, "dataset", need=("train", "val"))
    assert (dataset.layout, dataset.family, dataset.split_source) == ("plain", "dataset", "folders")
    assert dataset.table.names == ("Lane", "Kerb", "Rest", "Void")
    assert dataset.protocol(dataset.score_size()) == "dataset4@native"
    frame = dataset.split("val")[0]
    assert frame.label is not None
    colors = np.array(Image.open(frame.label))
    assert np.array_equal(dataset.table.colorize(dataset.load_label(frame)), colors)
    with pytest.raises(
        DataError, match=r"class_dict\.csv names .* not one of CamVid's 32"
    ) as caught:
        open_dataset(own_data, "11")
    assert "--classes dataset" in caught.value.hint


def test_own_classes_in_the_kaggle_layout_and_as_indices(make_kaggle: MakeDataset) -> None:
    root = make_kaggle({"train": ["a_1", "a_2"], "valid": ["b_1"]})
    (root / "class_dict.csv").write_text("name,r,g,b\nA, 5, 5, 5\nB, 6,6,6\nvoid,0,0,0\n")
    for split in ("train", "valid"):
        for label in (root / f"{split}_labels").iterdir():
            Image.fromarray(np.full((48, 64), 1, np.uint8)).save(label)
    dataset = open_dataset(root, "dataset", need=("train", "val"))
    assert (dataset.layout, [f.stem for f in dataset.split("val")]) == ("kaggle", ["b_1"])
    assert np.unique(dataset.load_label(dataset.split("train")[1])).tolist() == [1]


def test_flat_folders_of_camvid_stems(make_kaggle: MakeDataset, tmp_path: Path) -> None:
    source, root = make_kaggle(), tmp_path / "flat"
    for kind, suffix in (("images", ""), ("labels", "_labels")):
        (root / kind).mkdir(parents=True)
        for split in ("train", "val"):
            for file in (source / f"{split}{suffix}").iterdir():
                shutil.copy(file, root / kind)
    dataset = open_dataset(root, "32", need=("train", "val"))
    assert {name: len(frames) for name, frames in dataset.splits.items()} == {"train": 5, "val": 3}
    with pytest.raises(DataError, match="does not say which frames to learn from"):
        open_dataset(root, "32", "folders")


def test_archive_folder_inside(make_kaggle: MakeDataset, tmp_path: Path) -> None:
    outer = make_kaggle(name="outer/CamVid").parent
    assert open_dataset(outer).root == tmp_path / "outer" / "CamVid"


def test_synthetic_is_known_by_its_manifest(kaggle_data: Path) -> None:
    (kaggle_data / "manifest.json").write_text('{"source": "synthetic", "version": 1}')
    dataset = open_dataset(kaggle_data)
    assert dataset.protocol((360, 480)) == "synthetic11@360x480"
    assert dataset.split_source == "folders"


def test_synthetic_is_drawn_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synthetic = pytest.importorskip("smp_camvid.data.synthetic")
    monkeypatch.setenv("SMP_CAMVID_CACHE", str(tmp_path))
    draws = []
    generate = synthetic.generate

    def small(root: Path) -> Path:
        draws.append(root)
        return generate(root, frames={"train": 2, "val": 1, "test": 1}, size=(48, 64))

    monkeypatch.setattr(synthetic, "generate", small)
    first = open_dataset("synthetic", need=("train", "val"))
    assert first.family == "synthetic"
    assert open_dataset("synthetic").root == first.root
    assert len(draws) == 1
    assert [path.name for path in tmp_path.iterdir()] == [first.root.name]


# --- what is refused -------------------------------------------------------------------------


def label_of(root: Path, split: str = "train") -> Path:
    return sorted((root / f"{split}_labels").iterdir())[1]


def test_missing_dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match="no dataset folder nowhere") as caught:
        open_dataset("nowhere")
    assert "smp-camvid download" in caught.value.hint
    assert "--data synthetic" in caught.value.hint
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=r"no dataset in \./data/camvid, \./CamVid, /"):
        find_data("auto")
    (tmp_path / "CamVid").mkdir()
    assert find_data(None) == Path("CamVid")
    (tmp_path / "camvid.zip").touch()
    with pytest.raises(DataError, match="is a file"):
        find_data("camvid.zip")


def test_empty_and_foreign_folders(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is an empty folder"):
        open_dataset(tmp_path)
    (tmp_path / "notes.txt").touch()
    with pytest.raises(DataError, match="does not look like a dataset"):
        open_dataset(tmp_path)
    (tmp_path / "train").mkdir()
    (tmp_path / "train_labels").mkdir()
    with pytest.raises(DataError, match="holds no pictures"):
        open_dataset(tmp_path)


def test_missing_split(make_kaggle: MakeDataset) -> None:
    root = make_kaggle({"train": standard_stems("train")[:2]})
    with pytest.raises(DataError, match=r"no frames in its val split; it holds train \(2\)"):
        open_dataset(root, need=("train", "val"))


def test_missing_label(kaggle_data: Path) -> None:
    label = label_of(kaggle_data)
    label.unlink()
    name = label.name.replace("_L", "")
    with pytest.raises(DataError, match=rf"1 frame of the train split .* no label: {name}"):
        open_dataset(kaggle_data)
    open_dataset(kaggle_data, need=("val",))


def test_missing_frame(kaggle_data: Path) -> None:
    frame = sorted((kaggle_data / "train").iterdir())[0]
    frame.unlink()
    with pytest.raises(DataError, match=rf"1 label in .* has no frame in .*{frame.stem}_L\.png"):
        open_dataset(kaggle_data)


def test_frames_of_no_list(kaggle_data: Path) -> None:
    for folder, name in (("train", "extra_1.png"), ("train_labels", "extra_1_L.png")):
        first = sorted((kaggle_data / folder).iterdir())[0]
        shutil.copy(first, kaggle_data / folder / name)
    with pytest.raises(DataError, match=r"1 frame .* no list of CamVid's standard split: extra_1"):
        open_dataset(kaggle_data)
    assert len(open_dataset(kaggle_data, split_source="folders").split("train")) == 6


def load_second_label(root: Path) -> np.ndarray:
    dataset = open_dataset(root)
    return dataset.load_label(dataset.split("train")[1])


def test_label_of_another_size(kaggle_data: Path) -> None:
    Image.new("RGB", (32, 24)).save(label_of(kaggle_data))
    with pytest.raises(DataError, match=r"_L\.png is 32x24 pixels, its frame .* is 64x48"):
        load_second_label(kaggle_data)


def test_label_with_a_colour_off_by_one(kaggle_data: Path) -> None:
    label = label_of(kaggle_data)
    picture = np.array(Image.open(label))
    picture[7, 9] = (129, 1, 3)
    Image.fromarray(picture).save(label)
    with pytest.raises(DataError, match=rf"{label.name}: unknown colour 129,1,3 at x=9, y=7"):
        load_second_label(kaggle_data)


@pytest.mark.parametrize("kept", [0.3, 0.6, 0.9])
def test_truncated_png(kaggle_data: Path, kept: float) -> None:
    label = label_of(kaggle_data)
    whole = label.read_bytes()
    label.write_bytes(whole[: int(len(whole) * kept)])
    with pytest.raises(DataError, match=rf"{label.name} cannot be read: the file is truncated"):
        load_second_label(kaggle_data)


@pytest.mark.parametrize("content", [b"", b"<html>please log in</html>", b"\x89PNG\r\n\x1a\nxx"])
def test_not_a_picture(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "a.png"
    file.write_bytes(content)
    with pytest.raises(DataError, match=r"a\.png (is not a picture|cannot be read)"):
        read_image(file)


def test_no_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        read_image(tmp_path / "a.png")
    with pytest.raises(DataError, match="cannot be read"):
        read_image(tmp_path)


def test_bombs_are_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("L", (100, 100)).save(tmp_path / "a.png")
    for limit in (9_000, 4_000):  # Pillow warns above its limit and refuses above twice that
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        with pytest.raises(DataError, match=rf"claims more than {limit:,} pixels"):
            read_image(tmp_path / "a.png")


# --- pictures of every mode ------------------------------------------------------------------


@pytest.fixture
def rgb() -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (12, 20, 3), np.uint8)


def test_grey_and_alpha(tmp_path: Path, rgb: np.ndarray) -> None:
    file, grey, alpha = tmp_path / "a.png", rgb[..., 0], rgb[..., 1]
    Image.fromarray(grey).save(file)
    assert np.array_equal(read_image(file), np.stack([grey] * 3, -1))
    Image.fromarray(np.dstack([rgb, alpha])).save(file)
    assert np.array_equal(read_image(file), rgb)
    Image.merge("LA", (Image.fromarray(grey), Image.fromarray(alpha))).save(file)
    assert np.array_equal(read_image(file), np.stack([grey] * 3, -1))


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_16_bit(tmp_path: Path, rgb: np.ndarray, suffix: str) -> None:
    file, wide = tmp_path / f"a{suffix}", np.arange(65536, dtype=np.uint16).reshape(256, 256)
    Image.fromarray(wide).save(file)
    assert np.array_equal(read_image(file)[..., 2], np.rint(wide / 257).astype(np.uint8))
    Image.fromarray(rgb[..., 0].astype(np.uint16) * 257).save(file)
    assert np.array_equal(read_image(file)[..., 0], rgb[..., 0])


def test_16_bit_colour(tmp_path: Path, rgb: np.ndarray) -> None:
    import cv2

    file = tmp_path / "a.png"
    cv2.imwrite(str(file), rgb[..., ::-1].astype(np.uint16) * 257)
    assert np.array_equal(read_image(file), rgb)


def test_palette(tmp_path: Path, rgb: np.ndarray) -> None:
    small = (rgb // 128 * 255).astype(np.uint8)
    file, picture = tmp_path / "a.png", Image.fromarray(small).quantize(8)
    picture.save(file)
    assert np.array_equal(read_image(file), np.array(picture.convert("RGB")))
    picture.save(file, transparency=b"\x00\x80\xff")
    assert np.array_equal(read_image(file), np.array(picture.convert("RGB")))


def test_cmyk(tmp_path: Path, rgb: np.ndarray) -> None:
    picture = Image.fromarray(rgb).convert("CMYK")
    picture.save(tmp_path / "a.tif")
    assert np.array_equal(read_image(tmp_path / "a.tif"), np.array(picture.convert("RGB")))
    picture.save(tmp_path / "a.jpg", quality=100)
    assert read_image(tmp_path / "a.jpg").shape == rgb.shape


def test_floats_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((4, 4), np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(DataError, match=r"a\.tif: .*holds floats"):
        read_image(tmp_path / "a.tif")


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".webp"])
@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_exif_orientation(tmp_path: Path, suffix: str, orientation: int) -> None:
    from smp_camvid.data.pictures import picture_size

    upright = np.zeros((32, 64, 3), np.uint8)
    upright[:16, :32] = 255  # bright top left
    turns = {1: 0, 3: 2, 6: 1, 8: 3}[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = tmp_path / f"a{suffix}"
    Image.fromarray(np.rot90(upright, turns).copy()).save(file, exif=exif)
    found = read_image(file)
    assert found.shape == upright.shape
    assert picture_size(file) == (32, 64)
    assert np.array_equal(found[4::8, 4::8] > 127, upright[4::8, 4::8] > 127)


def as_palette(indices: np.ndarray, colors: list[tuple[int, int, int]]) -> Image.Image:
    picture = Image.fromarray(indices).convert("L").copy()
    picture.putpalette([value for color in colors for value in color])
    return picture


def test_palette_labels_stay_indices(segnet_data: Path) -> None:
    dataset = open_dataset(segnet_data)
    frame = dataset.split("train")[1]
    assert frame.label is not None
    expected = dataset.load_label(frame)
    indices = np.array(Image.open(frame.label))
    cosmetic = [(i, 255 - i, 7) for i in range(256)]
    for colors in (cosmetic, [*CAMVID11.colors, (0, 0, 0)]):
        as_palette(indices, colors).save(frame.label)
        with Image.open(frame.label) as saved:
            assert saved.mode == "P"
        assert np.array_equal(dataset.load_label(frame), expected)


@pytest.mark.parametrize("classes", ["11", "32"])
def test_colour_labels_made_smaller_stay_colours(kaggle_data: Path, classes: str) -> None:
    dataset = open_dataset(kaggle_data, classes)  # type: ignore[arg-type]
    frame = dataset.split("train")[1]
    assert frame.label is not None
    expected = dataset.load_label(frame)
    colors, indices = np.unique(
        np.array(Image.open(frame.label)).reshape(-1, 3), axis=0, return_inverse=True
    )
    picture = indices.reshape(expected.shape).astype(np.uint8)
    as_palette(picture, [tuple(color) for color in colors.tolist()]).save(frame.label)
    assert np.array_equal(dataset.load_label(frame), expected)
