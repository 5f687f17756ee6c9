"""The page's server: what it computes, what it refuses to decode, what it keeps."""

from __future__ import annotations

import gzip
import io
import os
import struct
import threading
import time
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from page_server import PageServer, page_served, picture_of, png_of, saved, weights_file
from PIL import Image

import smp_camvid
from smp_camvid.data.classes import CAMVID11
from smp_camvid.inference import box
from smp_camvid.inference.prediction import Prediction
from smp_camvid.serve import uploads
from smp_camvid.serve.choices import Models
from smp_camvid.serve.results import VIEW_SIDE, Results, result_of


def array_in(body: bytes) -> npt.NDArray[np.uint8]:
    with Image.open(io.BytesIO(body)) as picture:
        return np.array(picture)


# --- what it computes ------------------------------------------------------------------------


def test_a_picture_gives_what_the_library_gives(
    page: PageServer, tiny_weights: Path, tmp_path: Path
) -> None:
    (tmp_path / "road.png").write_bytes(png_of())
    expected = smp_camvid.load(tiny_weights)(tmp_path / "road.png")
    assert len(np.unique(expected.mask)) > 1
    answer = page.upload(png_of()).json
    assert (answer["size"], answer["view_size"]) == ([60, 90], [60, 90])
    shares = {one["name"]: one["share"] for one in answer["classes"]}
    assert {name: share for name, share in shares.items() if share} == expected.shares()
    assert [one["color"] for one in answer["classes"]] == [list(c) for c in CAMVID11.colors]
    results = f"/api/results/{answer['id']}"
    classes = gzip.decompress(page.ask("GET", f"{results}/view.classes").body)
    assert classes == expected.mask.tobytes()
    for name, array in (
        ("mask.png", expected.mask), ("color.png", expected.color),
        ("overlay.png", expected.overlay()), ("overlay.png?opacity=0", expected.image),
        ("overlay.png?opacity=70", expected.overlay(0.7)),
    ):  # fmt: skip
        got = page.ask("GET", f"{results}/{name}")
        assert got.headers["Content-Type"] == "image/png"
        np.testing.assert_array_equal(array_in(got.body), array)


def test_a_photo_of_12_megapixels_is_drawn_smaller_and_kept_whole(page: PageServer) -> None:
    photo = saved(picture_of(3000, 4000), "JPEG")
    answer = page.upload(photo).json
    assert (answer["size"], answer["view_size"]) == ([3000, 4000], [1536, VIEW_SIDE])
    results = f"/api/results/{answer['id']}"
    drawn = array_in(page.ask("GET", f"{results}/view.jpg").body)
    assert drawn.shape == (1536, VIEW_SIDE, 3)
    mask = array_in(page.ask("GET", f"{results}/mask.png").body)
    assert mask.shape == (3000, 4000)
    classes = gzip.decompress(page.ask("GET", f"{results}/view.classes").body)
    rows = (np.arange(1536) + 0.5) * 3000 / 1536
    columns = (np.arange(VIEW_SIDE) + 0.5) * 4000 / VIEW_SIDE
    nearest = mask[np.ix_(rows.astype(int), columns.astype(int))]
    seen = np.frombuffer(classes, np.uint8).reshape(1536, VIEW_SIDE)
    assert (seen == nearest).mean() > 0.999  # of two as near, either


def test_a_picture_lying_on_its_side_is_turned_upright(page: PageServer) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    lying = saved(picture_of(60, 90), "JPEG", exif=exif)
    answer = page.upload(lying).json
    assert answer["size"] == [90, 60]
    drawn = page.ask("GET", f"/api/results/{answer['id']}/view.jpg").body
    assert array_in(drawn).shape == (90, 60, 3)


