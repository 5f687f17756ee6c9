"""`data check`: whole datasets pass, each kind of damage is found, named and weighed."""

from __future__ import annotations

import errno
import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from command_line import child, run
from conftest import MakeDataset, write_class_dict
from PIL import Image

from smp_camvid.data import near_duplicates, synthetic
from smp_camvid.data.camvid import standard_stems
from smp_camvid.data.checks import Check, check_dataset
from smp_camvid.data.classes import CAMVID11, CAMVID32
from smp_camvid.data.inspection import Finding
from smp_camvid.data.layouts import Frame
from smp_camvid.data.manifest import write_manifest
from smp_camvid.errors import DataError

Picture = npt.NDArray[np.uint8]


@pytest.fixture(scope="session")
def synthetic_frames(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("synthetic") / "data"
    return synthetic.generate(root, frames={"train": 12, "val": 4, "test": 4}, size=(120, 160))


@pytest.fixture(scope="session")
def real_frames(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 train and 5 val frames of CamVid in the Kaggle layout, labels in the 32 colours."""
    root = tmp_path_factory.mktemp("real") / "data"
    for split, every in (("train", 16), ("val", 25)):
        for folder in (split, f"{split}_labels"):
            (root / folder).mkdir(parents=True)
        for stem in standard_stems(split)[::every]:
            shutil.copy(real_data / split / f"{stem}.png", root / split)
            indices = np.array(Image.open(real_data / f"{split}annot" / f"{stem}.png"))
            indices[indices == 11] = 255  # void, which the palette draws as Void's black
            label = root / f"{split}_labels" / f"{stem}_L.png"
            Image.fromarray(CAMVID11.palette[indices]).save(label)
    write_class_dict(root / "class_dict.csv", CAMVID32)
    return root


@pytest.fixture(params=["synthetic_frames", "real_frames"])
def frames(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A copy that a test may break."""
    whole: Path = request.getfixturevalue(request.param)
    return Path(shutil.copytree(whole, tmp_path / "data"))


def pictures(root: Path, folder: str) -> list[Path]:
    return sorted((root / folder).glob("*.png"))


def of_kind(check: Check, kind: str) -> list[Finding]:
    return [finding for finding in check.findings if finding.kind == kind]


def errors(check: Check) -> list[tuple[str, list[str]]]:
    return [
        (finding.kind, [path.name for path in finding.files])
        for finding in check.findings
        if finding.severity == "error"
    ]


# --- whole datasets --------------------------------------------------------------------------


@pytest.mark.parametrize("classes", ["11", "32", "dataset"])
def test_a_whole_dataset_has_no_error(frames: Path, classes: str) -> None:
    before = {path: path.stat().st_mtime_ns for path in frames.rglob("*")}
    done = run("data", "check", frames, "--classes", classes, "--json")
    assert done.exit_code == 0, done.output
    document = json.loads(done.stdout)
    assert document["errors"] == 0 and document["layout"] == "kaggle"
    assert not [f for f in document["findings"] if f["kind"] in ("duplicate", "near-duplicate")]
    assert {path: path.stat().st_mtime_ns for path in frames.rglob("*")} == before


@pytest.mark.slow
def test_the_standard_train_and_val_have_no_copies(real_data: Path) -> None:
    check = check_dataset(real_data, splits=("train", "val"))
    assert {name: len(frames) for name, frames in check.splits.items()} == {
        "train": 367,
        "val": 101,
    }
    assert check.count("error") == check.count("warning") == 0
    assert check.seconds < 60
    (note,) = of_kind(check, "neighbours")
    assert "31 frame numbers apart: 0016E5_08159 (val) and 0016E5_08190 (train)" in note.message
    assert check.drives()["train"] == {"0001TP": 62, "0006R0": 101, "0016E5": 204}


def test_plain_and_segnet_folders(segnet_data: Path, own_data: Path) -> None:
    check = check_dataset(segnet_data)
    assert check.layout == "segnet" and check.count("error") == 0
    own = check_dataset(own_data, classes="dataset")
    assert own.family == "dataset" and not own.findings


# --- damage ----------------------------------------------------------------------------------


def remove_label(root: Path) -> str:
    label = pictures(root, "train_labels")[3]
    label.unlink()
    return label.name.replace("_L", "")


def truncate_label(root: Path) -> str:
    label = pictures(root, "train_labels")[3]
    label.write_bytes(label.read_bytes()[:-400])
    return label.name


def truncate_frame(root: Path) -> str:
    frame = pictures(root, "val")[1]
    frame.write_bytes(frame.read_bytes()[: frame.stat().st_size // 2])
    return frame.name


def spoil_pixel(root: Path) -> str:
    label = pictures(root, "val_labels")[1]
    pixels = np.array(Image.open(label))
    pixels[7, 5] = (129, 1, 3)  # one off Building's 128,0,0
    Image.fromarray(pixels).save(label)
    return label.name


def shrink_label(root: Path) -> str:
    label = pictures(root, "train_labels")[2]
    Image.open(label).resize((60, 40), Image.Resampling.NEAREST).save(label)
    return label.name


def copy_into_val(root: Path) -> str:
    target = pictures(root, "val")[2]
    shutil.copy(pictures(root, "train")[5], target)
    return target.name


def recompress_into_val(root: Path) -> str:
    """The same pixels in other bytes: a checksum of the file would not see it."""
    target = pictures(root, "val")[2]
    Image.open(pictures(root, "train")[5]).save(target, compress_level=9)
    return target.name


def leave_label_alone(root: Path) -> str:
    label = pictures(root, "train_labels")[3]
    pictures(root, "train")[3].unlink()
    return label.name


@pytest.mark.parametrize(
    ("damage", "kind"),
    [
        (remove_label, "pair"),
        (leave_label_alone, "pair"),
        (truncate_label, "unreadable"),
        (truncate_frame, "unreadable"),
        (spoil_pixel, "label"),
        (shrink_label, "size"),
        (copy_into_val, "duplicate"),
        (recompress_into_val, "duplicate"),
    ],
)
def test_damage_is_found(frames: Path, damage: Callable[[Path], str], kind: str) -> None:
    name = damage(frames)
    ((found, files),) = errors(check_dataset(frames))
    assert found == kind and files[0] == name
    done = run("data", "check", frames)
    assert done.exit_code == 1
    assert name in done.stdout.replace("\n", "") and "1 error" in done.stderr


def test_all_damage_is_told_at_once(frames: Path) -> None:
    for damage in (remove_label, truncate_frame, spoil_pixel, shrink_label, copy_into_val):
        damage(frames)
    kinds = [kind for kind, _ in errors(check_dataset(frames))]
    assert sorted(kinds) == ["duplicate", "label", "pair", "size", "unreadable"]


def test_the_colour_and_place_of_a_wrong_pixel_are_told(frames: Path) -> None:
    spoil_pixel(frames)
    (finding,) = of_kind(check_dataset(frames), "label")
    assert "129,1,3 at x=5, y=7" in finding.message


def test_a_frame_in_two_folders(make_kaggle: MakeDataset) -> None:
    """The standard split goes by stem: whatever the second one shows, it cannot be used."""
    root = make_kaggle()
    for folder, end in (("", ".png"), ("_labels", "_L.png")):
        name = standard_stems("train")[0] + end
        shutil.copy(root / f"train{folder}" / name, root / f"val{folder}" / name)
    assert ("duplicate", [f"{standard_stems('train')[0]}.png"] * 2) in errors(check_dataset(root))
    # By the folders it is the same content in two splits.
    ((kind, files),) = errors(check_dataset(root, split_source="folders"))
    assert kind == "duplicate" and len(files) == 2


def test_a_copy_under_a_new_name(make_kaggle: MakeDataset) -> None:
    root = make_kaggle()
    first = standard_stems("train")[0]
    shutil.copy(root / "train" / f"{first}.png", root / "val" / "extra.png")
    shutil.copy(root / "train_labels" / f"{first}_L.png", root / "val_labels" / "extra_L.png")
    kinds = [kind for kind, _ in errors(check_dataset(root))]
    assert kinds == ["folders", "duplicate"]  # in no list of the standard split, and a copy


def test_a_copy_within_a_split_is_a_warning(frames: Path) -> None:
    first, second = pictures(frames, "train")[:2]
    shutil.copy(first, second)
    check = check_dataset(frames)
    (finding,) = of_kind(check, "duplicate")
    assert finding.severity == "warning" and check.passed() and not check.passed(strict=True)


def test_two_pictures_of_one_stem(kaggle_data: Path) -> None:
    frame = pictures(kaggle_data, "train")[0]
    Image.open(frame).save(frame.with_suffix(".bmp"))
    ((kind, files),) = errors(check_dataset(kaggle_data))
    assert kind == "pair" and set(files) == {frame.name, f"{frame.stem}.bmp"}


def test_indices_cannot_give_32_classes(segnet_data: Path) -> None:
    ((kind, _),) = errors(check_dataset(segnet_data, classes="32"))
    assert kind == "classes"  # once, not for every label


def test_a_class_dict_of_another_dataset(own_data: Path) -> None:
    assert [kind for kind, _ in errors(check_dataset(own_data))] == ["classes"]


def test_a_label_of_void_alone(kaggle_data: Path) -> None:
    label = pictures(kaggle_data, "train_labels")[0]
    Image.fromarray(np.zeros((48, 64, 3), np.uint8)).save(label)
    (finding,) = of_kind(check_dataset(kaggle_data), "void")
    assert finding.severity == "warning" and finding.files == (label,)


def test_files_are_held_against_the_manifest(frames: Path) -> None:
    write_manifest(frames, "kaggle", "1")
    assert not of_kind(check_dataset(frames), "manifest")
    changed, gone = pictures(frames, "train")[:2]
    pixels = np.array(Image.open(changed))
    pixels[0, 0] ^= 1
    Image.fromarray(pixels).save(changed)
    (frames / "class_dict.csv").unlink()
    found = of_kind(check_dataset(frames), "manifest")
    assert {f.files[0].name for f in found} == {changed.name, "class_dict.csv"}
    assert {f.severity for f in found} == {"error"} and gone.name not in str(found)


# --- near-duplicates -------------------------------------------------------------------------


def disguised(path: Path, brightness: float = 1.05, shift: int = 2) -> Picture:
    """JPEG quality 80, other light, moved by `shift` pixels both ways."""
    image = np.array(Image.open(path).convert("RGB"))
    moved = np.pad(image, ((shift, 0), (shift, 0), (0, 0)), mode="edge")[:-shift, :-shift]
    lit = (moved.astype(np.float64) * brightness).clip(0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(lit).save(buffer, "JPEG", quality=80)
    return np.array(Image.open(buffer))


@pytest.mark.parametrize("brightness", [1.05, 0.95])
def test_a_disguised_copy_is_found(real_frames: Path, tmp_path: Path, brightness: float) -> None:
    root = Path(shutil.copytree(real_frames, tmp_path / "data"))
    original, target = pictures(root, "train")[9], pictures(root, "val")[3]
    Image.fromarray(disguised(original, brightness)).save(target)
    check = check_dataset(root)
    (finding,) = of_kind(check, "near-duplicate")
    assert finding.files == (target, original) and finding.severity == "warning"
    assert check.passed() and not check.passed(strict=True)
    assert run("data", "check", root, "--strict").exit_code == 1


@pytest.mark.slow
def test_every_disguised_frame_is_nearest_to_its_original(real_data: Path) -> None:
    paths = [path for split in ("train", "val") for path in pictures(real_data, split)[::7]]
    originals = [near_duplicates.fingerprint(np.array(Image.open(path))) for path in paths]
    copies = [near_duplicates.fingerprint(disguised(path)) for path in paths]
    for index, (nearest, similarity) in enumerate(near_duplicates.most_similar(copies, originals)):
        assert similarity >= 0.98
        # Frames 1/15 s apart in front of a red light may come out as near as the original.
        assert nearest == index or originals[nearest] @ originals[index] > 0.95


def test_flat_frames_are_no_near_duplicates() -> None:
    flat = [near_duplicates.fingerprint(np.full((90, 120, 3), v, np.uint8)) for v in (0, 200)]
    assert [similarity for _, similarity in near_duplicates.most_similar(flat, flat)] == [0, 0]


def named(*stems: str) -> Sequence[Frame]:
    return [Frame(stem, Path(f"{stem}.png"), None) for stem in stems]


def test_neighbours_in_time() -> None:
    train = named("0001TP_008460", "0001TP_008490", "0001TP_008520", "0006R0_f00930")
    test = named("0001TP_008550", "0001TP_008580", "0006R0_f09990", "Seq05VD_f00000")
    ((gap, _, before, _, after),) = near_duplicates.neighbours([("train", train), ("test", test)])
    assert (gap, before.stem, after.stem) == (30, "0001TP_008520", "0001TP_008550")


# --- counts and splits -----------------------------------------------------------------------


def test_unexpected_counts_are_warnings(kaggle_data: Path) -> None:
    check = check_dataset(kaggle_data)
    messages = [finding.message for finding in of_kind(check, "count")]
    assert [message.split(" (")[0] for message in messages] == [
        "train holds 5 of its 367 frames",
        "val holds 3 of its 101 frames",
        "test holds 0 of its 233 frames",
    ]
    by_folders = check_dataset(kaggle_data, split_source="folders")
    assert "public copy has 369" in of_kind(by_folders, "count")[0].message


def test_the_folder_split_differs(make_kaggle: MakeDataset) -> None:
    train, val = standard_stems("train"), standard_stems("val")
    root = make_kaggle({"train": [*train[:4], val[0]], "val": val[1:4]})
    check = check_dataset(root)
    (finding,) = of_kind(check, "folders")
    assert finding.severity == "warning" and finding.files == (root / "train" / f"{val[0]}.png",)
    assert "1 frame of the standard val split lies in the folder train" in finding.message
    by_folders = check_dataset(root, split_source="folders")
    (finding,) = of_kind(by_folders, "folders")
    assert finding.severity == "warning" and finding.files == (root / "train" / f"{val[0]}.png",)
    assert "1 frame lies elsewhere" in finding.message and not by_folders.passed(strict=True)


def test_folders_that_are_the_standard_split_need_no_word(segnet_data: Path) -> None:
    assert not of_kind(check_dataset(segnet_data, split_source="folders"), "folders")


def test_a_split_can_be_left_out(frames: Path) -> None:
    copy_into_val(frames)
    assert check_dataset(frames, splits=("train",)).count("error") == 0
    assert run("data", "check", frames, "--split", "val").exit_code == 0
    assert run("data", "check", frames, "--split", "train+val").exit_code == 1


def test_test_frames_without_labels(own_data: Path) -> None:
    source = pictures(own_data / "images", "val")[0]
    (own_data / "images" / "test").mkdir()
    image = np.array(Image.open(source))[::-1]
    Image.fromarray(image).save(own_data / "images" / "test" / "testdrive_0000.png")
    check = check_dataset(own_data, classes="dataset")
    assert [finding.severity for finding in check.findings] == ["warning"]


# --- the command -----------------------------------------------------------------------------


def test_the_view_fits_80_columns_and_cuts_long_lists(kaggle_data: Path) -> None:
    for label in pictures(kaggle_data, "train_labels") + pictures(kaggle_data, "val_labels"):
        pixels = np.array(Image.open(label))
        pixels[0, 0] = (1, 2, 3)
        Image.fromarray(pixels).save(label)
    done = run("data", "check", kaggle_data)
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= 80 and "\x1b" not in done.stdout
    assert any("and 3 more like it; --json lists all" in line for line in lines)
    document = json.loads(run("data", "check", kaggle_data, "--json").stdout)
    assert document["errors"] == 8 and document["findings"][0]["files"]


def test_every_finding_names_files(frames: Path) -> None:
    for damage in (remove_label, truncate_frame, spoil_pixel, shrink_label, copy_into_val):
        damage(frames)
    frame, label = pictures(frames, "train")[0], pictures(frames, "train_labels")[0]
    for path in (frame, label):
        Image.open(path).resize((32, 24), Image.Resampling.NEAREST).save(path)
    for more in ([], ["--split-source", "folders"], ["--split", "train"]):
        done = run("data", "check", frames, "--json", *more)
        findings = json.loads(done.stdout)["findings"]
        assert [finding for finding in findings if not finding["files"]] == []
        (sizes,) = (finding for finding in findings if finding["kind"] == "sizes")
        assert sizes["files"] == [str(frame)] and frame.name in sizes["message"]


def test_missing_frames_are_named_all(kaggle_data: Path) -> None:
    check = check_dataset(kaggle_data)
    files = {finding.message.split()[0]: finding.files for finding in of_kind(check, "count")}
    for split, here in (("train", 5), ("val", 3), ("test", 0)):
        expected = {f"{stem}.png" for stem in standard_stems(split)[here:]}
        assert {str(path) for path in files[split]} == expected


def test_a_folder_that_cannot_be_read(frames: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there = Path.iterdir

    def iterdir(folder: Path) -> Iterator[Path]:  # the superuser may read every folder
        if folder == frames / "train":
            raise PermissionError(errno.EACCES, "Permission denied", str(folder))
        return there(folder)

    monkeypatch.setattr(Path, "iterdir", iterdir)
    (finding,) = of_kind(check_dataset(frames), "unreadable")
    assert finding.message == f"{frames / 'train'} cannot be read: Permission denied."
    done = run("data", "check", frames, "--split", "train")
    assert done.exit_code == 1 and "train cannot be read: Permission denied." in done.stderr
    for command in ("stats", "show"):
        done = run("data", command, frames)
        assert done.exit_code == 1 and "train cannot be read: Permission denied." in done.stderr
        assert "Errno" not in done.output and "ls -ld" in done.stderr


def test_a_pipe_is_no_picture(kaggle_data: Path) -> None:
    frame = pictures(kaggle_data, "train")[0]
    frame.unlink()
    os.mkfifo(frame)
    done = child("data", "check", kaggle_data, "--json")  # which would wait for ever
    (found,) = (f for f in json.loads(done.stdout)["findings"] if f["severity"] == "error")
    assert found["kind"] == "unreadable" and found["files"] == [str(frame)]


def test_an_index_of_no_class_is_not_called_a_jpeg(segnet_data: Path) -> None:
    label = pictures(segnet_data, "trainannot")[0]
    indices = np.array(Image.open(label))
    indices[0, 0] = 12
    Image.fromarray(indices).save(label)
    (finding,) = of_kind(check_dataset(segnet_data), "label")
    assert "unknown index 12" in finding.message and "0 to 11 and 255" in finding.hint


def test_a_file_gets_lines_without_blanks_at_their_end(kaggle_data: Path) -> None:
    lines = run("data", "check", kaggle_data).stdout.splitlines()
    assert len(lines) > 10 and [line for line in lines if line != line.rstrip()] == []


def test_what_to_do_next_is_said(kaggle_data: Path, tmp_path: Path) -> None:
    done = run("data", "check", kaggle_data, "--split", "test")
    assert done.exit_code == 1 and "It has some in train and val: --split train+val" in done.stderr
    (tmp_path / "other" / "things").mkdir(parents=True)
    done = run("data", "check", tmp_path / "other")
    assert "Name the folder that holds them" in done.stderr and "--data" not in done.stderr
    shutil.copy(pictures(kaggle_data, "train")[0], kaggle_data / "val")
    done = run("data", "stats", kaggle_data)
    assert done.exit_code == 1 and "smp-camvid data check" in done.stderr


def test_wrong_words_and_empty_folders(tmp_path: Path) -> None:
    assert run("data", "check", "--classes", "12").exit_code == 2
    assert run("data", "check", "--split", "vla").exit_code == 2
    empty = run("data", "check", tmp_path)
    assert empty.exit_code == 1 and "empty folder" in empty.stderr and not empty.stdout
    with pytest.raises(DataError, match="no dataset folder"):
        check_dataset(tmp_path / "absent")
    with pytest.raises(DataError, match="cannot be opened: File name too long"):
        check_dataset("n" * 300)


@pytest.mark.parametrize("words", ["data --help", "data check --help", "doctor --help"])
def test_help_needs_no_torch(words: str) -> None:
    program = (
        f"import sys; sys.argv = ['smp-camvid', *{words.split()!r}]\n"
        "from smp_camvid.cli import main\n"
        "try: main()\nexcept SystemExit as stop: assert not stop.code\n"
        "assert not {'torch', 'cv2', 'numpy', 'matplotlib'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
