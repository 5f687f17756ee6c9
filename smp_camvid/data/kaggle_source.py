"""CamVid from Kaggle, by way of the `kaggle` package.

The package signs in, asks for the dataset and follows the redirect; the body is read by
`http_fetch`.  Its own `dataset_download_files` is not used: it has no hook for progress, checks
sizes only, keeps a bad zip for ever, saves a sign-in page as the zip and unpacks in place.

`import kaggle` signs in at once, prints, waits without limit for a silent server, and may end the
process.  So it is imported only here, only when asked, inside `_contained`.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import requests
from requests.adapters import HTTPAdapter

from smp_camvid.data import http_fetch
from smp_camvid.data.http_fetch import Resume, validator_of
from smp_camvid.data.network_errors import DownloadError, NotAnArchive

OWNER, NAME = "carlolepelaars", "camvid"
PAGE = f"https://www.kaggle.com/datasets/{OWNER}/{NAME}"
TOKENS = "https://www.kaggle.com/settings/api"

THREE_WAYS = f"""One of these is enough:
  1. a token from {TOKENS} in the environment:
     export KAGGLE_API_TOKEN=...
  2. kaggle.json: on the same page expire the old token, create a new one, then
     mv kaggle.json ~/.kaggle/ && chmod 600 ~/.kaggle/kaggle.json
  3. the zip from {PAGE} in a browser, then:
     smp-camvid download --archive FILE.zip
Without an account: smp-camvid download --source segnet"""


class KaggleSource:
    """The 701 frames at 960x720 with 32 colours, as an archive (see `delivery.ArchiveSource`)."""

    server = "Kaggle"
    frames = 701

    def open(self, resume: Resume | None) -> requests.Response:
        """Asks Kaggle for the archive.  Raises DownloadError, or what `requests` raises."""
        with _contained():
            response = self._ask()
        goes_on = (
            resume is not None
            and response.request.method == "GET"  # so a redirect has led to a plain file
            and response.ok
            and validator_of(response) == resume.validator
        )
        if resume is None or not goes_on:
            return response
        response.close()
        headers = dict(resume.headers)
        if "Authorization" in response.request.headers:
            headers["Authorization"] = str(response.request.headers["Authorization"])
        return requests.get(response.url, headers=headers, stream=True, timeout=http_fetch.TIMEOUT)

    def _ask(self) -> requests.Response:
        api = _signed_in()
        try:
            from kagglesdk.datasets.types.dataset_api_service import ApiDownloadDatasetRequest

            request = ApiDownloadDatasetRequest()
            request.owner_slug, request.dataset_slug = OWNER, NAME
            with api.build_kaggle_client() as client:
                response: requests.Response = client.datasets.dataset_api_client.download_dataset(
                    request
                )
            return response
        except http_fetch.FAILURES:
            raise
        except Exception as error:
            raise _of_the_client(error) from None


def _signed_in() -> Any:
    """The client, signed in by whatever means it knows."""
    try:
        from kaggle.api.kaggle_api_extended import KaggleApi
    except Exception as error:
        raise DownloadError(
            f"The kaggle package does not start ({type(error).__name__}).",
            "Reinstall it: pip install --upgrade kaggle six. Or use --archive with a zip "
            f"downloaded in a browser from {PAGE}.",
        ) from None
    # With VERBOSE in the environment it would print the token, and read the archive into memory.
    KaggleApi.args = [word for word in KaggleApi.args if word not in ("-v", "--verbose")]
    api = KaggleApi()
    try:
        api.authenticate()
    except SystemExit:
        raise _nobody() from None
    except http_fetch.FAILURES:
        raise
    except Exception as error:
        raise _of_the_client(error) from None
    return api


def _nobody() -> DownloadError:
    found = credentials_in_sight()
    if found is None:
        return DownloadError(
            "Kaggle needs to know who downloads; no credentials found.", THREE_WAYS
        )
    return DownloadError(f"Kaggle cannot use the credentials in {found}: expired?", THREE_WAYS)


def _of_the_client(error: Exception) -> Exception:
    if isinstance(error, json.JSONDecodeError):  # it read a page as an answer of the API
        return NotAnArchive()
    # Its text is left out: for a token with a line break in it, the text is the token.
    return DownloadError(
        f"The kaggle package gave up ({type(error).__name__}).",
        "Check that the token or kaggle.json holds no spaces or line breaks, or use --archive "
        f"with a zip downloaded in a browser from {PAGE}.",
    )


def credentials_in_sight() -> str | None:
    """Where the client would find credentials, by name; None when nowhere.

    Looks at the environment and at files only: nothing is imported, sent or tried out.
    """
    for names in (("KAGGLE_API_TOKEN",), ("KAGGLE_USERNAME", "KAGGLE_KEY")):
        if all(os.environ.get(name) for name in names):
            return " and ".join(names)
    home = Path.home() / ".kaggle"
    config = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    own = os.environ.get("KAGGLE_CONFIG_DIR")
    places = [
        home / "access_token", home / "access_token.txt",
        *([Path(own) / "kaggle.json"] if own else []), home / "kaggle.json",
        Path(config) / "kaggle" / "kaggle.json", home / "credentials.json",
    ]  # fmt: skip
    return next((str(path) for path in places if path.is_file()), None)


class _Nowhere(io.TextIOBase):
    """Swallows what is written, also after the block: the client's log handler keeps it."""

    def write(self, text: str) -> int:
        return len(text)


@contextlib.contextmanager
def _contained() -> Iterator[None]:
    """Keeps the client from printing, from waiting without end and from closing stdin."""
    send = HTTPAdapter.send

    def send_with_patience(
        self: HTTPAdapter, request: Any, stream: bool = False, timeout: Any = None, **rest: Any
    ) -> requests.Response:
        return send(self, request, stream, timeout or http_fetch.TIMEOUT, **rest)

    stdin = sys.stdin
    with (
        contextlib.redirect_stdout(_Nowhere()),
        contextlib.redirect_stderr(_Nowhere()),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        HTTPAdapter.send = send_with_patience  # type: ignore[assignment,method-assign]
        sys.stdin = io.StringIO()  # the builtin exit() that it calls closes it
        try:
            yield
        finally:
            HTTPAdapter.send = send  # type: ignore[method-assign]
            sys.stdin = stdin
