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
import shlex
import sys
import warnings
from collections.abc import Iterator
from typing import Any

import requests
from requests.adapters import HTTPAdapter

from smp_camvid.data import http_fetch
from smp_camvid.data.kaggle_credentials import Sight, config_folder, look
from smp_camvid.data.network_errors import DownloadError, NotAnArchive
from smp_camvid.data.part import Resume, validator_of

OWNER, NAME = "carlolepelaars", "camvid"
PAGE = f"https://www.kaggle.com/datasets/{OWNER}/{NAME}"
TOKENS = "https://www.kaggle.com/settings/api"


class KaggleSource:
    """The 701 frames at 960x720 with 32 colours, as an archive (see `delivery.ArchiveSource`)."""

    server = "Kaggle"
    page = PAGE
    frames = 701
    credentials = ""
    """What the last `open` signed in with, by name."""

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
        sight = look()  # before the client, which removes a login that is refused
        self.credentials = sight.first or ""
        api = _start_client()
        _sign_in(api, sight)
        method = str(api.config_values.get(api.CONFIG_NAME_AUTH_METHOD))
        self.credentials = sight.used(method) or self.credentials
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
            raise _of_the_client(error, sight) from None


def _start_client() -> Any:
    try:
        from kaggle.api.kaggle_api_extended import KaggleApi
    except OSError as error:
        raise DownloadError(
            f"The kaggle package cannot make its folder {config_folder()}: "
            f"{error.strerror or type(error).__name__}.",
            "Set HOME, or KAGGLE_CONFIG_DIR, to a folder that can be written.",
        ) from None
    except Exception as error:
        raise DownloadError(
            f"The kaggle package does not start ({type(error).__name__}).",
            "Reinstall it: pip install --upgrade kaggle six. Or use --archive with a zip "
            f"downloaded in a browser from {PAGE}.",
        ) from None
    # With VERBOSE in the environment it would print the token, and read the archive into memory.
    KaggleApi.args = [word for word in KaggleApi.args if word not in ("-v", "--verbose")]
    return KaggleApi()


def _sign_in(api: Any, sight: Sight) -> None:
    """By whatever means the client knows."""
    try:
        api.authenticate()
    except SystemExit:
        raise _nobody(sight) from None
    except http_fetch.FAILURES:
        raise
    except Exception as error:
        raise _of_the_client(error, sight) from None


def _nobody(sight: Sight) -> DownloadError:
    if sight.first:
        message = f"Kaggle cannot use the credentials in {sight.first}: expired?"
    elif sight.faults:
        message = f"Kaggle needs to know who downloads, but {'; '.join(sight.faults)}."
    else:
        message = "Kaggle needs to know who downloads; no credentials found."
    return DownloadError(message, three_ways())


def three_ways() -> str:
    """How to let Kaggle know who asks, the shortest first."""
    own = os.environ.get("KAGGLE_CONFIG_DIR")
    folder = shlex.quote(own) if own else "~/.kaggle"
    return f"""One of these is enough:
  1. a token: press "Generate New Token" at {TOKENS}, then
     export KAGGLE_API_TOKEN=...
  2. kaggle.json: on the same page, under "Legacy API Credentials", expire the old token,
     press "Create Legacy API Key", then
     mkdir -p {folder} && mv ~/Downloads/kaggle.json {folder}/ && chmod 600 {folder}/kaggle.json
  3. the zip from {PAGE} in a browser, then
     smp-camvid download --archive FILE.zip
Without an account: smp-camvid download --source segnet"""


def _of_the_client(error: Exception, sight: Sight) -> Exception:
    if isinstance(error, json.JSONDecodeError):  # it read a page as an answer of the API
        return NotAnArchive()
    if sight.faults and (isinstance(error, OSError) or not sight.first):
        return _nobody(Sight(faults=sight.faults))
    # Its text is left out: for a token with a line break in it, the text is the token.
    return DownloadError(
        f"The kaggle package gave up ({type(error).__name__}).",
        "Check that the token or kaggle.json holds no spaces or line breaks, or use --archive "
        f"with a zip downloaded in a browser from {PAGE}.",
    )


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
