"""The synthetic set: CamVid's layout, the same bytes every time, and not solvable by colour."""

from __future__ import annotations

import json
import re
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from sklearn.ensemble import HistGradientBoostingClassifier
from torch import Tensor, nn

from smp_camvid.data import synthetic
from smp_camvid.data.classes import CAMVID11, CAMVID32, VOID, camvid11_decoder, read_class_dict
from smp_camvid.data.synthetic import SyntheticSource, generate
from smp_camvid.errors import DataError

SMALL = {"train": 6, "val": 3, "test": 3}
Pixels = npt.NDArray[np.uint8]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return generate(tmp_path_factory.mktemp("small") / "data", frames=SMALL, size=(90, 120), seed=3)


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The default splits, at half the size to save time."""
    return generate(tmp_path_factory.mktemp("full") / "data", size=(180, 240))


def contents(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def stems(root: Path, split: str) -> list[str]:
    return sorted(p.stem for p in (root / split).iterdir())


def arrays(root: Path, split: str) -> tuple[Pixels, Pixels]:
    """Frames `[N, H, W, 3]` and 11-class labels `[N, H, W]`, by nothing but PIL and the table."""
    decoder, frames, labels = camvid11_decoder(), [], []
    for stem in stems(root, split):
        file = root / f"{split}_labels" / f"{stem}_L.png"
        frames.append(np.asarray(Image.open(root / split / f"{stem}.png")))
        labels.append(decoder.decode(np.asarray(Image.open(file)), file))
    return np.stack(frames), np.stack(labels)


def miou(truth: Pixels, predicted: npt.NDArray[np.integer]) -> float:
    """Pooled over the split, void left out, over the classes with a union."""
    counted = truth != VOID
    pairs = truth[counted].astype(np.int64) * 11 + predicted[counted]
    matrix = np.bincount(pairs, minlength=121).reshape(11, 11)
    union = matrix.sum(0) + matrix.sum(1) - matrix.diagonal()
    return float(np.mean(matrix.diagonal()[union > 0] / union[union > 0]))


def test_layout_is_kaggles(small: Path) -> None:
    for split, count in SMALL.items():
        labels = sorted(p.name for p in (small / f"{split}_labels").iterdir())
        assert labels == [f"{stem}_L.png" for stem in stems(small, split)]
        assert len(labels) == count
        assert all(re.fullmatch(r"Syn\d\d_\d{6}", stem) for stem in stems(small, split))
    header, first = (small / "class_dict.csv").read_text().splitlines()[:2]
    assert (header, first) == ("name, r, g, b", "Animal, 64, 128, 64")  # the stray spaces
    table = read_class_dict(small / "class_dict.csv")
    assert (table.names, table.colors) == (CAMVID32.names, CAMVID32.colors)
    manifest = json.loads((small / "manifest.json").read_text())
    assert manifest["source"] == "synthetic"
    assert (manifest["version"], manifest["seed"]) == (synthetic.VERSION, 3)


def test_frames_and_labels_are_rgb_of_the_size_asked_for(small: Path) -> None:
    for split in SMALL:
        for file in [*(small / split).iterdir(), *(small / f"{split}_labels").iterdir()]:
            with Image.open(file) as picture:
                assert (picture.size, picture.mode) == ((120, 90), "RGB")
        arrays(small, split)  # every label colour is one of the 32


def test_same_seed_same_bytes_another_seed_other_frames(small: Path, tmp_path: Path) -> None:
    again = generate(tmp_path / "again", frames=SMALL, size=(90, 120), seed=3)
    assert contents(again) == contents(small)
    other = generate(tmp_path / "other", frames=SMALL, size=(90, 120), seed=4)
    frame = f"train/{stems(small, 'train')[0]}.png"
    assert contents(other)[frame] != contents(small)[frame]


def test_a_frame_does_not_depend_on_what_was_drawn_before(small: Path) -> None:
    shots = [s for s in synthetic.plan(SMALL) if s.split == "train"]
    for shot in reversed(shots):
        image, label = synthetic.render(shot, (90, 120), seed=3)
        written = np.asarray(Image.open(small / "train" / f"{shot.stem}.png"))
        assert np.array_equal(image, written)
        label_file = small / "train_labels" / f"{shot.stem}_L.png"
        assert np.array_equal(CAMVID32.palette[label], np.asarray(Image.open(label_file)))


def test_drives_make_the_splits_like_camvids() -> None:
    shots = synthetic.plan(synthetic.SPLITS)
    by_split = {split: [s for s in shots if s.split == split] for split in synthetic.SPLITS}
    assert {split: len(found) for split, found in by_split.items()} == dict(synthetic.SPLITS)
    assert len({shot.stem for shot in shots}) == len(shots)
    seen = {shot.drive for shot in by_split["train"]}
    (val_drive,) = {shot.drive for shot in by_split["val"]}
    assert val_drive in seen
    numbers = [shot.number for shot in by_split["val"]]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    unseen = [shot for shot in by_split["test"] if shot.drive not in seen]
    assert 0.5 < len(unseen) / len(by_split["test"]) < 1


def test_refuses_a_folder_that_is_not_empty(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("precious")
    with pytest.raises(DataError, match="not empty"):
        generate(tmp_path / "mine", frames=SMALL, size=(90, 120))
    assert contents(tmp_path) == {"mine/thesis.txt": b"precious"}


def test_an_empty_folder_is_taken(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    generate(tmp_path / "data", frames={"train": 1}, size=(90, 120))
    assert [p.name for p in tmp_path.iterdir()] == ["data"]


def test_an_interrupted_generation_leaves_nothing(tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        generate(tmp_path / "data", frames=SMALL, size=(90, 120), on_progress=stop)
    assert list(tmp_path.iterdir()) == []


def test_progress_counts_every_frame(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    generate(
        tmp_path / "data",
        frames={"train": 3},
        size=(90, 120),
        on_progress=lambda done, total: told.append((done, total)),
    )
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_source_draws_the_default_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(synthetic, "SPLITS", SMALL)
    source = SyntheticSource()
    assert source.name == "synthetic" and source.description
    root = source.fetch(tmp_path / "data")
    assert {split: len(stems(root, split)) for split in SMALL} == SMALL


@pytest.mark.slow
def test_every_class_is_there_as_often_as_in_camvid(full: Path) -> None:
    # CamVid's train frequencies without void, per cent, in the order of the 11 classes.
    camvid = np.array([17.5, 24.2, 1.0, 33.0, 4.7, 10.1, 1.2, 1.2, 6.1, 0.67, 0.30])
    for split in synthetic.SPLITS:
        _, labels = arrays(full, split)
        counts = np.bincount(labels.ravel(), minlength=256)
        share = 100 * counts[:11] / counts[:11].sum()
        low, high = share > camvid / 4, share < np.maximum(camvid * 4, 5)
        assert (low & high).all(), dict(zip(CAMVID11.names, share.round(2), strict=True))
        assert 0 < counts[VOID] / labels.size < 0.1


@pytest.mark.slow
def test_a_frame_and_its_label_share_their_edges(full: Path) -> None:
    """Picture edges are strongest where the label's edges are; one pixel off is worse."""
    frames, labels = arrays(full, "val")
    grey = frames.astype(np.float32).mean(3)
    jump = np.abs(np.diff(grey, axis=2))
    score = {}
    for shift in (-2, -1, 0, 1, 2):
        moved = np.roll(labels, shift, axis=2)
        edge = np.diff(moved.astype(np.int16), axis=2) != 0
        score[shift] = float(jump[..., 4:-4][edge[..., 4:-4]].mean())
    assert max(score, key=lambda s: score[s]) == 0, score


