"""Video: frames, times, size and sound come out as they went in; what is broken is told."""

from __future__ import annotations

import errno
import io
import json
import os
import resource
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import torch
from synthetic_video import make_video, play, psnr, road_frames

import smp_camvid
from smp_camvid.data.classes import CAMVID11
from smp_camvid.errors import DataError, UsageError
from smp_camvid.inference import video_writer
from smp_camvid.inference.predictor import Segmenter
from smp_camvid.inference.torch_engine import TorchEngine
from smp_camvid.inference.video import VideoDone, is_video, segment_video
from smp_camvid.inference.video_pictures import turn
from smp_camvid.inference.video_reader import Frame, open_video
from smp_camvid.inference.video_times import Clock
from smp_camvid.models.factory import create_model
from smp_camvid.models.network import Network

NTSC = Fraction(30000, 1001)
ALL = ("mask", "color", "overlay")


@pytest.fixture(scope="module")
def segmenter() -> Segmenter:
    """A real, if untrained, network that sees several classes in a road."""
    torch.manual_seed(3)
    model = create_model("vanilla", base_channels=4, depth=2, norm="batch", padding="same")
    network = Network(model, (0.4, 0.4, 0.4), (0.3, 0.3, 0.3), CAMVID11)
    return Segmenter(TorchEngine(network, {"train_size": [64, 80]}))


@pytest.fixture(scope="module")
def frames() -> list[np.ndarray]:
    return road_frames(12)


def segment(segmenter: Segmenter, source, folder: Path, kinds=ALL, **how) -> VideoDone:
    return segment_video(segmenter, source, folder / "out", "clip", kinds, **how)


# --- what comes out is what went in, with other colours ------------------------------------------


@pytest.mark.parametrize("rate", [25, NTSC], ids=["25", "29.97"])
@pytest.mark.parametrize("suffix", ["mp4", "mkv", "avi", "ts", "mov", "webm"])
def test_frames_times_rate_length_and_sound_are_kept(segmenter, frames, tmp_path, rate, suffix):
    how = {"webm": {"codec": "libvpx", "audio": "libopus"}, "avi": {"audio": "libmp3lame"}}
    source = make_video(tmp_path / f"clip.{suffix}", frames, rate=rate, **how.get(suffix, {}))
    heard: list[tuple[int, int | None]] = []
    done = segment(
        segmenter, source, tmp_path, batch_size=5, on_frame=lambda *news: heard.append(news)
    )
    assert (done.frames, done.fps, done.notes, done.damaged) == (len(frames), rate, [], False)
    assert [count for count, _ in heard] == list(range(1, len(frames) + 1))
    original = play(source)
    assert original.audio
    for kind in ("color", "overlay"):
        made = play(done.files[kind])
        assert done.files[kind] == tmp_path / "out" / f"clip_{kind}.mp4"
        assert (made.rate, made.codec, made.pixels) == (rate, "h264", "yuv420p")
        assert [image.shape for image in made.images] == [frames[0].shape] * len(frames)
        steps = np.diff([float(time) for time in made.times])
        assert np.allclose(steps, float(1 / Fraction(rate)), atol=1e-9)
        # ADTS headers are a transport stream's own.
        header = 7 if suffix == "ts" else 0
        assert made.audio == [packet[header:] for packet in original.audio]
        shift = original.audio_times[0] - made.audio_times[0]
        offsets = [a - b for a, b in zip(original.audio_times, made.audio_times, strict=True)]
        assert max(abs(offset - shift) for offset in offsets) < Fraction(1, 900)
        if suffix != "avi":  # it has no times of its own for frames that are not coded in order
            lag = abs((original.times[0] - made.times[0]) - shift)
            assert lag < Fraction(1, 900)  # lips and voice
        assert abs(made.length - original.length) < Fraction(1, 10)


