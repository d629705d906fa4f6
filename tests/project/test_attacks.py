"""Attacks on what lies under the steps: Starlette's forms and cookies, Python's numbers, the denylist's settings."""

import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import httpx
import pytest

from step03_combined.denylist import SQLiteDenylist, open_denylist
from tests import forge
from tests.conftest import JWT_KEY
from tests.expect import expect
from tests.project.conftest import STEP1, STEP2, STEP3, STEPS, as_header, made_up_login, visit
from tests.server import Server
from tests.test_step03_combined import ALICE, BOB, IS_ALICE, IS_BOB, SESSION_COOKIE, TOKEN_COOKIE, add, log_in

# Bodies

ANNOUNCED, IN_PIECES = b"x" * 10_001, [b"x" * 1_000] * 10 + [b"x"]


def send(client: httpx.Client, path: str, body: bytes | list[bytes], kind: str = "text/plain") -> httpx.Response:
    """Send a body at once, with its length, or in pieces, without."""
    return client.post(path, content=body if isinstance(body, bytes) else iter(body), headers={"Content-Type": kind})


@pytest.mark.parametrize("step", [STEP1, STEP3])
@pytest.mark.parametrize("charset", ["punycode", "idna", "no-such-charset", "utf-8"])
def test_no_client_chooses_how_a_form_is_decoded(servers: dict[str, Server], step: str, charset: str) -> None:
    """Otherwise punycode keeps it busy for minutes, and each name of a charset that does not exist stays in memory."""
    body = b'--x\r\nContent-Disposition: form-data; name="username"\r\n\r\nalice\r\n--x--\r\n'
    for kind in ("multipart/form-data", "MULTIPART/Form-Data"):
        with visit(servers[step]) as client:
            header = f"{kind}; boundary=x; charset={charset}"
            answer = client.post("/login", content=body, headers={"Content-Type": header})

        expect(answer, 415, {"detail": ANY}, {"Set-Cookie": None})


@pytest.mark.parametrize("body", [ANNOUNCED, IN_PIECES], ids=["announced", "in pieces"])
@pytest.mark.parametrize("path", ["/login", "/cart"])
def test_a_body_of_more_than_10000_bytes_is_refused_and_changes_nothing(
    servers: dict[str, Server], path: str, body: bytes | list[bytes]
) -> None:
    """Otherwise one long request fills the memory, or keeps everybody waiting until it is read."""
    kind = "application/json" if path == "/cart" else "application/x-www-form-urlencoded"
    with visit(servers[STEP3]) as client:
        add(log_in(client), "tea", 2)

        expect(send(client, path, body, kind), 413, {"detail": ANY}, {"Set-Cookie": None})

        expect(client.get("/cart"), 200, {"items": {"tea": 2}, "total_cents": 600})


@pytest.mark.parametrize("body", [ANNOUNCED, IN_PIECES], ids=["announced", "in pieces"])
@pytest.mark.parametrize("path", ["/checkout", "/logout"])
def test_a_large_body_where_none_is_read_is_not_refused_after_the_deed(
    servers: dict[str, Server], path: str, body: bytes | list[bytes]
) -> None:
    """Otherwise Alice's order is placed, and the answer says that it was not."""
    with visit(servers[STEP3]) as client:
        add(log_in(client), "tea", 2)

        refused = expect(send(client, path, body), (201, 204, 413)).status_code == 413

        expect(client.post("/checkout"), 201 if refused else 409 if path == "/checkout" else 401)


# Cookies


@pytest.mark.parametrize("planted_name", ["\xa0{}", "\x85{}", "\xa0\x85{}", '"{}', '"{}"', "{}\xa0"], ids=ascii)
def test_a_cookie_that_a_sibling_host_planted_does_not_pass_for_one_of_this_host(
    https: dict[str, Server], planted_name: str
) -> None:
    """Otherwise blog.cafe.example makes Bob order as Alice: browsers let it set that name, and Starlette strips it."""
    with visit(https[STEP3]) as client:
        pairs = []
        for form in (ALICE, BOB):
            expect(client.post("/login", data=form), 200)
            pairs.append([*client.cookies.items()])
            client.cookies.clear()
        alice, bob = pairs
        planted = [(planted_name.format(name), value) for name, value in alice]
        assert {name for name, _ in bob} == {f"__Host-{TOKEN_COOKIE}", f"__Host-{SESSION_COOKIE}"}

        for cookies in (bob + planted, planted + bob):
            expect(client.get("/me", headers=as_header(cookies)), 200, IS_BOB)
        expect(client.get("/me", headers=as_header(planted)), 401)
        expect(client.get("/me", headers=as_header(alice)), 200, IS_ALICE)


def test_an_origin_without_a_host_is_not_the_origin_of_a_request_without_a_host(servers: dict[str, Server]) -> None:
    """Otherwise what is empty on both sides counts as the same."""
    for origin in ("http://", "https://"):
        with visit(servers[STEP2]) as client:
            expect(client.post("/visits", headers={"Host": "", "Origin": origin}), 403)


def test_with_https_only_a_page_that_came_over_http_is_of_another_origin(https: dict[str, Server]) -> None:
    """Otherwise whoever sits in the cafe's Wi-Fi and answers for http://cafe.example orders as Alice."""
    with visit(https[STEP3]) as client:
        host = client.base_url.netloc.decode()

        expect(client.post("/cart", json={"item": "tea"}, headers={"Origin": f"http://{host}"}), 403)
        expect(client.post("/cart", json={"item": "tea"}, headers={"Origin": f"https://{host}"}), 200)


