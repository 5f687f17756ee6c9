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

_MONTH = 30 * 86400.0  # no server's wait is longer in our words


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


@dataclass(frozen=True)
class Peer:
    """The other end, as far as sentences need it."""

    name: str
    """ "Kaggle"."""
    page: str = ""
    """Where somebody with a browser gets the archive."""
    credentials: str = ""
    """What we signed in with, by name: never what is in it."""
    what: str = "dataset"
    """What is asked for; only a dataset can be had in other ways."""

    @property
    def other_ways(self) -> str:
        if self.what != "dataset":
            return ""
        return f"Other ways: {self.by_hand}, or {self.other_source}."

    @property
    def by_hand(self) -> str:
        at = f" from {self.page}" if self.page else ""
        return f"--archive with a zip downloaded in a browser{at}"

    @property
    def other_source(self) -> str:
        return "--source segnet (no account)" if self.name == "Kaggle" else "--source kaggle"


class Cut(Exception):  # noqa: N818  # an end of the body before its time, not an error of ours
    """The body ended before all of it was there."""


class NotAnArchive(Exception):  # noqa: N818  # told to the user as a Trouble
    """A web page came where the archive, or an answer of an API, was due."""


def explain(error: Exception, peer: Peer) -> Trouble:
    """Puts what `requests`, or the layers below it, raised into words about `peer`."""
    if isinstance(error, requests.HTTPError) and error.response is not None:
        return _status(error.response, peer)
    if isinstance(error, NotAnArchive | requests.JSONDecodeError):
        return _portal(peer)
    if isinstance(error, requests.TooManyRedirects):
        message = f"{peer.name} sends the request round in a circle of redirects."
        return Trouble(message, f"Try again later. {peer.other_ways}")
    return _connection(error, peer)


def _portal(peer: Peer) -> Trouble:
    return Trouble(
        f"Instead of {peer.name}'s answer a web page came back: the network probably wants a "
        "sign-in first (hotel, campus, company).",
        "Open any page in a browser, sign in, then run the same command again.",
    )


def _status(response: requests.Response, peer: Peer) -> Trouble:
    code, server, other_ways = response.status_code, peer.name, peer.other_ways
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
        return _portal(peer)
    if code >= 500:
        return Trouble(
            f"{server} has trouble of its own at the moment ({code}).",
            f"Try again later. {other_ways}",
            tries=4,
        )
    if code == 407:
        return _proxy()
    if code in (401, 403) and server == "Kaggle":
        return _kaggle_refuses(code, peer)
    if code == 404:
        more = " any more" if peer.what == "dataset" else ""
        return Trouble(f"{server} has no such {peer.what}{more} (404).", other_ways)
    return Trouble(f"{server} refuses the request ({code}).", other_ways)


def _kaggle_refuses(code: int, peer: Peer) -> Trouble:
    if code == 401:
        where = f" from {peer.credentials}" if peer.credentials else ""
        return Trouble(
            f"Kaggle does not accept the credentials{where} (401): mistyped, expired or revoked.",
            "Make a new token at https://www.kaggle.com/settings/api and put it in place of "
            "the old one.",
        )
    return Trouble(
        "Kaggle knows the account and refuses it this dataset (403).",
        f"Open {peer.page or 'its page'} in a browser while signed in, accept what it asks, and "
        f"try again. Other ways: --archive with the zip from that page, or {peer.other_source}.",
    )


def _proxy() -> Trouble:
    return Trouble(
        "The proxy does not let the connection through.",
        "Look at http_proxy, https_proxy and no_proxy in the environment.",
        tries=3,
    )


def _connection(error: Exception, peer: Peer) -> Trouble:
    server = peer.name
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
            f"{server} refuses the connection.", f"Try again. {peer.other_ways}", tries=3
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
    try:
        if value.strip().isdigit():  # of a raised 2 too, which is no number to float
            return min(float(value), _MONTH)
        wait = email.utils.parsedate_to_datetime(value).timestamp() - time.time()
    except (ValueError, TypeError, OverflowError):
        return None
    return min(max(0.0, wait), _MONTH)
