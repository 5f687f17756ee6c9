"""From a video to videos of its classes: same frames, same size, same times, same audio."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
import numpy.typing as npt

from smp_camvid.errors import DataError, UsageError

if TYPE_CHECKING:
    from smp_camvid.inference.prediction import Prediction
    from smp_camvid.inference.predictor import Segmenter
    from smp_camvid.inference.video_reader import Frame, VideoReader
    from smp_camvid.inference.video_sound import Sound
    from smp_camvid.inference.video_writer import VideoWriter

    Item = Frame | Sound

# PyAV is imported when there is a video: pictures need none of its libraries.

SUFFIXES = frozenset(
    [
        ".mp4", ".m4v", ".mov", ".3gp", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".vob", ".ts",
        ".mts", ".m2ts", ".wmv", ".asf", ".flv", ".ogv",
    ]
)  # fmt: skip
KINDS = {"mask": "mkv", "color": "mp4", "overlay": "mp4"}
"""What can be saved of a video, and in which container."""
AHEAD_BYTES = 2**27  # of decoded frames that wait for the network
AHEAD = 32

Picture = npt.NDArray[np.uint8]
OnFrame = Callable[[int, int | None], None]


def is_video(path: str | Path) -> bool:
    """By its suffix."""
    return Path(path).suffix.lower() in SUFFIXES


def check_kinds(kinds: Sequence[str]) -> None:
    """Raises UsageError for a kind that is not saved of a video."""
    wrong = [kind for kind in kinds if kind not in KINDS]
    if wrong or not kinds:
        raise UsageError(
            f"--save {','.join(wrong) or 'nothing'} does not go with a video.",
            f"A video takes {','.join(KINDS)}.",
        )


@dataclass(frozen=True)
class VideoDone:
    """What became of a video."""

    files: dict[str, Path]
    """Kind -> file."""
    frames: int
    fps: Fraction
    """Frames per second by the input's account, and kept: 30000/1001, not 29.97."""
    shares: dict[str, float]
    """Share of the pixels of each class that occurs, mean over the frames, largest first."""
    notes: list[str]
    """What the user should know, in sentences."""
    damaged: bool
    """Whether something is missing or wrong in the input; the notes say what."""


def segment_video(
    segmenter: Segmenter,
    source: str | Path | BinaryIO,
    out_folder: Path,
    stem: str,
    kinds: Sequence[str],
    *,
    batch_size: int = 1,
    on_frame: OnFrame | None = None,
) -> VideoDone:
    """Segments each frame and writes `<stem>_<kind>` files into `out_folder`, each atomically.

    overlay, color: MP4 (H.264) with the audio of the input, encoded
    anew only where MP4 does not take it.  mask: class indices as lossless grey
    video (FFV1 in Matroska).  All have the frames, size, rate and times of the input; a video that
    says it lies on its side is turned upright.  `source` is a path or a binary file object.
    `on_frame(done, total)` is called after each frame, `total` being what the file claims.

    Of a damaged video, what is there is done.  Raises DataError when that is not even one frame,
    UsageError for a kind that is not saved of a video, RunError or OSError when a file
    cannot be written.
    """
    from smp_camvid.inference.video_reader import open_video

    check_kinds(kinds)
    files = {kind: out_folder / f"{stem}_{kind}.{KINDS[kind]}" for kind in kinds}
    writers: dict[str, VideoWriter] = {}
    shares: Counter[str] = Counter()
    done = 0
    with ExitStack() as stack:
        video = stack.enter_context(open_video(Path(source) if isinstance(source, str) else source))
        depth = max(2, min(AHEAD, AHEAD_BYTES // max(1, video.frame_bytes)))
        # Closed before the file is: its thread must not decode what is gone.
        items = stack.enter_context(closing(_ahead(iter(video), depth)))
        waiting: deque[Item] = deque()
        for prediction in segmenter.predict_many(_images(items, waiting), batch_size):
            writers = writers or _open_writers(stack, video, prediction, files)
            frame = _next_frame(waiting, writers)
            assert frame is not None
            for kind, writer in writers.items():
                writer.write(_picture(prediction, kind), frame.start, frame.duration)
            shares.update(prediction.shares())
            done += 1
            if on_frame:
                on_frame(done, video.frames)
        if not done:
            raise DataError(
                f"{video.name} has no frame that can be decoded.", " ".join(video.damage)
            )
        _next_frame(waiting, writers)
    if unfit := max(writer.unfit for writer in writers.values()):
        video.damage.append(f"{unfit} bits of its audio are damaged and left out.")
    notes = dict.fromkeys(note for writer in writers.values() for note in writer.notes)
    return VideoDone(
        files,
        done,
        video.rate,
        {name: share / done for name, share in shares.most_common()},
        [*video.damage, *video.remarks, *notes],
        bool(video.damage),
    )


def _ahead(items: Iterator[Item], depth: int) -> Generator[Item]:
    """The items, made by a thread that is up to `depth` of them ahead."""
    pool = ThreadPoolExecutor(1, "decode")
    try:
        coming = deque(pool.submit(next, items, None) for _ in range(depth))
        while (item := coming.popleft().result()) is not None:
            coming.append(pool.submit(next, items, None))
            yield item
    finally:
        pool.shutdown(cancel_futures=True)


def _images(items: Iterator[Item], waiting: deque[Item]) -> Iterator[Picture]:
    """The pictures of the frames; what comes by is queued for the time when they are predicted."""
    from smp_camvid.inference.video_reader import Frame

    for item in items:
        waiting.append(item)
        if isinstance(item, Frame):
            yield item.image


def _next_frame(waiting: deque[Item], writers: dict[str, VideoWriter]) -> Frame | None:
    """The next frame of the queue, if there is one; the sound before it goes to the files."""
    from smp_camvid.inference.video_reader import Frame

    while waiting:
        item = waiting.popleft()
        if isinstance(item, Frame):
            return item
        for writer in writers.values():
            writer.hear(item)
    return None


def _open_writers(
    stack: ExitStack, video: VideoReader, prediction: Prediction, files: dict[str, Path]
) -> dict[str, VideoWriter]:
    from smp_camvid.inference.video_writer import LOSSLESS, Timing, picture_encoding, write_video

    height, width = prediction.mask.shape
    timing = Timing(video.rate, video.time_base, video.pixel_aspect)
    writers = {}
    for kind, path in files.items():
        lossless = kind == "mask"
        encoding = LOSSLESS if lossless else picture_encoding(height, width)
        tracks = [] if lossless else video.tracks
        making = write_video(path, encoding, (height, width), timing, tracks)
        writers[kind] = stack.enter_context(making)
    return writers


def _picture(prediction: Prediction, kind: str) -> Picture:
    if kind == "mask":
        return prediction.mask
    return prediction.color if kind == "color" else prediction.overlay()