# --- what can be learnt -------------------------------------------------------------------------


def by_color_and_place(full: Path) -> float:
    """Val mIoU of gradient-boosted trees that see one pixel: R, G, B, x, y."""

    def features(frames: Pixels) -> npt.NDArray[np.float32]:
        n, h, w = frames.shape[:3]
        y, x = np.mgrid[:h, :w].astype(np.float32)
        place = np.broadcast_to(np.dstack([x / w, y / h]), (n, h, w, 2))
        return np.concatenate([frames / np.float32(255), place], axis=3).reshape(-1, 5)

    frames, labels = arrays(full, "train")
    rng = np.random.default_rng(0)
    pool = np.flatnonzero(labels.ravel() != VOID)
    picked = rng.choice(pool, 60_000, replace=False)
    trees = HistGradientBoostingClassifier(
        max_iter=30, learning_rate=0.15, early_stopping=False, random_state=0
    )
    trees.fit(features(frames)[picked], labels.ravel()[picked])
    frames, labels = arrays(full, "val")
    frames, labels = frames[:, ::3, ::3], labels[:, ::3, ::3]
    return miou(labels.ravel(), trees.predict(features(frames)))


class SmallUNet(nn.Module):
    """A U-Net below a strided stem, with the input itself as the last skip; 0.4 M parameters."""

    def __init__(self, widths: tuple[int, ...] = (16, 32, 64, 128)) -> None:
        super().__init__()

        def block(a: int, b: int, stride: int = 1) -> nn.Sequential:
            conv = nn.Conv2d(a, b, 3, stride, 1, bias=False)
            return nn.Sequential(conv, nn.BatchNorm2d(b), nn.ReLU(inplace=True))

        pairs = list(pairwise(widths))
        self.stem = block(3, widths[0], 2)
        self.down = nn.ModuleList(nn.Sequential(block(a, b, 2), block(b, b)) for a, b in pairs)
        self.up = nn.ModuleList(block(a + b, a) for a, b in reversed(pairs))
        self.head = nn.Conv2d(widths[0] + 3, 11, 3, 1, 1)

    def forward(self, image: Tensor) -> Tensor:
        x = self.stem(image)
        skips = [image]
        for stage in self.down:
            skips.append(x)
            x = stage(x)
        for stage in (*self.up, self.head):
            skip = skips.pop()
            x = stage(torch.cat([skip, F.interpolate(x, size=skip.shape[-2:])], 1))
        return x


