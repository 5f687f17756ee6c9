"""From a request's body to a file in the temporary folder, and no larger than allowed."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from starlette.exceptions import HTTPException
from starlette.requests import Request

MOST_BYTES = 50 * 2**20
SECONDS = 120
"""For a whole upload."""
REFUSED = 200
"""With {"error": ...}, for a picture that is none: a browser calls every status of failure an error
of the page, and there is none."""


@asynccontextmanager
async def uploaded(request: Request, folder: Path) -> AsyncIterator[Path]:
    """The body as a file in `folder` that is gone afterwards.

    Raises HTTPException: 413 for more than `MOST_BYTES`, said or sent, 408 when it takes longer
    than `SECONDS`, `REFUSED` for nothing.
    """
    if int(request.headers.get("content-length", 0)) > MOST_BYTES:
        raise _too_large()
    path = folder / secrets.token_hex(16)
    try:
        try:
            async with asyncio.timeout(SECONDS):
                await _receive(request, path)
        except TimeoutError as error:
            raise HTTPException(408, "The upload took too long. Try again.") from error
        yield path
    finally:
        path.unlink(missing_ok=True)


async def _receive(request: Request, path: Path) -> None:
    received = 0
    with path.open("xb") as file:
        async for chunk in request.stream():
            received += len(chunk)
            if received > MOST_BYTES:
                raise _too_large()
            file.write(chunk)
    if not received:
        raise HTTPException(REFUSED, "The file is empty.")


def _too_large() -> HTTPException:
    return HTTPException(413, f"The file is larger than {MOST_BYTES // 2**20} MB.")
