"""Step 2, the browser carries the app's signed notes: what it answers over HTTP, a test per sentence."""

from unittest.mock import ANY

import httpx
import pytest

from tests import forge
from tests.cart_and_cookie import *  # noqa: F403 - what steps 2 and 3 have in common
from tests.cart_and_cookie import (
    ELSEWHERE,
    EMPTY,
    add,
    cart,
    cookies_set,
    ensure_small,
    filled_in,
    seconds_left,
    session_data,
)
from tests.conftest import Browser
from tests.expect import ensure, expect
from tests.server import Server

STEP = "step02_session_middleware"
SESSION_COOKIE = "step02_session"
SESSION_SECONDS = 14 * 24 * 60 * 60
KEYS = ["SESSION_SECRET_KEY"]


# Visits


def test_a_new_browser_has_not_been_here(client: httpx.Client) -> None:
    """Otherwise visits are counted for all together."""
    expect(client.get("/visits"), 200, {"visits": 0}, {"Cache-Control": "no-store", "Set-Cookie": None})


def test_each_post_counts_one_visit_more(client: httpx.Client) -> None:
    """Otherwise the app does not remember this browser."""
    for number in range(1, 401):
        answer = expect(client.post("/visits"), 200, {"visits": number}, {"Cache-Control": "no-store"})

    ensure_small(cookies_set(answer))


def test_looking_at_the_visits_counts_none(client: httpx.Client) -> None:
    """Otherwise a browser that loads the page in advance changes what it says."""
    client.post("/visits")

    for _ in range(2):
        expect(client.get("/visits"), 200, {"visits": 1}, {"Set-Cookie": None})


def test_visits_and_cart_do_not_get_in_each_others_way(client: httpx.Client) -> None:
    """Otherwise one note overwrites the other."""
    client.post("/visits")
    add(client, "tea", 2)
    client.post("/visits")

    expect(client.get("/visits"), 200, {"visits": 2})
    expect(client.get("/cart"), 200, cart(tea=2))


@pytest.mark.parametrize("value", [None, -7, "many", True, 1.5, [], {}], ids=repr)
def test_a_number_of_visits_that_cannot_be_used_is_dropped(
    browser: Browser, client: httpx.Client, session_key: str, value: object
) -> None:
    """Otherwise an update of the app locks out whoever still has an older cookie."""
    add(client, "tea", 3)
    for _ in range(7):
        client.post("/visits")
    data = session_data(client, SESSION_COOKIE, session_key)
    changed = forge.replace(data, lambda found: found == 7 and type(found) is int, lambda _: value)
    if changed == data:
        pytest.skip("no number of 7 visits was found in the session data")

    old = browser({SESSION_COOKIE: forge.cookie(changed, session_key)})

    expect(old.get("/visits"), 200, {"visits": 0})
    expect(old.get("/cart"), 200, cart(tea=3))
    expect(old.post("/visits"), 200, {"visits": 1})


# The session data, for learning


def test_the_session_begins_with_nothing(client: httpx.Client) -> None:
    """Otherwise the app remembers someone else."""
    expect(client.get("/session"), 200, {"data": {}, "cookie": None}, {"Cache-Control": "no-store"})


def test_the_session_shows_the_data_and_the_cookie_as_it_came(client: httpx.Client) -> None:
    """Otherwise a learner does not see that the browser holds it all."""
    add(client, "tea", 2)

    answer = expect(client.get("/session"), 200, {"data": ANY, "cookie": ANY})

    data, cookie = answer.json()["data"], str(answer.json()["cookie"])
    ensure("tea" in str(data), f"showed {answer.text}.", "show what is remembered.")
    came = client.cookies[SESSION_COOKIE]
    ensure(cookie.strip('"') == came.strip('"'), f"showed {cookie}.", f"show {came}, in quotes or not.")


def test_a_spoiled_cookie_is_shown_as_it_came_without_data(browser: Browser) -> None:
    """Otherwise a learner does not see that the app refused it."""
    expect(browser({SESSION_COOKIE: "garbage"}).get("/session"), 200, {"data": {}, "cookie": "garbage"})


# Forgetting


def test_forgetting_tells_the_browser_to_drop_the_cookie(client: httpx.Client) -> None:
    """Otherwise nobody can leave."""
    client.post("/visits")
    add(client, "tea", 2)

    answer = expect(client.delete("/session"), 204, headers={"Cache-Control": "no-store"})

    cookie = cookies_set(answer).get(SESSION_COOKIE)
    ensure(cookie and seconds_left(cookie) <= 0, f"set {answer.headers.get('Set-Cookie')}.", "expire the cookie.")
    expect(client.get("/visits"), 200, {"visits": 0})
    expect(client.get("/cart"), 200, EMPTY)


def test_with_https_only_forgetting_drops_the_cookie_by_its_new_name(https_server: Server, browser: Browser) -> None:
    """Otherwise the browser keeps it: a cookie is dropped by its name, and __Host- only beside Secure."""
    client, name = browser(to=https_server), f"__Host-{SESSION_COOKIE}"
    value = cookies_set(add(client))[name].value

    headers = {"Cookie": f"{name}={value}"}
    expect(client.get("/session", headers=headers), 200, {"data": ANY, "cookie": value})
    gone = cookies_set(client.delete("/session", headers=headers))

    dropped = name in gone and seconds_left(gone[name]) <= 0 and gone[name]["secure"]
    ensure(dropped, f"set {[cookie.OutputString() for cookie in gone.values()]}.", f"expire {name}, with Secure.")


def test_forgetting_without_a_cookie_is_no_error(client: httpx.Client) -> None:
    """Otherwise a second click shows an error."""
    expect(client.delete("/session"), 204)


def test_a_copy_of_the_cookie_made_before_still_works(browser: Browser, client: httpx.Client) -> None:
    """Otherwise it is not the browser that holds the data: a signed cookie cannot be made to forget."""
    add(client, "tea", 2)
    copy = browser(client.cookies)

    client.delete("/session")

    expect(copy.get("/cart"), 200, cart(tea=2))


@pytest.mark.parametrize("kind", ELSEWHERE)
def test_another_site_can_neither_count_nor_forget(server: Server, client: httpx.Client, kind: str) -> None:
    """Otherwise any page that a visitor opens acts in their name: cross-site request forgery."""
    headers = filled_in(ELSEWHERE[kind], server)
    expect(client.post("/visits", headers=headers), 403, headers={"Set-Cookie": None})
    client.post("/visits")

    expect(client.post("/visits", headers=headers), 403, headers={"Set-Cookie": None})
    expect(client.delete("/session", headers=headers), 403, headers={"Set-Cookie": None})
    expect(client.get("/visits"), 200, {"visits": 1})
