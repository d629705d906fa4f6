"""Step 3, both together, and an end that holds: what it answers over HTTP, a test per sentence."""

import re
import socketserver
import sqlite3
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from socket import create_server
from typing import Any
from unittest.mock import ANY

import httpx
import pytest

from tests import forge
from tests.cart_and_cookie import *  # noqa: F403 - what steps 2 and 3 have in common
from tests.cart_and_cookie import (
    ELSEWHERE,
    EMPTY,
    ODD_KEY,
    ODD_VALUES,
    PRICES,
    STARTED_EARLY,
    add,
    cart,
    cookies_set,
    ensure_out_of_reach,
    ensure_small,
    filled_in,
    seconds_left,
    session_data,
)
from tests.conftest import Browser, Launch
from tests.expect import (
    ensure,
    ensure_logins_fail_alike_in_time,
    ensure_others_are_answered_while_ten_log_in,
    ensure_random,
    expect,
)
from tests.server import Server

STEP = "step03_combined"
SESSION_COOKIE = "step03_session"
TOKEN_COOKIE = "step03_token"
SESSION_SECONDS = 900
LOGIN_SECONDS = 3600
KEYS = ["JWT_SECRET_KEY", "SESSION_SECRET_KEY"]
STARTED_EARLY = [*STARTED_EARLY, "default_servers", "servers_without_jwt_key", "servers_without_denylist"]
BAD_SETTINGS = {
    "an empty JWT key": {"JWT_SECRET_KEY": ""},
    "a JWT key of 31 bytes": {"JWT_SECRET_KEY": "0123456789012345678901234567890"},
    "a session key of 31 bytes": {"SESSION_SECRET_KEY": "0123456789012345678901234567890"},
    "an empty session key": {"SESSION_SECRET_KEY": ""},
    "HTTPS_ONLY=1": {"HTTPS_ONLY": "1"},
    "HTTPS_ONLY=": {"HTTPS_ONLY": ""},
    "a denylist in a folder that is not there": {"DENYLIST_URL": "sqlite:///no/such/folder/denylist.sqlite3"},
    "a folder for a denylist": {"DENYLIST_URL": "sqlite:///."},
}
ALICE = {"username": "alice", "password": "wonderland"}
BOB = {"username": "bob", "password": "sandcastle"}
IS_ALICE = {"username": "alice", "full_name": "Alice Liddell"}
IS_BOB = {"username": "bob", "full_name": "Bob Stone"}


def log_in(client: httpx.Client, form: dict[str, str] = ALICE) -> httpx.Client:
    """Log in, and return the client with its two cookies."""
    expect(client.post("/login", data=form), 200)
    ensure(forge.looks_like_a_jwt(token_of(client)), f"set {dict(client.cookies)}.", f"set a JWT as {TOKEN_COOKIE}.")
    return client


def token_of(client: httpx.Client) -> str:
    """Return the token in the client's cookie jar."""
    return client.cookies.get(TOKEN_COOKIE) or ""


def jti_of(client: httpx.Client) -> str:
    """Return the jti of the client's login."""
    jti: str = forge.claims_of(token_of(client))["jti"]
    return jti


def pair(token: httpx.Client | None, session: httpx.Client | None) -> dict[str, str]:
    """Return a pair of cookies from two clients: the token of one, the session data of the other."""
    cookies = {TOKEN_COOKIE: token.cookies.get(TOKEN_COOKIE) if token else None}
    cookies[SESSION_COOKIE] = session.cookies.get(SESSION_COOKIE) if session else None
    return {name: value for name, value in cookies.items() if value}


def aged(client: httpx.Client, session_key: str, seconds: int) -> dict[str, str]:
    """Return the client's cookies as if it had last been heard of some seconds ago."""
    data = session_data(client, SESSION_COOKIE, session_key)
    return pair(client, None) | {SESSION_COOKIE: forge.cookie(forge.aged(data, seconds), session_key, seconds)}


@pytest.fixture(scope="module")
def alices(server: Server) -> dict[str, str]:
    """The cookies of a login of Alice, with tea in the cart, that no test ends."""
    with httpx.Client(base_url=server.url, trust_env=False) as client:
        add(log_in(client), "tea", 2)
        return pair(client, client)


# Logging in: the token moves into a cookie


@pytest.mark.parametrize(("form", "user"), [(ALICE, IS_ALICE), (BOB, IS_BOB)])
def test_a_right_login_says_who_it_is(client: httpx.Client, form: dict[str, str], user: dict[str, str]) -> None:
    """Otherwise the login is of no use, or Bob is taken for Alice."""
    expect(client.post("/login", data=form), 200, user, {"Cache-Control": "no-store"})
    expect(client.get("/me"), 200, user, {"Cache-Control": "no-store"})


def test_the_token_is_in_the_cookie_and_nowhere_else(client: httpx.Client) -> None:
    """Otherwise a script that was injected into the page reads it."""
    answer = client.post("/login", data=ALICE)

    token = token_of(client)
    ensure(token.count(".") == 2, f"set the cookies {dict(client.cookies)}.", f"set a JWT as {TOKEN_COOKIE}.")
    elsewhere = [answer.text, *(value for name, value in answer.headers.items() if name.lower() != "set-cookie")]
    ensure(not any(token in text for text in elsewhere), f"answered {answer.text}.", "keep the token out of the body.")


@pytest.mark.parametrize("name", [TOKEN_COOKIE, SESSION_COOKIE])
def test_a_login_sets_both_cookies_out_of_reach_for_scripts_and_other_sites(client: httpx.Client, name: str) -> None:
    """Otherwise an injected script reads a cookie, or another site's form sends it along."""
    ensure_out_of_reach(cookies_set(client.post("/login", data=ALICE)), name)


def test_the_browser_keeps_the_token_for_no_longer_than_it_lasts(client: httpx.Client) -> None:
    """Otherwise the browser goes on sending what is worth nothing."""
    seconds = seconds_left(cookies_set(client.post("/login", data=ALICE))[TOKEN_COOKIE])

    until_closed = seconds == float("inf")
    did = f"sets a token cookie that the browser keeps for {seconds} s."
    ensure(until_closed or abs(seconds - LOGIN_SECONDS) <= 2, did, f"say {LOGIN_SECONDS} s, or nothing.")


