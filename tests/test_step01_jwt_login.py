"""Step 1, a JWT is the login: what it answers over HTTP, a test per sentence."""

import re
import time
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
    ensure_logins_fail_alike_in_time,
    ensure_missing_keys_are_warned_of,
    ensure_others_are_answered_while_ten_log_in,
    expect,
)
from tests.server import Server

STEP = "step01_jwt_login"
ALICE = {"username": "alice", "password": "wonderland"}
BOB = {"username": "bob", "password": "sandcastle"}
# RFC 6750 section 3: without a token it is only asked for; a token that is no good is called so.
ASKED_FOR = re.compile(r"(?#Bearer, without an error)^Bearer\b(?!.*error=)", re.IGNORECASE)
INVALID = re.compile(r'(?#Bearer error="invalid_token")^Bearer\b.*\berror="?invalid_token', re.IGNORECASE)
SIGN_WITH_THE_KEY = "sign with JWT_SECRET_KEY, taken as UTF-8 bytes (with --url: is it set to the server's key?)."
REFUSED = {"detail": "Incorrect username or password"}


def log_in(client: httpx.Client, form: dict[str, str] = ALICE) -> str:
    """Return the token of a new login."""
    answer = {"access_token": ANY, "token_type": "bearer", "expires_in": 900}
    token: str = expect(client.post("/login", data=form), 200, answer).json()["access_token"]
    ensure(forge.looks_like_a_jwt(token), f"answered with the access_token {token!r}.", "answer with a JWT.")
    return token


def me(client: httpx.Client, token: str) -> httpx.Response:
    """Ask who the token's user is."""
    return client.get("/me", headers={"Authorization": f"Bearer {token}"})


# Logging in


def test_a_right_login_is_answered_with_a_bearer_token_for_15_minutes(client: httpx.Client) -> None:
    """Otherwise no client knows what to send along, and until when."""
    answer = client.post("/login", data=ALICE)

    right = {"access_token": ANY, "token_type": "bearer", "expires_in": 900}
    expect(answer, 200, right, {"Cache-Control": "no-store"})


@pytest.mark.parametrize(("form", "full_name"), [(ALICE, "Alice Liddell"), (BOB, "Bob Stone")])
def test_the_token_tells_me_who_logged_in(client: httpx.Client, form: dict[str, str], full_name: str) -> None:
    """Otherwise the login is of no use, or Bob is taken for Alice."""
    answer = me(client, log_in(client, form))

    right = {"username": form["username"], "full_name": full_name}
    expect(answer, 200, right, {"Cache-Control": "no-store"})


def test_a_wrong_password_is_refused(client: httpx.Client) -> None:
    """Otherwise anyone is Alice."""
    answer = client.post("/login", data=ALICE | {"password": "sandcastle"})

    expect(answer, 401, REFUSED, {"WWW-Authenticate": ASKED_FOR})


def test_an_unknown_user_is_refused_in_the_same_words(client: httpx.Client) -> None:
    """Otherwise a stranger finds out who has an account here."""
    answer = client.post("/login", data=ALICE | {"username": "mallory"})

    expect(answer, 401, REFUSED, {"WWW-Authenticate": ASKED_FOR})


NEARLY = ["Wonderland", "WONDERLAND", "wonderlan", "wonderland ", " wonderland", "wonderland\0x", "None", "' OR '1'='1"]


@pytest.mark.parametrize("password", NEARLY)
def test_a_password_that_is_nearly_right_is_refused(client: httpx.Client, password: str) -> None:
    """Otherwise there is more than one way in."""
    answer = client.post("/login", data=ALICE | {"password": password})

    expect(answer, (401, 422))


@pytest.mark.parametrize("username", ["Alice", "ALICE", "alice ", "alice\0", "alic", "bob", "alice,bob"])
def test_a_username_that_is_nearly_right_is_refused(client: httpx.Client, username: str) -> None:
    """Otherwise one person's password opens another person's account."""
    answer = client.post("/login", data=ALICE | {"username": username})

    expect(answer, (401, 422))


@pytest.mark.parametrize("empty", ["username", "password"])
def test_an_empty_username_or_password_is_refused(client: httpx.Client, empty: str) -> None:
    """Otherwise nobody is somebody."""
    answer = client.post("/login", data=ALICE | {empty: ""})

    expect(answer, (401, 422))