def test_every_frame_is_the_segmenters_own(segmenter, frames, tmp_path):
    source = make_video(tmp_path / "clip.mp4", frames, rate=NTSC)
    done = segment(segmenter, source, tmp_path, batch_size=4)
    truth = [segmenter(image) for image in play(source).images]
    masks = play(done.files["mask"], "gray")
    assert masks.rate == NTSC
    for mask, prediction in zip(masks.images, truth, strict=True):
        assert np.array_equal(mask, prediction.mask)
    assert not np.array_equal(masks.images[0], masks.images[-1])  # they move, so order counts
    for kind, pictures in (
        ("overlay", [prediction.overlay() for prediction in truth]),
        ("color", [prediction.color for prediction in truth]),
    ):
        coded = play(done.files[kind]).images
        # Edges of pure colours lose most in 4:2:0; another frame is far below.
        assert min(psnr(a, b) for a, b in zip(coded, pictures, strict=True)) > 20
        means = [
            abs(a.mean((0, 1)) - b.mean((0, 1))).max() for a, b in zip(coded, pictures, strict=True)
        ]
        assert max(means) < 3  # no shift of colour or range
    shares: dict[str, float] = {}
    for prediction in truth:
        for name, share in prediction.shares().items():
            shares[name] = shares.get(name, 0) + share / len(truth)
    assert len(shares) > 1
    assert done.shares == pytest.approx(shares)
    assert list(done.shares.values()) == sorted(done.shares.values(), reverse=True)


def test_the_overlay_is_close_where_colour_is_not_halved(segmenter, frames, tmp_path):
    odd = [image[:89, :119] for image in frames]
    source = make_video(tmp_path / "odd.mkv", odd, codec="ffv1", pixels="bgr0")
    done = segment(segmenter, source, tmp_path)
    assert done.notes and "89x119" in done.notes[0] and not done.damaged
    made = play(done.files["overlay"])
    assert made.pixels == "yuv444p"
    for image, coded in zip(odd, made.images, strict=True):
        assert coded.shape == (89, 119, 3)
        assert psnr(coded, segmenter(image).overlay()) > 27


def test_another_reader_gets_the_same_indices(segmenter, frames, tmp_path):
    """OpenCV, as a user's script would; every index a byte can hold comes back."""
    source = make_video(tmp_path / "clip.mp4", frames)
    done = segment(segmenter, source, tmp_path, ["mask"])
    capture = cv2.VideoCapture(str(done.files["mask"]))
    for mask in play(done.files["mask"], "gray").images:
        ok, picture = capture.read()
        assert ok and np.array_equal(picture, np.repeat(mask[..., None], 3, axis=2))
    assert not capture.read()[0]
    indices = np.arange(256, dtype=np.uint8).reshape(16, 16)
    timing = video_writer.Timing(Fraction(25), Fraction(1, 25))
    path = tmp_path / "all.mkv"
    with video_writer.write_video(path, video_writer.LOSSLESS, (16, 16), timing) as writer:
        writer.write(indices, 0, 1)
    assert np.array_equal(play(path, "gray").images[0], indices)


@pytest.mark.parametrize("size", [(1, 1), (2, 2), (1, 31), (33, 2)])
def test_the_smallest_sizes(segmenter, tmp_path, size):
    picture = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    source = make_video(tmp_path / "small.mkv", [picture] * 2, codec="ffv1", pixels="bgr0")
    done = segment(segmenter, source, tmp_path)
    for kind in ALL:
        assert [image.shape[:2] for image in play(done.files[kind], "gray").images] == [size] * 2


def test_a_single_frame(segmenter, frames, tmp_path):
    done = segment(segmenter, make_video(tmp_path / "one.mp4", frames[:1]), tmp_path)
    assert (done.frames, done.fps, done.damaged) == (1, 25, False)
    assert len(play(done.files["overlay"]).images) == 1


# --- times ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_a_variable_rate_keeps_its_times(segmenter, frames, tmp_path, suffix):
    times = [0, 40, 80, 200, 203, 260, 900, 920, 2000, 2001, 2100, 2200]  # ms
    unit = Fraction(1, 1000)
    source = make_video(
        tmp_path / f"vfr.{suffix}", frames, times=times, time_base=unit, audio=None, bf="0"
    )
    done = segment(segmenter, source, tmp_path)
    for kind in ALL:
        assert play(done.files[kind]).times == [time * unit for time in times]
    assert done.notes == []


@pytest.mark.parametrize("rate", [Fraction(24000, 1001), NTSC, Fraction(60000, 1001), Fraction(25)])
def test_the_clock_undoes_the_rounding_to_milliseconds(rate):
    """Matroska's times of a constant rate, cut or rounded, become exact again."""
    for rounding in (round, int):
        clock = Clock(Fraction(1, 1000), rate, Fraction(0))
        for number in (*range(50), *range(3500 * 20, 3500 * 20 + 50)):
            start, duration = clock.place(rounding(number / rate * 1000), 0)
            assert start * clock.time_base == number / rate
            assert duration * clock.time_base == 1 / rate
        assert clock.repaired == 0