def test_a_login_that_comes_as_json_is_refused(client: httpx.Client) -> None:
    """Otherwise there are two ways to log in, and one of them is not looked after."""
    expect(client.post("/login", json=ALICE), 422, {"detail": ANY}, {"Set-Cookie": None})


@pytest.mark.parametrize("form", [ALICE | {"password": "sandcastle"}, ALICE | {"username": "mallory"}])
def test_a_wrong_login_is_refused_in_the_same_words_and_changes_nothing(
    client: httpx.Client, form: dict[str, str]
) -> None:
    """Otherwise a stranger finds out who has an account here, or ends someone's login by guessing."""
    add(log_in(client, BOB), "tea", 2)

    refused = {"detail": "Incorrect username or password"}
    expect(client.post("/login", data=form), 401, refused, {"WWW-Authenticate": None, "Set-Cookie": None})

    expect(client.get("/me"), 200, IS_BOB)
    expect(client.get("/cart"), 200, cart(tea=2))


FORMS = [{}, {"username": "alice"}, {"password": "correct-horse"}, {"grant_type": "correct-horse"}]


@pytest.mark.parametrize("form", [*FORMS, ALICE | {"password": ""}, ALICE | {"username": ""}])
def test_a_form_of_the_wrong_shape_is_refused_and_not_echoed(client: httpx.Client, form: dict[str, str]) -> None:
    """Otherwise a mistyped form puts the password into logs, or lets nobody in as somebody."""
    answer = expect(client.post("/login", data=form), (401, 422) if "" in form.values() else 422)

    missing = {"username", "password"} - set(form)
    named = not missing or any(field in answer.text for field in missing)
    ensure(named, f"did not say that {missing} is missing: {answer.text}", "say where and what.")
    ensure("correct-horse" not in answer.text, f"echoed what came: {answer.text}", "never repeat a value.")


def test_username_and_password_do_not_count_in_the_url(client: httpx.Client) -> None:
    """Otherwise passwords end in the logs of every server and proxy on the way."""
    expect(client.post("/login", params=ALICE), 422, headers={"Set-Cookie": None})


def test_passwords_and_tokens_are_not_logged(server: Server, browser: Browser, client: httpx.Client) -> None:
    """Otherwise whoever reads the log can log in."""
    if not server.log_file:
        pytest.skip("the log of a server that already runs (--url) cannot be read")
    logged_before = len(server.log)

    for password in ("wrong-but-still-secret", "half-a-form"):
        client.post("/login", data={"password": password} | ({"username": "alice"} if "wrong" in password else {}))
    client.post("/login", json=ALICE)
    mixed = pair(log_in(client), log_in(browser(), BOB))
    for cookies in (dict(client.cookies), mixed):
        browser(cookies).get("/me")
        browser(cookies).post("/logout")

    for secret in ("wonderland", "wrong-but-still-secret", "half-a-form", *client.cookies.values(), *mixed.values()):
        ensure(secret not in server.log[logged_before:], f"wrote {secret!r} into its log.", "log who, never with what.")


def test_the_token_is_signed_and_says_which_login_this_is(client: httpx.Client, jwt_key: str) -> None:
    """Otherwise one login cannot be told from another, or is good for ever."""
    token = token_of(log_in(client))

    claims = forge.claims_of(token)
    ensure(forge.are_right(claims, "step03", 3600), f"issued a token that says {claims}.", forge.RIGHT_CLAIMS)
    ensure(forge.header_of(token)["alg"] == "HS256", f"signed {token}.", "sign by HS256.")
    ensure(forge.is_signed_by(token, jwt_key), f"signed {token}.", "sign with JWT_SECRET_KEY, taken as UTF-8 bytes.")


def test_the_jwt_key_is_taken_as_bytes_whatever_it_looks_like(odd_server: Server, browser: Browser) -> None:
    """Otherwise the app signs with something else than you think: a part of the key, or what it decodes to."""
    client = log_in(browser(to=odd_server))

    ensure(forge.is_signed_by(token_of(client), ODD_KEY), f"did not sign with the key {ODD_KEY}.", "take its bytes.")
    expect(client.get("/me"), 200, IS_ALICE)


@pytest.fixture(scope="module")
def servers_without_jwt_key(start: Launch) -> list[Server]:
    """Two servers that have only the key for session data."""
    return [start(JWT_SECRET_KEY=None) for _ in range(2)]


def test_a_jwt_key_that_is_not_set_is_made_up_anew(servers_without_jwt_key: list[Server], browser: Browser) -> None:
    """Otherwise the key stands in the source, where everyone can read it."""
    one, other = servers_without_jwt_key
    client = log_in(browser(to=one))

    expect(client.get("/me"), 200, IS_ALICE)
    expect(browser(client.cookies, other).get("/me"), 401)


def test_a_session_key_that_is_not_set_is_not_the_other_key(start: Launch, browser: Browser, jwt_key: str) -> None:
    """Otherwise whoever learns one key signs both cookies."""
    client = log_in(browser(to=start(SESSION_SECRET_KEY=None)))

    signed_by_it = forge.data_of(client.cookies[SESSION_COOKIE], jwt_key) is not None
    ensure(not signed_by_it, "signed the session data with JWT_SECRET_KEY.", "make up a key for each.")


def test_each_login_has_a_jti_of_its_own_that_nobody_guesses(browser: Browser) -> None:
    """Otherwise one logout ends all logins, or a guessed jti ends someone else's."""
    jtis = [jti_of(log_in(browser())) for _ in range(4)]

    ensure_random(jtis, "four logins")
    every = "".join(jtis)  # how many bits a character has shows in which characters come
    kinds = {"[0-9]+": 3.3, "[0-9a-fA-F-]+": 4, r"[\w-]+": 6}
    bits = next((bits for kind, bits in kinds.items() if re.fullmatch(kind, every)), 6.5)
    enough = all(len(jti) * bits >= 120 for jti in jtis)
    ensure(enough, f"gave the jtis {jtis}.", "take 120 random bits or more: secrets.token_urlsafe(16).")