@pytest.mark.parametrize("missing", ["username", "password"])
def test_a_form_without_username_or_password_is_told_what_is_missing(client: httpx.Client, missing: str) -> None:
    """Otherwise whoever writes the client guesses."""
    answer = client.post("/login", data=forge.without(ALICE, missing))

    expect(answer, 422, {"detail": ANY})
    ensure(missing in answer.text, f"did not say that {missing} is missing: {answer.text}", "say where and what.")


def test_a_login_that_comes_as_json_is_refused(client: httpx.Client) -> None:
    """Otherwise there are two ways to log in, and one of them is not looked after."""
    answer = client.post("/login", json=ALICE)

    expect(answer, 422)


def test_a_refused_form_is_not_echoed(client: httpx.Client) -> None:
    """Otherwise a mistyped form puts the password into logs and error trackers."""
    secret = "correct-horse-battery"

    answers = [
        client.post("/login", data={"password": secret}),
        client.post("/login", json={"password": secret}),
        client.post("/login", data={"grant_type": secret, "password": secret}),
        client.post("/login", files={"username": ("a", b"a"), "password": ("b", secret.encode())}),
        client.post("/login", content=f"{secret}=1", headers={"Content-Type": "application/x-www-form-urlencoded"}),
    ]

    for answer in answers:
        ensure(
            secret not in answer.text, f"echoed what came: {answer.text}", "never repeat a value: it can be a password."
        )


def test_username_and_password_do_not_count_in_the_url(client: httpx.Client) -> None:
    """Otherwise passwords end in the logs of every server and proxy on the way."""
    expect(client.post("/login", params=ALICE), 422)

    answer = expect(client.get("/login", params=ALICE), range(200, 500))
    got = re.search(r"\beyJ[\w-]+\.", f"{answer.text} {answer.headers}")
    ensure(not got, f"answered {answer.text} to GET {answer.url}.", "take a login from the form of a POST alone.")


def test_passwords_and_tokens_are_not_logged(server: Server, client: httpx.Client, jwt_key: str) -> None:
    """Otherwise whoever reads the log can log in."""
    if not server.log_file:
        pytest.skip("the log of a server that already runs (--url) cannot be read")

    logged_before = len(server.log)
    token = log_in(client)
    refused = forge.token(forge.good_claims("bakery"), jwt_key)
    me(client, token)
    me(client, refused)
    client.post("/login", data=ALICE | {"password": "wrong-but-still-secret"})
    client.post("/login", data={"password": "half-a-form"})
    client.post("/login", json=ALICE)
    client.get("/me", headers={"Authorization": f"Token {token}", "Cookie": f"token={token}", "X-Token": token})

    for secret in ("wonderland", "wrong-but-still-secret", "half-a-form", token, refused, token.split(".")[2]):
        ensure(secret not in server.log[logged_before:], f"wrote {secret!r} into its log.", "log who, never with what.")


# The token


def test_the_token_is_signed_by_the_key_with_hs256(client: httpx.Client, jwt_key: str) -> None:
    """Otherwise nobody but this app can check it, or anybody can make it."""
    token = log_in(client)

    alg = forge.header_of(token).get("alg")
    ensure(alg == "HS256", f"signs its tokens by {alg}.", "sign them by HS256.")
    ensure(
        forge.is_signed_by(token, jwt_key), f"made the token {token}.", "sign it with JWT_SECRET_KEY as UTF-8 bytes."
    )


def test_the_token_says_by_whom_for_what_for_whom_and_until_when(client: httpx.Client) -> None:
    """Otherwise it is good for ever, or somewhere else."""
    claims = forge.claims_of(log_in(client))

    ensure(forge.are_right(claims, "step01", 900), f"issued a token that says {claims}.", forge.RIGHT_CLAIMS)


def test_the_token_carries_no_secret(client: httpx.Client) -> None:
    """Otherwise everyone on its way can read the secret: a JWT is signed, not encrypted."""
    payload = forge.decode(log_in(client).split(".")[1]).decode()

    for secret in ("wonderland", "argon2", "$2b$", "password", "hash"):
        ensure(secret not in payload, f"wrote {secret!r} into the token: {payload}", "write in it who, not with what.")


