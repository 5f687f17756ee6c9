"""The commands as a user types them: what they leave, what they say, how they end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import TRAIN, array_of, refused, run

import smp_camvid
from smp_camvid import cli
from smp_camvid.data.camvid import standard_stems

pytestmark = pytest.mark.usefixtures("here")


# --- the whole path --------------------------------------------------------------------------


def test_train_evaluate_predict_with_no_other_option(
    segnet_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = run(*TRAIN, "--data", segnet_data)
    assert done.exit_code == 0
    assert done.stdout == f"{Path('runs/vanilla-1')}\n"
    scored = run("evaluate", "--json")
    document = json.loads(scored.stdout)
    assert list(document)[:11] == [
        "miou", "accuracy", "mean_class_accuracy", "per_class", "classes_counted", "frames",
        "split", "protocol", "definition", "model", "checkpoint",
    ]  # fmt: skip
    recorded = json.loads(Path("runs/vanilla-1/metrics.jsonl").read_text().splitlines()[-1])
    assert document["miou"] == pytest.approx(recorded["val"]["miou"], abs=1e-5)
    frame = segnet_data / "val" / f"{standard_stems('val')[0]}.png"
    predicted = run("predict", frame, "--save", "mask,color,overlay,probs")
    assert predicted.exit_code == 0 and str(frame) in predicted.stdout
    made = sorted(Path("predictions").glob(f"{frame.stem}_*"))
    left = [path.name.removeprefix(f"{frame.stem}_") for path in made]
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
    # Sums depend on the number of threads: the same as here, whatever the environment says.
    threads = {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    cut = subprocess.run(
        program, capture_output=True, text=True, check=False, env={**os.environ, **threads}
    )
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
    assert table.index(f"\n{worst}") < table.index(f"\n{best}")  # not in the column "taken for"
    rows = Path("scores.csv").read_text().splitlines()
    assert rows[0].startswith("class,iou,") and len(rows) == 13


def test_checkpoints_can_be_chosen(a_run: Path) -> None:
    assert json.loads(run("evaluate", a_run, "--checkpoint", "best", "--json").stdout)[
        "checkpoint"
    ] == "best"  # fmt: skip
    refused(run("evaluate", a_run, "--checkpoint", "epoch-7"), 1, "there are: best, last")
    refused(run("evaluate", a_run, "--checkpoint", "newest"), 2, "last, best or epoch-N")


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
    done = run("--debug", "evaluate", "runs/absent-1")
    assert done.exit_code == 1 and type(done.exception).__name__ == "RunError"


def test_every_way_to_start_is_the_same() -> None:
    root = Path(smp_camvid.__file__).parents[1]
    for start in (["-m", "smp_camvid"], [str(root / "cli.py")]):
        done = subprocess.run(
            [sys.executable, *start, "--version"], capture_output=True, text=True, check=True
        )
        assert done.stdout == f"smp-camvid {smp_camvid.__version__}\n"


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


def test_an_encoder_that_computes_while_it_is_built_is_no_problem() -> None:
    Path("mit.toml").write_text('[model]\narch = "segformer"\nencoder_name = "mit_b0"\n')
    assert run("recipes", "check", "./mit.toml").exit_code == 0


def test_the_list_of_commands_says_what_the_commands_say() -> None:
    """`--help` reads it in their source; importing them all would take longer."""
    for name in cli.COMMANDS:
        said = cli.load_command(name).help
        assert cli.summary_of(name) == " ".join(said.split()) != ""
