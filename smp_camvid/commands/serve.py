"""smp-camvid serve."""

from __future__ import annotations

import atexit
import contextlib
import importlib.util
import ipaddress
import os
import secrets
import signal
import socket
import tempfile
import threading
import webbrowser
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from smp_camvid.commands.options import Device
from smp_camvid.errors import UsageError


def serve(
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            metavar="RUN|FILE|NAME",
            help="A model to offer beside the runs under ./runs and the shipped one; repeatable.",
        ),
    ] = None,
    host: Annotated[
        str, typer.Option("--host", help="Address to listen on; by default only this machine's.")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option("--port", min=0, max=65535, help="Port to listen on; 0 takes a free one.")
    ] = 8000,
    open_browser: Annotated[
        bool, typer.Option("--open", help="Open the page in the browser.")
    ] = False,
    device: Device = "auto",
) -> None:
    """Open a page on this machine where pictures can be tried on a model."""
    _check_extra()
    from smp_camvid.serve import listening
    from smp_camvid.serve.application import build_app
    from smp_camvid.serve.choices import Models

    with (
        _sigterm_like_ctrl_c(),
        listening.bound(host, port) as door,
        tempfile.TemporaryDirectory(prefix="smp-camvid-") as folder,
    ):
        models = Models(model or (), device)
        segmenter = models.load_default()
        key = secrets.token_urlsafe(16)
        address = address_of(door, host, key)
        _announce(address, host, f"{segmenter.source} on {segmenter.device}")
        if open_browser:  # one that runs in this terminal would block
            threading.Thread(target=webbrowser.open, args=[address], daemon=True).start()
        try:
            listening.serve(build_app(models, Path(folder), key, host), door)
        except KeyboardInterrupt:
            typer.echo("stopped", err=True)
    _leave_unfinished_work()


def _check_extra() -> None:
    if not all(importlib.util.find_spec(name) for name in ("starlette", "uvicorn")):
        raise UsageError(
            "The page needs packages that are not installed.", "pip install 'smp-camvid[serve]'"
        )


@contextlib.contextmanager
def _sigterm_like_ctrl_c() -> Iterator[None]:
    """It too has to leave the temporary folder removed."""

    def leave(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _leave_unfinished_work() -> None:
    """Ends the process if a picture is still computed, which nobody waits for any more.

    The interpreter would wait for that thread, and a second Ctrl-C show a traceback of its own.
    """
    others = (thread for thread in threading.enumerate() if thread is not threading.main_thread())
    if not all(thread.daemon for thread in others):
        atexit._run_exitfuncs()  # imported packages remove their temporary folders there
        os._exit(0)


def _announce(address: str, host: str, model: str) -> None:
    if not _is_loopback(host):
        typer.echo(
            f"smp-camvid: with --host {host} every machine that reaches this one reaches the page. "
            "Whoever has the key after the # can use it, and it crosses the network unencrypted.",
            err=True,
        )
    typer.echo(f"model   {model}", err=True)
    typer.echo(address)
    typer.echo("Open this address in a browser; Ctrl-C stops the page.", err=True)


def address_of(door: socket.socket, host: str, key: str) -> str:
    """What to open; of a host that means all addresses, the one of this machine itself."""
    name = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://{f'[{name}]' if ':' in name else name}:{door.getsockname()[1]}/#{key}"


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