def test_a_token_made_elsewhere_with_the_right_key_and_claims_is_accepted(client: httpx.Client, jwt_key: str) -> None:
    """Otherwise the tests below refuse forged tokens for the wrong reason."""
    token = forge.token(forge.good_claims("step01", "bob"), jwt_key)

    expect(me(client, token), 200, {"username": "bob", "full_name": "Bob Stone"})


@pytest.mark.parametrize("kind", forge.BAD_TOKENS)
def test_a_token_that_is_not_acceptable_is_refused(client: httpx.Client, jwt_key: str, kind: str) -> None:
    """Otherwise someone is let in with a token that nobody gave them, or that is over."""
    token = forge.BAD_TOKENS[kind](forge.good_claims("step01"), jwt_key)

    answer = me(client, token)

    expect(answer, 401, {"detail": ANY}, {"WWW-Authenticate": INVALID}, case=f"a token {kind}")


def test_a_token_that_was_accepted_once_is_refused_when_it_is_over(client: httpx.Client, jwt_key: str) -> None:
    """Otherwise a token that was looked at once is good until the next restart: its answer was kept."""
    token = forge.token(forge.good_claims("step01", seconds=3), jwt_key)
    expect(me(client, token), 200)

    time.sleep(3)

    expect(me(client, token), 401, headers={"WWW-Authenticate": INVALID})


def test_a_token_of_step_3_is_refused(client: httpx.Client, jwt_key: str) -> None:
    """Otherwise a token made for one app opens another."""
    token = forge.token(forge.good_claims("step03", seconds=3600) | {"jti": "VGhpcyBpcyBzdGVwIDMncw"}, jwt_key)

    expect(me(client, token), 401, {"detail": ANY}, {"WWW-Authenticate": INVALID})


@pytest.mark.parametrize("header", [None, "", "Basic YWxpY2U6d29uZGVybGFuZA==", "alice", "Token x"])
def test_without_a_bearer_token_one_is_asked_for(client: httpx.Client, header: str | None) -> None:
    """Otherwise a client does not learn what is missing, or gets in without it."""
    answer = client.get("/me", headers={} if header is None else {"Authorization": header})

    expect(answer, 401, {"detail": ANY}, {"WWW-Authenticate": ASKED_FOR})


@pytest.mark.parametrize("scheme", ["Token", "JWT", "Basic", "Bearer:", "access_token", ""])
def test_a_token_that_is_not_called_bearer_does_not_count(client: httpx.Client, scheme: str) -> None:
    """Otherwise there is a second way in, and nobody looks after it."""
    answer = client.get("/me", headers={"Authorization": f"{scheme} {log_in(client)}".strip()})

    expect(answer, 401, {"detail": ANY})


@pytest.mark.parametrize("name", ["X-Access-Token", "X-Auth-Token", "Token", "Access-Token", "Proxy-Authorization"])
def test_a_token_in_another_header_does_not_count(client: httpx.Client, name: str) -> None:
    """Otherwise there is a second way in, and nobody looks after it."""
    token = log_in(client)

    expect(client.get("/me", headers={name: token}), 401)
    expect(client.get("/me", headers={name: f"Bearer {token}"}), 401)


def test_the_word_bearer_with_nothing_after_it_is_refused(client: httpx.Client) -> None:
    """Otherwise no token is as good as one."""
    expect(client.get("/me", headers={"Authorization": "Bearer"}), 401, headers={"WWW-Authenticate": "Bearer"})


@pytest.mark.parametrize("name", ["token", "access_token", "jwt", "Authorization", "authorization", "bearer"])
def test_a_token_in_the_url_does_not_count(client: httpx.Client, name: str) -> None:
    """Otherwise tokens end in histories, logs and Referer headers."""
    token = log_in(client)

    expect(client.get("/me", params={name: token}), 401)


@pytest.mark.parametrize(
    "name", ["token", "access_token", "jwt", "Authorization", "session", "step01_token", "step03_token"]
)
def test_a_token_in_a_cookie_does_not_count(browser: Browser, client: httpx.Client, name: str) -> None:
    """Otherwise other sites can use it: browsers send cookies by themselves."""
    token = log_in(client)

    expect(browser({name: token}).get("/me"), 401)
    expect(browser({name: f"Bearer {token}"}).get("/me"), 401)


