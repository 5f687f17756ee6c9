"""Leave-one-drive-out: which frames learn, which judge, and what the score is called."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from smp_camvid.cli import app
from smp_camvid.data.camvid import CamVid, open_dataset, standard_stems
from smp_camvid.data.hold_out import drives, hold_out, hold_out_again
from smp_camvid.data.synthetic import generate
from smp_camvid.errors import UsageError
from smp_camvid.recipe import DataConfig, resolve
from smp_camvid.training.experiment import describe

MakeDataset = Callable[..., Path]

PER_DRIVE = {"0001TP": 62, "0006R0": 101, "0016E5": 204}  # of the standard train split


def stems_of(drive: str, number: int) -> list[str]:
    return [stem for stem in standard_stems("train") if stem.startswith(drive)][:number]


@pytest.fixture
def camvid(make_kaggle: MakeDataset) -> CamVid:
    """Train frames of three drives (3, 2 and 4 of them), two val frames and a test frame."""
    train = [*stems_of("0001TP", 3), *stems_of("0006R0", 2), *stems_of("0016E5", 4)]
    stems = {"train": train, "val": standard_stems("val")[:2], "test": standard_stems("test")[:1]}
    return open_dataset(make_kaggle(stems), need=("train", "val"))


def stems(dataset: CamVid, split: str) -> list[str]:
    return [frame.stem for frame in dataset.split(split)]


def test_the_drive_leaves_train_and_becomes_val(camvid: CamVid) -> None:
    assert drives(camvid) == {"0001TP": 3, "0006R0": 2, "0016E5": 4}
    divided = hold_out(camvid, "0006R0")
    assert stems(divided, "val") == stems_of("0006R0", 2)
    assert drives(divided) == {"0001TP": 3, "0016E5": 4}
    assert stems(divided, "train+val") == stems(camvid, "train")
    assert stems(divided, "test") == stems(camvid, "test")
    # The standard val frames, of a drive that train has, are in neither.
    assert not set(stems(camvid, "val")) & set(stems(divided, "train+val"))
    assert drives(camvid) == {"0001TP": 3, "0006R0": 2, "0016E5": 4}  # as it was


def test_the_protocol_says_so(camvid: CamVid, make_kaggle: MakeDataset) -> None:
    divided = hold_out(camvid, "0001TP")
    assert camvid.protocol((360, 480)) == "camvid11@360x480"
    assert divided.protocol((360, 480)) == "camvid11@360x480+held-out-0001TP"
    folders = open_dataset(camvid.root, split_source="folders")
    both = hold_out(folders, "0001TP").protocol(None)
    assert both == "camvid11@native+folders+held-out-0001TP"
    assert camvid.shortfall("train") == 358
    assert divided.shortfall("train") == 0  # it is not the standard split that is short


def test_a_wrong_drive_lists_them(camvid: CamVid) -> None:
    with pytest.raises(UsageError) as caught:
        hold_out(camvid, "0001TQ")
    assert "no drive '0001TQ' in the train split" in caught.value.message
    assert "0001TP (3), 0006R0 (2), 0016E5 (4)" in caught.value.message
    assert caught.value.hint == "Did you mean '0001TP'?"
    with pytest.raises(UsageError, match="no drive 'Seq05VD'"):  # only test has it
        hold_out(camvid, "Seq05VD")


def test_the_only_drive_cannot_be_held_out(kaggle_data: Path) -> None:
    dataset = open_dataset(kaggle_data)
    (drive,) = drives(dataset)
    with pytest.raises(UsageError, match=f"{drive} is the only drive .*5 frames"):
        hold_out(dataset, drive)


def test_own_roads_with_drives(make_own: MakeDataset) -> None:
    own = {"train": ["a_1", "a_2", "b_1", "c_1"], "val": ["d_1"]}
    divided = hold_out(open_dataset(make_own(own), "dataset"), "a")
    assert (stems(divided, "train"), stems(divided, "val")) == (["b_1", "c_1"], ["a_1", "a_2"])
    assert divided.protocol(None) == "dataset4@native+held-out-a"


def test_many_drives_are_not_all_listed(make_own: MakeDataset) -> None:
    """File names without an underscore make each frame a drive of its own."""
    own = {"train": [f"{i:03d}" for i in range(30)]}
    with pytest.raises(UsageError) as caught:
        hold_out(open_dataset(make_own(own, size=(8, 8)), "dataset"), "day1")
    assert "010 (1), 011 (1), ..." in caught.value.message
    assert "before the first underscore" in caught.value.hint


def test_the_synthetic_set_has_drives(tmp_path: Path) -> None:
    root = generate(tmp_path / "drawn", frames={"train": 10, "val": 2, "test": 2}, size=(36, 48))
    dataset = open_dataset(root)
    divided = hold_out(dataset, "Syn03")
    assert drives(divided, "val") == {"Syn03": 2} == {"Syn03": drives(dataset)["Syn03"]}
    assert set(drives(divided)) == {"Syn01", "Syn02"}
    assert divided.protocol((360, 480)) == "synthetic11@360x480+held-out-Syn03"


@pytest.mark.parametrize("drive", PER_DRIVE)
def test_real_drives(real_data: Path, drive: str) -> None:
    dataset = open_dataset(real_data, need=("train",))
    assert drives(dataset) == PER_DRIVE
    divided = hold_out(dataset, drive)
    assert len(divided.split("train")) == 367 - PER_DRIVE[drive]
    assert Counter(frame.drive for frame in divided.split("val")) == {drive: PER_DRIVE[drive]}
    assert {*stems(divided, "train"), *stems(divided, "val")} == set(standard_stems("train"))
    assert not {*stems(divided, "train+val")} & {*standard_stems("val"), *standard_stems("test")}


# --- evaluation repeats it -------------------------------------------------------------------


def test_metadata_bring_the_split_back(camvid: CamVid, make_own: MakeDataset) -> None:
    divided = hold_out(camvid, "0001TP")
    recorded = describe(resolve("vanilla").recipe, divided, (360, 480))
    assert json.loads(json.dumps(recorded)) == recorded
    again = hold_out_again(camvid, recorded)
    assert again.splits == divided.splits and again.held_out == "0001TP"
    assert again.protocol((360, 480)) == recorded["protocol"]
    standard = describe(resolve("vanilla").recipe, camvid, (360, 480))
    assert hold_out_again(camvid, standard) == camvid
    assert hold_out_again(camvid, {}) == camvid  # weights of an earlier version
    # Another family with a drive of that name, and the same family without it.
    elsewhere = open_dataset(make_own({"train": ["0001TP_1", "b_1"]}), "dataset")
    assert hold_out_again(elsewhere, recorded) == elsewhere
    assert hold_out_again(camvid, {**recorded, "hold_out": "Seq05VD"}) == camvid


def test_evaluate_repeats_the_recorded_score(
    camvid: CamVid, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the folder has no val split of its own."""
    monkeypatch.chdir(tmp_path)
    for folder in ("val", "val_labels"):
        for file in (camvid.root / folder).iterdir():
            file.unlink()
    keys = ["data.hold_out=0001TP", "model.base_channels=2", "train.device=cpu", "augment=[]"]
    options = [word for key in keys for word in ("--set", key)]
    common = ["--data", str(camvid.root), "--epochs", "1", "--batch-size", "2", "--size", "32x32"]
    run = CliRunner()
    done = run.invoke(app, ["train", *common, *options, "--no-save-plots", "--workers", "0"])
    assert done.exit_code == 0, done.output
    recorded = json.loads((Path(done.stdout.strip()) / "metrics.jsonl").read_text())["val"]
    scored = run.invoke(app, ["evaluate", "--json", "--device", "cpu"])
    assert scored.exit_code == 0, scored.output
    document = json.loads(scored.stdout)
    assert document["protocol"] == "camvid11@360x480+held-out-0001TP"
    assert (document["frames"], document["split"]) == (3, "val")
    assert document["miou"] == pytest.approx(recorded["miou"], abs=1e-5)
    rest = json.loads(run.invoke(app, ["evaluate", "--json", "--split", "train"]).stdout)
    assert rest["frames"] == 6  # negative control: other frames, another score
    assert rest["miou"] != pytest.approx(recorded["miou"], abs=1e-5)


# --- the recipe ------------------------------------------------------------------------------


@pytest.mark.parametrize("drive", [*PER_DRIVE, "Seq05VD", "2021"])
def test_the_key_takes_any_drive(drive: str) -> None:
    """0016E5 and 2021 look like numbers; a drive is a name."""
    from smp_camvid.recipe import parse_set

    data = resolve("vanilla", [parse_set(f"data.hold_out={drive}")]).recipe.data
    assert data.hold_out == drive
    assert DataConfig().hold_out == ""


@pytest.mark.parametrize("split", ["train_split", "val_split"])
def test_only_the_train_split_is_divided(split: str) -> None:
    with pytest.raises(UsageError, match=r"data\.hold_out: should be empty unless train_split"):
        resolve("vanilla", [("data.hold_out", "0001TP"), (f"data.{split}", "train+val")])
