"""`predict`: what it takes, what it leaves, what it says; with a network whose answer is known."""

from __future__ import annotations

import errno
import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from fractions import Fraction
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from color_predict import ColorEngine, load_colors, nearest
from command_line import run
from PIL import Image
from synthetic_video import make_video, play
from typer.testing import CliRunner, Result

from smp_camvid.cli import app
from smp_camvid.errors import DeviceError
from smp_camvid.inference import fetching, files, predictor
from smp_camvid.inference.inputs import Input, find_inputs

PROGRAM = [sys.executable, str(Path(__file__).with_name("color_predict.py"))]


@pytest.fixture(autouse=True)
def engines(here: Path, monkeypatch: pytest.MonkeyPatch) -> list[ColorEngine]:
    """The engines that commands have used, last one last; every command runs in `here`."""
    used: list[ColorEngine] = []

    def load(*words: Any, **options: Any) -> predictor.Segmenter:
        segmenter = load_colors(*words, **options)
        used.append(segmenter.engine)  # type: ignore[arg-type]
        return segmenter

    monkeypatch.setattr(predictor, "load", load)
    return used


def noise(seed: int, size: tuple[int, int] = (33, 47)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)


def write(path: str | Path, seed: int = 0, size: tuple[int, int] = (33, 47)) -> Path:
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(noise(seed, size)).save(path)
    return path