def test_one_picture_at_a_time(tiny_weights: Path, tmp_path: Path) -> None:
    class Watched(Models):
        active = most = 0

        def load(self, id: str) -> Any:
            segmenter = super().load(id)

            class Slow:
                table, device, source = segmenter.table, segmenter.device, segmenter.source

                @staticmethod
                def predict(picture: Any) -> Prediction:
                    Watched.active += 1
                    Watched.most = max(Watched.most, Watched.active)
                    time.sleep(0.1)
                    Watched.active -= 1
                    return segmenter.predict(picture)

            return Slow

    with page_served(Watched([str(tiny_weights)]), tmp_path / "uploads") as page:
        statuses: list[int] = []
        together = threading.Barrier(4)
        id = page.first_model()

        def upload() -> None:
            together.wait(10)
            statuses.append(page.upload(png_of(), id).status)

        threads = [threading.Thread(target=upload) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert statuses == [200] * 4
    assert Watched.most == 1


# --- which models ------------------------------------------------------------------------------


def test_the_models_are_those_named_the_runs_and_the_shipped(
    here: Path, tiny_weights: Path
) -> None:
    for name, stamp in (("old", 1), ("new", 2)):
        file = Path("runs") / name / "weights" / "last.safetensors"
        file.parent.mkdir(parents=True)
        weights_file(file)
        os.utime(file, (stamp, stamp))
    labels = [choice.label for choice in Models([str(tiny_weights)]).choices().values()]
    shipped = [f"{name} (shipped)" for name in box.names()]
    assert labels == [str(tiny_weights), "new (run)", "old (run)", *shipped]
    assert [choice.label for choice in Models().choices().values()][:2] == labels[1:3]
    named_twice = Models([str(Path("runs") / "old")]).choices()
    assert [choice.label for choice in named_twice.values()][:2] == ["old (run)", "new (run)"]


def test_one_model_is_kept_until_its_weights_change(here: Path) -> None:
    file = weights_file(here / "own.safetensors")
    models = Models([str(file)])
    (id, *_) = models.choices()
    first = models.load(id)
    assert models.load(id) is first
    weights_file(file, seed=5)
    os.utime(file, (9, 9))
    changed = Models([str(file)])
    assert next(iter(changed.choices())) == id
    models._named = changed._named
    assert models.load(id) is not first


def test_a_path_is_no_model(page: PageServer, tiny_weights: Path) -> None:
    for name in (str(tiny_weights), "/etc/passwd", "../tiny", "", "0"):
        answer = page.upload(png_of(), name)
        assert (answer.status, answer.words) == (
            200, "This model is no longer there. Pick another one.",
        )  # fmt: skip


# --- bad uploads -------------------------------------------------------------------------------


def bomb() -> bytes:
    """A PNG whose header claims 900 million pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 30000, 30000, 8, 2, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + head + body


BAD = {
    "empty": (b"", 200, "The file is empty."),
    "text": (b"no picture", 200, "This file is not a picture"),
    "cut": (png_of(400, 400)[:-2000], 200, "This file cannot be read: the file is truncated"),
    "bomb": (bomb(), 200, "This file claims more than"),
    "program": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", 200, "not a picture"),
    "floats": (saved(Image.new("F", (4, 4)), "TIFF"), 200, "this one holds floats"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_upload_is_refused_in_words_and_leaves_nothing(page: PageServer, kind: str) -> None:
    body, status, words = BAD[kind]
    answer = page.upload(body)
    assert answer.status == status
    assert words in answer.words
    assert str(page.folder) not in answer.words and "Traceback" not in answer.words
    assert list(page.folder.iterdir()) == []
    assert page.upload(png_of()).status == 200  # and the next one is as good as ever


def test_large_uploads_are_refused_by_what_they_say_and_by_what_they_send(
    page: PageServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = page.first_model()
    said = page.ask("POST", f"/api/pictures?model={model}", None, {"Content-Length": str(10**9)})
    assert (said.status, said.words) == (413, "The file is larger than 50 MB.")
    monkeypatch.setattr(uploads, "MOST_BYTES", 2**20)
    chunks = [bytes(2**16)] * 17
    sent = page.ask(
        "POST", f"/api/pictures?model={model}", chunks, {"Transfer-Encoding": "chunked"}
    )
    assert (sent.status, sent.words) == (413, "The file is larger than 1 MB.")
    small = page.ask(
        "POST", f"/api/pictures?model={model}", [png_of()], {"Transfer-Encoding": "chunked"}
    )
    assert small.status == 200
    assert list(page.folder.iterdir()) == []


def test_a_stalled_upload_ends(page: PageServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "SECONDS", 0.2)
    stalled = page.ask(
        "POST", f"/api/pictures?model={page.first_model()}", None, {"Content-Length": "100"}
    )
    assert (stalled.status, stalled.words) == (408, "The upload took too long. Try again.")
    assert list(page.folder.iterdir()) == []


# --- results -----------------------------------------------------------------------------------


def prediction(height: int, width: int) -> Prediction:
    mask = np.zeros((height, width), np.uint8)
    return Prediction(np.zeros((height, width, 3), np.uint8), mask, CAMVID11, lambda: mask * 1.0)


def test_the_newest_results_are_kept() -> None:
    results = Results(most=3, most_pixels=100)
    ids = [results.add(result_of(prediction(5, 5))) for _ in range(5)]
    assert [results.get(id) is not None for id in ids] == [False, False, True, True, True]
    large = results.add(result_of(prediction(9, 9)))
    assert [results.get(id) is not None for id in [*ids, large]] == [False] * 5 + [True]
    huge = results.add(result_of(prediction(20, 20)))
    assert results.get(huge) is not None and results.get(large) is None


def test_ids_do_not_follow_from_each_other() -> None:
    results = Results()
    ids = {results.add(result_of(prediction(1, 1))) for _ in range(200)}
    assert len(ids) == 200
    assert all(len(id) >= 22 for id in ids)  # 128 bits
