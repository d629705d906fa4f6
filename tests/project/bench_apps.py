"""What the benchmark compares the steps with: a bare route, and beside it one habit of many projects at a time.

Not to be copied. Hashing inside `async def` is also the official tutorial's way; the others are habits of projects.
"""

import os
import re
import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any

from anyio import to_thread
from argon2 import PasswordHasher
from argon2.exceptions import VerifyMismatchError
from fastapi import Depends, FastAPI, HTTPException, Request, Response
from fastapi.security import OAuth2PasswordRequestForm
from starlette.middleware.sessions import SessionMiddleware

ALICE = {"username": "alice", "full_name": "Alice Liddell"}
CART: dict[str, Any] = {"items": {"tea": 1}, "total_cents": 300}
# Of the password wonderland, with the parameters of the steps
HASH = "$argon2id$v=19$m=19456,t=2,p=1$WTDukHTsoWvW5Bv2LPHCqw$1y6VSULvBvRqGU812qeit1RpjGzNJrerHEHIJG1nkDQ"
CHAPTER = Path(__file__).parents[2] / "step03_combined" / "README.md"

bare, plain_sessions, with_def, with_base_http, with_thread, hash_in_loop = (FastAPI() for _ in range(6))


@bare.get("/me")
@with_base_http.get("/me")
@hash_in_loop.get("/me")
async def me() -> dict[str, str]:
    return ALICE


# Starlette's SessionMiddleware and nothing else: what step 2 can cost at least

plain_sessions.add_middleware(SessionMiddleware, secret_key=os.environ.get("SESSION_SECRET_KEY", ""))


@plain_sessions.get("/cart")
async def show(request: Request) -> dict[str, Any]:
    return {"items": request.session.get("cart", {}), "total_cents": 300}


@plain_sessions.post("/cart")
async def add(request: Request) -> dict[str, Any]:
    request.session["cart"] = CART["items"]
    return CART


# One habit each


def current_user() -> dict[str, str]:
    return ALICE


@with_def.get("/me")
async def me_by_def(user: Annotated[dict[str, str], Depends(current_user)]) -> dict[str, str]:
    return user


@with_base_http.middleware("http")
async def no_store(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
    response = await call_next(request)
    response.headers["Cache-Control"] = "no-store"
    return response


denylist = sqlite3.connect(":memory:", check_same_thread=False)
denylist.execute("CREATE TABLE denylist (jti TEXT PRIMARY KEY)")


def look_up(jti: str) -> Any:
    return denylist.execute("SELECT 1 FROM denylist WHERE jti = ?", (jti,)).fetchone()


@with_thread.get("/me")
async def me_by_thread() -> dict[str, str]:
    await to_thread.run_sync(look_up, "x")
    return ALICE


@hash_in_loop.post("/login")
async def log_in(form: Annotated[OAuth2PasswordRequestForm, Depends()]) -> dict[str, str]:
    try:
        PasswordHasher().verify(HASH, form.password)
    except VerifyMismatchError:
        raise HTTPException(401) from None
    return ALICE


# The server-side session, as chapter 3 shows it, with its table beside the denylist

[code] = re.findall(r"runs as my\.classic:app -->\n```python\n(.*?)```", CHAPTER.read_text(encoding="utf-8"), re.DOTALL)
table = os.environ.get("DENYLIST_URL", "sqlite:///").removeprefix("sqlite:///") + ".logins"
chapter: dict[str, Any] = {"__name__": "classic"}
exec(code.replace("my/logins.sqlite3", table), chapter)
classic = chapter["app"]
