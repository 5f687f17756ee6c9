"""The sound of a video: passed on as it is where MP4 takes it, else decoded, to be made AAC."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

import av
from av.audio.stream import AudioStream
from av.container import OutputContainer
from av.error import FFmpegError

from smp_camvid.inference.video_times import longest_gap

if TYPE_CHECKING:
    Packet = av.Packet[AudioStream]

PASSED_ON = frozenset({"aac", "mp3", "mp2", "ac3", "eac3", "opus", "flac", "alac"})
"""Codecs that MP4 holds and players expect there."""
DESCRIBED = frozenset({"opus", "flac", "alac"})
"""Those of them that MP4 takes only with a description, which a damaged file lacks."""
AAC_RATES = frozenset({8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 64000, 88200})


@dataclass(frozen=True)
class Sound:
    """A bit of a track: a packet to pass on, or decoded samples to encode."""

    track: Track
    data: Packet | av.AudioFrame


class Track:
    """One audio stream of the input."""

    def __init__(self, stream: AudioStream, origin: Fraction) -> None:
        """`origin`: the time in seconds that becomes 0."""
        self.stream = stream
        self.codec = stream.codec_context.codec.canonical_name
        self.passed_on = self.codec in PASSED_ON and _is_described(stream, self.codec)
        self.unusable = 0
        """Packets that are damaged, or whose times make no sense."""
        self._origin = origin
        self._last: int | None = None

    def take(self, packet: Packet) -> Iterator[Sound]:
        """What there is to write for a packet, with times from `origin` on."""
        if self.passed_on:
            if self._moved(packet):
                yield Sound(self, packet)
            return
        try:
            frames = self.stream.codec_context.decode(packet)
        except FFmpegError:
            self.unusable += 1
            return
        for frame in frames:
            if self._moved(frame):
                yield Sound(self, frame)

    def add_to(self, container: OutputContainer) -> AudioStream:
        """The stream of an output that `write` feeds."""
        if self.passed_on:
            return container.add_stream_from_template(self.stream)
        context = self.stream.codec_context
        rate = context.sample_rate if context.sample_rate in AAC_RATES else 48000
        target = container.add_stream("aac", rate=rate)
        target.codec_context.layout = "mono" if context.channels == 1 else "stereo"
        return target

    def _moved(self, data: Packet | av.AudioFrame) -> bool:
        """Moves the times to the origin; False where they make no sense."""
        unit = data.time_base
        if not unit or data.pts is None:
            self.unusable += 1
            return False
        time, longest = data.pts - round(self._origin / unit), longest_gap(unit)
        # Encoders begin up to a tenth of a second before the first sample.
        last = -math.ceil(1 / unit) if self._last is None else self._last
        if not (last < time <= max(last, 0) + longest and 0 <= (data.duration or 0) <= longest):
            self.unusable += 1
            return False
        self._last = data.pts = data.dts = time
        return True


def _is_described(stream: AudioStream, codec: str) -> bool:
    """Whether MP4 takes the description: it says no only when the whole file is closed."""
    if codec not in DESCRIBED:
        return True
    packet = av.Packet(b"any")
    packet.pts = packet.dts = 0
    try:
        with av.open(io.BytesIO(), "w", format="mp4") as trial:
            packet.stream = trial.add_stream_from_template(stream)
            trial.mux(packet)
    except (FFmpegError, ValueError):
        return False
    return True