def test_a_login_sets_no_cookie(client: httpx.Client) -> None:
    """Otherwise the token is in two places, and one of them is forgotten."""
    answer = expect(client.post("/login", data=ALICE), 200)
    set_now = answer.headers.get("Set-Cookie", "")
    ensure(answer.json()["access_token"] not in set_now, f"set the cookie {set_now}.", "set no cookie with the token.")


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/nowhere", 404), ("PUT", "/me", (404, 405))])
def test_an_error_has_a_detail(client: httpx.Client, method: str, path: str, status: Any) -> None:
    """Otherwise whoever writes the client must read two kinds of errors."""
    expect(client.request(method, path), status, {"detail": ANY})


def test_the_page_is_there(client: httpx.Client) -> None:
    """Otherwise a learner sees nothing in the browser."""
    expect(client.get("/"), 200, headers={"Content-Type": "text/html"})


# Whatever a client sends

HOSTILE_LOGINS: dict[str, dict[str, Any]] = {
    "nothing": {"content": b""},
    "a form of nothing": {"data": {}},
    "bytes that are no text": {"content": b"username=%ff%fe&password=\xff\xfe"},
    "percent signs that mean nothing": {"content": b"username=%&password=%zz"},
    "a NUL": {"data": {"username": "alice\0", "password": "\0"}},
    "two usernames": {"content": b"username=alice&username=bob&password=wrong"},
    "pieces whose length is not announced": {"content": [b"username=alice&", b"password=wrong"]},
    "five thousand fields": {"content": b"a=1&" * 5_000},
    "a password of a megabyte": {"data": {"username": "alice", "password": "x" * 1_000_000}},
    "a multipart form without boundary": {"content": b"x", "headers": {"Content-Type": "multipart/form-data"}},
    "a charset that does not exist": {
        "content": b"x",
        "headers": {"Content-Type": "multipart/form-data; boundary=x; charset=x"},
    },
    "JSON nested a thousand deep": {"content": forge.NESTED, "headers": {"Content-Type": "application/json"}},
    "JSON of NaN": {"content": b"NaN", "headers": {"Content-Type": "application/json"}},
    "half a character": {"content": b'{"username": "\\ud800"}', "headers": {"Content-Type": "application/json"}},
    "half a character in UTF-7": {
        "content": b'--x\r\nContent-Disposition: form-data; name="username"\r\n\r\nalice\r\n--x\r\n'
        b'Content-Disposition: form-data; name="password"\r\n\r\n+2AA-\r\n--x--\r\n',
        "headers": {"Content-Type": "multipart/form-data; boundary=x; charset=utf-7"},
    },
    "a charset that refuses": {
        "content": b'--x\r\nContent-Disposition: form-data; name="username"\r\n\r\nalice\r\n--x--\r\n',
        "headers": {"Content-Type": "multipart/form-data; boundary=x; charset=undefined"},
    },
}


@pytest.mark.parametrize("kind", HOSTILE_LOGINS)
def test_a_hostile_login_is_refused_without_a_server_error(client: httpx.Client, kind: str) -> None:
    """Otherwise a stranger fills the error log, and looks for more."""
    arguments = dict(HOSTILE_LOGINS[kind])
    headers = {"Content-Type": "application/x-www-form-urlencoded"} | arguments.pop("headers", {})

    answer = client.post("/login", headers=headers, **arguments)

    expect(answer, range(400, 500))


HOSTILE_HEADERS = [b"Bearer \xff\xfe", b"Bearer a b c", b"Bearer\t.", b"\xf0\x9f\x8d\xaa", b"Bearer \xc3\xa9.e.e"]


@pytest.mark.parametrize("value", [*HOSTILE_HEADERS, b"Bearer " + b"." * 5_000])
def test_a_hostile_header_is_refused_without_a_server_error(client: httpx.Client, value: bytes) -> None:
    """Otherwise a stranger fills the error log, and looks for more."""
    expect(client.get("/me", headers={b"Authorization": value}), (400, 401, 431))


