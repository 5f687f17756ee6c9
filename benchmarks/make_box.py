"""Makes the folder of the shipped model from a finished run, and its card from a sibling run.

    python benchmarks/make_box.py RUN SIBLING [--data DIR] [--name camvid-lite0] [--to FOLDER]

A RUN that was trained on train and val leaves no split that could judge it but test: SIBLING is
the same recipe trained on train alone, and its scores on val go into the card.  Where RUN began
with the weights of another run, that one is SIBLING.  A RUN trained on train alone is its own
sibling.

`model.onnx` gets no tensors of its own: its initialisers point into `model.safetensors`, so that
PyTorch and ONNX Runtime read the very same bytes and the package carries them once.
"""

from __future__ import annotations

import argparse
import json
import shutil
import struct
import tempfile
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx

from smp_camvid.commands.evaluate import data_of
from smp_camvid.evaluation.evaluate import evaluate
from smp_camvid.inference import box
from smp_camvid.inference.export import AGREEMENT, compare, shapes_to_check
from smp_camvid.inference.graph import write_onnx
from smp_camvid.inference.predictor import load
from smp_camvid.models.network import Network
from smp_camvid.models.weights import load_network, read_metadata
from smp_camvid.recipe import resolve
from smp_camvid.runs import weights_of

OF_THE_MACHINE = {("data", "path"), ("train", "save_dir"), ("train", "device")}
BEGAN_WITH = ("model", "weights")
GLUE = "\N{NO-BREAK SPACE}"
PREFIX = "network."  # of the names in the graph
LIMIT = 20_000_000  # bytes of the whole folder


