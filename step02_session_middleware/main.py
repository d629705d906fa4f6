"""Step 2: the browser carries the app's signed notes.

What the app wants to remember about a visitor goes into a cookie, signed by
the app, kept by the browser, sent back with every request. No one logs in.
"""

from typing import Any

from fastapi import FastAPI, HTTPException, Request
from pydantic import BaseModel, Field
from starlette.middleware.sessions import SessionMiddleware

from .cookies import HTTPS_ONLY, CrossOriginProtection, cookie_name
from .hardening import harden, secret_key

SESSION_COOKIE = cookie_name("step02_session")
SESSION_SECONDS = 14 * 24 * 60 * 60
MENU = {"espresso": 250, "tea": 300, "croissant": 350, "sandwich": 750}  # prices in cents
MAX_OF_ONE_ITEM = 99

app = FastAPI(
    title="Step 2: the browser carries the app's signed notes",
    responses={"4XX": {"description": "Refused: detail says why"}},
)
app.add_middleware(
    SessionMiddleware,
    secret_key=secret_key("SESSION_SECRET_KEY"),
    session_cookie=SESSION_COOKIE,
    max_age=SESSION_SECONDS,
    https_only=HTTPS_ONLY,
)
app.add_middleware(CrossOriginProtection)  # a page elsewhere can have the browser send the cookie: see cookies.py
harden(app)  # limits and headers that every app needs, and the page at /


class Visits(BaseModel):
    """How often this browser came by."""

    visits: int


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


def read_count(value: object) -> int:
    """Return a whole number above zero, 0 for anything else: true is none, nor is one too long for JSON (RFC 8259)."""
    return value if type(value) is int and 0 < value < 2**53 else 0


def read_cart(value: object) -> dict[str, int]:
    """Return the usable lines of a cart; what an older version of this app wrote may have another shape."""
    lines = value.items() if isinstance(value, dict) else ()
    return {item: count for item, count in lines if item in MENU and read_count(count)}


def show_cart(cart: dict[str, int]) -> Cart:
    """Return the cart with its total, in cents."""
    return Cart(items=cart, total_cents=sum(MENU[item] * count for item, count in cart.items()))


# request.session is a dict: SessionMiddleware reads it from the cookie, and writes it back when one of its keys was set


@app.get("/visits")
async def show_visits(request: Request) -> Visits:
    """Say how often this browser came by."""
    return Visits(visits=read_count(request.session.get("visits")))


@app.post("/visits")
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


@app.post("/cart")
async def add_to_cart(request: Request, line: CartLine) -> Cart:
    """Put something from the menu into the cart; 404 for anything else, 409 for more than 99 of one item."""
    if line.item not in MENU:
        raise HTTPException(404, "Not on the menu")
    cart = read_cart(request.session.get("cart"))
    cart[line.item] = cart.get(line.item, 0) + line.quantity
    if cart[line.item] > MAX_OF_ONE_ITEM:
        raise HTTPException(409, f"At most {MAX_OF_ONE_ITEM} of one item")
    request.session["cart"] = cart  # the whole: a change inside the old cart would go unnoticed, and be lost
    return show_cart(cart)


@app.delete("/cart/{item}")
async def remove_from_cart(request: Request, item: str) -> Cart:
    """Take all of one item out of the cart; 404 if there is none in it."""
    cart = read_cart(request.session.get("cart"))
    if item not in cart:
        raise HTTPException(404, "Not in the cart")
    del cart[item]
    request.session["cart"] = cart
    return show_cart(cart)


@app.get("/session")
async def show_session(request: Request) -> dict[str, Any]:
    """Show the session data, and as `cookie` what brought it. For learning: a real app has no such route."""
    data = {"visits": read_count(request.session.get("visits")), "cart": read_cart(request.session.get("cart"))}
    return {"data": {k: v for k, v in data.items() if v}, "cookie": request.cookies.get(SESSION_COOKIE)}


@app.delete("/session", status_code=204)
async def forget_me(request: Request) -> None:
    """Tell the browser to drop the cookie. A copy made before still works: nobody remembers that it is over."""
    request.session.clear()