def test_the_clock_repairs_what_makes_no_sense():
    clock = Clock(Fraction(1, 25), Fraction(25), Fraction(0))
    wild = [None, 1, 1, 0, -(2**62), 2**62, None, 3, 9]
    assert [clock.place(pts, 1)[0] for pts in wild] == [0, 1, 2, 3, 4, 5, 6, 7, 9]
    assert clock.repaired == 5  # a time that is only missing is no nonsense


# --- pictures of other kinds ---------------------------------------------------------------------


@pytest.mark.parametrize("rotation", [90, 180, -90])
def test_a_video_on_its_side_is_turned_upright(segmenter, frames, tmp_path, rotation):
    source = make_video(tmp_path / "phone.mp4", frames, rotation=rotation)
    stored = play(source)
    assert stored.rotation % 360 == rotation % 360
    done = segment(segmenter, source, tmp_path)
    for kind in ALL:
        assert play(done.files[kind]).rotation == 0
    masks = play(done.files["mask"], "gray").images
    for image, mask in zip(stored.images, masks, strict=True):
        upright = np.rot90(image, rotation // 90)  # both count against the clock
        assert np.array_equal(mask, segmenter(np.ascontiguousarray(upright)).mask)


def test_all_eight_orientations():
    picture = np.arange(6).reshape(2, 3)
    one = 1 << 16
    shown = {
        (1, 0, 0, 1): picture,
        (-1, 0, 0, 1): np.fliplr(picture),
        (1, 0, 0, -1): np.flipud(picture),
        (-1, 0, 0, -1): np.rot90(picture, 2),
        (0, 1, -1, 0): np.rot90(picture, -1),  # what phones write when held upright
        (0, -1, 1, 0): np.rot90(picture),
        (0, 1, 1, 0): picture.T,
        (0, -1, -1, 0): np.rot90(picture, 2).T,
    }
    for (a, b, c, d), upright in shown.items():
        matrix = np.array([a * one, b * one, 0, c * one, d * one, 0, 0, 0, 1 << 30], np.int32)
        assert np.array_equal(turn(picture, matrix), upright)


@pytest.mark.parametrize(
    ("codec", "pixels"),
    [("libx264", "yuv420p10le"), ("ffv1", "gray"), ("ffv1", "bgra"), ("ffv1", "gray16le"),
     ("libx264", "yuvj420p"), ("mpeg2video", "yuv420p"), ("mjpeg", "yuvj444p")],
)  # fmt: skip
def test_pixels_of_any_kind_become_8_bit_rgb(segmenter, frames, tmp_path, codec, pixels):
    source = make_video(tmp_path / "clip.mkv", frames, codec=codec, pixels=pixels)
    done = segment(segmenter, source, tmp_path, ["mask", "overlay"])
    for image, mask in zip(
        play(source).images, play(done.files["mask"], "gray").images, strict=True
    ):
        assert np.array_equal(mask, segmenter(image).mask)


@pytest.mark.slow
def test_hdr_white_is_white(tmp_path):
    """Paper white, 203 nits, is .58 of the PQ scale (ITU-R BT.2408): 148 as plain 8 bits."""
    white = np.full((48, 64, 3), round(0.58 * 65535), np.uint16)
    tags = {"color_trc": 16, "color_primaries": 9, "colorspace": 9, "color_range": 1}
    source = make_video(tmp_path / "hdr.mp4", [white], pixels="yuv420p10le", audio=None, tags=tags)
    assert play(source).images[0].mean() < 160
    with open_video(source) as video:
        (frame,) = [item for item in video if isinstance(item, Frame)]
    assert frame.image.min() >= 250


def test_pixels_that_are_not_square_stay_so(segmenter, frames, tmp_path):
    aspect = {"sample_aspect_ratio": Fraction(4, 3)}
    lying = make_video(tmp_path / "wide.mp4", frames, tags=aspect, rotation=90)
    for source, expected in (
        (make_video(tmp_path / "pal.mp4", frames, tags=aspect), Fraction(4, 3)),
        (lying, Fraction(3, 4)),
    ):
        done = segment(segmenter, source, tmp_path)
        with av.open(str(done.files["overlay"])) as file:
            assert file.streams.video[0].sample_aspect_ratio == expected


# --- sound ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("suffix", "codec"), [("mov", "pcm_mulaw"), ("avi", "pcm_s16le")])
def test_sound_that_mp4_does_not_take_is_encoded_anew(segmenter, tmp_path, suffix, codec):
    frames = road_frames(12, (48, 64)) * 4
    source = make_video(tmp_path / f"clip.{suffix}", frames, audio=codec, bf="0")
    done = segment(segmenter, source, tmp_path)
    assert len(done.notes) == 1 and codec in done.notes[0] and not done.damaged
    before, after = samples(source), samples(done.files["overlay"])
    assert abs(len(before) - len(after)) <= 3 * 1024  # the last packet of AAC is filled up
    spectrum = [np.abs(np.fft.rfft(wave[4096 : 4096 + 48000])) for wave in (before, after)]
    assert [int(s.argmax()) for s in spectrum] == [440, 440]  # hertz: a second was cut out
    assert 0.9 < spectrum[1].max() / spectrum[0].max() < 1.1


def samples(path: Path) -> np.ndarray:
    """One channel of the sound of a video, -1 to 1."""
    resampler = av.AudioResampler(format="fltp", layout="mono", rate=48000)
    with av.open(str(path)) as file:
        frames = [part for frame in file.decode(audio=0) for part in resampler.resample(frame)]
    return np.concatenate([frame.to_ndarray()[0] for frame in frames])


def test_sound_without_its_description_costs_no_frame(segmenter, frames, tmp_path):
    """MP4 refuses such Opus only when all is written: the frames would be lost with it."""
    source = make_video(tmp_path / "clip.webm", frames, codec="libvpx", audio="libopus")
    data = source.read_bytes()
    assert data.count(b"\x63\xa2") == 1  # Matroska's CodecPrivate
    source.write_bytes(data.replace(b"\x63\xa2", b"\x63\xa3"))
    done = segment(segmenter, source, tmp_path, ["overlay"])
    made = play(done.files["overlay"])
    assert len(made.images) == len(frames) and made.audio


def test_a_silent_video_stays_silent(segmenter, frames, tmp_path):
    done = segment(segmenter, make_video(tmp_path / "clip.mp4", frames, audio=None), tmp_path)
    assert done.notes == []
    assert play(done.files["overlay"]).audio == []


# --- sources and outputs -------------------------------------------------------------------------


def test_a_file_object_gives_what_its_path_gives(segmenter, frames, tmp_path):
    source = make_video(tmp_path / "clip.mkv", frames)
    by_path = segment(segmenter, str(source), tmp_path / "a")

    class Pipe(io.RawIOBase):
        """Cannot be wound back, as stdin."""

        def readable(self) -> bool:
            return True

        def readinto(self, buffer) -> int:
            return file.readinto(buffer)

    with source.open("rb") as file:
        piped = segment(segmenter, Pipe(), tmp_path / "b")
    assert piped.notes == by_path.notes == []
    for kind in ALL:  # byte for byte: no clock, no random number is in them
        assert piped.files[kind].read_bytes() == by_path.files[kind].read_bytes()


def test_which_names_are_videos():
    assert all(is_video(name) for name in ("a.mp4", "b/C.MOV", Path("x.mkv"), "y.avi", "z.webm"))
    assert not any(is_video(name) for name in ("a.png", "mp4", ".mp4", "a.mp4.part"))


def test_kinds_that_do_not_go_with_video(segmenter, frames, tmp_path):
    source = make_video(tmp_path / "clip.mp4", frames)
    with pytest.raises(UsageError, match="probs does not go with a video"):
        segment(segmenter, source, tmp_path, ["mask", "probs"])
    assert not (tmp_path / "out").exists()


def test_nothing_half_done_is_ever_visible(segmenter, frames, tmp_path):
    source = make_video(tmp_path / "clip.mp4", frames)
    seen: list[set[str]] = []

    def stop(done: int, total: int | None) -> None:
        seen.append({p.name for p in (tmp_path / "out").glob("[!.]*")})
        if done == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        segment(segmenter, source, tmp_path, on_frame=stop)
    assert seen == [set()] * 7
    assert list((tmp_path / "out").iterdir()) == []
    done = segment(segmenter, source, tmp_path)
    assert {p.name for p in (tmp_path / "out").iterdir()} == {p.name for p in done.files.values()}


@pytest.mark.parametrize("kind", ["mask", "overlay"])
def test_a_full_disk_leaves_nothing(segmenter, frames, tmp_path, kind):
    """A limit on the size of files stands in for it, down to the last byte."""
    source = make_video(tmp_path / "clip.mp4", frames)
    whole = segment(segmenter, source, tmp_path, [kind]).files[kind]
    size = whole.stat().st_size
    whole.unlink()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    for limit in (100, size // 2, size - 1):
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limits[1]))
        try:
            with pytest.raises(OSError, match=f"clip_{kind}") as caught:
                segment(segmenter, source, tmp_path, [kind])
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert caught.value.errno == errno.EFBIG
        assert list((tmp_path / "out").iterdir()) == []
    assert segment(segmenter, source, tmp_path, [kind]).files[kind].stat().st_size == size