def array_of(path: str | Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.array(picture)


def left_in(folder: str | Path) -> list[str]:
    """Visible files, but the manifest."""
    names = sorted(p.relative_to(folder).as_posix() for p in Path(folder).rglob("*") if p.is_file())
    return [name for name in names if not name.startswith(".") and name != "manifest.jsonl"]


def refused(result: Result, code: int, *parts: str) -> None:
    assert result.exit_code == code, result.output
    assert all(part in result.stderr for part in parts), result.stderr
    assert "Traceback" not in result.output


# --- pictures -------------------------------------------------------------------------------------


def pictures() -> dict[str, Image.Image]:
    rgb = Image.fromarray(noise(1))
    deep = Image.fromarray(np.arange(33 * 47, dtype=np.uint16).reshape(33, 47) * 42)
    return {
        "rgb.png": rgb, "grey.png": rgb.convert("L"), "rgba.png": rgb.convert("RGBA"),
        "greyalpha.png": rgb.convert("LA"), "palette.png": rgb.convert("P"), "bits.png":
        rgb.convert("1"), "deep.png": deep, "deep16.tif": deep, "cmyk.tif": rgb.convert("CMYK"),
        "photo.jpg": rgb, "cmyk.jpg.jpeg": rgb.convert("CMYK"), "web.webp": rgb, "still.gif": rgb,
        "one.png": Image.new("RGB", (1, 1)), "wide.bmp": Image.new("RGB", (300, 2)),
    }  # fmt: skip


def test_every_mode_and_size_gives_masks_of_the_input_size() -> None:
    Path("in/below").mkdir(parents=True)
    for name, picture in pictures().items():
        picture.save(Path("in") / name)
    turned = pictures()["rgb.png"]
    exif = turned.getexif()
    exif[0x0112] = 6  # a quarter turn
    turned.save("in/turned.webp", exif=exif, lossless=True)
    turned.save("in/below/deeper.png")
    done = run("predict", "in", "--recursive")
    assert done.exit_code == 0, done.output
    for name, picture in pictures().items():
        for kind in ("mask", "color", "overlay"):
            out = array_of(f"predictions/{Path(name).stem}_{kind}.png")
            assert out.shape[1::-1] == picture.size, name
    assert np.array_equal(array_of("predictions/rgb_mask.png"), nearest(noise(1)))
    assert np.array_equal(array_of("predictions/turned_mask.png"), np.rot90(nearest(noise(1)), -1))
    assert Path("predictions/below/deeper_mask.png").is_file()
    assert left_in("predictions/.predict") == ["lock"]


def test_what_is_written_is_what_the_network_said() -> None:
    write("a.png")
    assert run("predict", "a.png", "--save", "mask,color,overlay,probs").exit_code == 0
    probs = np.load("predictions/a_probs.npz")["probs"]
    assert probs.shape == (11, 33, 47) and probs.dtype == np.float16
    mask, color = array_of("predictions/a_mask.png"), array_of("predictions/a_color.png")
    assert mask.dtype == np.uint8 and np.array_equal(color, ColorEngine.table.palette[mask])
    mixed = (noise(0).astype(int) + color) / 2
    assert np.abs(array_of("predictions/a_overlay.png") - mixed).max() <= 0.5


def test_of_several_pages_the_first_is_taken_and_said() -> None:
    first, second = (Image.fromarray(noise(seed)) for seed in (0, 1))
    for name in ("pages.tif", "moves.gif", "moves.webp", "moves.png"):
        first.save(
            name,
            save_all=True,
            append_images=[second],
            **({"lossless": True} if name.endswith("webp") else {}),
        )
        done = run("predict", name, "--out", f"{name}.out")
        assert done.exit_code == 0 and f"{name}: has several pages or frames" in done.stderr
        if not name.endswith("gif"):  # which has no more than 256 colours
            mask = array_of(f"{name}.out/{Path(name).stem}_mask.png")
            assert np.array_equal(mask, nearest(noise(0))), name
    first.save("one.tif")
    assert "several" not in run("predict", "one.tif").stderr


def test_what_is_no_picture_of_eight_or_sixteen_bits_is_refused_in_words() -> None:
    Image.fromarray(np.zeros((4, 4), np.float32)).save("hdr.tif")
    Image.new("LAB", (4, 4)).save("lab.tif")
    Path("radiance.hdr").write_bytes(b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n-Y 4 +X 4\n")
    Path("page.eps").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n")
    for name, said in (("hdr.tif", "floats"), ("lab.tif", "CIELAB")):
        refused(run("predict", name), 1, name, said)
    for name in ("radiance.hdr", "page.eps"):
        refused(run("predict", name), 1, f"{name} is not a picture")


def test_a_bad_picture_is_named_and_the_rest_is_done() -> None:
    write("in/good.png")
    Path("in/bad.png").write_bytes(b"\x89PNG\r\n\x1a\n and then nothing")
    whole = write("in/half.jpg", size=(200, 200)).read_bytes()
    Path("in/half.jpg").write_bytes(whole[: len(whole) // 2])
    done = run("predict", "in", "--batch-size", 4)
    refused(done, 1, "in/bad.png", "in/half.jpg", "truncated", "2 of 3 inputs failed")
    assert left_in("predictions") == ["good_color.png", "good_mask.png", "good_overlay.png"]
    again = run("predict", "in")
    refused(again, 1, "2 of 3 inputs", "1 of 3 inputs are done already")


def test_a_picture_the_network_cannot_take_spoils_no_other(
    engines: list[ColorEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    def small_only(self: ColorEngine, images: Any) -> Any:
        if any(frame.max() == 0 for frame in images):
            raise DeviceError("This machine is out of memory.")
        return ColorEngine_run(self, images)

    ColorEngine_run = ColorEngine.run  # noqa: N806
    monkeypatch.setattr(ColorEngine, "run", small_only)
    for number in range(4):
        write(f"in/{number}.png", number)
    Image.new("RGB", (47, 33)).save("in/2.png")
    done = run("predict", "in", "--batch-size", 4, "--save", "mask")
    refused(done, 1, "in/2.png", "out of memory", "1 of 4")
    assert left_in("predictions") == ["0_mask.png", "1_mask.png", "3_mask.png"]


def test_predict_says_what_it_cannot_do() -> None:
    Path("empty").mkdir()
    write("a.png")
    write("a.jpg")
    write("set/b.png")
    write("set/b_mask.png")
    refused(run("predict", "absent.png"), 1, "no file or folder absent.png")
    refused(run("predict", "empty"), 1, "no picture in empty", "--recursive")
    refused(run("predict", "e*/*.png"), 1, "No picture matches e*/*.png")
    refused(run("predict", "http://[x"), 2, "no address")
    refused(run("predict", "frame_%05d.png"), 1, "no picture frame_%05d.png")
    refused(run("predict", "a.png", "--save", "masks"), 2, "masks cannot be saved", "mask,color")
    refused(run("predict", "a.png", "--scale", "big"), 2, "train or native")
    refused(run("predict", "a.png", "--precision", "fp64"), 2, "fp32")
    refused(run("predict", "a.png", "--tile", "9"), 2, "--tile", "HEIGHTxWIDTH")
    write("other/a.png")
    refused(run("predict", "a.png", "other/a.png"), 2, "would both be written as a_mask.png")
    refused(run("predict", ""), 2, "An INPUT is empty")
    refused(run("predict", "a.mp4", "--save", "probs"), 1, "no file or folder")
    refused(run("predict", "set/b.png", "set/b_mask.png", "--out", "set"), 2, "overwrite set/b_m")
    assert not Path("predictions").exists()
    Path("file").write_text("")
    refused(run("predict", "a.png", "--out", "file"), 2, "is a file")
    refused(run("predict", "a.png", "--out", "file/below"), 1, "cannot be written", "--out")


def test_a_full_disk_ends_the_job_with_what_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(9):
        write(f"in/{number}.png", number)
    save = Image.Image.save

    def full(self: Any, path: Path, **options: Any) -> None:
        if len(left_in("predictions")) >= 3:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        save(self, path, **options)

    monkeypatch.setattr(files.Image.Image, "save", full)
    done = run("predict", "in", "--save", "mask")
    refused(done, 1, "No space left on device", "the same command goes on")
    monkeypatch.setattr(files.Image.Image, "save", save)
    assert run("predict", "in", "--save", "mask").exit_code == 0
    assert len(left_in("predictions")) == 9


# --- what INPUT... may be -------------------------------------------------------------------------


def names(*words: str, recursive: bool = False, out: str | None = None) -> list[tuple[str, str]]:
    found = find_inputs(words, recursive, Path(out) if out else None)
    return [(Path(one.name).as_posix(), one.output) for one in found]


def test_inputs_are_found_in_order_and_once() -> None:
    for name in ("f/b.png", "f/a.JPG", "f/sub/c.png", "f/.hidden.png", "f/notes.txt", "f/v.mp4"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()
    flat = [("f/a.JPG", "a"), ("f/b.png", "b"), ("f/v.mp4", "v")]
    assert names("f") == names("f", "f/") == flat
    deep = [("f/a.JPG", "a"), ("f/b.png", "b"), ("f/sub/c.png", "sub/c"), ("f/v.mp4", "v")]
    assert sorted(names("f", recursive=True)) == deep
    assert names("f/**/*") == names("f/*") == deep  # as from a shell
    assert names("f/**/*.png") == [("f/b.png", "b"), ("f/sub/c.png", "sub/c")]
    assert names("f/s*") == [("f/sub/c.png", "sub/c")]
    Path("f/[1].png").touch()
    assert names("f/[1].png") == [("f/[1].png", "[1]")]  # there: no pattern


def test_numbered_frames_come_by_number() -> None:
    Path("s").mkdir()
    for name in ("f_00009.png", "f_00010.png", "f_100000.png", "f_8.png", "g_00001.png", "f_x.png"):
        Path("s", name).touch()
    assert [name for name, _ in names("s/f_%05d.png")] == [
        "s/f_00009.png", "s/f_00010.png", "s/f_100000.png",
    ]  # fmt: skip
    assert [name for name, _ in names("s/f_%d.png")] == ["s/f_8.png", "s/f_100000.png"]


def test_predicting_a_folder_twice_leaves_its_own_output_alone() -> None:
    write("one.png")
    Path("._one.png").write_bytes(b"what macOS leaves")
    for words in (["."], [".", "--force"], ["**/*.png", "--force"]):
        assert run("predict", *words, "--recursive").exit_code == 0
    assert sorted(str(p) for p in Path().rglob("*_mask.png")) == ["predictions/one_mask.png"]
    for _ in range(2):  # beside the pictures
        assert run("predict", ".", "--out", ".", "--force").exit_code == 0
    assert [p.name for p in Path().glob("*_mask*")] == ["one_mask.png"]


def test_stdin(monkeypatch: pytest.MonkeyPatch) -> None:
    picture = write("a.png", 5).read_bytes()
    done = CliRunner().invoke(app, ["predict", "-", "--json"], input=picture)
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)[0]["input"] == "-"
    assert np.array_equal(array_of("predictions/stdin_mask.png"), nearest(noise(5)))
    refused(run("predict", "-"), 1, "The standard input is empty")
    monkeypatch.setattr(fetching, "_is_terminal", lambda: True)
    refused(run("predict", "-"), 1, "nothing is piped")


class Web(BaseHTTPRequestHandler):
    """Answers by the path; `said` is what there is."""

    said: dict[str, tuple[int, bytes, dict[str, str]]] = {}  # noqa: RUF012

    def do_GET(self) -> None:
        code, body, headers = self.said.get(self.path.partition("?")[0], (404, b"no", {}))
        self.send_response(code)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Web)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_addresses(web: str, monkeypatch: pytest.MonkeyPatch) -> None:
    picture = write("a.png", 3).read_bytes()
    secret = "token=s3cr3t"
    Web.said = {
        "/a%20street.png": (200, picture, {}),
        "/b.png": (200, picture, {}),
        "/page.png": (200, b"<html>sign in</html>", {}),
        "/cut.png": (200, picture[:99], {"Content-Length": str(len(picture))}),
        "/huge.png": (200, b"", {"Content-Length": str(2**40)}),
        "/gone.png": (410, b"", {}),
    }
    done = run("predict", f"{web}/a%20street.png?{secret}", f"{web}/b.png", "--json")
    assert done.exit_code == 0, done.output
    made = [document["files"]["mask"] for document in json.loads(done.stdout)]
    assert made == ["predictions/a_street_mask.png", "predictions/b_mask.png"]
    assert all(np.array_equal(array_of(path), nearest(noise(3))) for path in made)
    again = run("predict", f"{web}/a%20street.png?other", "--json")
    assert json.loads(again.stdout)[0]["skipped"] is True  # the same bytes
    for path, said in (
        ("page", "is not a picture"), ("cut", "was cut"), ("huge", "not taken"), ("none", "404"),
        ("gone", "refuses the request (410)"),
    ):  # fmt: skip
        failed = run("predict", f"{web}/{path}.png?{secret}")
        refused(failed, 1, f"{web}/{path}.png", said)
        assert "--source" not in failed.stderr and "s3cr3t" not in failed.output
    monkeypatch.setattr(fetching, "MAX_BYTES", 500)
    refused(run("predict", f"{web}/a%20street.png", "--out", "b"), 1, "not taken")
    refused(run("predict", "http://127.0.0.1:9/x.png"), 1, "refuses the connection")
    assert "s3cr3t" not in Path("predictions/manifest.jsonl").read_text()


def test_what_addresses_become_as_file_names() -> None:
    for address, stem in (
        ("https://u:p@h.org/x/frame.01.jpg?w=3#top", "frame.01"), ("http://h.org/", "picture"),
        ("http://h.org/..", "picture"), ("http://h.org/a%00b%0a.png", "a_b_"),
        ("http://h.org/%2e%2e%2f.ssh", "ssh"),
    ):  # fmt: skip
        assert Input(address).stem == stem
    assert Input("https://u:p@h.org/x.jpg?w=3").shown == "https://h.org/x.jpg"


# --- what is done already -------------------------------------------------------------------------


def test_done_already_is_not_done_again_until_something_changes(engines: list[ColorEngine]) -> None:
    def frames(*words: str | Path) -> int:
        done = run("predict", "in", "--model", "weights", *words)
        assert done.exit_code == 0, done.output
        return sum(engines[-1].batches)

    Path("weights").write_text("one")
    write("in/a.png", 0)
    write("in/b.png", 1)
    assert [frames(), frames()] == [2, 0]
    assert frames("--force") == 2
    write("in/a.png", 2, (20, 20))
    assert [frames(), frames()] == [1, 0]
    assert array_of("predictions/a_mask.png").shape == (20, 20)
    Path("weights").write_text("two")
    assert [frames(), frames()] == [2, 0]
    for words in (["--tile", "16x16"], ["--scale", "native"], ["--precision", "fp32"]):
        assert [frames(*words) > 0, frames(*words)] == [True, 0]
    assert [frames(), frames()] == [2, 0]
    Path("predictions/a_color.png").unlink()
    assert [frames(), frames()] == [1, 0]
    Path("predictions/b_mask.png").write_bytes(b"")  # what a power cut leaves
    assert [frames(), frames()] == [1, 0]
    assert [frames("--save", "mask"), frames("--save", "mask,probs"), frames()] == [0, 2, 2]
    write("in/c.png", 3)
    assert [frames(), frames()] == [1, 0]


def test_the_answer_is_the_same_when_all_is_done() -> None:
    write("in/a.png", 0)
    write("in/b.png", 1)
    first, second = run("predict", "in"), run("predict", "in")
    assert second.stdout == first.stdout and "2 of 2 inputs are done already" in second.stderr
    documents = json.loads(run("predict", "in", "--json").stdout)
    assert [d["skipped"] for d in documents] == [True, True]
    assert sum(documents[0]["shares"].values()) == pytest.approx(1)


def test_predictions_of_another_input_are_not_replaced_unasked() -> None:
    write("day/1.png", 0)
    write("night/1.png", 1)
    assert run("predict", "day").exit_code == 0
    refused(run("predict", "night"), 1, "would replace the prediction of", "day/1.png", "--force")
    assert np.array_equal(array_of("predictions/1_mask.png"), nearest(noise(0)))
    assert run("predict", "night", "--force").exit_code == 0
    assert np.array_equal(array_of("predictions/1_mask.png"), nearest(noise(1)))


def test_batches_are_the_same_after_an_interruption(engines: list[ColorEngine]) -> None:
    for number in range(10):
        write(f"in/{number}.png", number)
    words = ["predict", "in", "--batch-size", 4, "--save", "mask"]
    assert run(*words).exit_code == 0
    assert engines[-1].batches == [4, 4, 2]
    for number in (1, 8):
        Path(f"predictions/{number}_mask.png").unlink()
    assert run(*words).exit_code == 0
    assert engines[-1].batches == [4, 2]


def test_json_is_one_document_with_failures_in_it() -> None:
    write("in/a.png")
    Path("in/b.png").write_text("nothing")
    done = run("predict", "in", "--json")
    documents = json.loads(done.stdout)
    assert done.exit_code == 1 and documents[0]["files"]["mask"] == "predictions/a_mask.png"
    assert documents[1]["input"] == "in/b.png" and "not a picture" in documents[1]["error"]
    Path("in/a.png").unlink()
    assert [d["input"] for d in json.loads(run("predict", "in", "--json").stdout)] == ["in/b.png"]


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_job_says_so_and_goes_on(sent: signal.Signals) -> None:
    for number in range(200):
        write(f"in/{number:03}.png", number, (8, 8))
    words = [*PROGRAM, "predict", "in", "--save", "mask", "--json"]
    child = subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**__import__("os").environ, "SMP_CAMVID_TEST_PAUSE": "0.05"},
    )  # fmt: skip
    while child.poll() is None and len(list(Path("predictions").glob("*_mask.png"))) < 3:
        time.sleep(0.01)
    child.send_signal(sent)
    out, said = child.communicate(timeout=60)
    assert child.returncode == 130, said
    assert "Interrupted. What is done stays, and the same command goes on from there." in said
    assert "Traceback" not in said
    told = len(json.loads(out))  # whole, though cut short
    done = len(left_in("predictions"))
    assert told <= done < 200 and left_in("predictions/.predict")[-1].endswith("lock")
    recorded = Path("predictions/manifest.jsonl").read_text().splitlines()
    assert len(recorded) == done  # nothing that was written is done again
    assert run("predict", "in", "--save", "mask").exit_code == 0
    assert len(left_in("predictions")) == 200


# --- videos ---------------------------------------------------------------------------------------


def test_videos_among_pictures(engines: list[ColorEngine]) -> None:
    frames = [noise(seed, (48, 64)) for seed in range(5)]
    make_video(
        Path("in/drive.mkv"), frames, rate=Fraction(30000, 1001), codec="ffv1", pixels="bgr0"
    )
    write("in/a.png", 1)
    write("in/z.png", 2)
    done = run("predict", "in", "--batch-size", 2, "--json")
    assert done.exit_code == 0, done.output
    first, video, last = json.loads(done.stdout)
    assert [first["input"], last["input"]] == ["in/a.png", "in/z.png"]
    assert (video["frames"], video["fps"]) == (5, "30000/1001")
    assert video["files"]["mask"] == "predictions/drive_mask.mkv"
    masks = play(Path("predictions/drive_mask.mkv"), "gray").images
    assert all(np.array_equal(a, nearest(b)) for a, b in zip(masks, frames, strict=True))
    assert sum(video["shares"].values()) == pytest.approx(1)
    again = json.loads(run("predict", "in", "--batch-size", 2, "--json").stdout)
    assert all(document["skipped"] for document in again) and engines[-1].batches == []
    Path("predictions/drive_color.mp4").unlink()
    assert run("predict", "in").exit_code == 0 and sum(engines[-1].batches) == 5
    refused(run("predict", "in", "--save", "probs"), 2, "probs does not go with a video")
    assert left_in("predictions/.predict") == ["lock"]


def test_of_a_cut_video_what_is_there_is_done_and_said() -> None:
    whole = make_video(Path("whole.mkv"), [noise(s, (48, 64)) for s in range(9)], codec="mpeg4")
    Path("cut.mkv").write_bytes(whole.read_bytes()[: whole.stat().st_size * 2 // 3])
    for _ in range(2):  # done already, it is still cut
        done = run("predict", "cut.mkv", "whole.mkv")
        refused(done, 1, "cut.mkv: It ", "1 of 2 inputs failed")
    assert 1 <= len(play(Path("predictions/cut_mask.mkv"), "gray").images) < 9
    Path("none.mp4").write_bytes(whole.read_bytes()[:30])
    refused(run("predict", "none.mp4"), 1, "none.mp4 cannot be read as a video")


def test_a_video_from_stdin() -> None:
    data = make_video(Path("v.mkv"), [noise(s, (48, 64)) for s in range(3)]).read_bytes()
    done = CliRunner().invoke(app, ["predict", "-", "--save", "mask"], input=data)
    assert done.exit_code == 0, done.output
    assert len(play(Path("predictions/stdin_mask.mkv"), "gray").images) == 3
    refused(CliRunner().invoke(app, ["predict", "-"], input=data[:40]), 1, "- cannot be read")


# --- what a picture costs to import ---------------------------------------------------------------

_IMPORTED = """
import sys
sys.argv[0] = "smp-camvid"
from smp_camvid.cli import main
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
heavy = {
    "torch", "torchvision", "segmentation_models_pytorch", "timm", "albumentations", "matplotlib",
    "requests", "urllib3", "av", "rich", "huggingface_hub", "kaggle",
}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
assert "onnxruntime" in sys.modules
"""


@pytest.fixture(scope="session")
def onnx_model(a_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("exported") / "tiny.onnx"
    done = run("export", a_run, "--out", path)
    assert done.exit_code == 0, done.output
    return path


def test_an_onnx_model_is_run_without_torch(onnx_model: Path) -> None:
    picture = write("a.png", size=(48, 64))
    child = subprocess.run(
        [sys.executable, "-c", _IMPORTED, "predict", str(picture), "--model", str(onnx_model)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert child.returncode == 0, child.stderr
    assert array_of("predictions/a_mask.png").shape == (48, 64)
