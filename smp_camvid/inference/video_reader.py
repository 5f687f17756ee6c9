"""A video file, read: its frames upright in RGB at their times, and its sound.

What a file says of itself is a claim until the frames are there: lengths, times and sizes are
checked, and what is wrong with them is told in `VideoReader.damage`, not raised.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

import av
import numpy as np
import numpy.typing as npt
from av.container import InputContainer
from av.error import FFmpegError
from av.stream import Discard, Disposition
from av.video.stream import VideoStream

from smp_camvid.errors import DataError
from smp_camvid.inference.video_pictures import Upright
from smp_camvid.inference.video_sound import Sound, Track
from smp_camvid.inference.video_times import Clock, likely_rate

if TYPE_CHECKING:
    from av.audio.stream import AudioStream

    AnyPacket = av.Packet[VideoStream] | av.Packet[AudioStream]

Picture = npt.NDArray[np.uint8]

MAX_PIXELS = 2**26  # 8192x8192
FORMATS = "mov,matroska,avi,mpeg,mpegts,asf,flv,ogg"
"""What may be in a file, whatever its name: a playlist would open other files and the network."""
MISSING_END = Fraction(1, 5)  # seconds: headers round lengths up
DECODER_THREADS = 8  # each keeps a frame in flight


@dataclass(frozen=True)
class Frame:
    """One frame.  Times in ticks of `VideoReader.time_base`."""

    image: Picture
    """uint8 RGB `[H, W, 3]`, upright."""
    start: int
    duration: int


@contextmanager
def open_video(source: Path | BinaryIO) -> Iterator[VideoReader]:
    """A path or binary file object -> its VideoReader.

    Raises DataError for what is missing, no video, of a format that cannot be read, or larger
    than `MAX_PIXELS` by its own account.
    """
    name = str(source if isinstance(source, Path) else getattr(source, "name", "The input"))
    with ExitStack() as stack:
        try:
            file = stack.enter_context(_opened(source)) if isinstance(source, Path) else source
            container = av.open(
                file, "r", options={"format_whitelist": FORMATS, "max_pixels": str(MAX_PIXELS)},
                metadata_errors="replace", buffer_size=2**18,
            )  # fmt: skip
        except (FFmpegError, OSError) as error:
            raise DataError(
                f"{name} cannot be read as a video: {error.strerror}.",
                "It is damaged, cut off before its index, or of a format that is not known.",
            ) from error
        yield VideoReader(stack.enter_context(container), name)


def _opened(path: Path) -> BinaryIO:
    if not path.exists():
        raise DataError(f"{path} does not exist.")
    if not stat.S_ISREG(path.stat().st_mode):  # reading a pipe would wait for ever
        raise DataError(f"{path} is no file.", "Name a video file.")
    return path.open("rb")


class VideoReader:
    """Iterating gives Frames and, in the order of the file, the Sound between them; once."""

    def __init__(self, container: InputContainer, name: str) -> None:
        self.name = name
        self._container = container
        self._video = _best_video(container, name)
        self.rate = likely_rate(self._video.average_rate, self._video.guessed_rate)
        """Frames per second as the file has it: 30000/1001 is not 29.97."""
        self._origin = Fraction(container.start_time or 0, av.time_base)
        heard = [s for s in container.streams.audio if s.codec_context is not None]
        self.tracks = [Track(stream, self._origin) for stream in heard]
        self._track_of = {track.stream.index: track for track in self.tracks}
        for stream in container.streams:
            if stream is not self._video and stream.index not in self._track_of:
                stream.discard = Discard.all
        self._clock = Clock(self._video.time_base or 1 / self.rate, self.rate, self._origin)
        self.time_base = self._clock.time_base
        self._upright = Upright()
        self.damage: list[str] = []
        """What is missing or wrong, in sentences; complete when the iteration has ended."""
        self.remarks: list[str] = []
        """What had to be changed about frames that are there; complete likewise."""
        self._seen = self._undecodable = self._corrupt = 0
        self._reason = ""
        self._reached = self._origin
        self._first_dts: int | None = None

    @property
    def pixel_aspect(self) -> Fraction:
        """Width of a pixel by its height, upright; known when the first frame is."""
        aspect = self._video.sample_aspect_ratio or Fraction(1)
        return 1 / aspect if self._upright.on_its_side else aspect

    @property
    def frames(self) -> int | None:
        """How many frames there are by the file's account; None where it does not say."""
        if self._indexed:
            return len(self._video.index_entries)
        length = self._claimed_length
        return None if length is None else max(1, round(length * self.rate))

    @property
    def _claimed_length(self) -> Fraction | None:
        """In seconds.  AVI's header counts frames; its length is guessed from the file's size."""
        if self._video.frames:
            return self._video.frames / self.rate
        length = self._container.duration
        return None if length is None else Fraction(length, av.time_base)

    @property
    def frame_bytes(self) -> int:
        """Of one frame in memory."""
        return 3 * self._video.codec_context.width * self._video.codec_context.height

    def __iter__(self) -> Iterator[Frame | Sound]:
        self._video.codec_context.options = {"max_pixels": str(MAX_PIXELS)}
        self._video.thread_type = "AUTO"
        self._video.thread_count = min(os.cpu_count() or 1, DECODER_THREADS)
        for packet in self._packets():
            if packet.stream is self._video:
                self._seen += 1
                self._corrupt += packet.is_corrupt
                if packet.size:  # an empty one says "as before" in AVI, and "the end" to a decoder
                    yield from self._decoded(packet)
            else:
                sound = cast("av.Packet[AudioStream]", packet)
                yield from self._track_of[packet.stream.index].take(sound)
        yield from self._decoded(None)
        self._judge()

    def _packets(self) -> Iterator[AnyPacket]:
        try:
            for packet in self._container.demux(
                [self._video, *(track.stream for track in self.tracks)]
            ):
                if packet.size or packet.dts is not None:  # the last ones are there to flush
                    if packet.pts is not None and packet.time_base:
                        end = (packet.pts + (packet.duration or 0)) * packet.time_base
                        self._reached = max(self._reached, end)
                    yield cast("AnyPacket", packet)
        except (FFmpegError, OSError) as error:
            self.damage.append(f"It cannot be read to its end ({error.strerror}).")

    def _decoded(self, packet: av.Packet[VideoStream] | None) -> Iterator[Frame]:
        try:
            for frame in self._video.codec_context.decode(packet):
                self._corrupt += frame.is_corrupt
                image = self._upright(frame)
                yield Frame(image, *self._clock.place(self._time(frame), frame.duration))
        except FFmpegError as error:
            self._undecodable += 1
            self._reason = str(error.strerror)

    def _time(self, frame: av.VideoFrame) -> int | None:
        """AVI has decoding times only: frames are as far apart as those, the first at 0."""
        if self._container.format.name != "avi":
            return frame.pts
        if frame.dts is None:
            return None
        if self._first_dts is None:
            self._first_dts = frame.dts
        return frame.dts - self._first_dts

    @property
    def _indexed(self) -> bool:
        """Whether the file has an index of all its frames, as MP4 and MOV do."""
        return "mov" in self._container.format.name.split(",")

    def _judge(self) -> None:
        """Compares what came with what was claimed."""
        if self._indexed:
            claimed = len(self._video.index_entries)
            if self._seen < claimed:
                self.damage.append(f"It ends early: {self._seen} of {claimed} frames are there.")
        elif (claim := self._claimed_length) is not None:
            length = self._reached - self._origin
            if claim - length > MISSING_END:
                ends = f"after {float(length):.2f} of {float(claim):.2f} seconds"
                self.damage.append(f"It ends early: {ends}.")
        if "mpegts" in self._container.format.name and _cut_off(self._container.size):
            self.damage.append("It ends inside a packet: it was cut off.")
        unusable = sum(track.unusable for track in self.tracks)
        for sentences, count, what in (
            (self.damage, self._undecodable, f"frames cannot be decoded ({self._reason})"),
            (self.damage, self._corrupt, "frames are damaged"),
            (self.damage, unusable, "packets of its audio are damaged and left out"),
            (self.remarks, self._clock.repaired, "frames have no sensible time: set by the rate"),
            (self.remarks, self._upright.scaled, "frames change size: scaled to the first one's"),
        ):
            if count:
                sentences.append(f"{count} {what}.")


def _cut_off(transport_stream_bytes: int) -> bool:
    """Packets of MPEG-TS have 188 bytes, in M2TS 192; the format says nothing else of its end."""
    return all(transport_stream_bytes % packet for packet in (188, 192))


def _best_video(container: InputContainer, name: str) -> VideoStream:
    stream = container.streams.best("video")
    if stream is None or stream.disposition & Disposition.attached_pic:
        raise DataError(f"{name} has no video in it.", "Name a video file.")
    if stream.codec_context is None:
        raise DataError(f"{name} is coded in a way that this FFmpeg cannot decode.")
    video = cast(VideoStream, stream)
    width, height = video.codec_context.width, video.codec_context.height
    if width * height > MAX_PIXELS:
        raise DataError(
            f"{name} claims frames of {height}x{width} and was not decoded.",
            "8192x8192 is the largest; scale it down first if it really is that large.",
        )
    return video
