"""The frame cache: same pixels as decoding, rebuilt when a file changes, safe with two builders."""

from __future__ import annotations

import json
import multiprocessing
import os
import pickle
import shutil
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from smp_camvid.data import flat
from smp_camvid.data.border import BorderWeight, border_weight_map
from smp_camvid.data.cache import FrameCache
from smp_camvid.data.camvid import CamVid, open_dataset
from smp_camvid.data.preprocess import resize_frame, resize_label
from smp_camvid.errors import DataError

MakeDataset = Callable[..., Path]


@pytest.fixture
def dataset(kaggle_data: Path) -> CamVid:
    return open_dataset(kaggle_data)


def entries(home: Path) -> list[str]:
    return sorted(path.name for path in (home / "frames").iterdir())


def test_holds_what_decoding_gives(dataset: CamVid, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    cache = FrameCache.open(dataset, "train", None, None, tmp_path, lambda *step: seen.append(step))
    assert len(cache) == 5
    assert seen == [(i, 5) for i in range(1, 6)]
    for index, frame in enumerate(cache.frames):
        assert np.array_equal(cache.image(index), dataset.load_image(frame))
        assert np.array_equal(cache.label(index), dataset.load_label(frame))
    assert cache.table is dataset.table
    assert cache.protocol == "camvid11@native"
    assert not cache.image(0).flags.writeable


def test_sizes(dataset: CamVid, tmp_path: Path) -> None:
    frame = dataset.split("val")[0]
    cache = FrameCache.open(dataset, "val", 24, (96, 128), tmp_path)
    assert np.array_equal(cache.image(0), resize_frame(dataset.load_image(frame), 24))
    assert np.array_equal(cache.label(0), resize_label(dataset.load_label(frame), (96, 128)))
    assert cache.protocol == "camvid11@96x128"
    assert FrameCache.open(dataset, "val", 24, "image", tmp_path).label(0).shape == (24, 32)
    assert FrameCache.open(dataset, "val", 24, None, tmp_path).label(0).shape == (48, 64)


def test_frames_of_different_sizes(make_own: MakeDataset, tmp_path: Path) -> None:
    root = make_own()
    for kind in ("images", "masks"):
        Image.new("RGB", (31, 17), (1, 2, 3)).save(root / kind / "train" / "traindrive_0001.png")
    cache = FrameCache.open(open_dataset(root, "dataset"), "train", None, None, tmp_path)
    assert [cache.label(i).shape for i in range(3)] == [(40, 56), (17, 31), (40, 56)]
    assert cache.image(1).shape == (17, 31, 3)
    assert np.unique(cache.image(1).reshape(-1, 3), axis=0).tolist() == [[1, 2, 3]]


def test_second_opening_decodes_nothing(dataset: CamVid, tmp_path: Path) -> None:
    first = FrameCache.open(dataset, "train", None, None, tmp_path)
    calls: list[int] = []
    second = FrameCache.open(dataset, "train", None, None, tmp_path, lambda d, _: calls.append(d))
    assert calls == []
    assert second.location == first.location
    assert entries(tmp_path) == [first.key]


@pytest.mark.parametrize("what", ["image", "label"])
def test_changed_file_is_decoded_again(dataset: CamVid, tmp_path: Path, what: str) -> None:
    first = FrameCache.open(dataset, "train", None, None, tmp_path)
    path = getattr(first.frames[2], what)
    stat = path.stat()
    Image.new("RGB", (64, 48)).save(path)
    assert FrameCache.open(dataset, "train", None, None, tmp_path).key != first.key
    # Same size, another time: still another key.
    key = FrameCache.open(dataset, "train", None, None, tmp_path).key
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 10**9))
    again = FrameCache.open(dataset, "train", None, None, tmp_path)
    assert again.key != key
    assert not (again.image(2) if what == "image" else again.label(2) != 255).any()


def test_key_knows_classes_and_sizes(kaggle_data: Path, tmp_path: Path) -> None:
    keys = {
        FrameCache.open(open_dataset(kaggle_data, classes), "train", height, size, tmp_path).key
        for classes in ("11", "32")
        for height, size in ((None, None), (24, None), (24, "image"), (24, (24, 32)))
    }
    assert len(keys) == 8