@pytest.mark.parametrize("kind", forge.BAD_TOKENS)
def test_a_token_that_is_not_acceptable_is_refused_beside_its_own_session_data(
    browser: Browser, alices: dict[str, str], jwt_key: str, kind: str
) -> None:
    """Otherwise someone is let in with a token that nobody gave them, or that is over."""
    token = forge.BAD_TOKENS[kind](forge.claims_of(alices[TOKEN_COOKIE]), jwt_key)

    forger = browser(alices | {TOKEN_COOKIE: token})

    expect(forger.get("/me"), 401, case=f"a token {kind}")
    expect(forger.get("/cart"), 200, EMPTY, case=f"a token {kind}")
    expect(forger.post("/checkout"), 401, case=f"a token {kind}")


@pytest.mark.parametrize("raw", ["null", "7", "true", "[]", "{}", '""', '["{jti}"]'])
def test_a_token_needs_the_jti_of_its_session_data(
    browser: Browser, client: httpx.Client, jwt_key: str, raw: str
) -> None:
    """Otherwise a token that names no login can never be ended."""
    claims = forge.claims_of(token_of(log_in(client)))
    odd = forge.claims_with("jti", raw.replace("{jti}", claims["jti"]))(claims, jwt_key)

    expect(browser(pair(None, client) | {TOKEN_COOKIE: odd}).get("/me"), 401)
    expect(browser(pair(None, client) | {TOKEN_COOKIE: forge.missing("jti")(claims, jwt_key)}).get("/me"), 401)


def test_a_token_signed_elsewhere_with_the_right_key_and_claims_is_accepted(
    browser: Browser, client: httpx.Client, jwt_key: str
) -> None:
    """Otherwise the tests above refuse forged tokens for the wrong reason."""
    token = forge.token(forge.claims_of(token_of(log_in(client))), jwt_key)

    expect(browser(pair(None, client) | {TOKEN_COOKIE: token}).get("/me"), 200, IS_ALICE)


def test_a_token_of_step_1_is_refused(browser: Browser, client: httpx.Client, jwt_key: str) -> None:
    """Otherwise a token made for one app opens another."""
    claims = forge.claims_of(token_of(log_in(client))) | {"aud": "step01"}

    expect(browser(pair(None, client) | {TOKEN_COOKIE: forge.token(claims, jwt_key)}).get("/me"), 401)


def test_without_a_login_nobody_is_logged_in(client: httpx.Client) -> None:
    """Otherwise a client does not learn what is missing, or gets in without it."""
    expect(client.get("/me"), 401, {"detail": ANY})
    expect(client.get("/session"), 200, {"claims": None, "data": {}}, {"Cache-Control": "no-store"})


def test_a_bearer_header_alone_does_not_count(browser: Browser, client: httpx.Client) -> None:
    """Otherwise there are two ways in, and logout closes one."""
    bearer = {"Authorization": f"Bearer {token_of(log_in(client))}"}

    expect(browser().get("/me", headers=bearer), 401)
    expect(browser(pair(None, client)).get("/me", headers=bearer), 401)
    expect(browser(pair(None, client)).get("/me", params={TOKEN_COOKIE: token_of(client)}), 401)


HOSTILE_COOKIES = [b"", b"x", b"..", b"a.b.c", b"\xff\xfe.\xff.\xff", b"." * 1_500, b'"', b"null", b"e30.e30.e30"]


@pytest.mark.parametrize("value", HOSTILE_COOKIES, ids=lambda value: repr(value[:8]))
def test_hostile_cookies_are_no_login_and_no_server_error(client: httpx.Client, value: bytes) -> None:
    """Otherwise a stranger fills the error log, and looks for more."""
    headers = {b"Cookie": b"step03_token=" + value + b"; step03_session=" + value}

    expect(client.get("/me", headers=headers), 401)
    expect(client.get("/cart", headers=headers), 200, EMPTY)
    expect(client.post("/checkout", headers=headers), 401)
    expect(client.post("/logout", headers=headers), 204)


# Tie the two: one login, one pair


def test_session_data_carries_the_jti_of_its_login(client: httpx.Client, session_key: str) -> None:
    """Otherwise nothing ties the two cookies together."""
    data = session_data(log_in(client), SESSION_COOKIE, session_key)

    found = forge.replace(data, lambda value: value == jti_of(client), lambda _: "found")
    ensure(found != data, f"keeps {data} as session data.", f"keep the login's jti, {jti_of(client)}, in it.")


def test_a_token_without_session_data_is_not_logged_in(browser: Browser, client: httpx.Client) -> None:
    """Otherwise whoever got hold of the token alone is in, and no idle timeout ends it."""
    log_in(client)

    expect(browser(pair(client, None)).get("/me"), 401)


def test_session_data_without_its_token_counts_as_empty(browser: Browser, client: httpx.Client) -> None:
    """Otherwise Bob, next at the shared tablet, finds Alice's cart."""
    add(log_in(client), "tea", 2)

    left_behind = browser(pair(None, client))

    expect(left_behind.get("/me"), 401)
    expect(left_behind.get("/cart"), 200, EMPTY)
    expect(left_behind.get("/session"), 200, {"claims": None, "data": {}})
    expect(left_behind.delete("/cart/tea"), 404)


@pytest.mark.parametrize("form", [BOB, ALICE], ids=["another user", "another login of the same user"])
def test_a_token_with_the_session_data_of_another_login_is_not_logged_in(
    browser: Browser, client: httpx.Client, form: dict[str, str]
) -> None:
    """Otherwise Alice orders what Bob put into his cart."""
    other = log_in(browser(), form)
    add(log_in(client), "tea", 2)
    add(other, "espresso", 3)

    for mixed in (browser(pair(client, other)), browser(pair(other, client))):
        expect(mixed.get("/me"), 401)
        expect(mixed.get("/cart"), 200, EMPTY)
        expect(mixed.post("/checkout"), 401)
        expect(mixed.get("/session"), 200, {"claims": None, "data": {}})


def test_a_token_with_the_session_data_of_a_visitor_is_not_logged_in(browser: Browser, client: httpx.Client) -> None:
    """Otherwise whoever plants a cart in a browser has it ordered by the next login: session fixation."""
    visitor = browser()
    add(visitor, "tea", 2)

    mixed = browser(pair(log_in(client), visitor))

    expect(mixed.get("/me"), 401)
    expect(mixed.post("/checkout"), 401)
    expect(mixed.get("/session"), 200, {"claims": None, "data": ANY})


