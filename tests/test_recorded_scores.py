"""The scores a run records are those of evaluate, and of predictions counted by hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from runs_of_tests import trained

import smp_camvid
from smp_camvid import runs
from smp_camvid.data.camvid import open_dataset
from smp_camvid.errors import UsageError
from smp_camvid.evaluation.evaluate import evaluate


def test_evaluate_repeats_the_recorded_score_at_any_batch_size(
    segnet_data: Path, tmp_path: Path
) -> None:
    run = trained(segnet_data, tmp_path, train__epochs=4).run_dir
    recorded = runs.read_lines(run / "metrics.jsonl")[-1]["val"]
    segmenter = smp_camvid.load(run)
    for batch_size in (1, 2, 3):
        found = evaluate(segmenter, segnet_data, batch_size=batch_size)
        assert found["miou"] == pytest.approx(recorded["miou"], abs=1e-5)
        assert found["per_class"] == pytest.approx(recorded["per_class"], abs=1e-5)
    assert found["protocol"] == "camvid11@360x480" and found["checkpoint"] == "last"


@pytest.mark.parametrize("changes", [{}, {"model__padding": "valid", "data__size": [24, 36]}])
def test_predict_counted_by_hand_is_what_evaluate_says(
    make_segnet: Callable[..., Path], tmp_path: Path, changes: dict[str, Any]
) -> None:
    data = make_segnet(size=(48, 64))
    run = trained(data, tmp_path, data__score_size="native", train__epochs=3, **changes).run_dir
    segmenter = smp_camvid.load(run)
    dataset = open_dataset(data, need=("val",))
    hit, union = np.zeros(11), np.zeros(11)
    for frame in dataset.split("val"):
        truth, guess = dataset.load_label(frame), segmenter(frame.image).mask
        assert guess.shape == truth.shape
        for c in range(11):
            a, b = truth == c, (guess == c) & (truth != 255)
            hit[c] += (a & b).sum()
            union[c] += (a | b).sum()
    expected = (hit[union > 0] / union[union > 0]).mean()
    assert evaluate(segmenter, data)["miou"] == pytest.approx(expected, abs=1e-5)


def test_a_synthetic_run_judged_on_camvid_uses_the_standard_split(
    make_kaggle: Callable[..., Path], tmp_path: Path
) -> None:
    stems = {"train": ["SynA_1", "SynA_2"], "val": ["SynA_3", "SynA_4"]}
    drawn = make_kaggle(stems, name="drawn")
    (drawn / "manifest.json").write_text('{"source": "synthetic"}')
    run = trained(drawn, tmp_path, train__epochs=1).run_dir
    camvid = make_kaggle(name="camvid")
    assert evaluate(smp_camvid.load(run), drawn)["protocol"] == "synthetic11@360x480"
    assert evaluate(smp_camvid.load(run), camvid)["protocol"] == "camvid11@360x480"
    with pytest.raises(UsageError, match="twice"):
        evaluate(smp_camvid.load(run), camvid, split="val+val")
