"""Fuzzers against the steps: with requests of any shape, with spoiled tokens and cookies, and with whole stories.

They are seeded: each run makes up the same, so a failure can be run again.
"""

import json
import secrets
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlencode

import httpx
import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, multiple, precondition, rule
from hypothesis.stateful import run_state_machine_as_test as run_stories

from tests import forge
from tests.conftest import JWT_KEY, SESSION_KEY
from tests.expect import expect
from tests.project.conftest import NO_REDIS, STEPS, StartStep, as_header, made_up_login, visit
from tests.server import Server, stop
from tests.test_step03_combined import ALICE, BOB, IS_ALICE, IS_BOB, PRICES, SESSION_COOKIE, TOKEN_COOKIE, log_in

NO_DENYLIST = "step 3 without its denylist"


def seeded(examples: int) -> settings:
    """Return settings for so many examples, the same in each run."""
    usual = settings(derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck))
    return settings(usual, max_examples=examples)


VISIBLE = st.characters(min_codepoint=0x21, max_codepoint=0xFF, exclude_characters='\x7f";,\\')
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.just(10**400) | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=10,
)


# Requests of any shape

ODD_KEYS = st.sampled_from(["item", "quantity", "username", "password"]) | st.text(max_size=5)
BODIES = JSON.map(json.dumps).map(str.encode) | st.binary(max_size=50)
BODIES |= st.dictionaries(ODD_KEYS, JSON, max_size=3).map(json.dumps).map(str.encode)
BODIES |= st.dictionaries(ODD_KEYS, st.text(max_size=20), max_size=3).map(urlencode).map(str.encode)
KINDS = st.sampled_from(["application/json", "application/x-www-form-urlencoded", "text/plain"])


@pytest.mark.parametrize("name", [*STEPS, NO_DENYLIST])
def test_no_request_is_a_server_error_or_lets_a_stranger_in(
    servers: dict[str, Server], start_step: StartStep, name: str
) -> None:
    """Otherwise a request that nobody thought of is a crash, or a way in."""
    server = servers.get(name) or start_step("step03_combined", DENYLIST_URL=NO_REDIS).wait_until_ready()
    seen = set()
    with visit(server) as stranger, visit(server) as alice:
        alice.cookies = httpx.Cookies(made_up_login())
        alice.headers["Authorization"] = f"Bearer {TOKEN}"
        paths = stranger.get("/openapi.json").json()["paths"]
        lines = [(method.upper(), path) for path, methods in paths.items() for method in methods]

        @seeded(300)
        @given(line=st.sampled_from(lines), body=BODIES, kind=KINDS, item=st.text(min_size=1), is_alice=st.booleans())
        def try_out(line: tuple[str, str], body: bytes, kind: str, item: str, is_alice: bool) -> None:
            url = line[1].replace("{item}", quote(item, safe=""))
            client = alice if is_alice else stranger
            answer = client.request(line[0], url, content=body, headers={"Content-Type": kind})
            seen.add(answer.status_code)
            assert answer.status_code < 500 or (name == NO_DENYLIST and is_alice and answer.status_code == 503)
            assert is_alice or line[1] not in ("/me", "/checkout") or answer.status_code == 401

        try_out()

    assert {200, 422} <= seen
    assert (503 in seen) == (name == NO_DENYLIST)


# Spoiled tokens and cookies


@st.composite
def spoiled(draw: st.DrawFn, text: str) -> str:
    """Return the text with one to three edits."""
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, max(len(text) - 1, 0)))
        until = draw(st.integers(at, min(at + 20, len(text))))
        text = text[:at] + draw(st.text(VISIBLE, max_size=5) | st.sampled_from([".", "..", "="])) + text[until:]
    return text


def parts(token: str) -> list[bytes] | None:
    """Return what the three parts of a token say, None if they say nothing."""
    try:
        return [forge.decode(part) for part in token.split(".")]
    except ValueError:
        return None


