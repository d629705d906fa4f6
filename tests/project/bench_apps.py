"""What the benchmark compares the steps with: one bare route, and each step in the way of many tutorials.

Not to be copied. The tutorials' way hashes inside `async def`, makes each dependency a `def`, adds a
BaseHTTPMiddleware, and asks the denylist through a thread.
"""

import os
import sqlite3
import time
import uuid
from collections.abc import Awaitable, Callable
from typing import Annotated, Any

from argon2 import PasswordHasher
from argon2.exceptions import VerifyMismatchError
from fastapi import Depends, FastAPI, HTTPException, Request, Response
from fastapi.security import OAuth2PasswordBearer, OAuth2PasswordRequestForm
from jose import JWTError, jwt
from pydantic import BaseModel
from starlette.middleware.sessions import SessionMiddleware

KEY = os.environ.get("JWT_SECRET_KEY", "")
ALICE = {"username": "alice", "full_name": "Alice Liddell"}
# Of the password wonderland, with the parameters of the steps
HASH = "$argon2id$v=19$m=19456,t=2,p=1$WTDukHTsoWvW5Bv2LPHCqw$1y6VSULvBvRqGU812qeit1RpjGzNJrerHEHIJG1nkDQ"
PRICES = {"tea": 300}

bare, tutorial1, tutorial2, tutorial3 = (FastAPI() for _ in range(4))


@bare.get("/me")
async def bare_me() -> dict[str, str]:
    return ALICE


def check(form: OAuth2PasswordRequestForm) -> None:
    """Raise 401 unless the password is right; blocks whoever calls it."""
    try:
        PasswordHasher().verify(HASH, form.password)
    except VerifyMismatchError:
        raise HTTPException(401) from None


def new_token() -> str:
    return jwt.encode({"sub": "alice", "exp": int(time.time()) + 900, "jti": str(uuid.uuid4())}, KEY, "HS256")


def claims_of(token: str) -> dict[str, Any]:
    try:
        return jwt.decode(token, KEY, algorithms=["HS256"])
    except JWTError:
        raise HTTPException(401) from None


# Step 1


@tutorial1.post("/login")
async def login1(form: Annotated[OAuth2PasswordRequestForm, Depends()]) -> dict[str, str]:
    check(form)
    return {"access_token": new_token(), "token_type": "bearer"}


def user1(token: Annotated[str, Depends(OAuth2PasswordBearer(tokenUrl="login"))]) -> dict[str, str]:
    claims_of(token)
    return ALICE


@tutorial1.get("/me")
async def me1(user: Annotated[dict[str, str], Depends(user1)]) -> dict[str, str]:
    return user


# Step 2


class Line(BaseModel):
    item: str
    quantity: int = 1


def read_cart(request: Request) -> dict[str, int]:
    return dict(request.session.get("cart", {}))


def shown(cart: dict[str, int]) -> dict[str, Any]:
    return {"items": cart, "total_cents": sum(PRICES[item] * count for item, count in cart.items())}


async def no_store(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
    response = await call_next(request)
    response.headers["Cache-Control"] = "no-store"
    return response


def add_cart(app: FastAPI) -> None:
    """Give an app a cart in the session data."""
    app.add_middleware(SessionMiddleware, secret_key=os.environ.get("SESSION_SECRET_KEY", ""))
    app.middleware("http")(no_store)

    @app.get("/cart")
    async def get_cart(cart: Annotated[dict[str, int], Depends(read_cart)]) -> dict[str, Any]:
        return shown(cart)

    @app.post("/cart")
    async def add(request: Request, line: Line, cart: Annotated[dict[str, int], Depends(read_cart)]) -> dict[str, Any]:
        cart[line.item] = cart.get(line.item, 0) + line.quantity
        request.session["cart"] = cart
        return shown(cart)


add_cart(tutorial2)

# Step 3

add_cart(tutorial3)
denylist = sqlite3.connect(":memory:", check_same_thread=False)
denylist.execute("CREATE TABLE denylist (jti TEXT PRIMARY KEY)")


@tutorial3.post("/login")
async def login3(form: Annotated[OAuth2PasswordRequestForm, Depends()], response: Response) -> dict[str, str]:
    check(form)
    response.set_cookie("token", new_token(), httponly=True)
    return ALICE


def user3(request: Request) -> dict[str, str]:
    claims = claims_of(request.cookies.get("token", ""))
    if denylist.execute("SELECT 1 FROM denylist WHERE jti = ?", (claims["jti"],)).fetchone():
        raise HTTPException(401)
    return ALICE


@tutorial3.get("/me")
async def me3(user: Annotated[dict[str, str], Depends(user3)]) -> dict[str, str]:
    return user
