"""What steps 2 and 3 have in common: the cart, the session cookie that carries it, and who may change it.

Both test files take in these tests; each says in STEP, SESSION_COOKIE and SESSION_SECONDS which step is meant.
"""

import time
from email.utils import parsedate_to_datetime
from http.cookies import Morsel, SimpleCookie
from types import ModuleType
from typing import Any
from unittest.mock import ANY

import httpx
import pytest

from tests import forge
from tests.conftest import Browser, Launch
from tests.expect import (
    ensure,
    ensure_a_long_cookie_is_read_soon,
    ensure_it_stops_the_start,
    ensure_missing_keys_are_warned_of,
    expect,
)
from tests.server import Server

PRICES = {"espresso": 250, "tea": 300, "croissant": 350, "sandwich": 750}
EMPTY = {"items": {}, "total_cents": 0}
NO_JSON_EVERYWHERE = ("NaN", "1e400", "1" * 5_000)
JSON = {"Content-Type": "application/json"}


def add(client: httpx.Client, item: str = "tea", quantity: int = 1, headers: Any = None) -> httpx.Response:
    """Put something into the cart."""
    return client.post("/cart", json={"item": item, "quantity": quantity}, headers=headers)


def cart(**items: int) -> dict[str, Any]:
    """Return the cart with these items, as the app shows it."""
    return {"items": items, "total_cents": sum(PRICES[item] * count for item, count in items.items())}


def cookies_set(response: httpx.Response) -> dict[str, "Morsel[str]"]:
    """Return the cookies that an answer sets, by name, with their attributes."""
    found: dict[str, Morsel[str]] = {}
    for header in response.headers.get_list("Set-Cookie"):
        found.update(SimpleCookie(header))
    return found


def seconds_left(morsel: "Morsel[str]") -> float:
    """Return for how long the browser is told to keep a cookie; 0 or less: to drop it; infinite: until it is closed."""
    if morsel["max-age"] != "":
        return float(morsel["max-age"])
    if morsel["expires"]:
        return parsedate_to_datetime(morsel["expires"]).timestamp() - time.time()
    return float("inf")


def ensure_out_of_reach(cookies: dict[str, "Morsel[str]"], name: str, secure: bool = False) -> None:
    """Raise Wrong unless the cookie is set, and no script, other site or other path can have it."""
    __tracebackhide__ = True
    ensure(name in cookies, f"set the cookies {list(cookies)}.", f"set {name}.")
    got = {attribute: cookies[name][attribute] for attribute in ("httponly", "samesite", "path", "domain", "secure")}
    right = {"httponly": True, "samesite": "lax", "path": "/", "domain": "", "secure": True if secure else ""}
    got["samesite"] = got["samesite"].lower()
    ensure(got == right, f"set {name} with {got}.", f"set it with {right}.")


def ensure_small(cookies: dict[str, "Morsel[str]"]) -> None:
    """Raise Wrong if a cookie is larger than every browser takes: it would be dropped in silence."""
    __tracebackhide__ = True
    for name, cookie in cookies.items():
        size = len(name) + len(cookie.value)
        ensure(size <= 4096, f"set a cookie of {size} bytes, {name}.", "stay within 4,096, name and value together.")


@pytest.fixture
def cookie_name(request: pytest.FixtureRequest) -> str:
    """The session cookie's name."""
    name: str = request.module.SESSION_COOKIE
    return name


@pytest.fixture
def max_age(request: pytest.FixtureRequest) -> int:
    """The session cookie's max age, in seconds."""
    seconds: int = request.module.SESSION_SECONDS
    return seconds


def session_data(client: httpx.Client, name: str, key: str) -> dict[str, Any]:
    """Return the data in the client's session cookie; skip if it is not of the form that can be forged here."""
    data = forge.data_of(client.cookies.get(name) or "", key)
    if data is None:
        pytest.skip("the session cookie is not Starlette's, signed by SESSION_SECRET_KEY: it cannot be forged here")
    return data


# The menu and the cart


def test_the_menu_says_what_there_is_and_what_it_costs(client: httpx.Client) -> None:
    """Otherwise nobody knows what to put into the cart."""
    answer = expect(client.get("/menu"), 200)

    menu, right = answer.json(), [{"item": item, "price_cents": price} for item, price in PRICES.items()]
    same = isinstance(menu, list) and len(menu) == len(right) and all(line in menu for line in right)
    ensure(same, f"has the menu {menu}.", f"have {right}.")


