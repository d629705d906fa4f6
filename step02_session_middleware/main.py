"""Step 2: the browser carries the app's signed notes.

What the app wants to remember about a visitor goes into a cookie, signed by
the app, kept by the browser, sent back with every request. No one logs in.
"""

import logging
import os
import secrets
from pathlib import Path
from typing import Any

from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse
from pydantic import BaseModel, Field
from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware.sessions import SessionMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

log = logging.getLogger("uvicorn.error")  # uvicorn prints this logger; one of our own would need a set-up first

# Settings. No key is written here: it comes from the environment, or is made up at the start

SESSION_SECRET_KEY = os.environ.get("SESSION_SECRET_KEY", secrets.token_urlsafe(32))
HTTPS_ONLY = os.environ.get("HTTPS_ONLY", "false").lower() == "true"
# The prefix makes browsers insist on Secure, Path=/ and this host alone (RFC 6265bis section 4.1.3)
SESSION_COOKIE = "__Host-step02_session" if HTTPS_ONLY else "step02_session"
SESSION_SECONDS = 14 * 24 * 60 * 60


# Data and models

MENU = {"espresso": 250, "tea": 300, "croissant": 350, "sandwich": 750}  # prices in cents
MAX_OF_ONE_ITEM = 99


class MenuItem(BaseModel):
    """One line of the menu."""

    item: str
    price_cents: int


class CartLine(BaseModel):
    """What is put into the cart. Strict: "2", true and 1.0 are not a quantity."""

    item: str
    quantity: int = Field(default=1, ge=1, le=9, strict=True)


class Cart(BaseModel):
    """The cart as the visitor sees it."""

    items: dict[str, int]
    total_cents: int


class Visits(BaseModel):
    """How often this browser came by."""

    visits: int


class Problem(BaseModel):
    """Why a request was refused."""

    detail: str


def refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Tell OpenAPI how else a route can answer: FastAPI cannot see it in the code."""
    return {status: {"model": Problem} for status in statuses}


# The idea: request.session is a dict that travels in a signed cookie

app = FastAPI(title="Step 2: the browser carries the app's signed notes")
app.add_middleware(
    SessionMiddleware,
    secret_key=SESSION_SECRET_KEY,
    session_cookie=SESSION_COOKIE,
    max_age=SESSION_SECONDS,
    https_only=HTTPS_ONLY,
)


@app.get("/visits")
async def show_visits(request: Request) -> Visits:
    """Say how often this browser came by."""
    return Visits(visits=read_count(request.session.get("visits")))


@app.post("/visits", responses=refusals(403))
async def count_visit(request: Request) -> Visits:
    """Count one more visit."""
    visits = read_count(request.session.get("visits")) + 1
    request.session["visits"] = visits
    return Visits(visits=visits)


@app.get("/menu")
async def menu() -> list[MenuItem]:
    """List what the cafe sells."""
    return [MenuItem(item=item, price_cents=price) for item, price in MENU.items()]


@app.get("/cart")
async def get_cart(request: Request) -> Cart:
    """Show the cart."""
    return show_cart(read_cart(request.session.get("cart")))


@app.post("/cart", responses=refusals(400, 403, 404, 409, 413, 415))
async def add_to_cart(request: Request, line: CartLine) -> Cart:
    """Put something from the menu into the cart."""
    if line.item not in MENU:
        raise HTTPException(404, "Not on the menu")
    cart = read_cart(request.session.get("cart"))
    cart[line.item] = cart.get(line.item, 0) + line.quantity
    if cart[line.item] > MAX_OF_ONE_ITEM:
        raise HTTPException(409, f"At most {MAX_OF_ONE_ITEM} of one item")
    request.session["cart"] = cart  # the whole: a change inside the old cart would go unnoticed, and be lost
    return show_cart(cart)


@app.delete("/cart/{item}", responses=refusals(403, 404))
async def remove_from_cart(request: Request, item: str) -> Cart:
    """Take all of one item out of the cart."""
    cart = read_cart(request.session.get("cart"))
    if item not in cart:
        raise HTTPException(404, "Not in the cart")
    del cart[item]
    request.session["cart"] = cart
    return show_cart(cart)


@app.get("/session")
async def show_session(request: Request) -> dict[str, Any]:
    """Show the session data, and the cookie that brought it. For learning: a real app has no such route."""
    visits = read_count(request.session.get("visits"))
    cart = read_cart(request.session.get("cart"))
    data = {"visits": visits, "cart": cart}
    return {"data": {k: v for k, v in data.items() if v}, "cookie": request.cookies.get(SESSION_COOKIE)}


@app.delete("/session", status_code=204, responses=refusals(403))
async def forget_me(request: Request) -> None:
    """Tell the browser to drop the cookie. A copy made before still works: nobody remembers that it is over."""
    request.session.clear()


def read_cart(value: object) -> dict[str, int]:
    """Return the usable lines of a cart; what an older version of this app wrote may have another shape."""
    lines = value.items() if isinstance(value, dict) else ()
    return {item: count for item, count in lines if item in MENU and read_count(count)}


def read_count(value: object) -> int:
    """Return a whole number above zero, 0 for anything else: true is none, nor is one too long for JSON (RFC 8259)."""
    return value if type(value) is int and 0 < value < 2**53 else 0


def show_cart(cart: dict[str, int]) -> Cart:
    """Return the cart with its total, in cents."""
    return Cart(items=cart, total_cents=sum(MENU[item] * count for item, count in cart.items()))


# Not this step's idea, but unsafe to copy without it


@app.get("/", include_in_schema=False)
async def page() -> HTMLResponse:
    """Show the step's web page. Script in it runs only with this answer's nonce (Content Security Policy Level 3)."""
    nonce = secrets.token_urlsafe(16)
    policy = f"default-src 'nonce-{nonce}'; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'"
    html = Path(__file__).with_name("page.html").read_text("utf-8").replace("NONCE", nonce)
    return HTMLResponse(html, headers={"Content-Security-Policy": f"{policy}; frame-ancestors 'none'"})


def check_key(name: str) -> None:
    """Warn of a key that is not set; stop the start if it is short enough to be guessed (RFC 7518 section 3.2)."""
    key = os.environ.get(name)
    if key is None:
        log.warning(
            "%s is not set: a random key serves this process only. A restart ends all logins and session data; "
            "with several workers logins fail at random and a logout may not end its login.",
            name,
        )
    elif len(os.fsencode(key)) < 32:
        raise SystemExit(f"{name} must have at least 32 bytes. {NEW_KEY}")
    elif key != key.encode(errors="ignore").decode():
        raise SystemExit(f"{name} must be text in UTF-8. {NEW_KEY}")


NEW_KEY = 'Make a new one: python -c "import secrets; print(secrets.token_urlsafe(32))"'
check_key("SESSION_SECRET_KEY")
if os.environ.get("HTTPS_ONLY", "false").lower() not in ("true", "false"):
    raise SystemExit("HTTPS_ONLY must be true or false.")


# A middleware wraps the app. It gets each request as scope (method, headers), receive (brings the body) and send
# (takes the answer), and passes them on, changed or not. The one that is added last sees a request first.


def same_origin(app: ASGIApp) -> ASGIApp:
    """Refuse what another site makes the browser send: cookies would go along with it (OWASP: CSRF)."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and is_foreign(scope["method"], Headers(scope=scope)):
            await JSONResponse({"detail": "Refused: sent from another origin"}, 403)(scope, receive, send)
        else:
            await app(scope, receive, send)

    return answer


