"""The cart, to the letter as step 2 taught it. Its routes are in main.py."""

from fastapi import HTTPException, Request
from pydantic import BaseModel, Field

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


async def menu() -> list[MenuItem]:
    """List what the cafe sells."""
    return [MenuItem(item=item, price_cents=price) for item, price in MENU.items()]


async def get_cart(request: Request) -> Cart:
    """Show the cart."""
    return show_cart(read_cart(request.session.get("cart")))


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


async def remove_from_cart(request: Request, item: str) -> Cart:
    """Take all of one item out of the cart; 404 if there is none in it."""
    cart = read_cart(request.session.get("cart"))
    if item not in cart:
        raise HTTPException(404, "Not in the cart")
    del cart[item]
    request.session["cart"] = cart
    return show_cart(cart)
