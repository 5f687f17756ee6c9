"""How alike copies, neighbours and strangers look to `data check`: the numbers behind `SIMILAR`.

    python benchmarks/near_duplicates.py DIR

DIR is a CamVid folder; its train and val frames are compared.
"""

from __future__ import annotations

import io
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from PIL import Image

from smp_camvid.data.camvid import open_dataset
from smp_camvid.data.near_duplicates import SIMILAR, fingerprint
from smp_camvid.data.pictures import Picture, read_image


def copy(image: Picture, quality: int, brightness: float, shift: int) -> Picture:
    moved = np.pad(image, ((shift, 0), (shift, 0), (0, 0)), mode="edge")
    moved = moved[: image.shape[0], : image.shape[1]]
    lit = (moved * brightness).clip(0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(lit).save(buffer, "JPEG", quality=quality)
    return np.array(Image.open(buffer))


def main() -> None:
    dataset = open_dataset(sys.argv[1] if len(sys.argv) > 1 else None)
    frames = [(s, frame) for s in ("train", "val") for frame in dataset.split(s)]
    with ThreadPoolExecutor(2) as pool:
        images = list(pool.map(lambda item: read_image(item[1].image), frames))
    marks = np.stack([fingerprint(image) for image in images])
    print(f"{len(frames)} frames; alike from {SIMILAR} on")
    for quality, brightness, shift in (
        (80, 1.05, 2), (80, 0.95, 2), (60, 1.1, 4), (80, 1.2, 2), (80, 1.05, 6), (80, 1.05, 8),
    ):  # fmt: skip
        made = [fingerprint(copy(image, quality, brightness, shift)) for image in images]
        tell(f"copy: JPEG {quality}, x{brightness}, {shift} px", (marks * np.stack(made)).sum(1))
    cropped = [fingerprint(i[10:-10, 14:-14]) for i in images]
    tell("copy: cropped by 3 % at each side", (marks * np.stack(cropped)).sum(1))
    mirrored = [fingerprint(np.ascontiguousarray(i[:, ::-1])) for i in images]
    tell("copy: mirrored", (marks * np.stack(mirrored)).sum(1))

    pairs = marks @ marks.T
    upper = np.triu(np.ones(pairs.shape, bool), 1)
    split = np.array([name for name, _ in frames])
    drive = np.array([frame.drive for _, frame in frames])
    number = np.array([int(frame.stem.split("_")[1].lstrip("f")) for _, frame in frames])
    apart = np.abs(number[:, None] - number)
    same = drive[:, None] == drive
    tell("different drives", pairs[~same & upper])
    tell("train and val", pairs[(split[:, None] != split) & upper])
    tell("one drive, 30 frames apart", pairs[same & (apart == 30) & upper])
    tell("one drive, 2 frames apart", pairs[same & (apart == 2) & upper])


def tell(what: str, similarity: np.ndarray) -> None:
    low, middle, high = np.quantile(similarity, (0, 0.5, 1))
    alike = (similarity >= SIMILAR).mean()
    print(f"{what:36} least {low:.3f}  median {middle:.3f}  most {high:.3f}  alike {alike:6.1%}")


if __name__ == "__main__":
    main()
