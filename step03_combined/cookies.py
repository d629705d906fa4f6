"""What an app that believes cookies must look at first: browsers send them by themselves. The same in steps 2 and 3."""

import os

from fastapi.responses import JSONResponse
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

if os.environ.get("HTTPS_ONLY", "false").lower() not in ("true", "false"):
    raise SystemExit("HTTPS_ONLY must be true or false.")
HTTPS_ONLY = os.environ.get("HTTPS_ONLY", "false").lower() == "true"
SCHEMES = ("https",) if HTTPS_ONLY else ("http", "https")


def cookie_name(name: str) -> str:
    """Return the name with the prefix by which browsers insist on Secure, Path=/ and this host alone (RFC 6265bis)."""
    return f"__Host-{name}" if HTTPS_ONLY else name


class CrossOriginProtection:
    """A middleware that refuses what another origin makes the browser send (CSRF, cross-site request forgery)."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on what comes from the app's own pages, and from clients that are no browser."""
        if scope["type"] == "http" and is_foreign(scope["method"], Headers(scope=scope)):
            await JSONResponse({"detail": "Refused: sent from another origin"}, 403)(scope, receive, send)
        else:
            await self.app(scope, receive, send)


def is_foreign(method: str, headers: Headers) -> bool:
    """Say whether what may change something comes from another origin (Fetch Metadata; RFC 6454); curl does not."""
    if method in ("GET", "HEAD", "OPTIONS"):
        return False
    if "sec-fetch-site" in headers:  # from every browser of today, over https or to localhost
        return headers["sec-fetch-site"] not in ("same-origin", "none")
    if "origin" in headers:
        host = headers.get("host", "")
        return not host or headers["origin"].lower() not in [f"{scheme}://{host.lower()}" for scheme in SCHEMES]
    return False  # curl sends neither header, and has nobody's cookies but its own
