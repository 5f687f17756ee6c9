"""The page's server: whom it answers, and what it lets a browser do."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from page_server import KEY, PageServer, png_of

import smp_camvid
from smp_camvid.serve.guard import KEY_HEADER

PAGE = Path(smp_camvid.__file__).parent / "serve" / "page"


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example:80", "", "[", "a b"]
)
def test_other_names_for_this_machine_are_refused(page: PageServer, host: str) -> None:
    for path in ("/", "/api/models"):
        assert page.ask("GET", path, headers={"Host": host}).status in (400, 403)


@pytest.mark.parametrize("host", ["localhost", "localhost:9000", "127.0.0.1", "[::1]:8000"])
def test_its_own_names_are_not(page: PageServer, host: str) -> None:
    assert page.ask("GET", "/api/models", headers={"Host": host}).status == 200


@pytest.mark.parametrize(
    "strange",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {KEY_HEADER: ""},
        {KEY_HEADER: "guess"},
        {KEY_HEADER: "schl\u00fcssel"},
    ],
    ids=str,
)
def test_other_sites_and_other_keys_are_refused(page: PageServer, strange: dict[str, str]) -> None:
    answer = page.ask("POST", f"/api/pictures?model={page.first_model()}", png_of(), strange)
    assert answer.status == 403
    assert "Access-Control-Allow-Origin" not in answer.headers
    assert list(page.folder.iterdir()) == []


def test_the_same_origin_is_not(page: PageServer) -> None:
    own = {"Origin": page.origin, "Sec-Fetch-Site": "same-origin"}
    answer = page.ask("POST", f"/api/pictures?model={page.first_model()}", png_of(), own)
    assert answer.status == 200
    assert "Access-Control-Allow-Origin" not in answer.headers


def test_a_preflight_is_not_answered(page: PageServer) -> None:
    preflight = {
        "Origin": "https://evil.example", KEY_HEADER: "",
        "Access-Control-Request-Method": "POST",
    }  # fmt: skip
    answer = page.ask("OPTIONS", "/api/pictures", headers=preflight)
    assert answer.status == 403
    assert not [name for name in answer.headers if name.lower().startswith("access-control")]


def test_nothing_happens_on_get(page: PageServer) -> None:
    assert page.ask("GET", f"/api/pictures?model={page.first_model()}").status == 404


def test_files_beside_the_page_cannot_be_had(page: PageServer) -> None:
    for path in ("/../application.py", "/%2e%2e/application.py", "/..%2fapplication.py", "/x"):
        assert page.ask("GET", path).status == 404
    for path in ("/api/results/x/mask.png", "/api/results/../models/x"):
        assert page.ask("GET", path).status == 404


def test_what_cannot_be_drawn(page: PageServer) -> None:
    id = page.upload(png_of()).json["id"]
    assert page.ask("GET", f"/api/results/{id}/passwd").status == 404
    for opacity in ("101", "-1", "x", "1e9", "%C2%B2"):
        assert page.ask("GET", f"/api/results/{id}/overlay.png?opacity={opacity}").status == 400


# --- what a browser gets -----------------------------------------------------------------------


def test_the_page_needs_nothing_from_elsewhere(page: PageServer) -> None:
    assert page.ask("GET", "/", headers={KEY_HEADER: ""}).body == (PAGE / "index.html").read_bytes()
    for file in PAGE.iterdir():
        answer = page.ask("GET", f"/{file.name}")
        assert answer.status == 200
        text = answer.body.decode().replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?:|[\"'(]//|@import|data:", text), file.name
    script = page.ask("GET", "/page.js").headers["Content-Type"]
    assert script.startswith("text/javascript")


def test_every_answer_forbids_what_the_page_does_not_need(page: PageServer) -> None:
    for path in ("/", "/page.js", "/nothing", "/api/models", "/api/results/x/mask.png"):
        for key in (KEY, "wrong"):
            headers = page.ask("GET", path, headers={KEY_HEADER: key}).headers
            policy = headers["Content-Security-Policy"]
            assert "default-src 'none'" in policy and "unsafe" not in policy
            assert headers["X-Content-Type-Options"] == "nosniff"
            assert headers["Cache-Control"] == "no-store"
            assert headers["X-Frame-Options"] == "DENY"
            assert "server" not in headers
