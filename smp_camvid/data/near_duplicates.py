"""Frames that show nearly the same picture, and frames next to each other in a drive.

CamVid is video: a frame of the test split a second after one of the train split is a leak that
no file name and no checksum shows.  Two views of it: what the pictures have in common, and how
near their frame numbers are.

The fingerprint of a frame is its grey picture averaged to 24 x 32, without what is smoother than
four of those cells (light, exposure, the vault of the sky) and scaled to length one; the
similarity of two frames is the product of their fingerprints, 1 for the same picture.

`SIMILAR` was chosen on CamVid's real train and val frames (480x360, 468 of them;
`python benchmarks/near_duplicates.py DIR` repeats it):

                                                              least  median  most  alike
    copy: JPEG quality 80, 5 % brighter, shifted by 2 pixels   .988    .995  .997  100 %
    copy: JPEG quality 60, 10 % brighter, 4 pixels             .957    .980  .988  100 %
    copy: JPEG quality 80, 20 % brighter, 2 pixels             .969    .987  .996  100 %
    copy: JPEG quality 80, 5 % brighter, 6 pixels              .923    .963  .977   93 %
    copy: cropped by 3 % at each side                          .908    .971  .991   90 %
    copy: mirrored                                            -.424    .360  .846    0 %
    frames of different drives                                -.378    .230  .709    0 %
    a train and a val frame of the standard split             -.284    .280  .795    0 %
    one drive, a second (30 frame numbers) apart              -.107    .745  .997    7 %
    one drive, 1/15 second apart                               .934    .992  .998   98 %

So strangers stay .15 below it and the copies one makes by accident .007 or more above it; a
mirrored copy, or one shifted far, is not found.  The 7 % a second apart are where the car stands
or crawls: to a network too that is the same picture, and across splits they are reported.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from statistics import median

import cv2
import numpy as np
import numpy.typing as npt

from smp_camvid.data.layouts import Frame
from smp_camvid.data.pictures import Picture

SIMILAR = 0.95
"""Similarity from which two frames count as nearly the same picture."""

Fingerprint = npt.NDArray[np.float32]

_HEIGHT, _WIDTH = 24, 32
_CELL_BLUR, _SMOOTH = 0.8, 4.0  # in cells: against shifts, and what counts as light
_CONTRAST = 0.5  # grey levels; a frame flatter than this has no picture to compare
_ROWS = 2048  # fingerprints compared at once: bounds memory for datasets of any size


def fingerprint(image: Picture) -> Fingerprint:
    """uint8 `[H, W, 3]` -> float32 `[768]` of length one; zeros for a frame of one colour."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32)
    cells = cv2.resize(grey, (_WIDTH, _HEIGHT), interpolation=cv2.INTER_AREA)
    cells = cv2.GaussianBlur(cells, (0, 0), _CELL_BLUR)
    cells -= cv2.GaussianBlur(cells, (0, 0), _SMOOTH)
    cells -= cells.mean()
    if cells.std() < _CONTRAST:
        return np.zeros(_HEIGHT * _WIDTH, np.float32)
    found: Fingerprint = (cells / np.linalg.norm(cells)).ravel()
    return found


def most_similar(
    frames: Sequence[Fingerprint], among: Sequence[Fingerprint]
) -> Iterator[tuple[int, float]]:
    """For each of `frames` the index and the similarity of the nearest one of `among`."""
    if not among:
        return
    known = np.stack(among)
    for start in range(0, len(frames), _ROWS):
        similarity = np.stack(frames[start : start + _ROWS]) @ known.T
        for row in similarity:
            nearest = int(row.argmax())
            yield nearest, float(row[nearest])


def neighbours(
    splits: Iterable[tuple[str, Sequence[Frame]]],
) -> list[tuple[int, str, Frame, str, Frame]]:
    """Frames of different splits that follow each other in their drive, nearest first.

    Each is (frame numbers between, split, frame, split, frame).  A frame follows another when
    nothing of their drive lies between them and the gap is at most twice the usual one of the
    dataset (30 frame numbers in CamVid, a second).  The number is the last one in the stem.
    """
    drives: dict[str, list[tuple[int, str, Frame]]] = {}
    for split, frames in splits:
        for frame in frames:
            numbers = re.findall(r"\d+", frame.stem[len(frame.drive) :])
            if numbers:
                drives.setdefault(frame.drive, []).append((int(numbers[-1]), split, frame))
    pairs = [
        (after[0] - before[0], *before[1:], *after[1:])
        for members in drives.values()
        for before, after in pairwise(sorted(members, key=lambda member: member[0]))
    ]
    usual = median(gap for gap, *_ in pairs) if pairs else 0
    apart = [pair for pair in pairs if pair[1] != pair[3] and pair[0] <= 2 * usual]
    return sorted(apart, key=lambda pair: (pair[0], pair[2].stem))