def share_tensors(graph: Path, weights: Path) -> int:
    """Replaces the tensors in `graph` by pointers into `weights`; returns the bytes left out.

    Both are ONNX and safetensors files of one folder.  Raises SystemExit when a tensor of the
    graph is not, byte for byte, one of the weights file.
    """
    raw = weights.read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    header = json.loads(raw[8 : 8 + length])
    model = onnx.load(str(graph))
    shared = 0
    for tensor in model.graph.initializer:
        entry = header.get(tensor.name.removeprefix(PREFIX))
        start, end = (8 + length + n for n in entry["data_offsets"]) if entry else (0, 0)
        if tensor.raw_data != raw[start:end] or not entry:
            raise SystemExit(f"{tensor.name} of the graph is not in {weights}.")
        tensor.ClearField("raw_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
        place = {"location": weights.name, "offset": str(start), "length": str(end - start)}
        for key, value in place.items():
            tensor.external_data.add(key=key, value=value)
        shared += end - start
    onnx.save(model, str(graph))
    return shared


def make_graph(folder: Path) -> tuple[float, float | None]:
    """Writes model.onnx beside model.safetensors; returns agreement and largest difference.

    Raises SystemExit when the two disagree.
    """
    weights, graph = folder / "model.safetensors", folder / "model.onnx"
    network, metadata = load_network(weights)
    facts = {"format": "onnx", "output": "logits", "size": None, "any_batch": True}
    # Unfused, so that every tensor keeps its bytes; ONNX Runtime fuses when it opens the file.
    write_onnx(network, graph, (64, 96), metadata={**metadata, "export": facts}, fold=False)
    share_tensors(graph, weights)
    agreement, difference = compare(
        network, graph, facts, shapes_to_check(network, metadata, facts)
    )
    if agreement < AGREEMENT:
        raise SystemExit(f"The graph agrees with the network on {agreement:.4%} of a picture only.")
    return agreement, difference


def begins_with_weights(run: Path) -> bool:
    return bool(resolve(str(run / "config.toml")).recipe.model.weights)


def command_of(run: Path, name: str) -> str:
    """What repeats a run: its recipe, and what the run changed of it.

    Weights that it began with are named as the first run of the recipe.
    """
    own, shipped = (
        resolve(which).recipe.model_dump() for which in (str(run / "config.toml"), name)
    )
    changes = [
        f"--set {section}.{key}={value if isinstance(value, str) else _inline(value)}"
        for section, values in own.items()
        if isinstance(values, dict)
        for key, value in values.items()
        if value != shipped[section][key] and (section, key) not in {*OF_THE_MACHINE, BEGAN_WITH}
    ]
    if own["augment"] != shipped["augment"]:
        changes.append(f"--set 'augment={_inline(own['augment'])}'")
    began = [f"--weights runs/{name}-1"] if begins_with_weights(run) else []
    words = ["smp-camvid train --recipe", name, *began, *changes]
    # An option stays on the line of its value.
    filled = textwrap.fill(
        " ".join(word.replace(" ", GLUE) for word in words),
        width=96,
        subsequent_indent="  ",
        break_long_words=False,
        break_on_hyphens=False,
    )
    return filled.replace("\n", " \\\n").replace(GLUE, " ")


def _inline(value: Any) -> str:
    """TOML without a space in it, at which the command could be broken."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}={_inline(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ",".join(map(_inline, value)) + "]"
    return json.dumps(value)


def card(
    name: str,
    folder: Path,
    network: Network,
    metadata: Any,
    scores: Any,
    command: str,
    epochs: Sequence[int],
) -> str:
    """The text of MODEL_CARD.md.

    `scores` are the sibling's.  `epochs` has one number for each run of the `command`: two where
    the weights began with the sibling's.
    """
    tuned = len(epochs) > 1
    rows = [
        f"| {label} | {'-' if iou is None else f'{iou:.3f}'} | {UNMEASURED} |"
        for label, iou in scores["per_class"].items()
    ]
    split = metadata["train_split"]
    seen = "val" in split.split("+")
    return TEMPLATE.format(
        judged=(JUDGED_BEFORE if tuned else JUDGED[seen]).format(frames=scores["frames"]),
        who="of the first command" if tuned else "sibling" if seen else "this model",
        epochs=" and then ".join(map(str, epochs)),
        name=name,
        rows="\n".join(rows),
        split=split,
        command=command,
        parameters=f"{network.num_parameters:,}",
        classes=len(network.table),
        class_names=", ".join(network.table.names),
        megabytes=f"{sum(path.stat().st_size for path in folder.iterdir()) / 1e6:.1f}",
        encoder=metadata["options"].get("encoder_name", "of its own"),
        height=metadata["train_size"][0],
        **{key: metadata[key] for key in ("arch", "recipe", "package_version")},
        **{key: scores[key] for key in ("protocol", "definition", "checkpoint")},
        **{key: f"{scores[key]:.3f}" for key in ("miou", "accuracy", "mean_class_accuracy")},
    )


JUDGED = {
    True: "The shipped weights have seen val, so val says nothing of them. The column below is a "
    "sibling:\nthe same recipe with `data.train_split=train`, judged on the {frames} val frames, "
    "checkpoint",
    False: "Judged on the {frames} val frames, which these weights have not seen, checkpoint",
}
JUDGED_BEFORE = (
    "The shipped weights have seen val, so val says nothing of them. The column below is what\n"
    "they were made from, the first of the two commands, judged on the {frames} val frames, "
    "checkpoint"
)
UNMEASURED = "to be filled from outside measurement"
TEMPLATE = (Path(__file__).parent / "model_card.md").read_text(encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("sibling", type=Path)
    parser.add_argument("--data", help="Where CamVid is; what the sibling was trained on if absent")
    parser.add_argument("--name", default=box.DEFAULT)
    parser.add_argument("--to", type=Path, help="The package's box if absent")
    asked = parser.parse_args()
    metadata = read_metadata(weights_of(asked.run))
    if "test" in metadata["train_split"]:
        raise SystemExit(f"{asked.run} was trained on test, which would have to judge it.")
    sibling = load(asked.sibling, device="cpu")
    scores = evaluate(sibling, asked.data or data_of(sibling.source), split="val")
    target = asked.to or box.find(asked.name)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as place:
        folder = Path(place) / "new"
        folder.mkdir()
        shutil.copyfile(weights_of(asked.run), folder / "model.safetensors")
        agreement, difference = make_graph(folder)
        network, _ = load_network(folder / "model.safetensors")
        steps = [asked.run]
        if begins_with_weights(asked.run):
            steps.insert(0, asked.sibling)
        epochs = [read_metadata(weights_of(step))["epoch"] for step in steps]
        commands = "\n".join(command_of(step, metadata["recipe"]) for step in steps)
        text = card(asked.name, folder, network, metadata, scores, commands, epochs)
        (folder / "MODEL_CARD.md").write_text(text, encoding="utf-8")
        size = sum(path.stat().st_size for path in folder.iterdir())
        if size > LIMIT:
            raise SystemExit(f"The folder has {size / 1e6:.1f} MB, {LIMIT / 1e6:.0f} are allowed.")
        shutil.rmtree(target, ignore_errors=True)
        folder.replace(target)
    print(f"{target}: {size / 1e6:.2f} MB, {agreement:.4%} agreement, logits within {difference}")
    print(f"the sibling's mIoU on val: {scores['miou']:.4f} ({scores['protocol']})")


if __name__ == "__main__":
    main()