def test_a_cookie_that_is_hard_to_read_keeps_nobody_waiting(client: httpx.Client) -> None:
    """Otherwise one stranger stops the app for all."""
    ensure_a_long_cookie_is_read_soon(client, "/me")


# Settings


STARTED_EARLY = ["elsewhere", "odd_servers", "short_key_servers", "keyless_servers"]


@pytest.fixture(scope="module")
def elsewhere(start: Launch) -> Server:
    """The same app with the same key in another process, as after a restart."""
    return start()


def test_a_token_outlives_a_restart_as_the_key_does(elsewhere: Server, browser: Browser, client: httpx.Client) -> None:
    """Otherwise every update of the app logs everyone out."""
    token = log_in(client)

    expect(me(browser(to=elsewhere), token), 200)


ODD_KEYS = {
    "in quotes": '"in quotes, as a shell may leave it"',
    "a JSON list, umlauts, and spaces around it": ' ["a", "b", "äöüäöüäöüäöüäöüä"] ',
}


@pytest.fixture(scope="module")
def odd_servers(start: Launch) -> dict[str, Server]:
    """One server a key, all starting at once."""
    return {kind: start(JWT_SECRET_KEY=key) for kind, key in ODD_KEYS.items()}


@pytest.mark.parametrize("kind", ODD_KEYS)
def test_the_key_is_taken_as_bytes_whatever_it_looks_like(
    odd_servers: dict[str, Server], browser: Browser, kind: str
) -> None:
    """Otherwise the app signs with something else than you think: a part of the key, or what it decodes to."""
    client = browser(to=odd_servers[kind])

    token = log_in(client)

    ensure(forge.is_signed_by(token, ODD_KEYS[kind]), f"did not sign with the key {ODD_KEYS[kind]}.", "take its bytes.")
    expect(me(client, token), 200)
    expect(me(client, forge.token(forge.good_claims("step01"), "a")), 401)


def test_another_key_ends_all_logins(odd_servers: dict[str, Server], browser: Browser, client: httpx.Client) -> None:
    """Otherwise a key that leaked cannot be replaced, or is not used at all."""
    expect(me(browser(to=odd_servers["in quotes"]), log_in(client)), 401)


@pytest.fixture(scope="module")
def short_key_servers(start: Launch) -> dict[str, Server]:
    """One start a key, all at once."""
    return {key: start(JWT_SECRET_KEY=key) for key in ("", "0123456789012345678901234567890")}


@pytest.mark.parametrize("key", ["", "0123456789012345678901234567890"])
def test_a_key_shorter_than_32_bytes_stops_the_start_in_one_sentence(
    short_key_servers: dict[str, Server], key: str
) -> None:
    """Otherwise the key can be guessed on one computer, from one token."""
    ensure_it_stops_the_start(short_key_servers[key], "JWT_SECRET_KEY")


@pytest.fixture(scope="module")
def keyless_servers(start: Launch) -> list[Server]:
    """Two servers without a key."""
    return [start(JWT_SECRET_KEY=None) for _ in range(2)]


def test_a_key_that_is_not_set_is_warned_of_in_one_line(keyless_servers: list[Server]) -> None:
    """Otherwise nobody knows why all are logged out after a restart."""
    ensure_missing_keys_are_warned_of(keyless_servers[0].wait_until_ready(), 1)


def test_a_key_that_is_not_set_is_made_up_anew_for_each_process(
    keyless_servers: list[Server], browser: Browser
) -> None:
    """Otherwise the key stands in the source, where everyone can read it."""
    first, second = (browser(to=server) for server in keyless_servers)

    token = log_in(first)

    expect(me(first, token), 200)
    expect(me(second, token), 401)
    expect(me(first, forge.token(forge.good_claims("step01"), "None")), 401)


# Times that are compared: at the end, when no server is starting any more


def test_an_unknown_user_is_refused_after_about_the_same_time(client: httpx.Client) -> None:
    """Otherwise a stranger finds out who has an account here, with a stopwatch."""
    ensure_logins_fail_alike_in_time(client)


def test_a_login_keeps_nobody_else_waiting(client: httpx.Client) -> None:
    """Otherwise a few people who log in at the same moment stop the app for all."""
    ensure_others_are_answered_while_ten_log_in(client)