def test_what_is_added_beside_a_strangers_session_data_starts_an_empty_cart(
    browser: Browser, client: httpx.Client
) -> None:
    """Otherwise one sip of tea brings back the whole cart of someone else."""
    add(log_in(client), "tea", 2)
    left_behind = browser(pair(None, client))

    expect(add(left_behind, "espresso", 1), 200, cart(espresso=1))
    expect(log_in(left_behind, BOB).get("/cart"), 200, cart(espresso=1))


def test_a_login_changes_the_session_cookie(browser: Browser) -> None:
    """Otherwise whoever planted the cookie before shares the login after: session fixation."""
    victim = browser()
    add(victim, "tea", 2)
    planted = browser(victim.cookies)

    log_in(victim)

    expect(planted.get("/me"), 401)
    expect(browser(pair(victim, planted)).get("/me"), 401)


def test_what_both_cookies_say_is_shown_without_the_token(client: httpx.Client) -> None:
    """Otherwise the page for learning gives away what HttpOnly protects."""
    add(log_in(client), "tea", 2)

    answer = expect(client.get("/session"), 200, headers={"Cache-Control": "no-store"})

    shown = answer.json()
    ensure(set(shown) == {"claims", "data"}, f"showed {shown}.", "show claims and data.")
    ensure(shown["claims"] == forge.claims_of(token_of(client)), f"showed {shown}.", "show the token's claims.")
    ensure("tea" in str(shown["data"]), f"showed {shown}.", "show what is remembered.")
    for secret in (token_of(client), token_of(client).split(".")[2], client.cookies[SESSION_COOKIE]):
        ensure(secret not in answer.text, f"showed {answer.text}.", "never show a token.")


@pytest.mark.parametrize("value", ODD_VALUES, ids=repr)
def test_internal_fields_of_an_odd_type_are_no_error(
    browser: Browser, client: httpx.Client, session_key: str, value: Any
) -> None:
    """Otherwise an update of the app answers 500 to whoever still has an older cookie."""
    add(log_in(client), "tea", 7)
    data = session_data(client, SESSION_COOKIE, session_key)

    for path, _ in forge.places(data):
        forged = forge.cookie(forge.put(data, path, value), session_key)
        old = browser(pair(client, None) | {SESSION_COOKIE: forged})
        expect(old.get("/me"), (200, 401))
        expect(old.get("/session"), 200)
        expect(old.get("/cart"), 200)
        expect(old.post("/checkout"), (201, 401, 409))
    expect(log_in(old, BOB).get("/me"), 200, IS_BOB)


@pytest.mark.parametrize("value", [None, True, "", "many", [], {}], ids=repr)
def test_an_internal_field_that_cannot_be_used_does_not_cost_the_cart(
    browser: Browser, client: httpx.Client, session_key: str, value: Any
) -> None:
    """Otherwise an update of the app empties the carts of yesterday."""
    add(log_in(client), "tea", 7)
    data = session_data(client, SESSION_COOKIE, session_key)
    about_the_login = [
        path
        for path, found in forge.places(data)
        if found not in (7, PRICES["tea"]) and not re.search(f"tea|alice|{jti_of(client)}", f"{path} {found}", re.I)
    ]

    for path in about_the_login:
        forged = forge.cookie(forge.put(data, path, value), session_key)
        expect(browser(pair(client, None) | {SESSION_COOKIE: forged}).get("/cart"), 200, cart(tea=7))


# Who inherits the cart


def test_a_login_takes_over_the_cart_of_a_visitor_who_was_nobody_yet(client: httpx.Client) -> None:
    """Otherwise logging in costs the visitor the cart."""
    add(client, "tea", 2)

    expect(log_in(client).get("/cart"), 200, cart(tea=2))


def test_a_second_login_brings_back_no_cart_that_was_ordered(browser: Browser, client: httpx.Client) -> None:
    """Otherwise the same cart is ordered as often as someone logs in with a copy of the old cookies."""
    add(log_in(client), "tea", 2)
    copy = browser(client.cookies)
    expect(client.post("/checkout"), 201)

    expect(log_in(copy).get("/cart"), 200)

    expect(copy.post("/checkout"), 409)


def test_a_cart_that_a_second_login_took_over_is_ordered_once(browser: Browser, client: httpx.Client) -> None:
    """Otherwise the cart is ordered by the second login, and once more by a copy of the first one's cookies."""
    add(log_in(client), "tea", 2)
    copies = [browser(client.cookies) for _ in range(2)]

    log_in(client)

    statuses = [one.post("/checkout").status_code for one in (client, copies[0], log_in(copies[1]))]
    ensure(statuses.count(201) <= 1, f"answered {statuses} to three checkouts of one cart.", "order it once at most.")


def test_a_login_does_not_take_over_the_cart_of_another_user(client: httpx.Client) -> None:
    """Otherwise Bob, next at the shared tablet, orders what Alice chose."""
    add(log_in(client), "tea", 2)

    expect(log_in(client, BOB).get("/cart"), 200, EMPTY)
    expect(log_in(client).get("/cart"), 200, EMPTY)


@pytest.mark.parametrize("form", [ALICE, BOB], ids=["the same user", "another user"])
def test_a_login_does_not_take_over_what_a_login_left_that_is_over(
    browser: Browser, client: httpx.Client, form: dict[str, str]
) -> None:
    """Otherwise a copy of an old cookie brings back a cart after logout."""
    add(log_in(client), "tea", 2)
    copy, session_alone = browser(client.cookies), browser(pair(None, client))
    expect(client.post("/logout"), 204)

    expect(log_in(copy, form).get("/cart"), 200, EMPTY)
    expect(log_in(session_alone, form).get("/cart"), 200, EMPTY)


