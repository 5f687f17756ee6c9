"""Frames into a video file that nobody sees before it is whole; audio passed on, not re-encoded."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
import numpy as np
import numpy.typing as npt
from av.codec.context import Flags as CodecFlags
from av.container import Flags as ContainerFlags
from av.container import OutputContainer
from av.error import FFmpegError
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter
from av.video.stream import VideoStream

from smp_camvid.errors import DataError, RunError
from smp_camvid.inference.video_sound import Sound, Track
from smp_camvid.runs import atomic_path

Picture = npt.NDArray[np.uint8]

BT709 = 1  # code point of ITU-T H.273


@dataclass(frozen=True)
class Encoding:
    """A codec as FFmpeg knows it, the pixels it is fed, its options."""

    codec: str
    pixels: str
    options: dict[str, str]
    notes: tuple[str, ...] = ()


# An index stands in each byte as it is; every slice carries a checksum.
LOSSLESS = Encoding("ffv1", "gray", {"level": "3", "slicecrc": "1"})


def picture_encoding(height: int, width: int) -> Encoding:
    """H.264 that looks like the picture; MPEG-4 Part 2 where the FFmpeg at hand lacks x264.

    4:2:0 halves both sides for colour, so an odd size is coded in 4:4:4.
    """
    even = height % 2 == 0 and width % 2 == 0
    if "libx264" in av.codecs_available:
        # Without B-frames a file needs no edit list, and its last frame keeps its length.
        options = {"preset": "veryfast", "crf": "18", "bf": "0"}
        if even:
            return Encoding("libx264", "yuv420p", options)
        note = f"Its size, {height}x{width}, is odd: some players cannot show the H.264 for that."
        return Encoding("libx264", "yuv444p", options, (note,))
    note = "This FFmpeg lacks x264: the videos are MPEG-4 Part 2, which browsers do not show."
    options = {"flags": "+qscale", "global_quality": str(3 * 118)}
    return Encoding("mpeg4", "yuv420p", options, (note,))


@dataclass(frozen=True)
class Timing:
    """Of a video: frames a second, seconds a tick of its times, width of a pixel by its height."""

    rate: Fraction
    time_base: Fraction
    pixel_aspect: Fraction = Fraction(1)

    def clock_of(self, codec: str) -> Fraction:
        """The tick of the encoder's times; MPEG-4 Part 2 has 16 bits for its denominator."""
        if codec != "mpeg4" or self.time_base.denominator < 2**16:
            return self.time_base
        numerator = self.rate.limit_denominator(1001).numerator
        return Fraction(1, numerator * max(1, (2**16 - 1) // numerator))


class VideoWriter:
    """Made by `write_video`."""

    def __init__(
        self,
        container: OutputContainer,
        encoding: Encoding,
        size: tuple[int, int],
        timing: Timing,
        tracks: Sequence[Track],
    ) -> None:
        self.encoding = encoding
        self._container = container
        # Else Matroska writes a random number.
        container.flags |= cast(int, ContainerFlags.bitexact.value)
        self._time_base = timing.time_base
        self._lossless = encoding is LOSSLESS
        self._video = cast(VideoStream, container.add_stream(encoding.codec, rate=timing.rate))
        context = self._video.codec_context
        context.options = dict(encoding.options)
        context.height, context.width = size
        context.pix_fmt = encoding.pixels
        context.time_base = timing.clock_of(encoding.codec)
        context.sample_aspect_ratio = timing.pixel_aspect
        context.flags |= CodecFlags.frame_duration.value
        if not self._lossless:
            context.colorspace = context.color_primaries = context.color_trc = BT709
            context.color_range = ColorRange.MPEG.value
        self.notes = list(encoding.notes)
        """What the user should know about the file, in sentences."""
        self.unfit = 0
        """Bits of sound that could not be written."""
        self._audio = {track: track.add_to(container) for track in tracks}
        self.notes += [
            f"Its audio ({track.codec}) is encoded anew, as AAC: MP4 does not take it as it is."
            for track in tracks
            if not track.passed_on
        ]
        self._reformatter = VideoReformatter()
        container.start_encoding()

    def write(self, picture: Picture, start: int, duration: int) -> None:
        """uint8 `[H, W, 3]` RGB, or `[H, W]` for a lossless file; times in ticks of the Timing."""
        if self._lossless:
            frame = av.VideoFrame.from_ndarray(picture, format="gray")
        else:
            frame = self._reformatter.reformat(
                av.VideoFrame.from_ndarray(picture, format="rgb24"),
                format=self.encoding.pixels,
                dst_colorspace=Colorspace.ITU709,
                dst_color_range=ColorRange.MPEG,
            )
        frame.time_base, frame.pts, frame.duration = self._time_base, start, duration
        self._container.mux(self._video.encode(frame))

    def hear(self, sound: Sound) -> None:
        """Passes a packet on, or encodes samples, where the file has sound at all."""
        stream = self._audio.get(sound.track)
        if stream is None:
            return
        try:
            if isinstance(sound.data, av.AudioFrame):
                self._container.mux(stream.encode(sound.data))
            else:
                sound.data.stream = stream
                self._container.mux(sound.data)
        except FFmpegError as error:
            if isinstance(error, OSError):  # the disk; anything else is the sound's own damage
                raise
            self.unfit += 1

    def finish(self) -> None:
        self._container.mux(self._video.encode(None))
        for track, stream in self._audio.items():
            if not track.passed_on and stream.codec_context.is_open:
                self._container.mux(stream.encode(None))
        self._container.close()


@contextlib.contextmanager
def write_video(
    path: Path,
    encoding: Encoding,
    size: tuple[int, int],
    timing: Timing,
    tracks: Sequence[Track] = (),
) -> Iterator[VideoWriter]:
    """A VideoWriter for frames of `size` (height, width); `path` is there when the block ends.

    Raises DataError for a size that cannot be encoded, RunError or OSError when the file cannot be
    written.
    """
    with atomic_path(path) as temporary:
        # faststart: a player can begin before it has all.  "file:" keeps a colon from being
        # taken for a protocol.
        options = {"movflags": "+faststart"} if path.suffix == ".mp4" else {}
        container = av.open(f"file:{temporary}", "w", container_options=options)
        try:
            try:
                writer = VideoWriter(container, encoding, size, timing, tracks)
            except FFmpegError as error:
                raise DataError(
                    f"A video of {size[0]}x{size[1]} cannot be written ({error.strerror}).",
                    "--save mask takes any size.",
                ) from error
            yield writer
            writer.finish()
        except FFmpegError as error:
            if isinstance(error, OSError):  # a full disk: said as by any other file
                raise OSError(error.errno, error.strerror, str(path)) from error
            raise RunError(f"{path} cannot be written: {error.strerror}.") from error
        finally:
            with contextlib.suppress(FFmpegError):
                container.close()
