"""No step's idea, but what every app needs: key, page, 422, bodies, cookies, headers. The same in all steps."""

import logging
import os
import secrets
from pathlib import Path

from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

log = logging.getLogger("uvicorn.error")  # uvicorn prints this logger; one of our own would need a set-up first

LONGEST_BODY = 10_000  # bytes; a form or a line of the cart has some hundred
LONGEST_HEADERS = 16_384  # bytes, all together; the form parser takes a second for a megabyte of ";" in Content-Type
# Browsers store no answer, guess no type, load no plugin, and no other site may frame a page or see where one was.
STRICT_HEADERS = {
    b"cache-control": b"no-store",
    b"x-content-type-options": b"nosniff",
    b"content-security-policy": b"object-src 'none'; base-uri 'none'; frame-ancestors 'none'",
    b"referrer-policy": b"same-origin",  # with no-referrer the page's own POST would have the Origin null
}
# Every byte that no cookie of ours has becomes a "?". Quotes: Python before 3.11.10 and 3.12.6 takes seconds to
# undo 64 kB of them (CVE-2024-7592). Odd blanks: Starlette strips them, and another host's cookie passes for ours.
PLAIN_COOKIE = bytes(byte if byte in b" !" or 0x22 < byte < 0x7F else ord("?") for byte in range(256))
PAGE = Path(__file__).with_name("page.html").read_text(encoding="utf-8")


def secret_key(name: str) -> str:
    """Return the key in the environment, or make one up and warn; stop the start if it could be guessed."""
    key = os.environ.get(name)
    if key is None:
        log.warning(
            "%s is not set: a random key serves this process only. A restart ends all logins and session data; "
            "with several workers logins fail at random and a logout may not end its login.",
            name,
        )
        return secrets.token_urlsafe(32)
    as_bytes = key.encode(errors="ignore")
    if len(as_bytes) < 32 or as_bytes.decode() != key:  # RFC 7518 section 3.2
        new_key = 'python -c "import secrets; print(secrets.token_urlsafe(32))"'
        raise SystemExit(f"{name} must have at least 32 bytes, and be UTF-8. Make a new one: {new_key}")
    return key


async def page() -> HTMLResponse:
    """Show the step's web page. Script in it runs only with this answer's nonce (Content Security Policy Level 3)."""
    nonce = secrets.token_urlsafe(16)
    policy = f"default-src 'nonce-{nonce}'; connect-src 'self'; img-src data:; object-src 'none'; base-uri 'none'"
    policy += "; form-action 'none'; frame-ancestors 'none'"
    return HTMLResponse(PAGE.replace("NONCE", nonce), headers={"Content-Security-Policy": policy})


async def explain_422(request: Request, error: RequestValidationError) -> JSONResponse:
    """Say where and what is wrong, without echoing the value as FastAPI does: it can be a password."""
    problems = [{part: problem[part] for part in ("loc", "msg", "type")} for problem in error.errors()]
    return JSONResponse({"detail": problems}, status_code=422)


class Hardening:
    """Make cookies plain, limit headers and bodies, give every answer of the app the strict headers.

    A middleware gets each request as scope (method, headers), receive (brings the body) and send (takes the answer).
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and the answer back. (A crash, a 500, is answered outside, without these headers.)"""

        async def send_strict(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = {name for name, _ in message["headers"]}
                message["headers"] += [header for header in STRICT_HEADERS.items() if header[0] not in own]
            await send(message)

        app = self.app
        if scope["type"] == "http":
            if sum(len(name) + len(value) for name, value in scope["headers"]) > LONGEST_HEADERS:
                app = JSONResponse({"detail": "The headers are too large"}, 431)
            for place, (name, value) in enumerate(scope["headers"]):
                if name == b"cookie":
                    scope["headers"][place] = (name, value.translate(PLAIN_COOKIE))
            if scope["method"] not in ("GET", "HEAD", "OPTIONS"):
                receive = limited(scope, receive)
        await app(scope, receive, send_strict)


def limited(scope: Scope, receive: Receive) -> Receive:
    """Return a receive that refuses a long body, and a form in parts (multipart), before the app has read them."""
    size = 0

    async def receive_limited() -> Message:
        nonlocal size
        message = await receive()
        size += len(message.get("body", b""))
        if size > LONGEST_BODY:
            raise HTTPException(413, "The body is too large")
        # A form in parts names its own codec, and Python's punycode would take minutes.
        if any(name == b"content-type" and b"multipart" in value.lower() for name, value in scope["headers"]):
            raise HTTPException(415, "Send a form urlencoded, not in parts")
        return message

    return receive_limited


def harden(app: FastAPI) -> None:
    """Give an app all of this. Call it after other middlewares are added: the last one added sees a request first."""
    app.get("/", include_in_schema=False)(page)
    app.exception_handler(RequestValidationError)(explain_422)
    app.add_middleware(Hardening)
    app.router.redirect_slashes = False  # or /login/ is sent on to http:// and to whatever host the client names