CLAIMS = forge.good_claims("step01", seconds=100_000)
TOKEN = forge.token(CLAIMS, JWT_KEY)
WRONG_CLAIMS = st.builds(
    lambda name, value: forge.token(CLAIMS | {name: value}, JWT_KEY),
    st.sampled_from(["iss", "aud", "sub"]),
    JSON.filter(lambda value: value not in ("cafe", "step01", "alice", "bob", ["step01"])),
)
OTHER_KEY = st.builds(
    lambda claims, header: forge.token(claims, "the-key-of-a-forger-has-32-bytes-too", header=header),
    st.just(CLAIMS) | st.dictionaries(st.sampled_from(sorted(CLAIMS)), JSON),
    st.dictionaries(st.sampled_from(["alg", "typ", "kid", "jwk", "jku", "crit", "b64", "zip"]), JSON, max_size=3),
)


def test_no_spoiled_token_lets_anybody_in(servers: dict[str, Server]) -> None:
    """Otherwise whoever tries long enough is Alice."""
    with visit(servers["step01_jwt_login"]) as client:
        expect(client.get("/me", headers={"Authorization": f"Bearer {TOKEN}"}), 200, IS_ALICE)

        @seeded(1000)
        @given(token=spoiled(TOKEN) | WRONG_CLAIMS | OTHER_KEY | st.text(VISIBLE, min_size=1, max_size=200))
        def try_out(token: str) -> None:
            # The last bits of base64 mean nothing: another spelling of the same token is no other token.
            assume(token and parts(token) != parts(TOKEN))

            expect(client.get("/me", headers={b"Authorization": f"Bearer {token}".encode("latin-1")}), 401)

        try_out()


def test_nothing_is_believed_of_spoiled_cookies(servers: dict[str, Server]) -> None:
    """Otherwise whoever tries long enough writes into Alice's cart, or is Alice."""
    with visit(servers["step03_combined"]) as alice:
        log_in(alice)
        alice.post("/cart", json={"item": "tea", "quantity": 2})
        right, said = dict(alice.cookies), alice.get("/session").json()
    pairs = st.tuples(*(st.just(value) | spoiled(value) for value in right.values()))
    nothing: dict[str, Any] = {"claims": None, "data": {}}

    with visit(servers["step03_combined"]) as client:

        @seeded(1000)
        @example(pair=right.values())
        @given(pair=pairs)
        def try_out(pair: tuple[str, str]) -> None:
            client.cookies.clear()  # nothing but the header counts
            answer = client.get("/session", headers=as_header(zip(right, pair, strict=True)))

            assert expect(answer, 200).json() in (said, nothing)

        try_out()


def test_session_data_of_any_shape_is_no_server_error_and_logs_in_by_its_jti_alone(servers: dict[str, Server]) -> None:
    """Otherwise an older version of the app, or a sister app with the same key, breaks this one or opens it."""
    ids = st.text(st.characters(max_codepoint=126), min_size=1, max_size=40) | JSON
    carts = st.dictionaries(st.sampled_from([*PRICES, "cake"]), JSON | st.integers(1, 99), max_size=5)
    with visit(servers["step03_combined"]) as client:

        @seeded(300)
        @given(
            data=st.fixed_dictionaries({"cart": carts | JSON}, optional={"jti": ids, "order_id": ids, "renewed": JSON})
        )
        def try_out(data: dict[str, Any]) -> None:
            jti = secrets.token_hex()
            token = forge.token(forge.good_claims("step03", seconds=3600) | {"jti": jti}, JWT_KEY)
            data = {"jti": jti} | data
            requests = [("GET", "/me"), ("GET", "/session"), ("POST", "/checkout"), ("POST", "/logout")]
            statuses: Any = (200, 200, (201, 409), 204) if data["jti"] == jti else (401, 200, 401, 204)

            for (method, path), status in zip(requests, statuses, strict=True):
                client.cookies.clear()  # nothing but the header counts
                cookies = f"{TOKEN_COOKIE}={token}; {SESSION_COOKIE}={forge.cookie(data, SESSION_KEY)}"
                expect(client.request(method, path, headers={"Cookie": cookies}), status)

        try_out()


# Stories of step 3: browsers, thieves and restarts in any order, beside a small model of what must come of it


@dataclass
class Login:
    """One login of the model."""

    user: dict[str, str]
    over: bool = False


@dataclass
class Jar:
    """One cookie jar: a browser's, or a copy of it in the hands of a thief."""

    client: httpx.Client
    login: Login | None = None
    cart: dict[str, int] = field(default_factory=dict)
    order: str = ""

    def forget_a_login_that_is_over(self) -> None:
        """Session data of a login that is over counts as empty."""
        if self.login and self.login.over:
            self.login, self.cart = None, {}