def test_a_new_cart_is_empty(client: httpx.Client) -> None:
    """Otherwise one begins with what someone else chose."""
    expect(client.get("/cart"), 200, EMPTY, {"Cache-Control": "no-store"})


def test_what_is_added_is_in_the_cart_with_its_price(client: httpx.Client) -> None:
    """Otherwise the cart is of no use."""
    expect(add(client, "tea", 2), 200, cart(tea=2), {"Cache-Control": "no-store"})
    expect(client.get("/cart"), 200, cart(tea=2))


def test_without_a_quantity_one_is_added(client: httpx.Client) -> None:
    """Otherwise the simplest request fails."""
    expect(client.post("/cart", json={"item": "croissant"}), 200, cart(croissant=1))


def test_quantities_add_up_beside_what_is_there(client: httpx.Client) -> None:
    """Otherwise an addition loses what was there: the cart inside the session data must be assigned as a whole."""
    add(client, "tea", 2)
    add(client, "espresso", 1)

    expect(add(client, "tea", 3), 200, cart(tea=5, espresso=1))
    expect(client.get("/cart"), 200, cart(tea=5, espresso=1))


def test_what_is_not_on_the_menu_cannot_be_added(client: httpx.Client) -> None:
    """Otherwise visitors write what they like into the session data."""
    for item in ("cocoa", "Tea", "tea "):
        expect(add(client, item), 404, {"detail": ANY}, {"Set-Cookie": None})
    expect(client.get("/cart"), 200, EMPTY)


def test_there_are_at_most_99_of_one_item(client: httpx.Client) -> None:
    """Otherwise a slip of the finger orders a thousand, and the cookie grows."""
    for quantity in [9] * 10 + [8]:
        expect(add(client, "tea", quantity), 200)

    expect(add(client, "tea", 2), 409, {"detail": ANY}, {"Set-Cookie": None})
    expect(add(client, "tea", 1), 200, cart(tea=99))
    expect(add(client, "tea", 1), 409, {"detail": ANY}, {"Set-Cookie": None})
    expect(add(client, "espresso", 9), 200, cart(tea=99, espresso=9))


QUANTITIES = ["0", "10", "-1", "99", "1.5", '"2"', '"two"', "true", "null", "[]", "[2]", "{}", "1e400", "NaN"]


@pytest.mark.parametrize("quantity", [*QUANTITIES, "1" * 400, "1" * 5_000])
def test_a_quantity_is_a_whole_number_from_1_to_9(client: httpx.Client, quantity: str) -> None:
    """Otherwise a negative quantity makes the cart cheaper, and text breaks the sum."""
    answer = client.post("/cart", content=f'{{"item": "tea", "quantity": {quantity}}}', headers=JSON)

    # What is no JSON (RFC 8259), or a number past all bounds, may fail before anyone looks at its shape.
    expect(answer, (400, 422) if quantity in NO_JSON_EVERYWHERE else 422, headers={"Set-Cookie": None})
    if answer.status_code == 422 and quantity not in NO_JSON_EVERYWHERE:
        ensure("quantity" in answer.text, f"did not say what is wrong: {answer.text}", "say where and what.")
    expect(client.get("/cart"), 200, EMPTY)


BODIES = ["{}", '{"quantity": 1}', '{"item": null}', '{"item": 5}', '{"item": ["tea"]}', '{"item": {"tea": 1}}']


@pytest.mark.parametrize("body", [*BODIES, "[]", "null", '"tea"', "7"])
def test_a_body_of_the_wrong_shape_is_refused(client: httpx.Client, body: str) -> None:
    """Otherwise whoever writes the client guesses."""
    answer = client.post("/cart", content=body, headers=JSON)

    expect(answer, 422, {"detail": ANY}, {"Set-Cookie": None})
    if body.startswith("{"):
        ensure("item" in answer.text, f"did not say what is wrong: {answer.text}", "say where and what.")