def test_a_folder_with_a_colon_is_no_protocol(segmenter, frames, tmp_path, monkeypatch):
    make_video(tmp_path / "pipe:1" / "c%d.mp4", frames)
    monkeypatch.chdir(tmp_path)
    done = segment_video(segmenter, "pipe:1/c%d.mp4", Path("pipe:1"), "c%d", ["overlay"])
    assert done.files["overlay"] == Path("pipe:1/c%d_overlay.mp4")
    assert len(play(tmp_path / done.files["overlay"]).images) == len(frames)


def test_without_x264_there_is_still_a_video(segmenter, frames, tmp_path, monkeypatch):
    source = make_video(tmp_path / "clip.ts", [f[:89, :119] for f in frames], rate=NTSC,
                        pixels="yuv444p")  # fmt: skip
    monkeypatch.setattr(av, "codecs_available", av.codecs_available - {"libx264"})
    done = segment(segmenter, source, tmp_path)
    assert len(done.notes) == 1 and "x264" in done.notes[0] and not done.damaged
    made = play(done.files["color"])
    assert (made.codec, made.rate, len(made.images)) == ("mpeg4", NTSC, len(frames))
    assert made.images[0].shape == (89, 119, 3)


def test_ffmpeg_never_talks(segmenter, frames, tmp_path, capfd):
    source = make_video(tmp_path / "clip.mp4", frames)
    capfd.readouterr()
    segment(segmenter, source, tmp_path)
    data = bytearray(source.read_bytes())
    data[len(data) // 3 : len(data) // 2] = os.urandom(len(data) // 2 - len(data) // 3)
    source.write_bytes(data)
    assert segment(segmenter, source, tmp_path).damaged
    assert capfd.readouterr() == ("", "")


# --- broken videos -------------------------------------------------------------------------------


def truncated(source: Path, share: float) -> Path:
    path = source.with_name(f"cut{source.suffix}")
    data = source.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    return path


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "avi", "ts"])
def test_of_a_truncated_video_what_is_there_is_done(segmenter, tmp_path, suffix):
    frames = road_frames(12) * 4
    front = {"movflags": "+faststart"} if suffix == "mp4" else {}
    source = make_video(
        tmp_path / f"clip.{suffix}", frames, container=front,
        audio="libmp3lame" if suffix == "avi" else "aac", g="12", bf="0",
    )  # fmt: skip
    whole = play(source).images
    done = segment(segmenter, truncated(source, 0.6), tmp_path)
    assert len(frames) * 0.3 < done.frames < len(frames) * 0.8
    assert done.fps == 25
    masks = play(done.files["mask"], "gray").images
    assert len(masks) == done.frames
    for image, mask in list(zip(whole, masks, strict=False))[:-2]:  # the last may be half there
        assert np.array_equal(mask, segmenter(image).mask)
    assert len(play(done.files["overlay"]).images) == done.frames
    assert done.damaged
    reasons = ("ends early", "cannot be read to its end", "ends inside a packet")
    assert any(reason in " ".join(done.notes) for reason in reasons)
    assert not segment(segmenter, source, tmp_path).damaged