def is_foreign(method: str, headers: Headers) -> bool:
    """Say whether a request that changes something comes from another origin; curl sends neither header and passes."""
    if method in ("GET", "HEAD", "OPTIONS"):
        return False
    if "sec-fetch-site" in headers:
        return headers["sec-fetch-site"] not in ("same-origin", "none")
    if "origin" in headers:
        host = headers.get("host", "").lower()
        return not host or headers["origin"].lower() not in (f"http://{host}", f"https://{host}")
    return False


app.add_middleware(same_origin)


def ascii_cookies(app: ASGIApp) -> ASGIApp:
    """Keep another host's cookie from passing for a __Host- one, by an odd blank before it that Starlette strips."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            scope["headers"] = [  # the blank becomes U+FFFD, and the name is no longer ours
                (name, value.decode("ascii", "replace").encode() if name == b"cookie" else value)
                for name, value in scope["headers"]
            ]
        await app(scope, receive, send)

    return answer


app.add_middleware(ascii_cookies)


@app.exception_handler(RequestValidationError)
async def explain_422(request: Request, error: RequestValidationError) -> JSONResponse:
    """Say where and what is wrong, without echoing the value as FastAPI does: it can be a password."""
    problems = [{part: problem[part] for part in ("loc", "msg", "type")} for problem in error.errors()]
    return JSONResponse({"detail": problems}, status_code=422)


def safe_bodies(app: ASGIApp) -> ASGIApp:
    """Refuse to read a body that could stop the server: one of more than a megabyte, or in parts (multipart).

    FastAPI(max_body_size=...) carries out a request whose body nobody reads, and then answers that it was too large.
    And Starlette decodes a form in parts by whatever codec its header names: Python's punycode would take minutes.
    """

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        size = 0

        async def receive_safe() -> Message:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if size > 1_000_000:
                raise HTTPException(413, "The body is too large")
            if "multipart" in Headers(scope=scope).get("content-type", "").lower():
                raise HTTPException(415, "Send a form urlencoded, not in parts")
            return message

        await app(scope, receive_safe if scope["type"] == "http" else receive, send)

    return answer


app.add_middleware(safe_bodies)


def strict_headers(app: ASGIApp) -> ASGIApp:
    """Keep answers out of caches (RFC 9111 section 5.2.2.5), and browsers from guessing their type (WHATWG Fetch)."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        async def send_strict(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.setdefault("Cache-Control", "no-store")
                headers.setdefault("X-Content-Type-Options", "nosniff")
            await send(message)

        await app(scope, receive, send_strict)

    return answer


app.add_middleware(strict_headers)


def openapi() -> dict[str, Any]:
    """Describe the app, with the headers and cookies that FastAPI cannot see in its routes (OpenAPI 3.1)."""
    described = FastAPI.openapi(app)
    names = ("Cache-Control", "Set-Cookie", "Vary", "X-Content-Type-Options")
    headers = {name: {"schema": {"type": "string"}} for name in names}
    for operation in [operation for path in described["paths"].values() for operation in path.values()]:
        for response in operation["responses"].values():
            response.setdefault("headers", {}).update(headers)
    cookie = {"type": "apiKey", "in": "cookie", "name": SESSION_COOKIE, "description": "Browsers send it unasked."}
    described["components"]["securitySchemes"] = {SESSION_COOKIE: cookie}
    described["security"] = [{}, {SESSION_COOKIE: []}]  # or none: there may be nothing to remember yet
    return described


app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's own way to do it
