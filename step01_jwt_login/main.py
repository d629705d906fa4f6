"""Step 1: a JWT is the login.

POST /login answers with a JWT (JSON Web Token). It is signed: anyone can read
it, only the server can make it. Whoever sends it along is taken for the user
that it names, until it expires. The server keeps no list of logins.
"""

import re
import time
from typing import Annotated, Literal

from fastapi import Depends, FastAPI, HTTPException
from fastapi.security import OAuth2PasswordBearer, OAuth2PasswordRequestForm
from jose import jwk, jws, jwt
from jose.exceptions import JWSError
from pydantic import BaseModel, ValidationError

from .hardening import harden, secret_key
from .users import USERS, User, authenticate

# A Key: of a plain text python-jose would guess the format.
JWT_KEY = jwk.construct(secret_key("JWT_SECRET_KEY").encode(), "HS256")
LOGIN_SECONDS = 15 * 60

app = FastAPI(title="Step 1: a JWT is the login", responses={"4XX": {"description": "Refused: detail says why"}})
harden(app)  # limits and headers that every app needs, and the page at /


class Token(BaseModel):
    """The answer to a login (RFC 6749 section 5.1); expires_in is in seconds."""

    access_token: str
    token_type: Literal["bearer"] = "bearer"
    expires_in: int = LOGIN_SECONDS


class Claims(BaseModel, strict=True, extra="forbid"):
    """What a token says (RFC 7519 section 4.1). All of it is required, of this very type, and nothing else is taken."""

    iss: Literal["cafe"]  # by whom
    aud: Literal["step01"]  # for which app
    sub: str  # about whom: the username
    iat: int  # since when, in seconds since 1970
    exp: int  # until when


def issue_token(username: str) -> str:
    """Return a signed JWT that says who logged in, and until when."""
    now = int(time.time())
    claims = Claims(iss="cafe", aud="step01", sub=username, iat=now, exp=now + LOGIN_SECONDS)
    return jwt.encode(claims.model_dump(), JWT_KEY, algorithm="HS256")


# header.payload.signature, in base64url; a signature by HS256 has 43 characters (RFC 7515). Other shapes are refused
# first: a header nested a thousand deep crashes python-jose, and to send one needs no key.
COMPACT_JWT = re.compile(r"[\w-]{1,200}\.[\w-]{1,1000}\.[\w-]{43}", re.ASCII)


def read_token(token: str) -> Claims | None:
    """Return the claims if we signed them, they are not over and the user exists; else None (RFC 8725 section 3)."""
    if not COMPACT_JWT.fullmatch(token):
        return None
    try:
        claims = Claims.model_validate_json(jws.verify(token, JWT_KEY, algorithms=["HS256"]))
    except (JWSError, ValidationError):
        return None
    return claims if claims.exp > time.time() and claims.sub in USERS else None


bearer_token = OAuth2PasswordBearer(tokenUrl="login")  # takes the token out of the header; the URL is for /docs


async def current_user(token: Annotated[str, Depends(bearer_token)]) -> User:
    """Return the user whom the bearer token names; 401, error="invalid_token", without a good one (RFC 6750)."""
    claims = read_token(token)
    if claims is None:
        raise HTTPException(401, "Invalid token", {"WWW-Authenticate": 'Bearer error="invalid_token"'})
    return USERS[claims.sub]


@app.post("/login")
async def login(form: Annotated[OAuth2PasswordRequestForm, Depends()]) -> Token:
    """Exchange a username and a password for a token; wrong ones for a 401 that asks for Bearer."""
    user = await authenticate(form.username, form.password)
    if user is None:
        raise HTTPException(401, "Incorrect username or password", {"WWW-Authenticate": "Bearer"})
    return Token(access_token=issue_token(user.username))


@app.get("/me")
async def me(user: Annotated[User, Depends(current_user)]) -> User:
    """Say who is logged in."""
    return user