def test_an_mp4_cut_before_its_index_is_refused(segmenter, frames, tmp_path):
    source = truncated(make_video(tmp_path / "clip.mp4", frames), 0.5)
    with pytest.raises(DataError, match="cut off before its index"):
        segment(segmenter, source, tmp_path)


def test_what_is_no_video_is_refused_in_words(segmenter, frames, tmp_path):
    sound = tmp_path / "sound.mp4"
    with av.open(str(sound), "w") as out:
        stream = out.add_stream("aac", rate=48000)
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 2048), np.int16), format="s16")
        silence.sample_rate = 48000
        out.mux(stream.encode(silence))
        out.mux(stream.encode(None))
    text, nothing = tmp_path / "text.mp4", tmp_path / "nothing.mp4"
    text.write_text("not a video\n" * 100)
    nothing.write_bytes(b"")
    pipe = tmp_path / "pipe.mp4"
    os.mkfifo(pipe)
    for source, reason in (
        (sound, "has no video in it"),
        (text, "cannot be read as a video"),
        (nothing, "cannot be read as a video"),
        (tmp_path / "gone.mp4", "does not exist"),
        (tmp_path, "is no file"),
        (pipe, "is no file"),
    ):
        with pytest.raises(DataError, match=reason) as caught:
            segment(segmenter, source, tmp_path)
        assert source.name in caught.value.message
    assert not (tmp_path / "out").exists()


