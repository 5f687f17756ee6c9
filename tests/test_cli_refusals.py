"""What the commands refuse: bad data, options, weights and places, before anything is written."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command_line import TRAIN, array_of, refused, run
from PIL import Image

pytestmark = pytest.mark.usefixtures("here")


# --- bad data --------------------------------------------------------------------------------


def spoil_label(root: Path, change: Callable[[Any], Any]) -> str:
    label = sorted((root / "train_labels").glob("*.png"))[2]
    change(label)
    return label.name


def off_palette(label: Path) -> None:
    pixels = array_of(label)
    pixels[5, 7] = (129, 1, 3)  # close to Building's 128, 0, 0
    Image.fromarray(pixels).save(label)


def other_size(label: Path) -> None:
    Image.fromarray(array_of(label)[:, :60]).save(label)


def cut_short(label: Path) -> None:
    label.write_bytes(label.read_bytes()[:-60])


def not_a_picture(label: Path) -> None:
    label.write_text("nothing")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (off_palette, ("unknown colour 129,1,3 at x=7, y=5",)),
        (other_size, ("60x48", "64x48")),
        (cut_short, ("truncated",)),
        (not_a_picture, ("not a picture",)),
        (Path.unlink, ("has no label",)),
    ],
)
def test_a_bad_label_stops_training_before_it_starts(
    kaggle_data: Path, change: Callable[[Any], Any], said: tuple[str, ...]
) -> None:
    before = {p: p.stat().st_mtime_ns for p in kaggle_data.rglob("*")}
    name = spoil_label(kaggle_data, change)
    stem = name.removesuffix("_L.png")
    refused(run(*TRAIN, "--data", kaggle_data), 1, stem, *said)
    now = {p: p.stat().st_mtime_ns for p in kaggle_data.rglob("*")}
    assert {p for p in now if now[p] != before.get(p)} <= {
        kaggle_data / "train_labels", kaggle_data / "train_labels" / name,
    }  # fmt: skip


def test_bad_places_for_data(segnet_data: Path) -> None:
    Path("empty").mkdir()
    refused(run(*TRAIN), 1, "no dataset in ./data/camvid", "--data synthetic")
    refused(run(*TRAIN, "--data", "absent"), 1, "no dataset folder absent")
    refused(run(*TRAIN, "--data", "empty"), 1, "empty folder")
    refused(run(*TRAIN, "--data", segnet_data, "--classes", "32"), 1, "11", "32")
    refused(run(*TRAIN, "--data", segnet_data, "--classes", "dataset"), 1, "class_dict.csv")


# --- bad options -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--recipe", "vanila"], ("'vanila'", "Did you mean 'vanilla'?")),
        (["--arch", "unnet"], ("'unnet'", "Did you mean 'unet'?")),
        (["--arch", "unet", "--encoder", "resnet43"], ("resnet43", "Did you mean")),
        (["--arch", "vanilla", "--encoder", "resnet34"], ("encoder_name", "no such option")),
        (["--set", "train.epoch=3"], ("Did you mean 'epochs'?",)),
        (["--set", "epochs"], ("key=value",)),
        (["--size", "360"], ("HEIGHTxWIDTH",)),
        (["--epochs", "0"], ("train.epochs", "greater than or equal to 1")),
        (["--lr", "-1"], ("train.lr", "greater than 0")),
        (["--verbose", "4"], ("train.verbose", "less than or equal to 3")),
        (["--device", "gpu0"], ("train.device: 'gpu0' is none of these: auto, cpu, cuda",)),
        (["--set", "name=../x"], ("name: '../x' is none of these: Name of the run folder",)),
        (["--set", "data.val_split=vall"], ("data.val_split",)),
        (["--precision", "fp16", "--device", "cpu"], ("needs a GPU",)),
        (["--resume", "runs/none-1"], ("not a run folder",)),
        (["--set", 'augment=[{name="HorizontalFlop"}]'], ("HorizontalFlop", "Did you mean")),
    ],
)
def test_wrong_options(segnet_data: Path, words: list[str], said: tuple[str, ...]) -> None:
    extra = [] if "--resume" in words else ["--data", str(segnet_data), "--size", "32x48"]
    refused(run("train", *extra, *words), 2, *said)


def test_three_mistakes_are_listed_in_one_message() -> None:
    Path("mine.toml").write_text('[train]\nepoch = 3\nlr = -1\n[model]\narch = "unett"\n')
    refused(
        run("train", "--recipe", "./mine.toml"), 2, "3 problems", "train.epoch", "train.lr",
        "model.arch",
    )  # fmt: skip


@pytest.mark.skipif(__import__("torch").cuda.is_available(), reason="there is a GPU")
def test_cuda_without_a_gpu(segnet_data: Path, a_run: Path) -> None:
    refused(run(*TRAIN, "--data", segnet_data, "--device", "cuda"), 1, "no CUDA device")
    refused(run("evaluate", a_run, "--device", "cuda"), 1, "no CUDA device")


def test_a_save_dir_that_cannot_be_written(segnet_data: Path) -> None:
    Path("file").write_text("")
    refused(run(*TRAIN, "--data", segnet_data, "--save-dir", "file/runs"), 1, "--save-dir")


class Bomb:
    def __reduce__(self) -> Any:
        return os.system, ("touch exploded",)


def test_weights_that_are_none(segnet_data: Path, a_run: Path) -> None:
    Path("bomb.safetensors").write_bytes(pickle.dumps(Bomb()))
    Path("text.safetensors").write_text("no weights")
    good = (a_run / "weights" / "last.safetensors").read_bytes()
    Path("half.safetensors").write_bytes(good[: len(good) // 2])
    train = [*TRAIN, "--data", str(segnet_data)]
    Image.new("RGB", (4, 4)).save("a.png")
    for name, said in (("bomb", "pickle"), ("text", "safetensors"), ("half", "cut short")):
        file = f"{name}.safetensors"
        refused(run("evaluate", file), 1, said)
        refused(run("predict", "a.png", "--model", file), 1, said)
        refused(run(*train, "--weights", file), 1, said)
    refused(run("evaluate", "nowhere.safetensors"), 1, "no run or weights file")
    assert not Path("exploded").exists()


def test_other_classes_need_reset_head(own_data: Path, a_run: Path) -> None:
    words = [*TRAIN, "--data", str(own_data), "--classes", "dataset", "--weights", str(a_run)]
    refused(run(*words), 1, "predicts 11 classes (Sky, Building, Pole, ...)", "--reset-head")
    assert run(*words, "--reset-head", "--verbose", "0").exit_code == 0
    refused_data = run("evaluate", "runs/vanilla-1", "--data", a_run.parents[1] / "data")
    assert refused_data.exit_code == 1


def test_augmentation_encoder_and_option_values_are_in_the_one_message() -> None:
    Path("bad.toml").write_text(
        'augment = [{name="HorizntalFlip"}, {name="Rotate", limitt=3}]\n'
        '[train]\nepoch = 3\n[model]\narch = "vanilla"\nnorm = "bach"\n'
    )
    for words in (["recipes", "check", "./bad.toml"], ["train", "--recipe", "./bad.toml"]):
        refused(run(*words), 2, "4 problems", "train.epoch", "'HorizntalFlip'", "limitt", "'bach'")
    said = run("train", "--arch", "unet", "--encoder", "resnt34", "--set", "train.epoch=3")
    refused(said, 2, "2 problems", "resnt34", "train.epoch")
    # values that only smp's constructor knows, told before the folder is looked for
    smp = ["--arch", "unet", "--data", "nowhere", "--set", "train.epoch=3"]
    said = run("train", *smp, "--set", "model.decoder_attention_type=foo")
    refused(said, 2, "2 problems", "Attention foo", "train.epoch")
    said = run("train", *smp, "--set", "model.decoder_channels=[8, 4]")
    refused(said, 2, "2 problems", "`decoder_channels` for 2 blocks", "train.epoch")


def test_tools_that_do_not_fit_are_in_the_one_message() -> None:
    words = ["--set", "train.deep_supervision=0.4", "--set", "train.stop_metric=Skye"]
    said = run("train", "--arch", "fpn", *words, "--data", "nowhere")
    refused(said, 2, "2 problems", "does not fit fpn", "'Skye'. Did you mean 'Sky'?")


def test_scores_are_not_counted_on_enlarged_labels(a_run: Path, segnet_data: Path) -> None:
    words = ["evaluate", a_run, "--data", segnet_data, "--json"]
    refused(run(*words, "--size", "96x128"), 2, "pixels nobody labelled", "--size 48x64")
    assert json.loads(run(*words, "--size", "24x32").stdout)["protocol"] == "camvid11@24x32"
