"""The commands as a user types them: what they leave, what they say, how they end."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

import smp_camvid
from smp_camvid.cli import app
from smp_camvid.data.camvid import standard_stems

TRAIN = [
    "train", "--set", "model.base_channels=4", "--set", "model.depth=2", "--size", "32x48",
    "--epochs", "1", "--batch-size", "2", "--workers", "0", "--precision", "fp32",
]  # fmt: skip


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Each command runs in a folder of its own, at 80 columns."""
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setenv("COLUMNS", "80")
    return here


def run(*words: str | Path) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def refused(result: Result, code: int, *parts: str) -> None:
    """A plain reason on stderr, nothing on stdout, the right code, and no run folder."""
    assert result.exit_code == code, result.output
    for part in parts:
        assert part in result.stderr
    assert "Traceback" not in result.output
    assert result.stdout == ""
    assert not Path("runs").exists() and not Path("predictions").exists()


@pytest.fixture(scope="module")
def a_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained run on four tiny CamVid-like frames, shared by the tests that only read it."""
    root = tmp_path_factory.mktemp("shared")
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for stem in standard_stems(split)[:3]:
            for folder, array in (
                (split, rng.integers(0, 255, (48, 64, 3), np.uint8)),
                (f"{split}annot", rng.integers(0, 12, (48, 64)).astype(np.uint8)),
            ):
                (root / "data" / folder).mkdir(parents=True, exist_ok=True)
                Image.fromarray(array).save(root / "data" / folder / f"{stem}.png")
    done = run(*TRAIN, "--data", root / "data", "--save-dir", root / "runs", "--verbose", 0)
    assert done.exit_code == 0, done.output
    return Path(done.stdout.strip())


def array_of(path: str | Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.array(picture)


# --- the whole path --------------------------------------------------------------------------


def test_train_evaluate_predict_with_no_other_option(
    segnet_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = run(*TRAIN, "--data", segnet_data)
    assert done.exit_code == 0
    assert done.stdout == f"{Path('runs/vanilla-1')}\n"
    scored = run("evaluate", "--json")
    document = json.loads(scored.stdout)
    assert list(document) == [
        "miou", "accuracy", "mean_class_accuracy", "per_class", "classes_counted", "frames",
        "split", "protocol", "definition", "model", "checkpoint",
    ]  # fmt: skip
    recorded = json.loads(Path("runs/vanilla-1/metrics.jsonl").read_text().splitlines()[-1])
    assert document["miou"] == pytest.approx(recorded["val"]["miou"], abs=1e-5)
    frame = segnet_data / "val" / f"{standard_stems('val')[0]}.png"
    predicted = run("predict", frame, "--save", "mask,color,overlay,probs")
    assert predicted.exit_code == 0 and str(frame) in predicted.stdout
    left = [p.name.removeprefix(f"{frame.stem}_") for p in sorted(Path("predictions").iterdir())]
    assert left == ["color.png", "mask.png", "overlay.png", "probs.npz"]
    mask = array_of(f"predictions/{frame.stem}_mask.png")
    assert mask.shape == (48, 64) and mask.dtype == np.uint8
    probs = np.load(f"predictions/{frame.stem}_probs.npz")["probs"]
    assert probs.shape == (11, 48, 64) and probs.dtype == np.float16
    assert (probs.argmax(0) == mask).mean() > 0.99


@pytest.mark.parametrize(
    ("verbose", "present", "absent"),
    [
        (0, (), ("encoder", "epoch 1/1", "peak learning rate")),
        (1, ("encoder", "epoch 1/1"), ("peak learning rate", "encoder.levels.0.0.weight")),
        (2, ("encoder", "epoch 1/1", "peak learning rate"), ("encoder.levels.0.0.weight",)),
        (3, ("encoder", "epoch 1/1", "peak learning rate", "segmentation_head.weight"), ()),
    ],
)
def test_verbose_shows_what_its_first_users_know(
    segnet_data: Path, verbose: int, present: tuple[str, ...], absent: tuple[str, ...]
) -> None:
    done = run(*TRAIN, "--data", segnet_data, "--verbose", verbose)
    assert done.exit_code == 0
    assert all(part in done.stderr for part in present), done.stderr
    assert not any(part in done.stderr for part in absent), done.stderr
    assert "\x1b" not in done.output
    assert verbose or done.stderr == ""


def test_a_run_is_resumed_by_the_line_it_prints(segnet_data: Path) -> None:
    words = [*TRAIN, "--data", str(segnet_data), "--set", "train.epochs=2", "--verbose", "0"]
    whole = run(*words)
    assert whole.exit_code == 0
    program = [sys.executable, "-c", _INTERRUPTED, *words]
    cut = subprocess.run(program, capture_output=True, text=True, check=False)
    assert cut.returncode == 130, cut.stderr
    assert "Go on with: smp-camvid train --resume runs/vanilla-2" in cut.stderr
    assert "Traceback" not in cut.stderr
    refused_change = run("train", "--resume", "runs/vanilla-2", "--lr", "1")
    assert refused_change.exit_code == 2 and refused_change.stdout == ""
    assert "would change it: train.lr 0.0002 -> 1.0" in refused_change.stderr
    assert run("train", "--resume", "runs/vanilla-2", "--verbose", "0").exit_code == 0
    first, second = (Path(f"runs/vanilla-{n}/metrics.jsonl").read_text() for n in (1, 2))
    assert first == second


# A real process that gets a real SIGTERM in the middle of its second step.
_INTERRUPTED = """
import os, signal, sys
from smp_camvid.training import trainer
step, calls = trainer.Trainer.train_step, []
def interrupted(self, *batches):
    calls.append(1)
    if len(calls) == 2:
        os.kill(os.getpid(), signal.SIGTERM)
    return step(self, *batches)
