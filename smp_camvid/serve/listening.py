"""The socket and the server process of the page."""

from __future__ import annotations

import contextlib
import os
import socket

import uvicorn
from starlette.types import ASGIApp

from smp_camvid.errors import DeviceError

MOST_CONNECTIONS = 32


def bound(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes a free one.

    Raises DeviceError, with a free port to try, when it is taken, and when there is no such host.
    """
    try:
        return _listen(host, port)
    except OSError as error:
        reason = f"The page cannot be opened on {host}, port {port}: {error.strerror or error}."
        free = next((p for p in range(port + 1, min(port + 20, 65536)) if _is_free(host, p)), None)
        raise DeviceError(reason, f"Try: smp-camvid serve --port {free}" if free else "") from error


def _listen(host: str, port: int) -> socket.socket:
    family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
    return socket.create_server((host, port), family=family)


def _is_free(host: str, port: int) -> bool:
    with contextlib.suppress(OSError), _listen(host, port):
        return True
    return False


def serve(app: ASGIApp, door: socket.socket) -> None:
    """Answers until SIGINT or SIGTERM, which then has the effect it had before the call."""
    server_of(app).run(sockets=[door])


def server_of(app: ASGIApp) -> uvicorn.Server:
    debug = os.environ.get("SMP_CAMVID_DEBUG") == "1"
    config = uvicorn.Config(
        app,
        access_log=False,
        log_config=None,
        log_level="error" if debug else "critical",  # the page says it in words
        http="h11",
        ws="none",
        lifespan="off",
        proxy_headers=False,
        server_header=False,
        limit_concurrency=MOST_CONNECTIONS,
        timeout_graceful_shutdown=1,
    )
    return uvicorn.Server(config)
