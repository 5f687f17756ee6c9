"""From the record of a pass to the document of `evaluate --json`, which every table prints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt

from smp_camvid.data.classes import ClassTable
from smp_camvid.evaluation.bootstrap import Bootstrap, interval, intervals, resampled
from smp_camvid.evaluation.boundary import TOLERANCE, class_f1
from smp_camvid.evaluation.calibration import calibration_error, reliability
from smp_camvid.evaluation.definitions import peers
from smp_camvid.evaluation.examination import Examination
from smp_camvid.evaluation.metrics import (
    DEFINITION,
    TRUTH,
    class_iou,
    mean_iou,
    or_none,
    summarize,
    summarize_counts,
)


def document(exam: Examination, bootstrap: Bootstrap) -> dict[str, Any]:
    """Everything that is known of a model on a split, as plain values.  Keys: docs/design.md."""
    summary = summarize(exam.matrix, exam.table)
    anything = bool(summary.classes_counted)  # else every pooled score is 0/0
    mean, of_class = iou_intervals(exam.counts, exam.table, exam.drives, bootstrap)
    f1 = class_f1(exam.boundary)
    pixels = exam.counts[:, TRUTH].sum(0)
    named = [(i, n) for i, n in enumerate(exam.table.names) if i != exam.table.void_index]
    return {
        "miou": summary.miou if anything else None,
        "accuracy": summary.accuracy if anything else None,
        "mean_class_accuracy": summary.mean_class_accuracy if anything else None,
        "per_class": summary.per_class,
        "classes_counted": summary.classes_counted,
        "frames": len(exam.frames),
        "split": exam.split,
        "protocol": exam.protocol,
        "definition": DEFINITION,
        "model": exam.model,
        "checkpoint": exam.checkpoint,
        "trained_on": list(exam.trained_on),
        "frequency_weighted_iou": summary.frequency_weighted_iou if anything else None,
        "miou_interval": mean,
        "classes": {
            name: {
                **asdict(summary.classes[name]),
                "iou_interval": of_class[i],
                "boundary_f1": or_none(f1[i]),
                "pixels": int(pixels[i]),
            }
            for i, name in named
        },
        "intervals": bootstrap.describe(exam.drives),
        "boundary": {
            "f1": or_none(mean_iou(f1[[i for i, _ in named]])),
            "tolerance_px": exam.tolerance,
            "tolerance_of_diagonal": TOLERANCE if exam.tolerance is None else None,
        },
        "calibration": _calibration(exam),
        "confusion": {"classes": list(exam.table.names), "pixels": exam.matrix.tolist()},
        "by_drive": _by_drive(exam, bootstrap),
        "per_frame": per_frame(exam),
        "definitions": peers(exam.counts, exam.table),
        "prediction": dict(exam.prediction),
        "speed": dict(exam.speed),
    }


def iou_intervals(
    counts: npt.NDArray[np.int64], table: ClassTable, drives: Sequence[str], bootstrap: Bootstrap
) -> tuple[list[float] | None, list[list[float] | None]]:
    """Of counts `[N, 3, C]`: the interval of mIoU, and that of each class's IoU."""
    weights = bootstrap.weights(drives)
    if weights is None:
        return None, [None] * len(table)
    iou = class_iou(resampled(weights, counts), table)
    return interval(mean_iou(iou)), intervals(iou)


def per_frame(exam: Examination) -> list[dict[str, Any]]:
    """Each frame in order: file, drive, mIoU over the classes in it, accuracy; None for void."""
    miou = mean_iou(class_iou(exam.counts, exam.table))
    return [
        {
            "frame": frame.image.name,
            "drive": frame.drive,
            "miou": or_none(miou[i]),
            "accuracy": summarize_counts(exam.counts[i], exam.table).accuracy
            if exam.counts[i, TRUTH].any()
            else None,
        }
        for i, frame in enumerate(exam.frames)
    ]


def _calibration(exam: Examination) -> dict[str, Any]:
    pooled = exam.calibration.sum(0)
    return {"ece": calibration_error(pooled), "bins": reliability(pooled)}


def _by_drive(exam: Examination, bootstrap: Bootstrap) -> dict[str, dict[str, Any]]:
    drives = np.array(exam.drives)
    return {
        str(drive): _drive(exam, drives == drive, bootstrap) for drive in dict.fromkeys(exam.drives)
    }


def _drive(exam: Examination, mine: npt.NDArray[np.bool_], bootstrap: Bootstrap) -> dict[str, Any]:
    counts = exam.counts[mine]
    summary = summarize_counts(counts.sum(0), exam.table)
    one_drive = [""] * len(counts)
    return {
        "frames": len(counts),
        "miou": summary.miou if summary.classes_counted else None,
        "miou_interval": iou_intervals(counts, exam.table, one_drive, bootstrap)[0],
        "accuracy": summary.accuracy if summary.classes_counted else None,
        "classes_counted": summary.classes_counted,
        "per_class": summary.per_class,
    }