@pytest.mark.parametrize("form", [ALICE, BOB], ids=["the same user", "another user"])
def test_a_login_does_not_take_over_session_data_whose_token_is_missing(
    browser: Browser, client: httpx.Client, form: dict[str, str]
) -> None:
    """Otherwise a session cookie that stayed behind hands a cart to the next user."""
    add(log_in(client), "tea", 2)

    expect(log_in(browser(pair(None, client)), form).get("/cart"), 200, EMPTY)


# An end that holds


def test_logout_drops_both_cookies(client: httpx.Client) -> None:
    """Otherwise the browser goes on sending what is worth nothing."""
    add(log_in(client), "tea", 2)

    set_now = cookies_set(expect(client.post("/logout"), 204))

    for name in (TOKEN_COOKIE, SESSION_COOKIE):
        ensure(name in set_now and seconds_left(set_now[name]) <= 0, f"set {list(set_now)}.", f"expire {name}.")
    expect(client.get("/me"), 401)
    expect(client.get("/cart"), 200, EMPTY)


def test_after_logout_copies_of_both_cookies_are_worth_nothing(browser: Browser, client: httpx.Client) -> None:
    """Otherwise whoever copied the cookies is Alice for another hour, whatever Alice does."""
    add(log_in(client), "tea", 2)
    copy = dict(client.cookies)

    expect(client.post("/logout"), 204)

    expect(browser(copy).get("/me"), 401)
    expect(browser(copy).get("/cart"), 200, EMPTY)
    expect(browser(copy).post("/checkout"), 401)
    expect(browser(copy).get("/session"), 200, {"claims": None, "data": {}})
    expect(browser(copy).delete("/cart/tea"), 404)
    expect(add(browser(copy), "espresso", 1), 200, cart(espresso=1))


@pytest.mark.parametrize("left", ["token", "session data", "nothing"])
def test_logout_drops_the_token_cookie_whatever_came(browser: Browser, client: httpx.Client, left: str) -> None:
    """Otherwise a browser that lost one cookie keeps the other."""
    log_in(client)
    cookies = {"token": pair(client, None), "session data": pair(None, client), "nothing": {}}[left]

    gone = cookies_set(expect(browser(cookies).post("/logout"), 204))

    for name in {TOKEN_COOKIE, *cookies}:
        ensure(name in gone and seconds_left(gone[name]) <= 0, f"set {list(gone)}.", f"expire {name}.")


def test_logout_works_with_or_without_a_login_and_again(client: httpx.Client) -> None:
    """Otherwise a second click shows an error."""
    for _ in range(2):
        expect(client.post("/logout"), 204)
    log_in(client)
    for _ in range(2):
        expect(client.post("/logout"), 204)


@pytest.mark.parametrize("path", ["/logout", "/login", "/checkout"])
def test_a_get_neither_logs_in_nor_out_nor_orders(client: httpx.Client, path: str) -> None:
    """Otherwise a link, or a browser that loads pages in advance, logs Alice out, or in as somebody else."""
    add(log_in(client), "tea", 2)

    expect(client.get(path, params=BOB), range(200, 500), headers={"Set-Cookie": None})

    expect(client.get("/me"), 200, IS_ALICE)
    expect(client.get("/cart"), 200, cart(tea=2))


def test_logout_empties_the_cart_of_a_visitor_who_was_nobody(client: httpx.Client) -> None:
    """Otherwise the next one at the shared tablet finds it."""
    add(client, "tea", 2)

    expect(client.post("/logout"), 204)

    expect(client.get("/cart"), 200, EMPTY)


def test_logout_ends_this_login_and_no_other(browser: Browser) -> None:
    """Otherwise a logout at the tablet logs out the phone."""
    tablet, phone, bobs = log_in(browser()), log_in(browser()), log_in(browser(), BOB)

    expect(tablet.post("/logout"), 204)

    expect(phone.get("/me"), 200, IS_ALICE)
    expect(bobs.get("/me"), 200, IS_BOB)


@pytest.mark.parametrize("end", ["logout", "login"])
def test_logout_and_login_end_every_login_that_the_request_names(browser: Browser, end: str) -> None:
    """Otherwise a login whose other cookie was lost can never be ended."""
    first, second = log_in(browser()), log_in(browser(), BOB)
    mixed = browser(pair(first, second))

    expect(mixed.post("/logout"), 204) if end == "logout" else log_in(mixed)

    expect(first.get("/me"), 401)
    expect(second.get("/me"), 401)


@pytest.mark.parametrize("end", ["logout", "login"])
@pytest.mark.parametrize("left", ["token", "session data"])
def test_one_cookie_is_enough_to_end_its_login(browser: Browser, client: httpx.Client, left: str, end: str) -> None:
    """Otherwise a login whose other cookie was lost can never be ended."""
    log_in(client)
    half = browser(pair(client, None) if left == "token" else pair(None, client))

    expect(half.post("/logout"), 204) if end == "logout" else log_in(half, BOB)

    expect(client.get("/me"), 401)


def test_a_token_beside_a_visitors_session_data_is_ended_too(browser: Browser, client: httpx.Client) -> None:
    """Otherwise a login whose other cookie was overwritten can never be ended."""
    visitor = browser()
    add(visitor, "tea", 2)

    expect(browser(pair(log_in(client), visitor)).post("/logout"), 204)

    expect(client.get("/me"), 401)


def test_a_login_ends_the_one_before_it(browser: Browser, client: httpx.Client) -> None:
    """Otherwise each login leaves a spare key behind."""
    before = browser(log_in(client).cookies)

    log_in(client)

    expect(before.get("/me"), 401)
    expect(client.get("/me"), 200, IS_ALICE)


def test_a_login_that_is_over_stays_over_after_a_restart_and_on_another_server(
    start: Launch, elsewhere: Server, browser: Browser, client: httpx.Client
) -> None:
    """Otherwise an update of the app, or a second worker, lets every thief in again."""
    kept = log_in(browser())
    copy = dict(log_in(client).cookies)
    expect(browser(copy, elsewhere).get("/me"), 200, IS_ALICE)

    expect(client.post("/logout"), 204)

    expect(browser(copy, elsewhere).get("/me"), 401)
    expect(browser(copy, start().wait_until_ready()).get("/me"), 401)
    expect(browser(kept.cookies, elsewhere).get("/me"), 200, IS_ALICE)


