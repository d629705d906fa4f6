"""Step 3: both together, and an end that holds.

The JWT says who is logged in, the session data what is in the cart. Both are
cookies now, tied to each other, and a denylist remembers what is over.
"""

import asyncio
import hashlib
import logging
import os
import re
import secrets
import time
from base64 import urlsafe_b64encode
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Any, Literal

from argon2 import PasswordHasher
from argon2.exceptions import VerifyMismatchError
from fastapi import Depends, FastAPI, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse
from fastapi.security import OAuth2PasswordRequestForm
from jose import jwk, jws, jwt
from jose.exceptions import JWSError
from pydantic import BaseModel, Field, ValidationError
from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware.sessions import Session, SessionMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .denylist import DenylistUnreachable, open_denylist

log = logging.getLogger("uvicorn.error")  # uvicorn prints this logger; one of our own would need a set-up first

# Settings. No key is written here: it comes from the environment, or is made up at the start

JWT_SECRET_KEY = os.environ.get("JWT_SECRET_KEY", secrets.token_urlsafe(32))
SESSION_SECRET_KEY = os.environ.get("SESSION_SECRET_KEY", secrets.token_urlsafe(32))
HTTPS_ONLY = os.environ.get("HTTPS_ONLY", "false").lower() == "true"
DENYLIST_URL = os.environ.get("DENYLIST_URL", f"sqlite:///{Path(__file__).with_name('denylist.sqlite3')}")
# The prefix makes browsers insist on Secure, Path=/ and this host alone (RFC 6265bis section 4.1.3)
TOKEN_COOKIE = "__Host-step03_token" if HTTPS_ONLY else "step03_token"
SESSION_COOKIE = "__Host-step03_session" if HTTPS_ONLY else "step03_session"
LOGIN_SECONDS = 60 * 60  # absolute lifetime: whatever the visitor does, the login ends then
SESSION_SECONDS = 15 * 60  # idle timeout: so long without a request, and the login is over


# Data and models


class User(BaseModel):
    """What anyone may see of a user: nothing that helps to log in."""

    username: str
    full_name: str


USERS = {
    "alice": User(username="alice", full_name="Alice Liddell"),
    "bob": User(username="bob", full_name="Bob Stone"),
}
# argon2id, as OWASP recommends. HASHER.hash() makes one more, as slow as the others: no answer's time gives a name away
HASHER = PasswordHasher(time_cost=2, memory_cost=19_456, parallelism=1)
PASSWORD_HASHES = {
    "alice": "$argon2id$v=19$m=19456,t=2,p=1$WTDukHTsoWvW5Bv2LPHCqw$1y6VSULvBvRqGU812qeit1RpjGzNJrerHEHIJG1nkDQ",
    "bob": "$argon2id$v=19$m=19456,t=2,p=1$wO/yuE/TPhvJUUnHJY33MQ$rbFxTHfwo/5Srs/G4VjX3sirBAAO7xsFmxtDKaF3so8",
}
# The hash of a random password that nobody knows
NOBODYS_HASH = "$argon2id$v=19$m=19456,t=2,p=1$Tf/TEz9TDIQokQvMXyVpXQ$THaHf8/jhYg4+x6wNguPYooHdahKl6R6MfmVnL6dRgE"

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


class Order(Cart):
    """A cart that was ordered, and by whom."""

    order_id: str
    username: str


class Claims(BaseModel, strict=True):
    """What a token says (RFC 7519 section 4.1); iat and exp are in seconds since 1970, jti names this one login.

    None of them may be missing or of another type: python-jose's own jwt.decode lets both pass.
    """

    iss: Literal["cafe"]
    aud: Literal["step03"]
    sub: str
    iat: int
    exp: int
    jti: str


class Problem(BaseModel):
    """Why a request was refused."""

    detail: str


def refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Tell OpenAPI how else a route can answer: FastAPI cannot see it in the code."""
    return {status: {"model": Problem} for status in statuses}


app = FastAPI(title="Step 3: both together, and an end that holds")
app.add_middleware(
    SessionMiddleware,
    secret_key=SESSION_SECRET_KEY,
    session_cookie=SESSION_COOKIE,
    max_age=SESSION_SECONDS,
    https_only=HTTPS_ONLY,
)


# Stop 1: the token moves into a cookie, where no script can read it


@app.post("/login", responses=refusals(401, 403, 413, 415, 503))
async def login(request: Request, response: Response, form: Annotated[OAuth2PasswordRequestForm, Depends()]) -> User:
    """Begin a new login. Those that this browser had before end."""
    if not await password_is_right(form.username, form.password):
        raise HTTPException(401, "Incorrect username or password")
    cart = await take_over_cart(request, form.username)
    jti = new_id()
    request.session.clear()
    request.session.update(jti=jti, order_id=new_id(), renewed=int(time.time()), cart=cart)
    log.info("Login %s of %s begins", fingerprint(jti), form.username)
    token = issue_token(form.username, jti)
    response.set_cookie(TOKEN_COOKIE, token, max_age=LOGIN_SECONDS, secure=HTTPS_ONLY, httponly=True, samesite="lax")
    return USERS[form.username]


def new_id() -> str:
    """Return 128 random bits as text: never given twice, never guessed."""
    return secrets.token_urlsafe(16)


def issue_token(username: str, jti: str) -> str:
    """Return a signed JWT that says who logged in, until when, and which login this is."""
    now = int(time.time())
    claims = Claims(iss="cafe", aud="step03", sub=username, iat=now, exp=now + LOGIN_SECONDS, jti=jti)
    return jwt.encode(claims.model_dump(), JWT_KEY, algorithm="HS256")


def read_token(token: str, at: float) -> Claims | None:
    """Return the claims of a token that is acceptable at this time, None for anything else (RFC 8725 section 3)."""
    if not COMPACT_JWT.fullmatch(token):
        return None
    try:
        claims = Claims.model_validate_json(jws.verify(token, JWT_KEY, algorithms=["HS256"]))
    except (JWSError, ValidationError):
        return None
    return claims if claims.exp > at and claims.sub in USERS else None


def claims_of(request: Request, at: float) -> Claims | None:
    """Return the claims of the token cookie, None without an acceptable one. No other place counts."""
    return read_token(request.cookies.get(TOKEN_COOKIE, ""), at)


# Stop 2: tie the two. The session data names its login by jti, and counts only beside that login's token


async def current_login(request: Request) -> Claims | None:
    """Return the login that both cookies agree on, and renew its idle time; None for a visitor who is nobody yet.

    Session data of a login that is over, or of another one, counts as empty.
    """
    jti = read_id(request.session.get("jti"))
    if not jti:
        return None
    claims = claims_of(request, time.time())
    if claims is None or claims.jti != jti or await denylist.contains(f"login:{jti}"):
        # Empty, but not by clear(): that is a change, and the answer would tell the browser to drop its cookie.
        request.scope["session"] = Session()
        return None
    # Not at each request: it sends the whole cookie, and of two answers that cross the later one overwrites the other.
    if time.time() - read_count(request.session.get("renewed")) >= SESSION_SECONDS / 4:
        request.session["renewed"] = int(time.time())
    return claims


async def take_over_cart(request: Request, username: str) -> dict[str, int]:
    """End the logins of this browser; return the cart that a new login of this user takes over."""
    named = named_logins(request)  # first: current_login may empty the session data, and the jti in it is gone
    before = await current_login(request)
    await end_logins(named)
    cart = read_cart(request.session.get("cart"))
    if before is None:
        return cart
    # Used up: a copy of the old cookies cannot bring back a cart that was ordered.
    not_ordered = await denylist.add(f"order:{order_id_of(before, request.session)}")
    return cart if before.sub == username and not_ordered else {}


CurrentLogin = Annotated[Claims | None, Depends(current_login)]


@app.get("/me", responses=refusals(401, 503))
async def me(login: CurrentLogin) -> User:
    """Say who is logged in."""
    if login is None:
        raise HTTPException(401, "Not logged in")
    return USERS[login.sub]


# The cart: as in step 2. New is only that each route depends on current_login


@app.get("/menu")
async def menu() -> list[MenuItem]:
    """List what the cafe sells."""
    return [MenuItem(item=item, price_cents=price) for item, price in MENU.items()]


@app.get("/cart", dependencies=[Depends(current_login)], responses=refusals(503))
async def get_cart(request: Request) -> Cart:
    """Show the cart."""
    return show_cart(read_cart(request.session.get("cart")))


@app.post("/cart", dependencies=[Depends(current_login)], responses=refusals(400, 403, 404, 409, 413, 415, 503))
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


@app.delete("/cart/{item}", dependencies=[Depends(current_login)], responses=refusals(403, 404, 503))
async def remove_from_cart(request: Request, item: str) -> Cart:
    """Take all of one item out of the cart."""
    cart = read_cart(request.session.get("cart"))
    if item not in cart:
        raise HTTPException(404, "Not in the cart")
    del cart[item]
    request.session["cart"] = cart
    return show_cart(cart)


@app.get("/session", responses=refusals(503))
async def show_session(request: Request, login: CurrentLogin) -> dict[str, Any]:
    """Show what both cookies say. For learning: a real app has no such route."""
    data = {
        "jti": read_id(request.session.get("jti")),
        "order_id": read_id(request.session.get("order_id")),
        "renewed": read_count(request.session.get("renewed")),
        "cart": read_cart(request.session.get("cart")),
    }
    return {"claims": login, "data": {k: v for k, v in data.items() if v}}


def read_id(value: object) -> str:
    """Return an id, "" for anything that cannot be one."""
    return value if isinstance(value, str) and value.isascii() else ""


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


# Stop 3: an end that holds. The server remembers one thing: what is over

# An entry outlives its token by another lifetime: should the clock be set back an hour, it is still there.
denylist = open_denylist(DENYLIST_URL, keep_seconds=2 * LOGIN_SECONDS)


@app.post("/logout", status_code=204, responses=refusals(403, 503))
async def logout(request: Request, response: Response) -> None:
    """End the login, on the server first; then tell the browser to drop both cookies."""
    await end_logins(named_logins(request))
    request.session.clear()
    response.delete_cookie(TOKEN_COOKIE, secure=HTTPS_ONLY, httponly=True, samesite="lax")


def named_logins(request: Request) -> set[str]:
    """Return the jti of every login that either cookie names, tied or not."""
    claims = claims_of(request, at=0)  # at=0: that of an expired token, too
    both = (claims.jti if claims else "", read_id(request.session.get("jti")))
    return {jti for jti in both if jti}


async def end_logins(named: set[str]) -> None:
    """Put logins on the denylist: no copy of their cookies is worth anything from now on."""
    for jti in named:
        await denylist.add(f"login:{jti}")
        log.info("Login %s is over", fingerprint(jti))


@app.exception_handler(DenylistUnreachable)
async def explain_503(request: Request, error: DenylistUnreachable) -> JSONResponse:
    """Let nobody in while nobody can say whose login is over."""
    return JSONResponse({"detail": "The denylist is out of reach, try again soon"}, status_code=503)


# Stop 4: an order is placed once


@app.post("/checkout", status_code=201, responses=refusals(401, 403, 409, 503))
async def checkout(request: Request, login: CurrentLogin) -> Order:
    """Order what is in the cart, unless this very cart was ordered before."""
    if login is None:
        raise HTTPException(401, "Not logged in")
    cart = show_cart(read_cart(request.session.get("cart")))
    if not cart.items:
        raise HTTPException(409, "The cart is empty")
    order_id = order_id_of(login, request.session)
    placed = await denylist.add(f"order:{order_id}")
    request.session.update(order_id=new_id(), cart={})
    if not placed:
        raise HTTPException(409, "Already ordered")
    return Order(order_id=order_id, username=login.sub, items=cart.items, total_cents=cart.total_cents)


def order_id_of(login: Claims, session: dict[str, Any]) -> str:
    """Return the id of the one order that this session data can place."""
    return read_id(session.get("order_id")) or login.jti  # an older version wrote no id: then the login's own


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
check_key("JWT_SECRET_KEY")
# python-jose guesses what a plain key is (JSON? a number? PEM?): as a JWK (RFC 7517), its bytes are taken as they are.
JWT_KEY = jwk.construct({"kty": "oct", "k": urlsafe_b64encode(JWT_SECRET_KEY.encode()).decode()}, "HS256")
check_key("SESSION_SECRET_KEY")
if os.environ.get("HTTPS_ONLY", "false").lower() not in ("true", "false"):
    raise SystemExit("HTTPS_ONLY must be true or false.")


# python-jose skips stray characters, and a header nested a thousand deep exhausts its stack: look before it reads.
# Three parts in base64url (RFC 7515 section 7.1); the signature of HS256 has 43 characters.
COMPACT_JWT = re.compile(r"[\w-]{1,200}\.[\w-]{1,1000}\.[\w-]{43}", re.ASCII)

# One at a time: a check takes a core for 20 ms, and 19 MiB. Several at once would starve every other request.
PASSWORD_CHECKS = ThreadPoolExecutor(max_workers=1)


def fingerprint(jti: str) -> str:
    """Return what a log may say of a login: who reads it can tell logins apart, and name none in a request."""
    return hashlib.sha256(jti.encode()).hexdigest()[:12]


async def password_is_right(username: str, password: str) -> bool:
    """Check a password outside the event loop; a name that nobody has takes as long as a wrong password."""
    password_hash = PASSWORD_HASHES.get(username, NOBODYS_HASH)
    loop = asyncio.get_running_loop()
    matches = await loop.run_in_executor(PASSWORD_CHECKS, verify_password, password_hash, password)
    known = username in PASSWORD_HASHES
    # Not what was typed: some people type their password into the wrong field.
    log.info("Password of %s: %s", username if known else "an unknown user", "right" if known and matches else "wrong")
    return known and matches


def verify_password(password_hash: str, password: str) -> bool:
    """Say whether this is the password that was hashed."""
    try:
        return HASHER.verify(password_hash, password)
    except VerifyMismatchError:
        return False


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
    both: dict[str, list[str]] = {TOKEN_COOKIE: [], SESSION_COOKIE: []}
    cookie = {"type": "apiKey", "in": "cookie", "description": "Set by POST /login; browsers send it unasked."}
    described["components"]["securitySchemes"] = {name: cookie | {"name": name} for name in both}
    described["security"] = [{}, both]  # or none: a visitor needs no login
    for path, method in (("/me", "get"), ("/checkout", "post")):
        described["paths"][path][method]["security"] = [both]
    return described


app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's own way to do it