def test_a_refused_body_is_not_echoed(client: httpx.Client) -> None:
    """Otherwise what was meant for one field comes back, and ends in a log."""
    secret = "correct-horse-battery"

    for body in ({"item": [secret]}, {"item": "tea", "quantity": secret}, {"item": {"x": secret}}, [secret], secret):
        answer = expect(client.post("/cart", json=body), 422)
        ensure(secret not in answer.text, f"echoed what came: {answer.text}", "never repeat a value.")


HALF_A_CHARACTER = [b'{"item": "\\ud800"}', b'{"item": "tea", "quantity": NaN, "more": "\\ud800"}']
HOSTILE_BODIES = [b"", b"{", b"\xff\xfe", *HALF_A_CHARACTER, forge.NESTED, b'{"item":' * 1_000, b"item=tea"]


@pytest.mark.parametrize("body", HOSTILE_BODIES)
def test_a_hostile_body_is_refused_without_a_server_error(client: httpx.Client, body: bytes) -> None:
    """Otherwise a stranger fills the error log, and looks for more."""
    expect(client.post("/cart", content=body, headers=JSON), range(400, 500), headers={"Set-Cookie": None})


def test_a_price_that_the_client_sends_counts_for_nothing(client: httpx.Client) -> None:
    """Otherwise visitors choose what they pay."""
    prices = dict.fromkeys(("price", "price_cents", "unit_price", "total", "total_cents"), 1)

    # Who takes no field that is not known may say so; what counts is the menu's price.
    expect(client.post("/cart", json={"item": "tea", "quantity": 2} | prices, params=prices), (200, 422))
    add(client, "espresso", 1)

    lines = expect(client.get("/cart"), 200).json()["items"]
    expect(client.get("/cart"), 200, cart(**lines))


def test_an_item_can_be_taken_out(client: httpx.Client) -> None:
    """Otherwise a cart only grows."""
    add(client, "tea", 2)
    add(client, "espresso", 1)

    expect(client.delete("/cart/tea"), 200, cart(espresso=1), {"Cache-Control": "no-store"})
    expect(client.get("/cart"), 200, cart(espresso=1))
    expect(client.delete("/cart/espresso"), 200, EMPTY)


@pytest.mark.parametrize("item", ["espresso", "cocoa", "%00", "%F0%9F%8D%AA"])
def test_what_is_not_in_the_cart_cannot_be_taken_out(client: httpx.Client, item: str) -> None:
    """Otherwise a mistyped name looks like a success."""
    add(client, "tea", 2)

    expect(client.delete(f"/cart/{item}"), 404, headers={"Set-Cookie": None})
    expect(client.get("/cart"), 200, cart(tea=2))


def test_each_browser_has_a_cart_of_its_own(browser: Browser) -> None:
    """Otherwise all visitors share one cart: session data is kept per browser, never in a variable of the app."""
    first, second = browser(), browser()

    add(first, "tea", 2)

    expect(second.get("/cart"), 200, EMPTY)
    expect(first.get("/cart"), 200, cart(tea=2))


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/nowhere", 404), ("PUT", "/cart", (404, 405))])
def test_an_error_has_a_detail(client: httpx.Client, method: str, path: str, status: Any) -> None:
    """Otherwise whoever writes the client must read two kinds of errors."""
    expect(client.request(method, path), status, {"detail": ANY})


def test_the_page_is_there(client: httpx.Client) -> None:
    """Otherwise a learner sees nothing in the browser."""
    expect(client.get("/"), 200, headers={"Content-Type": "text/html"})


# The session cookie


@pytest.mark.parametrize("path", ["/", "/menu", "/cart", "/session"])
def test_no_cookie_is_set_before_there_is_something_to_remember(client: httpx.Client, path: str) -> None:
    """Otherwise everyone who looks in is given a cookie, and must be asked for consent."""
    expect(client.get(path), 200, headers={"Set-Cookie": None})


def test_an_answer_that_changed_nothing_sets_no_cookie(client: httpx.Client) -> None:
    """Otherwise two requests at once overwrite each other for nothing."""
    add(client)

    for path in ("/cart", "/menu", "/session", "/"):
        expect(client.get(path), 200, headers={"Set-Cookie": None})


def test_the_cookie_is_out_of_reach_for_scripts_and_other_sites(client: httpx.Client, cookie_name: str) -> None:
    """Otherwise an injected script reads it, or another site's form sends it along."""
    set_now = cookies_set(add(client))

    ensure_out_of_reach(set_now, cookie_name)


