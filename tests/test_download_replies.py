"""What servers and networks say to `download`, and what it makes of that."""

from __future__ import annotations

import socket
import time
from email.utils import formatdate
from pathlib import Path

import pytest
import requests
from command_line import run
from downloads import TARGET, left, refused
from kaggle_server import (
    Handler,
    Reply,
    Server,
    assert_whole,
    cut_after,
    hang_up,
    page,
    silence,
    status,
)

from smp_camvid.data import http_fetch
from smp_camvid.data.network_errors import retry_after
from smp_camvid.data.part import total_of

pytestmark = pytest.mark.usefixtures("signed_in")


PAGE = "https://www.kaggle.com/datasets/carlolepelaars/camvid"


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (status(401), ("credentials from KAGGLE_USERNAME and KAGGLE_KEY (401)", "settings/api")),
        (status(403), ("refuses it this dataset (403)", "--source segnet", f"Open {PAGE} ")),
        (status(404), ("no such dataset any more (404)", f"in a browser from {PAGE}")),
        (status(418), ("refuses the request (418)",)),
        (status(500), ("trouble of its own at the moment (500)",)),
        (status(503), ("trouble of its own at the moment (503)",)),
        (page, ("a web page came back", "sign in")),
        (status(511), ("a web page came back", "sign in")),
        (hang_up, ("connection to Kaggle was cut",)),
    ],
)
@pytest.mark.parametrize("where", ["posts", "gets"])
def test_each_refusal_has_its_own_sentence(
    server: Server, reply: Reply, said: tuple[str, ...], where: str
) -> None:
    setattr(server, where, [reply] * 9)
    refused(run("download"), *said)
    assert left() == [] and not Path("data").exists()


def test_trouble_that_passes_is_waited_for(
    server: Server, original: Path, waits: list[float]
) -> None:
    server.posts = [status(503), status(502)]
    assert run("download").exit_code == 0
    assert waits == [1, 2]
    assert_whole(TARGET, original)


def test_too_many_requests_are_answered_with_patience(server: Server, waits: list[float]) -> None:
    soon = formatdate(time.time() + 30, usegmt=True)
    server.posts = [status(429, Retry_After="7"), status(429), status(429, Retry_After=soon)]
    done = run("download")
    assert done.exit_code == 0, done.output
    assert waits[:2] == [7, 10] and 25 < waits[2] <= 30
    assert "too many requests (429). Trying again in 7 s." in done.stderr


def test_patience_ends(server: Server, waits: list[float]) -> None:
    server.posts = [status(429, Retry_After="11")] * 9
    refused(run("download"), "too many requests (429)")
    assert waits == [11, 11, 20, 40]
    server.posts = [status(429, Retry_After="7200")]
    refused(run("download"), "asks to wait 7200 seconds. Run the same command again after that.")


@pytest.mark.parametrize("asked", ["0", "-3", "\u00b2", "9" * 400 + "x", "Wed, 32 Jul 2020"])
def test_no_header_makes_us_impolite(server: Server, waits: list[float], asked: str) -> None:
    server.posts = [status(429, Retry_After=asked)] * 9
    refused(run("download"), "too many requests (429)")
    assert waits == [5, 10, 20, 40]


def test_numbers_as_servers_write_them() -> None:
    assert retry_after("12") == 12 and retry_after("\u00b2") is None and retry_after(None) is None
    assert retry_after("9" * 400) == retry_after("Wed, 01 Jul 9999 08:00:00 GMT") == 30 * 86400
    assert retry_after("Wed, 01 Jul 2020 08:00:00 GMT") == 0
    response = requests.Response()
    response.headers["Content-Length"] = "\u00b2"
    assert total_of(response) is None


def test_a_circle_of_redirects(server: Server) -> None:
    def again(handler: Handler) -> None:
        handler.redirect()

    server.gets = [again] * 99
    refused(run("download"), "round in a circle of redirects", "--archive")


def test_a_portal_in_the_middle_does_not_cost_what_is_there(server: Server, original: Path) -> None:
    server.gets = [cut_after(50_000), page]
    refused(run("download"), "a web page came back", "are kept")
    assert run("download").exit_code == 0
    assert server.got_ranges[-1] is not None
    assert_whole(TARGET, original)


@pytest.mark.parametrize("where", ["posts", "gets"])
def test_a_server_that_falls_silent(
    server: Server, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    monkeypatch.setattr(http_fetch, "TIMEOUT", (0.3, 0.3))
    setattr(server, where, [silence(0.8)] * 9)
    refused(run("download"), "Kaggle stopped answering")


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def test_a_refused_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    refused(run("download"), "The proxy does not let the connection through")
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("SMP_CAMVID_SEGNET_URL", f"http://127.0.0.1:{free_port()}/a.zip")
    refused(run("download", "--source", "segnet"), "GitHub refuses the connection")


def test_a_name_that_nobody_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("SMP_CAMVID_SEGNET_URL", "http://camvid.invalid/a.zip")
    refused(run("download", "--source", "segnet"), "cannot be looked up")