@pytest.mark.parametrize("kind", ELSEWHERE)
def test_another_site_can_neither_log_in_nor_out_nor_order(server: Server, browser: Browser, kind: str) -> None:
    """Otherwise any page that Alice opens acts in her name, or has her fill Mallory's cart."""
    headers = filled_in(ELSEWHERE[kind], server)
    client = log_in(browser())
    add(client, "tea", 2)

    expect(browser().post("/login", data=ALICE, headers=headers), 403, headers={"Set-Cookie": None})
    expect(client.post("/login", data=BOB, headers=headers), 403, headers={"Set-Cookie": None})
    expect(client.post("/checkout", headers=headers), 403, headers={"Set-Cookie": None})
    expect(client.post("/logout", headers=headers), 403, headers={"Set-Cookie": None})
    expect(client.get("/me"), 200, IS_ALICE)
    expect(client.post("/checkout"), 201)


# Two clocks


def test_the_absolute_lifetime_ends_a_login_that_is_in_use(
    browser: Browser, client: httpx.Client, jwt_key: str
) -> None:
    """Otherwise a stolen pair of cookies lasts as long as the thief keeps clicking."""
    add(log_in(client), "tea", 2)
    claims = forge.aged(forge.claims_of(token_of(client)), 3605) | {"exp": int(time.time()) - 5}

    late = browser(pair(None, client) | {TOKEN_COOKIE: forge.token(claims, jwt_key)})

    expect(late.get("/me"), 401)
    expect(late.get("/cart"), 200, EMPTY)


def test_the_idle_timeout_ends_a_login_that_is_not_in_use(
    browser: Browser, client: httpx.Client, session_key: str
) -> None:
    """Otherwise the tablet that Alice left on the counter is hers for another hour."""
    add(log_in(client), "tea", 2)

    expect(browser(aged(client, session_key, 905)).get("/me"), 401)
    expect(browser(aged(client, session_key, 905)).get("/cart"), 200, EMPTY)
    expect(browser(aged(client, session_key, 840)).get("/me"), 200, IS_ALICE)


@pytest.mark.parametrize("path", ["/me", "/cart", "/session"])
def test_a_request_renews_the_idle_time_and_nothing_else(
    browser: Browser, client: httpx.Client, jwt_key: str, session_key: str, path: str
) -> None:
    """Otherwise Alice is logged out while she reads the menu, or is never logged out at all."""
    add(log_in(client), "tea", 2)
    exp = int(time.time()) + 60  # nearly over: now is when an app is tempted to move it
    late = forge.token(forge.claims_of(token_of(client)) | {"iat": exp - 3600, "exp": exp}, jwt_key)
    reader = browser(aged(client, session_key, 230) | {TOKEN_COOKIE: late})

    set_now = cookies_set(expect(reader.get(path), 200))

    did = f"set the cookies {list(set_now)} in its answer to GET {path}, 230 s after the last renewal."
    ensure(SESSION_COOKIE in set_now, did, "renew the session cookie after a quarter of 900 s at most.")
    ensure_out_of_reach(set_now, SESSION_COOKIE)
    renewed = set_now[SESSION_COOKIE].value
    age = time.time() - forge.signed_at(renewed, session_key)
    ensure(abs(age) < 60, f"set a session cookie that is {age:.0f} s old.", "sign it anew.")
    if TOKEN_COOKIE in set_now:
        said = forge.claims_of(set_now[TOKEN_COOKIE].value)["exp"]
        ensure(said == exp, "moved exp.", "leave it: no activity moves it.")
    again = browser(pair(client, None) | {SESSION_COOKIE: renewed})
    expect(again.get("/me"), 200, IS_ALICE)
    expect(again.get("/cart"), 200, cart(tea=2))


def test_the_renewed_cookie_is_renewed_in_its_turn(browser: Browser, client: httpx.Client, session_key: str) -> None:
    """Otherwise Alice, who reads all the time, is logged out a quarter of an hour later all the same."""
    reader = browser(aged(log_in(client), session_key, 230))
    set_now = cookies_set(reader.get("/me"))
    ensure(SESSION_COOKIE in set_now, f"set the cookies {list(set_now)} after 230 s.", "renew the session cookie.")
    data = forge.data_of(set_now[SESSION_COOKIE].value, session_key)
    later = forge.cookie(forge.aged(data, 230), session_key, 230)

    answer = browser(pair(client, None) | {SESSION_COOKIE: later}).get("/me")

    expect(answer, 200, IS_ALICE)
    ensure(SESSION_COOKIE in cookies_set(answer), "did not renew a second time.", "renew it after each 225 s.")


# An order is placed once


def test_an_order_is_what_was_in_the_cart_and_empties_it(client: httpx.Client) -> None:
    """Otherwise the kitchen makes something else, or the same again."""
    add(log_in(client), "tea", 2)
    add(client, "espresso", 1)

    order = {"order_id": ANY, "username": "alice", **cart(tea=2, espresso=1)}
    answer = expect(client.post("/checkout"), 201, order, {"Cache-Control": "no-store"})

    order_id = answer.json()["order_id"]
    ensure(
        isinstance(order_id, str) and order_id, f"gave the order id {order_id!r}.", "give it a text that is not empty."
    )
    expect(client.get("/cart"), 200, EMPTY)


def test_without_a_login_nothing_is_ordered(client: httpx.Client) -> None:
    """Otherwise nobody pays."""
    add(client, "tea", 2)

    expect(client.post("/checkout"), 401, {"detail": ANY})
    expect(client.get("/cart"), 200, cart(tea=2))


def test_the_client_chooses_no_order_id(client: httpx.Client) -> None:
    """Otherwise a browser that sends another id each time orders the same cart again and again, or names its price."""
    mine: dict[str, Any] = {"order_id": "mine", "username": "bob", "items": {"tea": 1}, "total_cents": 1}
    add(log_in(client), "tea", 2)

    ids = {"Idempotency-Key": "mine", "X-Request-ID": "mine"}
    answer = client.post("/checkout", json=mine, params=mine, headers=ids)
    if answer.status_code in (400, 415, 422):  # an app that takes no body may say so
        answer = client.post("/checkout", headers=ids)

    expect(answer, 201, {"order_id": ANY, "username": "alice", **cart(tea=2)})
    ensure("mine" not in answer.text, f"answered {answer.text}.", "make the id at login; take none from the client.")


