"""Step 3: both together, and an end that holds.

The JWT says who is logged in, the session data what is in the cart. Both are
cookies now, tied to each other, and a denylist remembers what is over.
"""

import os
import re
import secrets
import time
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import Depends, FastAPI, HTTPException, Request, Response
from fastapi.responses import JSONResponse
from fastapi.security import OAuth2PasswordRequestForm
from jose import jwk, jws, jwt
from jose.exceptions import JWSError
from pydantic import BaseModel, ValidationError
from starlette.middleware.sessions import Session, SessionMiddleware

from .cart import Cart, add_to_cart, get_cart, menu, read_cart, read_count, remove_from_cart, show_cart
from .cookies import HTTPS_ONLY, CrossOriginProtection, cookie_name
from .denylist import DenylistUnreachable, open_denylist
from .hardening import harden, log, secret_key
from .users import USERS, User, authenticate

# A Key: of a plain text python-jose would guess the format.
JWT_KEY = jwk.construct(secret_key("JWT_SECRET_KEY").encode(), "HS256")
TOKEN_COOKIE = cookie_name("step03_token")
SESSION_COOKIE = cookie_name("step03_session")
LOGIN_SECONDS = 60 * 60  # absolute lifetime: whatever the visitor does, the login ends then
SESSION_SECONDS = 15 * 60  # idle timeout: a login that is not used ends earlier
DENYLIST_URL = os.environ.get("DENYLIST_URL", f"sqlite:///{Path(__file__).with_name('denylist.sqlite3')}")
# Twice as long as a token lasts: an entry is still there if the clock is set back by an hour.
denylist = open_denylist(DENYLIST_URL, keep_seconds=2 * LOGIN_SECONDS)

app = FastAPI(
    title="Step 3: both together, and an end that holds",
    responses={"4XX": {"description": "Refused: detail says why"}, "503": {"description": "Try again soon"}},
)
app.add_middleware(
    SessionMiddleware,
    secret_key=secret_key("SESSION_SECRET_KEY"),
    session_cookie=SESSION_COOKIE,
    max_age=SESSION_SECONDS,
    https_only=HTTPS_ONLY,
)
app.add_middleware(CrossOriginProtection)
harden(app)


# 1. The token moves into a cookie, where no script can read it. Each login has an id of its own, the jti (JWT ID)


class Claims(BaseModel, strict=True, extra="forbid"):
    """What a token says (RFC 7519 section 4.1). All of it is required, of this very type, and nothing else is taken."""

    iss: Literal["cafe"]
    aud: Literal["step03"]
    sub: str
    iat: int
    exp: int
    jti: str


def new_id() -> str:
    """Return 128 random bits as text: never given twice, never guessed."""
    return secrets.token_urlsafe(16)


def issue_token(username: str, jti: str) -> str:
    """Return a signed JWT that says who logged in, until when, and which login this is."""
    now = int(time.time())
    claims = Claims(iss="cafe", aud="step03", sub=username, iat=now, exp=now + LOGIN_SECONDS, jti=jti)
    return jwt.encode(claims.model_dump(), JWT_KEY, algorithm="HS256")


# header.payload.signature, in base64url; a signature by HS256 has 43 characters (RFC 7515). Other shapes are refused
# first: a header nested a thousand deep crashes python-jose, and to send one needs no key.
COMPACT_JWT = re.compile(r"[\w-]{1,200}\.[\w-]{1,1000}\.[\w-]{43}", re.ASCII)


def read_token(token: str, at: float) -> Claims | None:
    """Return the claims of a token that is acceptable at this time, None for anything else (RFC 8725 section 3)."""
    if not COMPACT_JWT.fullmatch(token):
        return None
    try:
        claims = Claims.model_validate_json(jws.verify(token, JWT_KEY, algorithms=["HS256"]))
    except (JWSError, ValidationError):
        return None
    return claims if claims.exp > at and claims.sub in USERS else None


# 2. Tie the two: the session data holds the same jti as the token, or counts as empty


async def current_login(request: Request) -> Claims | None:
    """Return the login that both cookies agree on, and renew its idle time; None for a visitor who is not logged in.

    Session data of a login that is over, or of another one, counts as empty.
    """
    if "jti" not in request.session:
        return None
    claims = read_token(request.cookies.get(TOKEN_COOKIE, ""), at=time.time())
    if claims is None or claims.jti != request.session["jti"] or await denylist.contains(f"login:{claims.jti}"):
        # Not clear(): it would drop the browser's cookie, and a login in another tab may just have set a newer one
        request.scope["session"] = Session()
        return None
    # Not at each request: a renewal sends the whole cookie, and can overwrite a cart that is newer.
    if time.time() - read_count(request.session.get("renewed")) >= SESSION_SECONDS / 4:
        request.session["renewed"] = int(time.time())
    return claims


