"""From models to a report: judged on the same frames, some of which are looked at again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from smp_camvid.evaluation.bootstrap import Bootstrap
from smp_camvid.evaluation.compare import compare
from smp_camvid.evaluation.evaluate import evaluate
from smp_camvid.evaluation.loop import OnStep
from smp_camvid.evaluation.split import open_split
from smp_camvid.inference.predictor import Segmenter
from smp_camvid.report.frame_pictures import chosen_frames, frame_pictures
from smp_camvid.report.html import Report
from smp_camvid.report.html_gallery import GROUPS, Shot, shots
from smp_camvid.report.html_records import RunRecord, read_record

OnModel = Callable[[int], OnStep]


@dataclass(frozen=True)
class How:
    """How models are judged: the options of `evaluate`, and how many best, median and worst
    `frames` the report shows of each."""

    data: str | Path = "auto"
    split: str = "val"
    size: tuple[int, int] | None = None
    batch_size: int = 4
    workers: int = 0
    tolerance: float | None = None
    bootstrap: Bootstrap = field(default_factory=Bootstrap)
    frames: int = 3


def make_report(
    segmenters: Sequence[Segmenter],
    how: How,
    *,
    on_model: OnModel = lambda number: lambda done, total: None,
) -> Report:
    """Judges the models, as `evaluate` does one and `compare` several; frames are chosen by the
    first.  Raises DataError or UsageError."""
    document = _document(segmenters, how, on_model)
    of_models = document["models"] if len(segmenters) > 1 else [document]
    records = [read_record(one.source, one.metadata) for one in segmenters]
    return Report(
        document=document,
        table=segmenters[0].table,
        records=distinct(records, [one["checkpoint"] for one in of_models]),
        shots=tuple(_shots(segmenters, of_models, how)),
    )


def _document(segmenters: Sequence[Segmenter], how: How, on_model: OnModel) -> dict[str, Any]:
    options: dict[str, Any] = {
        "split": how.split,
        "size": how.size,
        "batch_size": how.batch_size,
        "workers": how.workers,
        "tolerance": how.tolerance,
        "bootstrap": how.bootstrap,
    }
    if len(segmenters) > 1:
        return compare(segmenters, how.data, on_model=on_model, **options)
    return evaluate(segmenters[0], how.data, on_step=on_model(0), **options)


def _shots(
    segmenters: Sequence[Segmenter], documents: Sequence[Mapping[str, Any]], how: How
) -> list[Shot]:
    chosen = chosen_frames(documents[0], how.frames)
    names = [name for group in GROUPS for name in chosen.get(group, ())]
    pictures = [
        frame_pictures(one, open_split(one, how.data, how.split, how.size), names, document)
        for one, document in zip(segmenters, documents, strict=True)
    ]
    return shots(chosen, pictures, documents[0], segmenters[0].table)


def distinct(records: Sequence[RunRecord], checkpoints: Sequence[str]) -> tuple[RunRecord, ...]:
    """Several weights of one run get the checkpoint into their names."""
    times = Counter(record.name for record in records)
    return tuple(
        replace(record, name=f"{record.name} {checkpoint}") if times[record.name] > 1 else record
        for record, checkpoint in zip(records, checkpoints, strict=True)
    )
