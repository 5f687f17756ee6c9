"""Videos made for tests, with a tone, and read back without the package's own reader."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image

from smp_camvid.data import synthetic

SAMPLE_RATE = 48_000


def road_frames(count: int, size: tuple[int, int] = (90, 120)) -> list[np.ndarray]:
    """Neighbouring frames of a drive: real ones where the tests have them, else drawn ones."""
    real = Path(os.environ.get("SMP_CAMVID_TEST_DATA") or "data/camvid")
    paths = sorted((real / "val").glob("*.png"))[:count]
    if len(paths) == count:
        return [np.array(Image.open(p).convert("RGB").resize(size[::-1])) for p in paths]
    shots = synthetic.plan({"train": count, "val": 1, "test": 1})[:count]
    return [synthetic.render(shot, size, seed=0)[0] for shot in shots]


def make_video(
    path: Path,
    frames: Sequence[np.ndarray],
    *,
    rate: Fraction | int = 25,
    codec: str = "libx264",
    pixels: str = "yuv420p",
    audio: str | None = "aac",
    times: Sequence[int] | None = None,
    time_base: Fraction | None = None,
    rotation: int | None = None,
    tags: dict[str, int] | None = None,
    container: dict[str, str] | None = None,
    **options: str,
) -> Path:
    """Encodes uint8 (or uint16) RGB frames and a tone of the same length.

    `times` are in ticks of `time_base`; none: one after the other at `rate`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", container_options=container or {}) as out:
        video = out.add_stream(codec, rate=rate, options={"threads": "1", **options})
        video.height, video.width = frames[0].shape[:2]
        video.pix_fmt = pixels
        base = time_base or 1 / Fraction(rate)
        video.codec_context.time_base = base
        for name, value in (tags or {}).items():
            setattr(video.codec_context, name, value)
        if rotation is not None:
            video.set_display_rotation(rotation)
        sound = out.add_stream(audio, rate=SAMPLE_RATE) if audio else None
        length = Fraction(len(frames)) / rate if times is None else (times[-1] + 1) * base
        tone = _tone(sound, length) if sound else []
        for number, picture in enumerate(frames):
            wide = picture.dtype == np.uint16
            frame = av.VideoFrame.from_ndarray(picture, format="rgb48le" if wide else "rgb24")
            frame.time_base = base
            frame.pts = number if times is None else times[number]
            _mux_until(out, tone, frame.pts * base)
            out.mux(video.encode(frame))
        out.mux(video.encode(None))
        _mux_until(out, tone, length + 1)
    return path


def _tone(stream: Any, length: Fraction) -> list[Any]:
    """Packets of 440 Hz."""
    packets = []
    for start in range(0, int(length * SAMPLE_RATE), 1024):
        seconds = np.arange(start, start + 1024) / SAMPLE_RATE
        wave = (0.3 * np.sin(2 * np.pi * 440 * seconds) * 32767).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(np.repeat(wave, 2)[None], format="s16", layout="stereo")
        frame.sample_rate, frame.pts = SAMPLE_RATE, start
        frame.time_base = Fraction(1, SAMPLE_RATE)
        packets += stream.encode(frame)
    return packets + stream.encode(None)


def _mux_until(out: Any, packets: list[Any], seconds: Fraction) -> None:
    while packets and packets[0].pts * packets[0].time_base <= seconds:
        out.mux(packets.pop(0))


@dataclass
class Played:
    """What is in a video file."""

    images: list[np.ndarray] = field(default_factory=list)
    times: list[Fraction] = field(default_factory=list)
    audio: list[bytes] = field(default_factory=list)
    audio_times: list[Fraction] = field(default_factory=list)
    rate: Fraction = Fraction(0)
    length: Fraction = Fraction(0)
    codec: str = ""
    pixels: str = ""
    rotation: int = 0


def play(path: Path, pixels: str = "rgb24") -> Played:
    """Decodes the video and takes the audio as it lies there."""
    played = Played()
    with av.open(str(path)) as file:
        video = file.streams.video[0]
        played.rate, played.codec = video.average_rate, video.codec_context.name
        played.length = Fraction(file.duration, av.time_base)
        for packet in file.demux():
            if packet.stream.type == "audio":
                if packet.size:
                    played.audio.append(bytes(packet))
                    played.audio_times.append(packet.pts * packet.time_base)
                continue
            for frame in packet.decode():
                played.images.append(frame.to_ndarray(format=pixels))
                played.times.append(frame.pts * video.time_base)
                played.pixels, played.rotation = frame.format.name, frame.rotation
    return played


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    """Peak signal to noise in decibels, of pictures of 8 bits."""
    return float(10 * np.log10(255**2 / np.mean((a.astype(float) - b) ** 2)))