def test_a_playlist_opens_no_other_file(segmenter, frames, tmp_path):
    part = make_video(tmp_path / "part.ts", frames)
    for text in (
        f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{part.name}\n#EXT-X-ENDLIST\n",
        f"ffconcat version 1.0\nfile {part.name}\n",
    ):
        for suffix in ("mp4", "m3u8", "ffconcat"):
            source = tmp_path / f"list.{suffix}"
            source.write_text(text)
            with pytest.raises(DataError, match="cannot be read as a video"):
                segment(segmenter, source, tmp_path)
    assert segment(segmenter, part, tmp_path).frames == len(frames)


def test_absurd_sizes_are_refused_before_they_are_decoded(segmenter, frames, tmp_path):
    source = make_video(tmp_path / "clip.mov", frames, codec="qtrle", pixels="rgb24")
    data = bytearray(source.read_bytes())
    entry = data.index(b"rle ", data.index(b"stsd"))  # width and height of the sample entry
    for size in (60000, 30000, 9000):
        data[entry + 28 : entry + 32] = size.to_bytes(2, "big") * 2
        source.write_bytes(data)
        with pytest.raises(DataError, match=rf"claims frames of {size}x{size}|no frame that can"):
            segment(segmenter, source, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("index", ["last", "first"])
def test_damaged_videos_are_done_in_part_or_refused_in_words(tmp_path, index):
    """72 of them: bytes changed in the index and in the pictures, holes, cuts at any place."""
    front = {"movflags": "+faststart"} if index == "first" else {}
    source = make_video(tmp_path / "clip.mp4", road_frames(12, (48, 64)), container=front, g="6")
    script = Path(__file__).with_name("fuzzed_video.py")
    child = subprocess.run(
        [sys.executable, script, source, tmp_path / "out", "36", "7"],
        capture_output=True, text=True, check=False, timeout=300,
        env={**os.environ, "PYTHONPATH": str(Path(smp_camvid.__file__).parents[1])},
    )  # fmt: skip
    last_words = child.stderr.splitlines()[-8:]
    assert child.returncode == 0, last_words  # no traceback, no crash of the decoder
    whole, *mutants = [json.loads(line) for line in child.stdout.splitlines()]
    assert (whole["became"], whole["frames"], whole["notes"]) == ("done", 12, [])
    assert len(mutants) == 36
    decoded = [m for m in mutants if m["frames"] or "decoded" in " ".join(m["notes"])]
    assert len(decoded) >= len(mutants) / 3
    assert sum(m["became"] == "refused" or m["damaged"] for m in mutants) > len(mutants) / 3
    for mutant in mutants:
        assert mutant["frames"] <= 12
        assert mutant["seconds"] < 10 * whole["seconds"] + 5, mutant
        assert mutant["mib"] < whole["mib"] + 300, mutant
        assert mutant["left"] == []
        if mutant["became"] == "refused" or mutant["damaged"]:
            assert mutant["notes"] and all(note.endswith(".") for note in mutant["notes"])
