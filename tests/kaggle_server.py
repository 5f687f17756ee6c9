"""A loopback server that speaks as much of Kaggle's API, and of GitHub's downloads, as is asked.

The real kaggle client reaches it as an HTTP proxy.  What it answers is scripted: `posts` and
`gets` are lists of replies used up one by one; when a list is empty the answer is the good one.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

Reply = Callable[["Handler"], None]
DATE = "Wed, 01 Jul 2020 08:00:00 GMT"


@dataclass
class Server:
    """What it serves and what it was asked."""

    archive: bytes = b""
    etag: str | None = '"one"'
    ranges: bool = True
    pause: float = 0.0
    """Seconds between pieces of 16 KiB."""
    posts: list[Reply] = field(default_factory=list)
    gets: list[Reply] = field(default_factory=list)
    introspect: Reply | None = None
    """The answer about a token, when it is not a good one."""
    log: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    asked: threading.Event = field(default_factory=threading.Event)
    """Set when a GET has come in."""
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def got_ranges(self) -> list[str | None]:
        """The Range header of every GET."""
        return [headers.get("Range") for method, _, headers in self.log if method == "GET"]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state: Server

    def log_message(self, *_: object) -> None:
        pass

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = urlsplit(self.path).path
        self.state.log.append(("POST", path, dict(self.headers)))
        if path.endswith("IntrospectToken") and self.state.introspect:
            self.state.introspect(self)
        elif path.endswith("IntrospectToken"):
            self.send_json(200, {"active": True, "username": "somebody"})
        elif path.endswith("GenerateAccessToken"):
            self.send_json(200, {"token": "fresh-token", "expiresIn": 3600})
        elif self.state.posts:
            self.state.posts.pop(0)(self)
        else:
            self.redirect()

    def do_GET(self) -> None:
        self.state.log.append(("GET", urlsplit(self.path).path, dict(self.headers)))
        self.state.asked.set()
        (self.state.gets.pop(0) if self.state.gets else good)(self)

    def redirect(self) -> None:
        self.send_response(302)
        self.send_header("Location", f"http://{self.headers['Host']}/blob/archive.zip?sig=secret")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def send_json(self, code: int, document: object, **headers: str) -> None:
        self.send_bytes(code, json.dumps(document).encode(), "application/json", **headers)

    def send_bytes(self, code: int, body: bytes, kind: str, **headers: str) -> None:
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def good(handler: Handler, cut: int | None = None, known_length: bool = True) -> None:
    """The archive, or the range of it that was asked for; `cut` ends the body early."""
    state, body, start = handler.state, handler.state.archive, 0
    wanted = handler.headers.get("Range")
    fits = handler.headers.get("If-Range") in (None, state.etag)
    if wanted and state.ranges and fits:
        start = int(wanted.removeprefix("bytes=").removesuffix("-"))
    if start > len(body):
        handler.send_bytes(416, b"", "text/plain")
        return
    handler.send_response(206 if start else 200)
    if start:
        handler.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
    if state.etag:
        handler.send_header("ETag", state.etag)
    if state.ranges:
        handler.send_header("Accept-Ranges", "bytes")
    handler.send_header("Content-Type", "application/zip")
    if known_length:
        handler.send_header("Content-Length", str(len(body) - start))
    else:
        handler.send_header("Connection", "close")
    handler.end_headers()
    body = body[start:] if cut is None else body[start : start + cut]
    with contextlib.suppress(ConnectionError):
        for at in range(0, len(body), 1 << 14):
            handler.wfile.write(body[at : at + (1 << 14)])
            time.sleep(state.pause)
    handler.close_connection = cut is not None or not known_length


def cut_after(size: int) -> Reply:
    return lambda handler: good(handler, cut=size)


def without_length(handler: Handler) -> None:
    good(handler, known_length=False)


def status(code: int, **headers: str) -> Reply:
    """An error as Kaggle sends it, with a message that must not matter."""
    document = {"code": code, "message": f"Told {code} by the server"}
    return lambda handler: handler.send_json(code, document, **headers)


def expired(handler: Handler) -> None:
    handler.send_json(200, {"active": False})


def page(handler: Handler) -> None:
    """What a captive portal answers to anything."""
    handler.send_bytes(200, b"<html><title>Welcome to the hotel</title></html>", "text/html")


def changed(archive: bytes, etag: str) -> Reply:
    """From now on the server has another archive."""

    def reply(handler: Handler) -> None:
        handler.state.archive, handler.state.etag = archive, etag
        good(handler)

    return reply


def body_of(content: bytes) -> Reply:
    """Another body this once."""
    return lambda handler: handler.send_bytes(200, content, "application/zip", ETag='"one"')


def silence(seconds: float) -> Reply:
    def reply(handler: Handler) -> None:
        time.sleep(seconds)
        handler.close_connection = True

    return reply


def hang_up(handler: Handler) -> None:
    handler.close_connection = True


class QuietServer(ThreadingHTTPServer):
    """A client that goes away is no news: a traceback would be taken for the command's own."""

    def handle_error(self, request: object, client_address: object) -> None:
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


@contextlib.contextmanager
def serving(archive: bytes = b"") -> Iterator[Server]:
    """A running server on a free port of the loopback interface."""
    state = Server(archive)
    kind = type("Bound", (Handler,), {"state": state})
    server = QuietServer(("127.0.0.1", 0), kind)
    state.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def environment(port: int, home: Path, **more: str) -> dict[str, str]:
    """The variables that lead the real client here, and to nowhere else."""
    home.mkdir(exist_ok=True)
    place = f"http://127.0.0.1:{port}"
    ours = {
        "KAGGLE_API_ENVIRONMENT": "LOCALHOST", "http_proxy": place, "HTTP_PROXY": place,
        "no_proxy": "", "NO_PROXY": "", "HOME": str(home), "XDG_CONFIG_HOME": str(home / ".config"),
        "COLUMNS": "80",
    }  # fmt: skip
    return {**ours, **more}


def clean_environment() -> dict[str, str]:
    """This process's variables without any that would sign in to Kaggle."""
    return {name: value for name, value in os.environ.items() if not name.startswith("KAGGLE_")}


def zip_of(folder: Path, prefix: str = "", comment: bytes = b"") -> bytes:
    """A zip of a folder's files, each below `prefix`."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as file:
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            file.write(path, prefix + path.relative_to(folder).as_posix())
        file.comment = comment
    return packed.getvalue()


def assert_whole(made: Path, original: Path) -> None:
    """`made` holds the files of `original`, byte for byte, and a manifest that tells the truth."""
    manifest = json.loads((made / "manifest.json").read_text())
    files = {p.relative_to(made).as_posix() for p in made.rglob("*") if p.is_file()}
    assert files == {*manifest["files"], "manifest.json"}
    assert set(manifest["files"]) == {
        path.relative_to(original).as_posix() for path in original.rglob("*") if path.is_file()
    }
    for name, row in manifest["files"].items():
        content = (made / name).read_bytes()
        assert content == (original / name).read_bytes()
        assert row["size"] == len(content)
        assert row["sha256"] == hashlib.sha256(content).hexdigest()


def assert_whole_or_none(made: Path, original: Path) -> bool:
    """Whether it is there; what is there is whole."""
    if made.exists():
        assert_whole(made, original)
        return True
    return False