@pytest.mark.parametrize("path", ["/login/", "/cart/", "/me/", "/docs/"])
def test_nobody_is_sent_on_to_the_host_that_the_client_names(servers: dict[str, Server], path: str) -> None:
    """Otherwise a password that was sent to /login/ goes on, over http, to whatever host the request named."""
    for step in STEPS:
        with visit(servers[step]) as client:
            answer = client.post(path, data=ALICE, headers={"Host": "elsewhere.example"})

            expect(answer, (404, 405), headers={"Location": None})


# One request, and everybody else

QUOTES = b'a="' + b'\\"' * 8_000 + b'"'
HOSTILE: dict[str, tuple[dict[bytes, bytes], bytes]] = {
    "quotes in a cookie": ({b"Cookie": QUOTES}, b""),
    "semicolons in a content type": ({b"Content-Type": b"application/x-www-form-urlencoded" + b";" * 990_000}, b"x"),
    "a form of percent signs": ({b"Content-Type": b"application/x-www-form-urlencoded"}, b"%" * 990_000),
}


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("kind", HOSTILE)
def test_no_request_keeps_the_others_waiting(servers: dict[str, Server], step: str, kind: str) -> None:
    """Otherwise one visitor closes the cafe. (Twenty of them take a tenth of a second; unguarded, six and more.)"""
    headers, body = HOSTILE[kind]
    path = "/cart" if step == STEP2 else "/login"
    with visit(servers[step]) as client:
        began = time.monotonic()

        for _ in range(20):
            expect(client.post(path, content=body, headers=headers), range(400, 500), {"detail": ANY})

        assert time.monotonic() - began < 3


@pytest.mark.parametrize("step", STEPS)
def test_headers_of_a_browser_fit_and_longer_ones_are_refused(servers: dict[str, Server], step: str) -> None:
    """Otherwise each library that reads a header has to stand a megabyte of it, or a full cookie jar is locked out."""
    with visit(servers[step]) as client:
        expect(client.get("/", headers={"Cookie": "a=" + "x" * 15_000}), 200)
        expect(client.get("/", headers={"Cookie": "a=" + "x" * 16_384}), 431, {"detail": ANY})
        expect(client.get("/", headers=[("X", "y" * 98)] * 170), 431, {"detail": ANY})


# Claims


@pytest.mark.parametrize("claim", [{"nbf": 4102444800}, {"nbf": 0}, {"scope": "read"}, {"cnf": {}}], ids=str)
def test_a_claim_that_the_app_did_not_issue_makes_a_token_unacceptable(
    servers: dict[str, Server], claim: dict[str, Any]
) -> None:
    """Otherwise a token that is not to be used yet, or for one thing alone, is good for all, now."""
    token = forge.token(forge.good_claims("step01") | claim, JWT_KEY)
    with visit(servers[STEP1]) as client:
        expect(client.get("/me", headers={"Authorization": f"Bearer {token}"}), 401)
    with visit(servers[STEP3]) as client:
        expect(client.get("/me", headers=as_header(made_up_login(**claim).items())), 401)


# Settings


@pytest.mark.parametrize("name", ["", ":memory:", "file::memory:", "file:x?mode=memory", "file:x?vfs=memdb"])
def test_a_denylist_that_would_be_in_memory_stops_the_start(name: str) -> None:
    """Otherwise a logout holds in one worker, until it ends."""
    with pytest.raises(SystemExit, match=r"^DENYLIST_URL must name a file"):
        open_denylist(f"sqlite:///{name}", 7200)


@pytest.mark.parametrize("url", ["redis://:rabbit/hole@127.0.0.1/0", "redis://127.0.0.1/0?no_such_option=1"])
def test_a_redis_url_that_cannot_be_meant_stops_the_start_and_tells_no_password(url: str) -> None:
    """Otherwise each request is a server error, or the log has a piece of the password."""
    with pytest.raises(SystemExit, match=r"^DENYLIST_URL must be like redis://") as stopped:
        open_denylist(url, 7200)

    assert "rabbit" not in str(stopped.value)


def open_at(file: str, moment: float) -> str:
    """Open the denylist in a file at this moment, and return why that failed, or which journal it has."""
    time.sleep(max(0, moment - time.time() - 0.002))
    while time.time() < moment:
        pass
    try:
        connection = SQLiteDenylist(file, 7200).reader
    except SystemExit as stopped:
        return str(stopped)
    return str(connection.execute("PRAGMA journal_mode").fetchone()[0])


def test_many_processes_can_start_at_once_on_a_denylist_that_is_not_there_yet(tmp_path: Path) -> None:
    """Otherwise the first start of an app with some workers fails now and then."""
    with ProcessPoolExecutor(4, multiprocessing.get_context("spawn")) as pool:
        list(pool.map(open_at, [str(tmp_path / "first")] * 4, [0.0] * 4))
        for start in range(100):
            file, moment = str(tmp_path / f"{start}.sqlite3"), time.time() + 0.01

            said = set(pool.map(open_at, [file] * 4, [moment] * 4))

            assert said == {"wal"}