trainer.Trainer.train_step = interrupted
from smp_camvid.cli import main
main()
"""


def test_evaluate_prints_a_table_worst_first_and_writes_csv(a_run: Path) -> None:
    done = run("evaluate", a_run, "--csv", "scores.csv")
    assert done.exit_code == 0, done.output
    assert "camvid11@360x480" in done.stdout and "pooled confusion matrix" in done.stdout
    document = json.loads(run("evaluate", a_run, "--json").stdout)
    worst = min(document["per_class"], key=lambda name: document["per_class"][name] or 2)
    best = max(document["per_class"], key=lambda name: document["per_class"][name] or -1)
    table = done.stdout[done.stdout.index("class ") :]
    assert table.index(worst) < table.index(best)
    rows = Path("scores.csv").read_text().splitlines()
    assert rows[0] == "class,iou" and len(rows) == 13


def test_checkpoints_can_be_chosen(a_run: Path) -> None:
    assert json.loads(run("evaluate", a_run, "--checkpoint", "best", "--json").stdout)[
        "checkpoint"
    ] == "best"  # fmt: skip
    refused(run("evaluate", a_run, "--checkpoint", "epoch-7"), 1, "there are: best, last")
    refused(run("evaluate", a_run, "--checkpoint", "newest"), 2, "last, best or epoch-N")


def test_a_copied_weights_file_needs_no_run(a_run: Path) -> None:
    shutil.copy(a_run / "weights" / "last.safetensors", "mine.safetensors")
    Image.new("RGB", (30, 20)).save("img.png")
    done = run("predict", "img.png", "--model", "mine.safetensors", "--json")
    document = json.loads(done.stdout)
    assert sum(document[0]["shares"].values()) == pytest.approx(1)
    assert array_of(document[0]["files"]["overlay"]).shape == (20, 30, 3)


# --- predict ---------------------------------------------------------------------------------


def pictures() -> dict[str, Image.Image]:
    rng = np.random.default_rng(1)
    rgb = Image.fromarray(rng.integers(0, 255, (33, 47, 3), np.uint8))
    deep = Image.fromarray(rng.integers(0, 65535, (33, 47)).astype(np.uint16))
    return {
        "rgb.png": rgb,
        "grey.png": rgb.convert("L"),
        "rgba.png": rgb.convert("RGBA"),
        "palette.png": rgb.convert("P"),
        "deep.png": deep,
        "photo.jpg": rgb,
        "one.png": Image.new("RGB", (1, 1)),
        "wide.png": Image.new("RGB", (300, 2)),
    }


def test_every_mode_and_size_gives_masks_of_the_input_size(a_run: Path) -> None:
    Path("in/below").mkdir(parents=True)
    for name, picture in pictures().items():
        picture.save(Path("in") / name)
    turned = pictures()["rgb.png"]
    exif = turned.getexif()
    exif[0x0112] = 6  # a quarter turn
    turned.save("in/turned.jpg", exif=exif)
    turned.save("in/below/deeper.png")
    done = run("predict", "in", "--model", a_run, "--recursive", "--scale", "native")
    assert done.exit_code == 0, done.output
    for name, picture in pictures().items():
        for kind in ("mask", "color", "overlay"):
            out = array_of(f"predictions/{Path(name).stem}_{kind}.png")
            assert out.shape[1::-1] == picture.size, name
    assert array_of("predictions/turned_mask.png").shape == (47, 33)
    assert Path("predictions/below/deeper_mask.png").is_file()


def test_a_bad_picture_is_named_and_the_rest_is_done(a_run: Path) -> None:
    Path("in").mkdir()
    Image.new("RGB", (20, 20)).save("in/good.png")
    Path("in/bad.png").write_bytes(b"\x89PNG\r\n\x1a\n and then nothing")
    done = run("predict", "in", "--model", a_run)
    assert done.exit_code == 1
    assert "bad.png" in done.stderr and "1 of 2 pictures" in done.stderr
    assert sorted(p.name for p in Path("predictions").iterdir()) == [
        "good_color.png", "good_mask.png", "good_overlay.png",
    ]  # fmt: skip


def test_predict_says_what_it_cannot_do(a_run: Path) -> None:
    Path("empty").mkdir()
    Image.new("RGB", (4, 4)).save("a.png")
    Image.new("RGB", (4, 4)).save("a.jpg")
    refused(run("predict", "absent.png", "--model", a_run), 1, "no file or folder absent.png")
    refused(run("predict", "empty", "--model", a_run), 1, "no picture in empty")
    refused(run("predict", "a.png", "--save", "masks"), 2, "masks cannot be saved", "mask,color")
    refused(run("predict", "a.png", "--scale", "big"), 2, "train or native")
    refused(run("predict", "a.png", "a.jpg", "--model", a_run), 2, "would both be written")
    refused(run("predict", "a.png"), 1, "no trained model", "smp-camvid train")


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


# --- the rest --------------------------------------------------------------------------------


def test_recipes_show_says_where_values_came_from() -> None:
    done = run("recipes", "show", "vanilla", "--set", "train.epochs=3")
    assert "train.epochs = 3  # option" in done.stdout
    assert 'train.schedule = "poly"  # vanilla' in done.stdout
    assert "train.seed = 0  # default" in done.stdout


def test_recipes_copy_never_overwrites() -> None:
    assert run("recipes", "copy", "vanilla", "mine.toml").exit_code == 0
    before = Path("mine.toml").read_text()
    again = run("recipes", "copy", "quick", "mine.toml")
    assert again.exit_code == 2 and "exists" in again.stderr
    assert Path("mine.toml").read_text() == before
    assert run("recipes", "check", "./mine.toml").stdout == "./mine.toml: good\n"


def test_recipes_check_names_what_is_wrong() -> None:
    Path("bad.toml").write_text("[train]\nepoch = 3\n")
    done = run("recipes", "check", "./bad.toml", "vanilla")
    assert done.exit_code == 2 and "train.epoch" in done.stderr and "vanilla: good" in done.stdout
    assert run("recipes", "check").exit_code == 0


def test_version_and_models() -> None:
    assert run("--version").stdout == f"smp-camvid {smp_camvid.__version__}\n"
    assert "unetplusplus: encoder_name" in run("models").stdout


_HELP = """
import sys
sys.argv = ["smp-camvid", *{words!r}.split()]
from smp_camvid.cli import main
try:
    main()