def test_an_empty_cart_is_not_ordered(client: httpx.Client) -> None:
    """Otherwise a second click orders nothing, and calls the kitchen."""
    expect(log_in(client).post("/checkout"), 409, {"detail": ANY})


def test_one_order_after_the_other_each_has_an_id_of_its_own(client: httpx.Client) -> None:
    """Otherwise whoever orders once a login is stuck."""
    log_in(client)
    ids = []
    for _ in range(120):
        add(client, "tea", 2)
        answer = expect(client.post("/checkout"), 201)
        ids.append(answer.json()["order_id"])

    ensure_random(ids[:3], "three orders")
    ensure_small(cookies_set(answer))


def test_a_replayed_pair_of_cookies_orders_nothing(browser: Browser, client: httpx.Client) -> None:
    """Otherwise the same cart is ordered, and paid, as often as an old pair of cookies is sent."""
    copies = []
    log_in(client)
    for _ in range(2):
        add(client, "tea", 2)
        copies.append(dict(client.cookies))
        expect(client.post("/checkout"), 201)

    for copy in copies:
        changed = browser(copy)
        add(changed, "espresso", 1)
        expect(browser(copy).post("/checkout"), 409, {"detail": ANY})
        expect(browser(copy).post("/checkout"), 409)
        expect(changed.post("/checkout"), 409)


def test_whoever_is_told_already_ordered_begins_with_an_empty_cart_and_is_not_stuck(
    browser: Browser, client: httpx.Client
) -> None:
    """Otherwise a browser that missed one answer can never order again."""
    add(log_in(client), "tea", 2)
    copy = browser(client.cookies)
    expect(client.post("/checkout"), 201)
    expect(copy.post("/checkout"), 409)

    expect(copy.get("/cart"), 200, EMPTY)
    add(copy, "espresso", 1)
    expect(copy.post("/checkout"), 201, {"order_id": ANY, "username": "alice", **cart(espresso=1)})


@pytest.mark.parametrize("where", ["server", "elsewhere"])
def test_of_many_checkouts_at_the_same_moment_one_is_an_order(
    request: pytest.FixtureRequest, browser: Browser, client: httpx.Client, where: str
) -> None:
    """Otherwise a double click orders twice: in one process, or as soon as there are two."""
    other: Server = request.getfixturevalue(where)
    for _ in range(5):
        add(log_in(client), "tea", 2)
        tabs = [browser(dict(client.cookies), to) for to in (None, other) * 4]

        with ThreadPoolExecutor(len(tabs)) as pool:
            statuses = sorted(pool.map(lambda tab: tab.post("/checkout").status_code, tabs))

        right = [201] + [409] * 7
        ensure(statuses == right, f"answered {statuses} to 8 checkouts of one cart.", f"answer {right}.")


def test_a_replay_orders_nothing_after_a_restart_or_on_another_server(
    elsewhere: Server, browser: Browser, client: httpx.Client
) -> None:
    """Otherwise an update of the app, or a second worker, places old orders again."""
    add(log_in(client), "tea", 2)
    copy = dict(client.cookies)
    expect(client.post("/checkout"), 201)

    expect(browser(copy, elsewhere).post("/checkout"), 409)


def test_two_logins_that_took_over_the_same_cart_order_it_each(browser: Browser, client: httpx.Client) -> None:
    """Otherwise whoever plants a cart in a browser knows the order's id, and can use it up."""
    add(client, "tea", 2)
    ids = set()
    for form in (ALICE, BOB):
        ids.add(expect(log_in(browser(client.cookies), form).post("/checkout"), 201).json()["order_id"])

    ensure(len(ids) == 2, f"gave both orders the id {ids}.", "make the id at login, never take it from the cart.")


# The denylist, and its being out of reach


@pytest.fixture(scope="module")
def default_servers(start: Launch) -> list[Server]:
    """Two servers without a DENYLIST_URL."""
    return [start(DENYLIST_URL=None) for _ in range(2)]


def test_without_a_denylist_url_a_login_that_is_over_stays_over(
    default_servers: list[Server], browser: Browser
) -> None:
    """Otherwise who sets nothing has no logout: a restart, or a second worker, lets every thief in again."""
    client = log_in(browser(to=default_servers[0]))
    copy = browser(dict(client.cookies), default_servers[1])
    expect(copy.get("/me"), 200, IS_ALICE)

    expect(client.post("/logout"), 204)

    expect(copy.get("/me"), 401)


def test_a_denylist_file_that_is_locked_is_a_denylist_out_of_reach(
    start: Launch, browser: Browser, tmp_path: Path
) -> None:
    """Otherwise a backup of the file answers logouts with a server error. (Whom a lock does not hinder may go on.)"""
    file = tmp_path / "denylist.sqlite3"
    client = log_in(browser(to=start(DENYLIST_URL=f"sqlite:///{file}")))

    with suppress(sqlite3.Error), closing(sqlite3.connect(file, isolation_level=None)) as lock:
        lock.execute("BEGIN EXCLUSIVE")
        expect(client.post("/logout"), (204, 503))

    expect(client.post("/logout"), 204)


class EmptyRedis(socketserver.StreamRequestHandler):
    """A Redis in which nothing is found, and all is taken (RESP, the protocol of Redis)."""

    def handle(self) -> None:
        answers = {b"GET": b"$-1", b"SET": b"+OK", b"PING": b"+PONG", b"CLIENT": b"+OK", b"SELECT": b"+OK"}
        while line := self.rfile.readline():
            words = [self.rfile.read(int(self.rfile.readline()[1:]) + 2)[:-2] for _ in range(int(line[1:]))]
            hello = b"%1\r\n+proto\r\n:" + b"".join(words[1:2])
            other = hello if words[0].upper() == b"HELLO" else b":0"
            self.wfile.write(answers.get(words[0].upper(), other) + b"\r\n")


@pytest.fixture(scope="module")
def redis() -> Iterator[socketserver.ThreadingTCPServer]:
    """A Redis whose port is taken and refuses connections, until it is activated."""
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), EmptyRedis, bind_and_activate=False) as redis:
        redis.daemon_threads, redis.block_on_close = True, False
        redis.server_bind()
        yield redis