def by_unet(full: Path, steps: int) -> float:
    """Val mIoU of a small U-Net from scratch: 10 steps a second on two free cores."""
    torch.manual_seed(0)
    net = SmallUNet().to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(net.parameters(), lr=4e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps)

    def tensor(frames: Pixels) -> Tensor:
        x = torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 127.5 - 1
        return x.contiguous(memory_format=torch.channels_last)

    frames, labels = arrays(full, "train")
    share = np.bincount(labels[labels != VOID], minlength=11) / (labels != VOID).sum()
    weights = torch.tensor(1 / np.log(1.1 + share), dtype=torch.float32)
    rng = np.random.default_rng(0)
    order = np.concatenate(
        [rng.permutation(len(frames)) for _ in range(steps * 4 // len(frames) + 2)]
    )
    for step in range(steps):
        batch = order[step * 4 : step * 4 + 4]
        flip = slice(None, None, -1 if rng.random() < 0.5 else 1)
        x = tensor(np.ascontiguousarray(frames[batch][:, :, flip])) * rng.uniform(0.8, 1.2)
        y = torch.from_numpy(np.ascontiguousarray(labels[batch][:, :, flip])).long()
        loss = F.cross_entropy(net(x), y, weights, ignore_index=VOID)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    frames, labels = arrays(full, "val")
    net.eval()
    with torch.no_grad():
        found = torch.cat(
            [net(tensor(part)).argmax(1) for part in np.split(frames, range(8, len(frames), 8))]
        )
    return miou(labels.ravel(), found.numpy().ravel())


@pytest.mark.slow
@pytest.mark.timeout(1500)  # a minute and a half on two free cores; shared ones may take long
def test_context_is_worth_twenty_points_over_color_and_place(full: Path) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        unet = by_unet(full, steps=600)
    finally:
        torch.set_num_threads(threads)
    trees = by_color_and_place(full)
    assert unet >= 0.45, (unet, trees)
    assert unet - trees >= 0.20, (unet, trees)