async def require_login(login: Annotated[Claims | None, Depends(current_login)]) -> Claims:
    """Return the current login; 401 without one."""
    if login is None:
        raise HTTPException(401, "Not logged in")
    return login


@app.get("/me")
async def me(login: Annotated[Claims, Depends(require_login)]) -> User:
    """Say who is logged in."""
    return USERS[login.sub]


# The cart of step 2. New: before each of its routes, current_login decides whose session data this is
app.get("/menu")(menu)
app.get("/cart", dependencies=[Depends(current_login)])(get_cart)
app.post("/cart", dependencies=[Depends(current_login)])(add_to_cart)
app.delete("/cart/{item}", dependencies=[Depends(current_login)])(remove_from_cart)


# 3. An end that holds: the server remembers which logins are over


def read_id(value: object) -> str:
    """Return an id, "" for anything that cannot be one."""
    return value if isinstance(value, str) and value.isascii() else ""


async def end_logins(request: Request) -> None:
    """Put every login that either cookie names on the denylist: no copy of them is worth anything from now on."""
    claims = read_token(request.cookies.get(TOKEN_COOKIE, ""), at=0)  # at=0: that of an expired token, too
    for jti in {claims.jti if claims else "", read_id(request.session.get("jti"))}:
        if jti:
            await denylist.add(f"login:{jti}")
            log.info("Login %s is over", jti)


@app.post("/logout", status_code=204)
async def logout(request: Request, response: Response) -> None:
    """End the login, on the server first; then tell the browser to drop both cookies."""
    await end_logins(request)
    request.session.clear()
    response.delete_cookie(TOKEN_COOKIE, secure=HTTPS_ONLY, httponly=True, samesite="lax")


@app.exception_handler(DenylistUnreachable)
async def explain_503(request: Request, error: DenylistUnreachable) -> JSONResponse:
    """Let nobody in while nobody can say whose login is over."""
    return JSONResponse({"detail": "The denylist is out of reach, try again soon"}, status_code=503)


# 4. The login, which needs 1 to 3


@app.post("/login")
async def login(request: Request, response: Response, form: Annotated[OAuth2PasswordRequestForm, Depends()]) -> User:
    """Begin a new login if the password is right. Those of before end; only a visitor's cart comes along."""
    user = await authenticate(form.username, form.password)
    if user is None:
        raise HTTPException(401, "Incorrect username or password")
    await end_logins(request)
    # Session data with a jti belongs to a login. Only the cart of a visitor who was not logged in comes along.
    cart = {} if "jti" in request.session else read_cart(request.session.get("cart"))
    jti = new_id()
    request.session.clear()
    request.session.update(jti=jti, order_id=new_id(), renewed=int(time.time()), cart=cart)
    token = issue_token(user.username, jti)
    response.set_cookie(TOKEN_COOKIE, token, max_age=LOGIN_SECONDS, secure=HTTPS_ONLY, httponly=True, samesite="lax")
    log.info("Login %s of %s begins", jti, user.username)
    return user


# 5. An order is placed once: the session data carries the id of its next order


class Order(Cart):
    """A cart that was ordered, and by whom."""

    order_id: str
    username: str


@app.post("/checkout", status_code=201)
async def checkout(request: Request, login: Annotated[Claims, Depends(require_login)]) -> Order:
    """Order what is in the cart, and empty it; 409 if it is empty, or if this very cart was ordered before."""
    cart = show_cart(read_cart(request.session.get("cart")))
    if not cart.items:
        raise HTTPException(409, "The cart is empty")
    order_id = read_id(request.session.get("order_id")) or login.jti  # an older version wrote no id
    placed = await denylist.add(f"order:{order_id}")
    request.session.update(order_id=new_id(), cart={})
    if not placed:
        raise HTTPException(409, "Already ordered")
    return Order(order_id=order_id, username=login.sub, items=cart.items, total_cents=cart.total_cents)


@app.get("/session")
async def show_session(request: Request, login: Annotated[Claims | None, Depends(current_login)]) -> dict[str, Any]:
    """Show what both cookies say. For learning: a real app has no such route."""
    data = {
        "jti": read_id(request.session.get("jti")),
        "order_id": read_id(request.session.get("order_id")),
        "renewed": read_count(request.session.get("renewed")),
        "cart": read_cart(request.session.get("cart")),
    }
    return {"claims": login, "data": {k: v for k, v in data.items() if v}}