@pytest.fixture(scope="module")
def servers_without_denylist(start: Launch, redis: socketserver.ThreadingTCPServer) -> Iterator[dict[str, Server]]:
    """Servers that cannot ask their denylist; being out of reach does not stop the start."""
    refuses = f"://127.0.0.1:{redis.server_address[1]}/0"
    with create_server(("127.0.0.1", 0), backlog=128) as silent:  # as a Redis behind a broken network
        urls = {"refuses": f"redis{refuses}", "refuses, over TLS": f"rediss{refuses}"}
        urls["is silent"] = f"redis://127.0.0.1:{silent.getsockname()[1]}/0"
        yield {kind: start(DENYLIST_URL=url) for kind, url in urls.items()}


REQUESTS = [("GET", "/me"), ("GET", "/cart"), ("POST", "/cart"), ("DELETE", "/cart/tea"), ("POST", "/checkout")]


@pytest.mark.parametrize("kind", ["refuses", "refuses, over TLS", "is silent"])
def test_nobody_is_let_in_while_the_denylist_cannot_be_asked(
    servers_without_denylist: dict[str, Server], browser: Browser, alices: dict[str, str], kind: str
) -> None:
    """Otherwise a thief waits for the next failure of Redis: every login that ever ended is good again."""
    clients = [browser(alices, servers_without_denylist[kind]) for _ in REQUESTS]

    with ThreadPoolExecutor() as pool:
        answers = pool.map(
            lambda client, line: client.request(*line, json={"item": "tea"}, timeout=3), clients, REQUESTS
        )

    for answer in answers:
        expect(answer, 503, {"detail": ANY}, {"Set-Cookie": None})


@pytest.mark.parametrize("kind", ["refuses", "is silent"])
def test_a_logout_that_cannot_be_noted_keeps_the_cookies_so_that_it_can_be_repeated(
    servers_without_denylist: dict[str, Server], browser: Browser, client: httpx.Client, kind: str
) -> None:
    """Otherwise Alice believes she is logged out, and a copy of her cookies is good for another hour."""
    log_in(client)
    halves = [pair(client, client), pair(client, None), pair(None, client)]
    clients = [browser(cookies, servers_without_denylist[kind]) for cookies in halves]

    with ThreadPoolExecutor() as pool:
        answers = pool.map(lambda client: client.post("/logout", timeout=5), clients)

    for answer in answers:
        expect(answer, 503, {"detail": ANY}, {"Set-Cookie": None})


def test_a_logout_without_a_login_needs_no_denylist(
    servers_without_denylist: dict[str, Server], browser: Browser
) -> None:
    """Otherwise who has nothing to end is told to try again."""
    expect(browser(to=servers_without_denylist["refuses"]).post("/logout"), 204)


def test_a_login_without_cookies_gets_a_plain_answer(
    servers_without_denylist: dict[str, Server], browser: Browser
) -> None:
    """Otherwise a new user sees a server error."""
    for kind in ("refuses", "is silent"):
        expect(browser(to=servers_without_denylist[kind]).post("/login", data=ALICE, timeout=5), (200, 503))


def test_a_login_that_cannot_end_the_one_before_it_is_refused(
    servers_without_denylist: dict[str, Server], browser: Browser, client: httpx.Client
) -> None:
    """Otherwise the login before it goes on for ever: nobody will name it again."""
    log_in(client)

    again = browser(client.cookies, servers_without_denylist["refuses"])

    expect(again.post("/login", data=ALICE, timeout=5), 503, headers={"Set-Cookie": None})


def test_a_denylist_that_comes_back_is_asked_again(
    servers_without_denylist: dict[str, Server],
    redis: socketserver.ThreadingTCPServer,
    browser: Browser,
    alices: dict[str, str],
) -> None:
    """Otherwise one failure of Redis needs a restart of every app."""
    client = browser(alices, servers_without_denylist["refuses"])
    expect(client.get("/me"), 503)

    redis.server_activate()
    threading.Thread(target=redis.serve_forever).start()
    end = time.monotonic() + 10
    while (answer := client.get("/me")).status_code == 503 and time.monotonic() < end:
        time.sleep(0.1)
    redis.shutdown()

    expect(answer, 200, IS_ALICE)


# Settings


def test_with_https_only_both_cookies_are_for_https_and_this_host_alone(https_server: Server, browser: Browser) -> None:
    """Otherwise a cookie crosses the network in clear text, or a sister site plants one."""
    set_now = cookies_set(browser(to=https_server).post("/login", data=ALICE))

    names = {f"__Host-{TOKEN_COOKIE}", f"__Host-{SESSION_COOKIE}"}
    ensure(set(set_now) == names, f"set {list(set_now)}.", f"set {names}.")
    for name in names:
        ensure_out_of_reach(set_now, name, secure=True)
    both = {"Cookie": "; ".join(f"{name}={cookie.value}" for name, cookie in set_now.items())}
    expect(browser(to=https_server).get("/me", headers=both), 200, IS_ALICE)
    for plain in (TOKEN_COOKIE, SESSION_COOKIE):
        named_plainly = both["Cookie"].replace(f"__Host-{plain}", plain)
        expect(browser(to=https_server).get("/me", headers={"Cookie": named_plainly}), 401)
    gone = cookies_set(browser(to=https_server).post("/logout", headers=both))
    ensure(set(gone) == names, f"expired {list(gone)}.", f"expire {names}.")
    for cookie in gone.values():
        ensure(cookie["secure"], "expired a cookie without Secure.", "repeat Secure: browsers refuse it otherwise.")


# Times that are compared: at the end, when no server is starting any more


def test_an_unknown_user_is_refused_after_about_the_same_time(client: httpx.Client) -> None:
    """Otherwise a stranger finds out who has an account here, with a stopwatch."""
    ensure_logins_fail_alike_in_time(client)


def test_a_login_keeps_nobody_else_waiting(client: httpx.Client) -> None:
    """Otherwise a few logins hold up everybody: checking a password takes a core for a while, on purpose."""
    ensure_others_are_answered_while_ten_log_in(client)
