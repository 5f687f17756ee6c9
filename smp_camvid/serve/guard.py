"""Who may speak to the page: this browser tab, and nobody else's page.

Another site cannot make a browser drive the server: its requests name it in Origin or
Sec-Fetch-Site, a name of its own that it points at this machine (DNS rebinding) stands in Host, and
it does not know the key, which only the printed address holds, after the #.  No answer carries
CORS headers.
"""

from __future__ import annotations

import hmac
import ipaddress
import socket
from collections.abc import Mapping
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

KEY_HEADER = "X-Page-Key"

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


class Guard:
    """ASGI middleware: refuses strangers, and adds `HEADERS` to every answer."""

    def __init__(self, app: ASGIApp, key: str, host: str = "127.0.0.1") -> None:
        """`key` is asked for below /api; `host` is the name the server was told to listen on."""
        self._app = app
        self._key = key
        self._names = {"localhost", host.lower(), socket.gethostname().lower()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return  # nothing here speaks anything else

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        headers = Headers(scope=scope)
        reason = self._refusal(headers, scope["path"].startswith("/api/"))
        app = self._app if reason is None else JSONResponse({"error": reason}, 403)
        await app(scope, receive, send_with_headers)

    def _refusal(self, headers: Mapping[str, str], is_api: bool) -> str | None:
        host = headers.get("host", "")
        if not self._is_own(host):
            return "The page is not known under this name; open the address that was printed."
        if urlsplit(headers.get("origin", f"http://{host}")).netloc != host:
            return "Other sites may not use this page."
        if not is_api:
            return None
        if headers.get("sec-fetch-site", "same-origin") != "same-origin":
            return "Other sites may not use this page."
        if not hmac.compare_digest(headers.get(KEY_HEADER, "").encode(), self._key.encode()):
            return (
                "The key of this page is missing or old. Open the address that smp-camvid serve "
                "printed, with everything after the #."
            )
        return None

    def _is_own(self, host: str) -> bool:
        """Own names, and plain addresses: what is no name cannot be pointed somewhere else."""
        try:
            name = urlsplit(f"//{host}").hostname or ""
            return name in self._names or bool(ipaddress.ip_address(name))
        except ValueError:
            return False
