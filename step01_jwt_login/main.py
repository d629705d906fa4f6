"""Step 1: a JWT is the login.

POST /login answers with a signed token. Whoever sends it along is the user
that it names, until it expires. The server remembers nothing.
"""

import asyncio
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
from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse
from fastapi.security import OAuth2PasswordBearer, OAuth2PasswordRequestForm
from jose import jwk, jws, jwt
from jose.exceptions import JWSError
from pydantic import BaseModel, ValidationError
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

log = logging.getLogger("uvicorn.error")  # uvicorn prints this logger; one of our own would need a set-up first

# Settings. No key is written here: it comes from the environment, or is made up at the start

JWT_SECRET_KEY = os.environ.get("JWT_SECRET_KEY", secrets.token_urlsafe(32))
LOGIN_SECONDS = 15 * 60


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


class Token(BaseModel):
    """The answer to a login (RFC 6749 section 5.1); expires_in is in seconds."""

    access_token: str
    token_type: Literal["bearer"] = "bearer"
    expires_in: int = LOGIN_SECONDS


class Claims(BaseModel, strict=True):
    """What a token says (RFC 7519 section 4.1); iat and exp are in seconds since 1970.

    None of them may be missing or of another type: python-jose's own jwt.decode lets both pass.
    """

    iss: Literal["cafe"]
    aud: Literal["step01"]
    sub: str
    iat: int
    exp: int


class Problem(BaseModel):
    """Why a request was refused."""

    detail: str


def refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Tell OpenAPI how else a route can answer: FastAPI cannot see it in the code."""
    return {status: {"model": Problem} for status in statuses}


# The idea: sign who logged in, hand it out, believe it when it comes back


def issue_token(username: str) -> str:
    """Return a signed JWT that says who logged in, and until when."""
    now = int(time.time())
    claims = Claims(iss="cafe", aud="step01", sub=username, iat=now, exp=now + LOGIN_SECONDS)
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


async def current_user(token: Annotated[str, Depends(OAuth2PasswordBearer(tokenUrl="login"))]) -> User:
    """Return the user whom the bearer token names; 401 without an acceptable one (RFC 6750 section 3)."""
    claims = read_token(token, time.time())
    if claims is None:
        raise HTTPException(401, "Invalid token", {"WWW-Authenticate": 'Bearer error="invalid_token"'})
    return USERS[claims.sub]


app = FastAPI(title="Step 1: a JWT is the login")


@app.post("/login", responses=refusals(401, 413, 415))
async def login(form: Annotated[OAuth2PasswordRequestForm, Depends()]) -> Token:
    """Exchange a username and a password for a token."""
    if not await password_is_right(form.username, form.password):
        raise HTTPException(401, "Incorrect username or password", {"WWW-Authenticate": "Bearer"})
    return Token(access_token=issue_token(form.username))


@app.get("/me", responses=refusals(401))
async def me(user: Annotated[User, Depends(current_user)]) -> User:
    """Say who is logged in."""
    return user


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

# python-jose skips stray characters, and a header nested a thousand deep exhausts its stack: look before it reads.
# Three parts in base64url (RFC 7515 section 7.1); the signature of HS256 has 43 characters.
COMPACT_JWT = re.compile(r"[\w-]{1,200}\.[\w-]{1,1000}\.[\w-]{43}", re.ASCII)

# One at a time: a check takes a core for 20 ms, and 19 MiB. Several at once would starve every other request.
PASSWORD_CHECKS = ThreadPoolExecutor(max_workers=1)


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


@app.exception_handler(RequestValidationError)
async def explain_422(request: Request, error: RequestValidationError) -> JSONResponse:
    """Say where and what is wrong, without echoing the value as FastAPI does: it can be a password."""
    problems = [{part: problem[part] for part in ("loc", "msg", "type")} for problem in error.errors()]
    return JSONResponse({"detail": problems}, status_code=422)


# A middleware wraps the app. It gets each request as scope (method, headers), receive (brings the body) and send
# (takes the answer), and passes them on, changed or not. The one that is added last sees a request first.


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
    """Describe the app, with the headers that FastAPI cannot see in its routes (OpenAPI 3.1)."""
    described = FastAPI.openapi(app)
    names = ("Cache-Control", "WWW-Authenticate", "X-Content-Type-Options")
    headers = {name: {"schema": {"type": "string"}} for name in names}
    for operation in [operation for path in described["paths"].values() for operation in path.values()]:
        for response in operation["responses"].values():
            response.setdefault("headers", {}).update(headers)
    return described


app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's own way to do it