def test_every_bad_label_is_named(dataset: CamVid, tmp_path: Path) -> None:
    labels = [frame.label for frame in dataset.split("train")]
    assert labels[1] is not None and labels[3] is not None
    Image.new("RGB", (64, 48), (129, 1, 3)).save(labels[1])
    labels[3].write_bytes(labels[3].read_bytes()[:200])
    with pytest.raises(DataError, match=r"2 files cannot be used") as caught:
        FrameCache.open(dataset, "train", None, None, tmp_path)
    assert f"{labels[1].name}: unknown colour 129,1,3 at x=0, y=0" in str(caught.value)
    assert f"{labels[3].name} cannot be read: the file is truncated" in str(caught.value)
    assert entries(tmp_path) == []


def test_damaged_entry_is_built_again(dataset: CamVid, tmp_path: Path) -> None:
    first = FrameCache.open(dataset, "train", None, None, tmp_path)
    assert first.location is not None
    expected = np.array(first.image(0))
    for name, content in (("images.bin", b"short"), ("index.json", b"{"), ("index.json", b"[]")):
        (first.location / name).write_bytes(content)
        cache = FrameCache.open(dataset, "train", None, None, tmp_path)
        assert cache.location == first.location
        assert np.array_equal(cache.image(0), expected)
    (first.location / "labels.bin").unlink()
    FrameCache.open(dataset, "train", None, None, tmp_path)
    assert json.loads((first.location / "index.json").read_text())["labels"] == [[48, 64]] * 5


def build(root: str, home: str, ready: str, others: int) -> tuple[str, int, int]:
    """(where, sum of all pixels, frames this process decoded), built beside other processes."""
    (Path(ready) / str(os.getpid())).touch()
    while len(list(Path(ready).iterdir())) < others:
        pass
    decoded: list[int] = []
    cache = FrameCache.open(
        open_dataset(root), "train", None, None, Path(home), lambda d, _: decoded.append(d)
    )
    pixels = sum(int(cache.image(i).sum()) + int(cache.label(i).sum()) for i in range(len(cache)))
    return str(cache.location), pixels, len(decoded)


def test_two_builders_at_once(make_kaggle: MakeDataset, tmp_path: Path) -> None:
    root = make_kaggle(size=(240, 320))
    ready = tmp_path / "ready"
    ready.mkdir()
    fork = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(2, mp_context=fork) as pool:
        jobs = [pool.submit(build, str(root), str(tmp_path), str(ready), 2) for _ in range(2)]
        results = [job.result(timeout=60) for job in jobs]
    cache = FrameCache.open(open_dataset(root), "train", None, None, tmp_path)
    assert {where for where, _, _ in results} == {str(cache.location)}
    assert len({pixels for _, pixels, _ in results}) == 1
    assert entries(tmp_path) == [cache.key]  # and nothing half-built is left


def test_loser_uses_what_the_winner_built(dataset: CamVid, tmp_path: Path) -> None:
    winner: list[FrameCache] = []
    files: list[int] = []

    def file_number(cache: FrameCache) -> int:
        assert cache.location is not None
        return (cache.location / "images.bin").stat().st_ino

    def race(done: int, total: int) -> None:
        if done == total:
            winner.append(FrameCache.open(dataset, "train", None, None, tmp_path))
            files.append(file_number(winner[0]))

    loser = FrameCache.open(dataset, "train", None, None, tmp_path, race)
    assert loser.location == winner[0].location
    assert [file_number(loser)] == files
    assert np.array_equal(loser.image(4), winner[0].image(4))
    assert entries(tmp_path) == [loser.key]


