"""What went wrong between here and a server, in a plain sentence each.

The text of the original exceptions never gets through: it holds signed addresses, and in bad
cases the token itself.
"""

from __future__ import annotations

import email.utils
import http.client
import time
from collections.abc import Iterator
from dataclasses import dataclass

import requests

from smp_camvid.errors import DataError

_BY_HAND = "--archive with a zip downloaded in a browser"


class DownloadError(DataError):
    """The network, or the server at its other end, said no."""


@dataclass(frozen=True)
class Trouble:
    """A failure in words, and how often it is worth another try."""

    message: str
    hint: str = ""
    tries: int = 1
    """How many failures in a row end it."""
    first_wait: float = 1.0
    """Seconds before the second try; doubled from then on."""
    wait: float | None = None
    """Seconds the server asked for."""

    def error(self) -> DownloadError:
        return DownloadError(self.message, self.hint)


class Cut(Exception):  # noqa: N818  # an end of the body before its time, not an error of ours
    """The body ended before all of it was there."""


class NotAnArchive(Exception):  # noqa: N818  # told to the user as a Trouble
    """A web page came where the archive, or an answer of an API, was due."""


def explain(error: Exception, server: str) -> Trouble:
    """Puts what `requests`, or the layers below it, raised into words about `server`."""
    if isinstance(error, requests.HTTPError) and error.response is not None:
        return _status(error.response, server)
    if isinstance(error, NotAnArchive | requests.JSONDecodeError):
        return _portal(server)
    return _connection(error, server)


def _portal(server: str) -> Trouble:
    return Trouble(
        f"Instead of {server}'s answer a web page came back: the network probably wants a "
        "sign-in first (hotel, campus, company).",
        "Open any page in a browser, sign in, then run the same command again.",
    )


def _other_ways(server: str) -> str:
    other = "--source segnet (no account)" if server == "Kaggle" else "--source kaggle"
    return f"Other ways: {_BY_HAND}, or {other}."


def _status(response: requests.Response, server: str) -> Trouble:
    code, other_ways = response.status_code, _other_ways(server)
    if code == 429:
        wait = retry_after(response.headers.get("Retry-After"))
        return Trouble(
            f"{server} answers too many requests (429).",
            "Wait some minutes, then run the same command again.",
            tries=5,
            first_wait=5.0,
            wait=wait,
        )
    if code == 511:  # what a well-behaved portal says
        return _portal(server)
    if code >= 500:
        return Trouble(
            f"{server} has trouble of its own at the moment ({code}).",
            f"Try again later. {other_ways}",
            tries=4,
        )
    if code == 407:
        return _proxy()
    if code in (401, 403) and server != "Kaggle":
        return Trouble(f"{server} refuses the request ({code}).", other_ways)
    said = {
        401: (
            f"{server} does not accept the credentials (401): mistyped, expired or revoked.",
            "Make a new token at https://www.kaggle.com/settings/api and put it in place of "
            "the old one.",
        ),
        403: (
            f"{server} knows the account and refuses it this dataset (403).",
            "Open the dataset's page in a browser while signed in, accept what it asks, and try "
            f"again. {other_ways}",
        ),
        404: (f"{server} has no such dataset any more (404).", other_ways),
    }
    message, hint = said.get(code, (f"{server} refuses the request ({code}).", other_ways))
    return Trouble(message, hint)


def _proxy() -> Trouble:
    return Trouble(
        "The proxy does not let the connection through.",
        "Look at http_proxy, https_proxy and no_proxy in the environment.",
        tries=3,
    )


def _connection(error: Exception, server: str) -> Trouble:
    causes = list(_causes(error))
    if any(isinstance(e, requests.exceptions.SSLError) for e in causes):
        return Trouble(
            f"The secure connection to {server} cannot be verified.",
            "Look at the clock; behind a company's proxy, point REQUESTS_CA_BUNDLE at its "
            "certificate.",
        )
    # Through a proxy every failure is called the proxy's, also a cut behind it.
    cut = any(isinstance(e, http.client.RemoteDisconnected | ConnectionResetError) for e in causes)
    if not cut and any(isinstance(e, requests.exceptions.ProxyError) for e in causes):
        return _proxy()
    if any(isinstance(e, ConnectionRefusedError) for e in causes):
        return Trouble(
            f"{server} refuses the connection.", f"Try again. {_other_ways(server)}", tries=3
        )
    if any("NameResolution" in type(e).__name__ for e in causes):
        return Trouble(
            f"The name of {server}'s server cannot be looked up: there seems to be no network.",
            "Check the connection, then run the same command again.",
            tries=3,
        )
    if any(isinstance(e, requests.Timeout | TimeoutError) for e in causes):
        return Trouble(
            f"{server} stopped answering.", "Run the same command again in a while.", tries=5
        )
    return Trouble(f"The connection to {server} was cut.", "Run the same command again.", tries=5)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and what it was made from: requests and urllib3 wrap each other by argument."""
    seen: list[BaseException] = []
    queue: list[object] = [error]
    while queue:
        one = queue.pop(0)
        if not isinstance(one, BaseException) or any(one is other for other in seen):
            continue
        seen.append(one)
        yield one
        queue += [one.__cause__, one.__context__, getattr(one, "reason", None), *one.args]


def retry_after(value: str | None) -> float | None:
    """Seconds from a Retry-After header, which holds a number or a date; None without either."""
    if value is None:
        return None
    if value.strip().isdigit():
        return float(value)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return None
