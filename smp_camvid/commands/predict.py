"""smp-camvid predict."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from smp_camvid.commands.options import AsJson, Checkpoint, Device
from smp_camvid.errors import DataError, SmpCamvidError, UsageError


def predict(
    inputs: Annotated[
        list[str], typer.Argument(metavar="INPUT...", help="Pictures, or folders of pictures.")
    ],
    model: Annotated[
        str | None,
        typer.Option(
            "--model", metavar="RUN|FILE", help="Run folder or weights file; newest run if absent."
        ),
    ] = None,
    checkpoint: Checkpoint = "",
    out: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="Where the pictures go.")
    ] = Path("predictions"),
    save: Annotated[
        str, typer.Option("--save", metavar="mask,color,overlay,probs", help="What to write.")
    ] = "mask,color,overlay",
    scale: Annotated[
        str,
        typer.Option(
            "--scale",
            metavar="train|native",
            help="Resize to the trained height, or take pictures as they are.",
        ),
    ] = "train",
    recursive: Annotated[
        bool, typer.Option("--recursive", help="Also look into the folders in a folder.")
    ] = False,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Segment pictures: class mask, coloured mask and overlay at the picture's own size."""
    if scale not in ("train", "native"):
        raise UsageError(f"--scale {scale!r} is not known.", "It is train or native.")
    from smp_camvid.inference.files import check_names, find_pictures, parse_kinds

    kinds = parse_kinds(save)
    if out.exists() and not out.is_dir():
        raise UsageError(f"--out {out} is a file.", "Name a folder.")
    pictures = find_pictures(inputs, recursive, out)
    check_names(pictures)
    from smp_camvid.inference.predictor import load

    segmenter = load(model, checkpoint=checkpoint, device=device, scale=scale)
    documents, failed = [], 0
    for picture, below in pictures:
        try:
            documents.append(predict_one(segmenter, picture, out / below, kinds))
        except SmpCamvidError as error:
            typer.echo(f"smp-camvid: {error}", err=True)
            failed += 1
            continue
        if not as_json:
            typer.echo(describe_prediction(documents[-1]))
    if as_json:
        typer.echo(json.dumps(documents, indent=2))
    if failed:
        raise DataError(f"{failed} of {len(pictures)} pictures could not be predicted.")


def predict_one(
    segmenter: Any, picture: Path, folder: Path, kinds: Sequence[str]
) -> dict[str, Any]:
    from smp_camvid.inference.files import save_prediction

    prediction = segmenter(picture)
    written = save_prediction(prediction, folder, picture.stem, kinds)
    return {
        "input": str(picture),
        "model": segmenter.source,
        "files": {kind: str(path) for kind, path in written.items()},
        "shares": prediction.shares(),
    }


def describe_prediction(document: dict[str, Any]) -> str:
    shares = ", ".join(f"{name} {share:.1%}" for name, share in document["shares"].items())
    return f"{document['input']}: {shares}\n  -> {', '.join(document['files'].values())}"