def test_falls_back_to_memory(dataset: CamVid, tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.touch()  # no folder can be made inside a file, not even by root
    cache = FrameCache.open(dataset, "train", 24, "image", blocked)
    disk = FrameCache.open(dataset, "train", 24, "image", tmp_path)
    assert (cache.location, len(cache)) == (None, 5)
    copy = pickle.loads(pickle.dumps(cache))
    for index in range(5):
        assert np.array_equal(copy.image(index), disk.image(index))
        assert np.array_equal(copy.label(index), disk.label(index))
    border = BorderWeight()
    assert np.array_equal(cache.border_weights(border)[1], disk.border_weights(border)[1])


def test_disk_that_fills_up_falls_back_too(
    dataset: CamVid, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(flat, "_flush", full)
    cache = FrameCache.open(dataset, "train", None, None, tmp_path)
    assert cache.location is None
    assert np.array_equal(cache.image(3), dataset.load_image(cache.frames[3]))
    assert entries(tmp_path) == []


def test_too_little_space_is_said_beforehand(
    dataset: CamVid, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    # 5 frames of 48x64: 3 bytes of colour and 1 of label for each pixel
    for free, fits in ((5 * 48 * 64 * 4 * 1.1, True), (5 * 48 * 64 * 4 * 0.9, False)):
        monkeypatch.setattr(shutil, "disk_usage", lambda _, free=free: usage._replace(free=free))
        home = tmp_path / str(fits)
        if fits:
            FrameCache.open(dataset, "train", None, None, home)
        else:
            with pytest.raises(DataError, match="frame cache needs") as caught:
                FrameCache.open(dataset, "train", None, None, home)
            assert "SMP_CAMVID_CACHE" in caught.value.hint


def test_environment_names_the_folder(
    dataset: CamVid, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SMP_CAMVID_CACHE", str(tmp_path / "elsewhere"))
    cache = FrameCache.open(dataset, "train", None, None)
    assert cache.location == tmp_path / "elsewhere" / "frames" / cache.key


def test_old_entries_go_when_a_new_one_is_built(dataset: CamVid, tmp_path: Path) -> None:
    for name, days in ((".building-x", 2), (".building-y", 0), ("old", 100), ("used", 10)):
        folder = tmp_path / "frames" / name
        folder.mkdir(parents=True)
        (folder / "index.json").touch()
        then = (folder / "index.json").stat().st_mtime - days * 86400
        os.utime(folder / "index.json", (then, then))
    cache = FrameCache.open(dataset, "train", None, None, tmp_path)
    assert set(entries(tmp_path)) == {".building-y", "used", cache.key}


def totals(cache: FrameCache) -> list[int]:
    return [int(cache.image(i).sum()) for i in range(len(cache))]


def test_pickles_small_and_works_in_a_spawned_process(dataset: CamVid, tmp_path: Path) -> None:
    cache = FrameCache.open(dataset, "train", None, None, tmp_path)
    expected = totals(cache)  # maps the files
    data = pickle.dumps(cache)
    assert len(data) < 5 * 48 * 64 * 3
    assert totals(pickle.loads(data)) == expected
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn) as pool:
        # A function of the package: a spawned process cannot import this file.
        image = pool.submit(FrameCache.image, cache, 2).result(timeout=60)
    assert np.array_equal(image, cache.image(2))


def test_border_weights_are_kept(dataset: CamVid, tmp_path: Path) -> None:
    cache = FrameCache.open(dataset, "train", 24, "image", tmp_path)
    border = BorderWeight(w0=7, sigma=3)
    first = cache.border_weights(border)
    for index in range(5):
        assert np.array_equal(first[index], border_weight_map(cache.label(index), border))
    calls: list[int] = []
    again = cache.border_weights(border, lambda done, _: calls.append(done))
    assert calls == []
    assert again.file == first.file
    assert cache.border_weights(BorderWeight(w0=8, sigma=3)).file != first.file


# --- resizing --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "height", "expected"),
    [((720, 960), 360, (360, 480)), ((360, 480), 360, (360, 480)), ((100, 33), 50, (50, 16)),
     ((50, 70), 101, (101, 141)), ((400, 1), 40, (40, 1)), ((30, 40), None, (30, 40))],
)  # fmt: skip
def test_resize_frame_keeps_the_aspect(
    size: tuple[int, int], height: int | None, expected: tuple[int, int]
) -> None:
    assert resize_frame(np.zeros((*size, 3), np.uint8), height).shape == (*expected, 3)


def test_resize_frame_averages_on_the_way_down() -> None:
    image = np.random.default_rng(0).integers(0, 256, (8, 12, 3), np.uint8)
    means = image.reshape(4, 2, 6, 2, 3).mean((1, 3))
    assert np.abs(resize_frame(image, 4) - means).max() <= 0.5


@pytest.mark.parametrize("size", [(8, 12), (12, 18), (2, 3), (7, 5)])
def test_resize_label_is_not_shifted(size: tuple[int, int]) -> None:
    label = np.arange(24, dtype=np.uint8).reshape(4, 6)
    found = resize_label(label, size)
    assert found.shape == size
    for n, old, taken in ((size[0], 4, found[:, 0] // 6), (size[1], 6, found[0] % 6)):
        wanted = (np.arange(n) + 0.5) * old / n  # where the new pixel's centre lies
        assert np.abs(taken + 0.5 - wanted).max() <= 0.5


def test_plain_nearest_would_shift() -> None:
    label = np.arange(9, dtype=np.uint8).reshape(1, 9)
    centred = resize_label(label, (1, 3))
    plain = cv2.resize(label, (3, 1), interpolation=cv2.INTER_NEAREST)
    assert centred.tolist() == [[1, 4, 7]]
    assert plain.tolist() != centred.tolist()