def test_the_cookie_is_kept_for_its_max_age(client: httpx.Client, cookie_name: str, max_age: int) -> None:
    """Otherwise the browser drops it too early, or keeps it for ever."""
    seconds = seconds_left(cookies_set(add(client))[cookie_name])

    until_closed = seconds == float("inf")  # the app itself looks at its age, in any case: see below
    fine = until_closed or abs(seconds - max_age) <= 2
    ensure(fine, f"sets a cookie that the browser keeps for {seconds} s.", f"say {max_age} s, or nothing.")


def test_the_fullest_cookie_is_small_enough_for_every_browser(client: httpx.Client) -> None:
    """Otherwise the browser drops it in silence, and the cart with it."""
    for item in PRICES:
        for _ in range(33):
            ensure_small(cookies_set(expect(add(client, item, 3), 200)))


def spoiled(value: str) -> dict[str, str]:
    """Return what could become of a cookie on its way, or in the hands of its owner."""
    parts = value.split(".")
    flipped = {
        f"part {i + 1} of {len(parts)} edited": ".".join(
            [*parts[:i], ("B" if part[:1] != "B" else "C") + part[1:], *parts[i + 1 :]]
        )
        for i, part in enumerate(parts)
    }
    return flipped | {
        "cut short": value[:-6],
        "cut in half": value[: len(value) // 2],
        "without signature": value.rpartition(".")[0],
        "without data": "." + value.partition(".")[2],
        "one letter": "x",
        "three dots": "...",
        "garbage": "garbage.garbage.garbage",
        "null": "null",
        "empty": "",
        "twice as long": value + value,
        "not ASCII": "\u00e4\u00f6",
    }


def test_a_spoiled_cookie_counts_as_none(browser: Browser, client: httpx.Client, cookie_name: str) -> None:
    """Otherwise visitors write their own session data: prices, counters, whose login it is."""
    add(client, "tea", 7)

    for kind, value in spoiled(client.cookies[cookie_name]).items():
        answer = browser().get("/cart", headers={b"Cookie": f"{cookie_name}={value}".encode("latin-1")})

        refused = answer.status_code == 200 and answer.json() == EMPTY
        ensure(refused, f"took a cookie ({kind}) and answered: {answer.text}", "treat it as none.")


@pytest.mark.parametrize("key", ["\0", "None", "secret", "a key that nobody has given to this app, of course"])
def test_a_cookie_signed_by_another_key_counts_as_none(
    browser: Browser, client: httpx.Client, cookie_name: str, session_key: str, key: str
) -> None:
    """Otherwise anyone can sign session data."""
    add(client, "tea", 7)
    data = session_data(client, cookie_name, session_key)

    expect(browser({cookie_name: forge.cookie(data, key)}).get("/cart"), 200, EMPTY)


def test_a_cookie_counts_until_its_max_age_and_not_after(
    browser: Browser, client: httpx.Client, cookie_name: str, session_key: str, max_age: int
) -> None:
    """Otherwise a copy of the cookie works for ever: that browsers drop it binds no thief."""
    add(client, "tea", 7)
    data = session_data(client, cookie_name, session_key)
    cookies = {
        age: forge.cookie(forge.aged(data, age), session_key, age)
        for age in (max_age - 60, max_age + 5, max_age + 3600)
    }

    expect(browser({cookie_name: cookies[max_age - 60]}).get("/cart"), 200, cart(tea=7))
    expect(browser({cookie_name: cookies[max_age + 5]}).get("/cart"), 200, EMPTY)
    expect(browser({cookie_name: cookies[max_age + 3600]}).get("/cart"), 200, EMPTY)


ODD_VALUES = [None, True, 0, -7, 1.5, 1e300, 10**30, "", "many", [], [1, [2]], {}, {"a": {"b": None}}]


@pytest.mark.parametrize("value", ODD_VALUES, ids=repr)
def test_session_data_of_an_older_shape_is_no_error(
    browser: Browser, client: httpx.Client, cookie_name: str, session_key: str, value: Any
) -> None:
    """Otherwise an update of the app locks out whoever still has an older cookie."""
    add(client, "tea", 7)
    add(client, "sandwich", 3)
    data = session_data(client, cookie_name, session_key)

    for path, _ in forge.places(data):
        old = browser({cookie_name: forge.cookie(forge.put(data, path, value), session_key)})
        for url in ("/cart", "/session"):
            expect(old.get(url), 200)
        ensure(set(old.get("/cart").json()) == set(EMPTY), f"answered {old.get('/cart').text}.", "answer with a cart.")
        expect(old.delete("/cart/espresso"), 404)
        expect(add(old, "espresso", 2), 200)
        ensure(old.get("/cart").json()["items"].get("espresso") == 2, f"lost the espresso: {path}", "keep it.")


# Cocoa is no longer on the menu
UNUSABLE: list[Any] = [(7, None), (7, -7), (7, "many"), (7, []), (7, {}), ("tea", "cocoa")]


@pytest.mark.parametrize(("old", "new"), UNUSABLE, ids=str)
def test_a_line_that_cannot_be_used_is_dropped_and_the_others_stay(
    browser: Browser, client: httpx.Client, cookie_name: str, session_key: str, old: Any, new: Any
) -> None:
    """Otherwise a negative quantity makes the cart cheaper, or a change of the menu breaks the carts of yesterday."""
    add(client, "tea", 7)
    add(client, "sandwich", 3)
    data = session_data(client, cookie_name, session_key)
    changed = forge.replace(data, lambda found: found == old and type(found) is type(old), lambda _: new)
    if changed == data:
        pytest.skip(f"no {old} was found in the session data")

    expect(browser({cookie_name: forge.cookie(changed, session_key)}).get("/cart"), 200, cart(sandwich=3))


# Who may change it: a browser sends cookies by itself, whoever made it send the request

ELSEWHERE: dict[str, dict[str, str]] = {
    "fetched by another site": {"Sec-Fetch-Site": "cross-site"},
    "fetched by a sister site": {"Sec-Fetch-Site": "same-site"},
    "fetched from somewhere unheard of": {"Sec-Fetch-Site": "somewhere"},
    "fetched by another site that names this origin": {"Sec-Fetch-Site": "cross-site", "Origin": "{origin}"},
    "from another origin": {"Origin": "https://evil.example"},
    "from a hidden origin": {"Origin": "null"},
    "from no origin at all": {"Origin": "://"},
    "from a word": {"Origin": "localhost"},
    "from this host without a scheme": {"Origin": "{host}"},
    "from an origin that only a proxy names": {"Origin": "http://evil.example", "X-Forwarded-Host": "evil.example"},
    "from another port": {"Origin": "http://127.0.0.1:1"},
    "from this host without its port": {"Origin": "http://127.0.0.1"},
    "from a host that begins like this one": {"Origin": "{origin}.evil.example"},
    "from a host that ends like this one": {"Origin": "http://evil.{host}"},
    "from a host that has this one as its user": {"Origin": "http://{host}@evil.example"},
    "from a path that ends like this one": {"Origin": "https://evil.example/{host}"},
    "from a page of the same name elsewhere": {"Origin": "http://localhost:1"},
    "from a bracket that does not close": {"Origin": "http://[::1"},
    "from brackets around this host": {"Origin": "http://[{host}]"},
    "from a port that is no number": {"Origin": "{origin}x"},
    "from a port past all bounds": {"Origin": "http://127.0.0.1:99999"},
    "from a host with a space": {"Origin": "http://127.0.0.1 {host}"},
    "from a host that is not ASCII": {"Origin": "http://käse.example"},
    "from a host of half a character": {"Origin": "http://xn--\udcff"},
}
HERE: dict[str, dict[str, str]] = {
    "fetched by this page": {"Sec-Fetch-Site": "same-origin"},
    "typed by the user": {"Sec-Fetch-Site": "none"},
    "fetched by this page, with its origin": {"Sec-Fetch-Site": "same-origin", "Origin": "{origin}"},
    "fetched by this page, through a proxy": {"Sec-Fetch-Site": "same-origin", "Origin": "https://cafe.example"},
    "from this origin": {"Origin": "{origin}"},
    "from nowhere, as curl": {},
}


def filled_in(headers: dict[str, str], server: Server) -> dict[bytes, bytes]:
    """Return the headers with this server's host and origin in their places."""
    there = {"host": server.url.removeprefix("http://"), "origin": server.url}
    return {name.encode(): text.format(**there).encode(errors="surrogateescape") for name, text in headers.items()}


@pytest.mark.parametrize("kind", ELSEWHERE)
def test_a_change_that_another_site_asks_for_is_refused(server: Server, client: httpx.Client, kind: str) -> None:
    """Otherwise any page that a visitor opens acts in their name: cross-site request forgery."""
    headers = filled_in(ELSEWHERE[kind], server)
    expect(
        add(client, "espresso", 1, headers), 403, headers={"Set-Cookie": None}
    )  # without the cookie, as SameSite=lax has it
    add(client, "tea", 2)

    expect(add(client, "espresso", 1, headers), 403, headers={"Set-Cookie": None})
    expect(client.delete("/cart/tea", headers=headers), 403, headers={"Set-Cookie": None})
    expect(client.get("/cart"), 200, cart(tea=2))


@pytest.mark.parametrize("kind", HERE)
def test_a_change_that_this_site_asks_for_is_made(server: Server, client: httpx.Client, kind: str) -> None:
    """Otherwise the app's own page does not work."""
    headers = filled_in(HERE[kind], server)

    expect(add(client, "tea", 2, headers), 200, cart(tea=2))
    expect(client.delete("/cart/tea", headers=headers), 200, EMPTY)


def test_behind_a_proxy_that_speaks_https_the_host_decides(client: httpx.Client) -> None:
    """Otherwise the app works at home and refuses everything in production."""
    here, *elsewhere = (
        {"Host": "a.example", "Origin": f"https://{host}"} for host in ("a.example", "b.example", "a.example:8443")
    )

    expect(add(client, "tea", 2, here), 200, cart(tea=2))
    for headers in elsewhere:
        expect(add(client, "tea", 2, headers), 403)


@pytest.mark.parametrize("host", [b"[", b"[::1", b"cafe.example:x", b"cafe.example:99999", b"a b", b"\xe4", b""])
def test_a_hostile_host_is_no_server_error(client: httpx.Client, host: bytes) -> None:
    """Otherwise a stranger fills the error log, and looks for more."""
    for origin in ({}, {b"Origin": b"https://cafe.example"}):
        expect(client.get("/cart", headers={b"Host": host} | origin), range(200, 500))
        expect(add(client, "tea", 1, {b"Host": host} | origin), range(200, 500))


def test_looking_is_allowed_from_everywhere(client: httpx.Client) -> None:
    """Otherwise a link from another site opens a broken page."""
    add(client, "tea", 2)

    expect(client.get("/cart", headers={"Sec-Fetch-Site": "cross-site"}), 200, cart(tea=2))


def test_a_cookie_that_is_hard_to_read_keeps_nobody_waiting(client: httpx.Client) -> None:
    """Otherwise one stranger stops the app for all."""
    ensure_a_long_cookie_is_read_soon(client, "/cart")


# Settings

STARTED_EARLY = ["https_server", "odd_server", "elsewhere", "failing_servers", "keyless_servers"]
ODD_KEY = ' ["a", "b", "this is 32 bytes and more"] '


@pytest.fixture(scope="module")
def https_server(start: Launch) -> Server:
    """The app with HTTPS_ONLY, in letters of both kinds."""
    return start(HTTPS_ONLY="True")


@pytest.fixture(scope="module")
def odd_server(start: Launch) -> Server:
    """The app with an explicit HTTPS_ONLY, a short session key and, in step 3, a JWT key that looks like JSON."""
    return start(HTTPS_ONLY="False", SESSION_SECRET_KEY="äöüäöüäöüäöüäöüä", JWT_SECRET_KEY=ODD_KEY)


def test_without_https_only_the_cookie_has_its_plain_name_and_the_shortest_key_will_do(
    odd_server: Server, browser: Browser, cookie_name: str
) -> None:
    """Otherwise plain http on localhost does not work, or a key is counted in characters: it has 32 bytes."""
    set_now = cookies_set(add(browser(to=odd_server)))

    ensure(list(set_now) == [cookie_name], f"set {list(set_now)}.", f"set {cookie_name}.")


def test_with_https_only_the_cookie_is_for_https_and_this_host_alone(
    https_server: Server, browser: Browser, cookie_name: str
) -> None:
    """Otherwise the cookie crosses the network in clear text, or a sister site plants one."""
    set_now = cookies_set(add(browser(to=https_server)))

    ensure(list(set_now) == [f"__Host-{cookie_name}"], f"set {list(set_now)}.", f"set __Host-{cookie_name}.")
    ensure_out_of_reach(set_now, f"__Host-{cookie_name}", secure=True)


def test_with_https_only_the_cookie_counts_by_its_new_name_alone(
    https_server: Server, browser: Browser, cookie_name: str
) -> None:
    """Otherwise a cookie that came over plain http is believed."""
    value = cookies_set(add(browser(to=https_server), "tea", 2))[f"__Host-{cookie_name}"].value

    expect(browser({f"__Host-{cookie_name}": value}, https_server).get("/cart"), 200, cart(tea=2))
    expect(browser({cookie_name: value}, https_server).get("/cart"), 200, EMPTY)


@pytest.fixture(scope="module")
def elsewhere(start: Launch) -> Server:
    """The same app with the same settings in another process, as after a restart or in a second worker."""
    return start()


def test_a_cart_counts_for_nothing_where_the_key_is_another(
    odd_server: Server, browser: Browser, client: httpx.Client
) -> None:
    """Otherwise SESSION_SECRET_KEY signs nothing, and everyone can write session data who has read the source."""
    add(client, "tea", 2)

    expect(browser(client.cookies, odd_server).get("/cart"), 200, EMPTY)


def test_a_cart_outlives_a_restart_as_the_key_does(elsewhere: Server, browser: Browser, client: httpx.Client) -> None:
    """Otherwise every update of the app empties every cart."""
    add(client, "tea", 2)

    expect(browser(client.cookies, elsewhere).get("/cart"), 200, cart(tea=2))


BAD_SETTINGS: dict[str, dict[str, str]] = {
    "an empty key": {"SESSION_SECRET_KEY": ""},
    "a key of 31 bytes": {"SESSION_SECRET_KEY": "0123456789012345678901234567890"},
    "HTTPS_ONLY=yes": {"HTTPS_ONLY": "yes"},
    "HTTPS_ONLY=": {"HTTPS_ONLY": ""},
}


@pytest.fixture(scope="module")
def failing_servers(request: pytest.FixtureRequest, start: Launch) -> dict[str, Server]:
    """One start a bad setting, all at once."""
    module: ModuleType = request.module
    return {kind: start(**settings) for kind, settings in module.BAD_SETTINGS.items()}


def test_a_bad_setting_stops_the_start_in_one_sentence(
    request: pytest.FixtureRequest, failing_servers: dict[str, Server]
) -> None:
    """Otherwise the app runs with a key that can be guessed, or with cookies that are less safe than was asked for."""
    for kind, settings in request.module.BAD_SETTINGS.items():
        ensure_it_stops_the_start(failing_servers[kind], next(iter(settings)), kind)


@pytest.fixture(scope="module")
def keyless_servers(request: pytest.FixtureRequest, start: Launch) -> list[Server]:
    """Two servers without any key."""
    keys: dict[str, None] = dict.fromkeys(request.module.KEYS)
    return [start(**keys) for _ in range(2)]


def test_a_key_that_is_not_set_is_warned_of_in_one_line(
    request: pytest.FixtureRequest, keyless_servers: list[Server]
) -> None:
    """Otherwise nobody knows why all session data is gone after a restart."""
    ensure_missing_keys_are_warned_of(keyless_servers[0].wait_until_ready(), len(request.module.KEYS))


def test_a_key_that_is_not_set_is_made_up_anew_for_each_process(
    keyless_servers: list[Server], browser: Browser, cookie_name: str
) -> None:
    """Otherwise the key stands in the source, where everyone can read it."""
    client = browser(to=keyless_servers[0])

    add(client, "tea", 2)

    expect(client.get("/cart"), 200, cart(tea=2))
    expect(browser(client.cookies, keyless_servers[1]).get("/cart"), 200, EMPTY)
    ensure(
        forge.data_of(client.cookies[cookie_name], "None") is None,
        'signed with the text "None".',
        "make up a key: SessionMiddleware turns a missing one into text.",
    )
