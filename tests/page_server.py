"""The page of `serve`, really served on a loopback port, and models for it."""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import uvicorn
from PIL import Image

from smp_camvid.data.classes import CAMVID11, ClassTable
from smp_camvid.models.factory import create_model
from smp_camvid.models.network import Network
from smp_camvid.models.weights import save_weights
from smp_camvid.serve.application import build_app
from smp_camvid.serve.choices import Models
from smp_camvid.serve.guard import KEY_HEADER
from smp_camvid.serve.listening import bound, server_of

KEY = "the-key-of-the-tests"
NASTY = ClassTable(
    "dataset",
    ("<script>boom()</script>", "<img src=x onerror=boom()>", '"&quot;'),
    ((200, 0, 0), (0, 200, 0), (0, 0, 200)),
)


@dataclass
class Answer:
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def words(self) -> str:
        error: str = self.json["error"]
        return error


@dataclass
class PageServer:
    """A running page; `folder` is where its uploads are for the moment."""

    port: int
    folder: Path
    server: uvicorn.Server

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def ask(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> Answer:
        """A request as the page makes it, with `headers` added or instead; "" leaves one out."""
        wanted = {"Host": f"127.0.0.1:{self.port}", KEY_HEADER: KEY, **(headers or {})}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        with contextlib.closing(connection):
            connection.putrequest(method, path, skip_host=True)
            for name, value in wanted.items():
                if value:
                    connection.putheader(name, value)
            if isinstance(body, bytes):
                connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body if isinstance(body, bytes) else None)
            if body is not None and not isinstance(body, bytes):
                with contextlib.suppress(ConnectionError):  # refused before it was all sent
                    for chunk in body:
                        connection.send(b"%x\r\n%s\r\n" % (len(chunk), chunk))
                    connection.send(b"0\r\n\r\n")
            response = connection.getresponse()
            return Answer(response.status, response.headers, response.read())

    def upload(self, body: bytes, model: str | None = None, **headers: str) -> Answer:
        model = model if model is not None else self.first_model()
        return self.ask("POST", f"/api/pictures?model={model}", body, headers)

    def first_model(self) -> str:
        id: str = self.ask("GET", "/api/models").json["models"][0]["id"]
        return id

    def stop(self) -> None:
        self.server.should_exit = True


@contextlib.contextmanager
def page_served(models: Models, folder: Path, host: str = "127.0.0.1") -> Iterator[PageServer]:
    folder.mkdir(exist_ok=True)
    with bound(host, 0) as door:
        server = server_of(build_app(models, folder, KEY, host))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [door]})
        thread.start()
        try:
            yield PageServer(door.getsockname()[1], folder, server)
        finally:
            server.should_exit = True
            thread.join(30)
            assert not thread.is_alive()


def weights_file(path: Path, table: ClassTable = CAMVID11, seed: int = 1) -> Path:
    """A tiny net that nobody trained: its classes are noise, but the same noise each time."""
    torch.manual_seed(seed)
    model = create_model(
        "vanilla", classes=len(table), base_channels=4, depth=2, padding="same", norm="batch"
    )
    network = Network(model, (0.4, 0.5, 0.6), (0.2, 0.3, 0.25), table)
    save_weights(network, path, {"train_size": [48, 64]})
    return path


def png_of(height: int = 60, width: int = 90) -> bytes:
    return saved(picture_of(height, width), "PNG")


def picture_of(height: int, width: int) -> Image.Image:
    """Coarse noise, always the same."""
    noise = np.random.default_rng(0).integers(0, 256, (12, 18, 3), np.uint8)
    return Image.fromarray(noise).resize((width, height))


def saved(image: Image.Image, format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def tiny_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A weights file of CamVid's eleven classes."""
    return weights_file(tmp_path_factory.mktemp("weights") / "tiny.safetensors")


@pytest.fixture(scope="module")
def page(tiny_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PageServer]:
    """A server that offers `tiny_weights`."""
    with page_served(Models([str(tiny_weights)]), tmp_path_factory.mktemp("uploads")) as server:
        yield server