class Cafe(RuleBasedStateMachine):
    """Any interleaving of what browsers and thieves can do."""

    start: StartStep
    server: Server
    jars: Bundle[Jar] = Bundle("jars")

    def open(self, like: Jar | None = None) -> Jar:
        """Open a jar, with copies of another one's cookies if asked."""
        client = visit(Cafe.server, like.client.cookies if like else None)
        jar = Jar(client, like.login, dict(like.cart), like.order) if like else Jar(client)
        self.all.append(jar)
        return jar

    @initialize(target=jars)
    def two_browsers(self) -> Any:
        """One of them is in use, and copied: a story that begins with nobody takes long to come to anything."""
        self.all, self.ordered, self.restarted = list[Jar](), set[str](), False
        used, new = self.open(), self.open()
        self.log_in(used, (ALICE, IS_ALICE))
        self.add(used, "tea", 2)
        return multiple(used, new, self.open(like=used))

    @precondition(lambda self: len(self.all) < 5)
    @rule(target=jars, jar=jars)
    def a_thief_copies(self, jar: Jar) -> Jar:
        return self.open(like=jar)

    @rule(jar=jars, item=st.sampled_from(sorted(PRICES)), quantity=st.integers(1, 9))
    def add(self, jar: Jar, item: str, quantity: int) -> None:
        jar.forget_a_login_that_is_over()
        count = jar.cart.get(item, 0) + quantity
        answer = jar.client.post("/cart", json={"item": item, "quantity": quantity})
        if count > 99:
            expect(answer, 409)
        else:
            jar.cart[item] = count
            expect(answer, 200)
            assert answer.json()["items"] == jar.cart

    @rule(jar=jars, who=st.sampled_from([(ALICE, IS_ALICE), (BOB, IS_BOB)]))
    def log_in(self, jar: Jar, who: tuple[dict[str, str], dict[str, str]]) -> None:
        form, user = who
        expect(jar.client.post("/login", data=form), 200, user)
        jar.forget_a_login_that_is_over()
        if jar.login:  # its cart ends with it
            jar.login.over, jar.cart = True, {}
        jar.login, jar.order = Login(user), secrets.token_hex()

    @rule(jar=jars)
    def check_out(self, jar: Jar) -> None:
        answer = jar.client.post("/checkout")
        if jar.login is None or jar.login.over:
            expect(answer, 401)
        elif not jar.cart:
            expect(answer, 409)
        else:
            expect(answer, 409 if jar.order in self.ordered else 201)
            if answer.status_code == 201:
                assert answer.json()["items"] == jar.cart
                assert answer.json()["username"] == jar.login.user["username"]
            self.ordered.add(jar.order)
            jar.cart, jar.order = {}, secrets.token_hex()

    @rule(jar=jars)
    def log_out(self, jar: Jar) -> None:
        expect(jar.client.post("/logout"), 204)
        if jar.login:
            jar.login.over = True
        jar.login, jar.cart = None, {}

    @precondition(lambda self: self.ordered and not self.restarted)
    @rule()
    def restart(self) -> None:
        self.restarted = True
        stop([Cafe.server])
        Cafe.server = Cafe.start("step03_combined").wait_until_ready()
        for jar in self.all:
            jar.client.base_url = Cafe.server.url

    @invariant()
    def everyone_is_who_they_should_be_and_has_the_cart_they_should_have(self) -> None:
        for jar in self.all:
            shown = expect(jar.client.get("/session"), 200).json()
            over = jar.login is not None and jar.login.over
            who = jar.login.user["username"] if jar.login and not over else None
            assert (shown["claims"] or {}).get("sub") == who
            assert shown["data"].get("cart", {}) == ({} if over else jar.cart)

    def teardown(self) -> None:
        for jar in self.all:
            jar.client.close()


def test_whatever_two_browsers_and_their_thieves_do_no_login_revives_and_no_order_doubles(
    start_step: StartStep,
) -> None:
    """Otherwise some order of events, which nobody thought of, lets a thief in or makes Alice pay twice."""
    Cafe.start, Cafe.server = staticmethod(start_step), start_step("step03_combined").wait_until_ready()

    run_stories(Cafe, settings=settings(seeded(30), stateful_step_count=20))
