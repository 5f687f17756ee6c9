"""What the page asks the server for.

GET  /                                the page itself, static files
GET  /api/models                      the models to pick from, and the largest upload
POST /api/pictures?model=ID           body: a picture file -> a result's id, classes and shares
GET  /api/results/ID/view.jpg         the picture as it is drawn, view.classes its class indices
GET  /api/results/ID/mask.png         to keep, like color.png and overlay.png?opacity=0..100

A picture is decoded, segmented or encoded by one thread at a time, so that two tabs do not need
the memory of two.
"""

from __future__ import annotations

import asyncio
import mimetypes
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from smp_camvid.data.pictures import read_picture
from smp_camvid.errors import SmpCamvidError
from smp_camvid.inference.predictor import Segmenter
from smp_camvid.serve.choices import Models
from smp_camvid.serve.guard import Guard
from smp_camvid.serve.results import Result, Results, png, result_of
from smp_camvid.serve.uploads import MOST_BYTES, REFUSED, uploaded

PAGE = Path(__file__).parent / "page"
TURN_SECONDS = 120
"""How long a request waits for those before it."""

# Some Windows registries say text/plain, which browsers refuse to run.
mimetypes.add_type("text/javascript", ".js")


def build_app(models: Models, folder: Path, key: str, host: str = "127.0.0.1") -> Starlette:
    """The page as an ASGI application.

    `folder` is where uploads are for the moment, `key` what every request below /api has to bring.
    """
    service = Service(models, folder)
    return Starlette(
        routes=[
            Route("/api/models", service.models, methods=["GET"]),
            Route("/api/pictures", service.segment, methods=["POST"]),
            Route("/api/results/{id}/{name}", service.result, methods=["GET"]),
            Mount("/", StaticFiles(directory=PAGE, html=True)),
        ],
        middleware=[Middleware(Guard, key=key, host=host)],
        exception_handlers={
            HTTPException: _told,
            ClientDisconnect: _nobody_there,
        },
    )


class Service:
    """The answers, and the state behind them."""

    def __init__(self, models: Models, folder: Path) -> None:
        self._models, self._folder = models, folder
        self._results = Results()
        self._turn = asyncio.Lock()

    async def models(self, request: Request) -> Response:
        choices = await run_in_threadpool(self._models.choices)
        listed = [{"id": id, "label": choice.label} for id, choice in choices.items()]
        return JSONResponse({"models": listed, "most_bytes": MOST_BYTES})

    async def segment(self, request: Request) -> Response:
        model = request.query_params.get("model", "")
        async with uploaded(request, self._folder) as path:
            return JSONResponse(await self._in_turn(lambda: self._segment(path, model)))

    def _segment(self, path: Path, model: str) -> dict[str, Any]:
        segmenter = self._models.load(model)
        began = time.perf_counter()
        picture, notes = read_picture(path, "This file")
        prediction = segmenter.predict(picture)
        result = result_of(prediction)
        seconds = time.perf_counter() - began
        described = _described(result, segmenter, seconds)
        return {"id": self._results.add(result), "notes": notes, **described}

    async def result(self, request: Request) -> Response:
        result = self._results.get(request.path_params["id"])
        if result is None:
            raise HTTPException(404, "This result is no longer kept. Choose the picture again.")
        name = request.path_params["name"]
        if name == "view.jpg":
            return Response(result.view_picture, media_type="image/jpeg")
        if name == "view.classes":
            packed = {"Content-Encoding": "gzip"}
            return Response(
                result.view_classes, media_type="application/octet-stream", headers=packed
            )
        draw = _download(result, name, request.query_params.get("opacity", "50"))
        return Response(await self._in_turn(draw), media_type="image/png")

    async def _in_turn(self, work: Callable[[], Any]) -> Any:
        async with self._its_turn():
            try:
                return await run_in_threadpool(work)
            except SmpCamvidError as error:
                raise HTTPException(REFUSED, str(error)) from error
            except MemoryError as error:
                raise HTTPException(500, "Out of memory. Scale the picture down.") from error
            except Exception as error:
                reason = f"{type(error).__name__}: {error}".strip().splitlines()[0]
                raise HTTPException(500, f"It did not work. {reason}") from error

    @asynccontextmanager
    async def _its_turn(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(TURN_SECONDS):
                await self._turn.acquire()
        except TimeoutError as error:
            raise HTTPException(503, "Other pictures are being computed. Try again.") from error
        try:
            yield
        finally:
            self._turn.release()


def _described(result: Result, segmenter: Segmenter, seconds: float) -> dict[str, Any]:
    """What the page shows; the classes in the model's order, shares from 0 to 1."""
    table, (height, width) = segmenter.table, result.prediction.mask.shape
    shares = result.prediction.shares()
    return {
        "size": [height, width],
        "view_size": result.view_size,
        "seconds": seconds,
        "device": str(segmenter.device),
        "classes": [
            {"name": name, "color": list(color), "share": shares.get(name, 0.0)}
            for name, color in zip(table.names, table.colors, strict=True)
        ],
    }


def _download(result: Result, name: str, opacity: str) -> Callable[[], bytes]:
    """What encodes the PNG of this name.  Raises HTTPException for an unknown one."""
    prediction = result.prediction
    if not (opacity.isascii() and opacity.isdigit() and int(opacity) <= 100):
        raise HTTPException(400, "The opacity is a number from 0 to 100.")
    pngs: dict[str, Callable[[], bytes]] = {
        "mask.png": lambda: png(prediction.mask),
        "color.png": lambda: png(prediction.table.colorize(prediction.mask)),
        # A photograph: as zlib does by default it takes four times as long, for 6 % fewer bytes.
        "overlay.png": lambda: png(prediction.overlay(int(opacity) / 100), compress_level=2),
    }
    if name not in pngs:
        raise HTTPException(404, "There is nothing of this name.")
    return pngs[name]


async def _told(request: Request, error: Exception) -> Response:
    """A failure as a sentence that the page can show."""
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, error.status_code, error.headers)


async def _nobody_there(request: Request, error: Exception) -> Response:
    return Response(status_code=400)