except SystemExit as stop:
    assert not stop.code, stop.code
heavy = {{"torch", "timm", "segmentation_models_pytorch", "albumentations", "cv2"}}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
"""


@pytest.mark.parametrize(
    "words",
    [
        "--help", "train --help", "evaluate --help", "predict --help", "download --help",
        "models --help", "recipes --help", "recipes list --help", "recipes show --help",
        "recipes check --help", "recipes copy --help", "recipes list",
        "recipes show vanilla", "models", "--version",
    ],
)  # fmt: skip
def test_help_and_recipes_answer_without_torch(words: str) -> None:
    program = [sys.executable, "-c", _HELP.format(words=words)]
    done = subprocess.run(program, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_debug_shows_the_traceback() -> None:
    done = run("--debug", "evaluate", "absent")
    assert done.exit_code == 1 and type(done.exception).__name__ == "RunError"


def test_every_way_to_start_is_the_same() -> None:
    root = Path(smp_camvid.__file__).parents[1]
    for start in (["-m", "smp_camvid"], [str(root / "cli.py")]):
        done = subprocess.run(
            [sys.executable, *start, "--version"], capture_output=True, text=True, check=True
        )
        assert done.stdout == f"smp-camvid {smp_camvid.__version__}\n"


def test_predicting_a_folder_twice_leaves_its_own_output_alone(a_run: Path) -> None:
    Image.new("RGB", (20, 20)).save("one.png")
    Path("._one.png").write_bytes(b"what macOS leaves")
    for _ in range(2):
        assert run("predict", ".", "--recursive", "--model", a_run).exit_code == 0
    assert sorted(str(p) for p in Path().rglob("*_mask.png")) == ["predictions/one_mask.png"]
    Path("file").write_text("")
    assert run("predict", "one.png", "--model", a_run, "--out", "file").exit_code == 2


def test_a_csv_that_cannot_be_written_costs_no_score(a_run: Path) -> None:
    Path("file").write_text("")
    done = run("evaluate", a_run, "--csv", "file/scores.csv")
    assert done.exit_code == 1 and "--csv" in done.stderr and "mean IoU" in done.stdout


def test_arch_may_name_a_recipe_and_a_name_stays(segnet_data: Path) -> None:
    common = ["--size", "32x48", "--epochs", "1", "--workers", "0", "--verbose", "0"]
    tiny = ["--set", "model.base_channels=4", "--data", str(segnet_data)]
    done = run("train", "--arch", "quick", *common, *tiny)
    assert done.stdout == f"{Path('runs/quick-1')}\n", done.output
    done = run("train", *common, *tiny, "--set", "name=mine")
    assert done.stdout == f"{Path('runs/mine-1')}\n", done.output


def test_a_parent_recipe_lies_beside_its_child() -> None:
    Path("rec").mkdir()
    Path("rec/parent.toml").write_text('extends = ""\n[train]\nepochs = 7\n')
    Path("rec/child.toml").write_text('extends = "parent.toml"\n')
    assert "train.epochs = 7  # parent" in run("recipes", "show", "rec/child.toml").stdout


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


def test_an_encoder_that_computes_while_it_is_built_is_no_problem() -> None:
    Path("mit.toml").write_text('[model]\narch = "segformer"\nencoder_name = "mit_b0"\n')
    assert run("recipes", "check", "./mit.toml").exit_code == 0
