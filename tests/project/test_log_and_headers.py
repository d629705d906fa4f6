"""What every answer carries, and what the log says of a login and its end."""

import re

import pytest

from tests.expect import expect
from tests.project.conftest import NO_REDIS, STEPS, StartStep, visit
from tests.server import Server
from tests.test_step03_combined import ALICE, jti_of, log_in

STRICT = {
    "X-Content-Type-Options": re.compile("^nosniff$"),
    "Cache-Control": re.compile("^no-store$"),
    "Referrer-Policy": re.compile("^same-origin$"),
    "Content-Security-Policy": re.compile("object-src 'none'; base-uri 'none'; (?:.*; )?frame-ancestors 'none'$"),
}
WRONG = {"username": "alice", "password": "looking-glass"}


@pytest.mark.parametrize("step", STEPS)
def test_every_answer_forbids_guessing_its_type_storing_it_and_framing_it(
    servers: dict[str, Server], step: str
) -> None:
    """Otherwise a browser takes text for a script, shows the next guest what a page said, or is tricked in a frame."""
    elsewhere = {"Origin": "https://elsewhere.example"}
    requests = [("GET", path) for path in ("/", "/docs", "/openapi.json", "/no-such-page")]
    requests += [("PUT", "/menu"), ("PUT", "/me"), ("POST", "/login"), ("POST", "/cart"), ("DELETE", "/session")]

    with visit(servers[step]) as client:
        answers = [client.request(*line, headers=headers) for line in requests for headers in ({}, elsewhere)]
        answers.append(client.post("/login", data={"username": "x" * 2_000_000}))
        answers.append(client.post("/cart", json="x" * 2_000_000))
        answers.append(client.get("/menu", headers={"Cookie": "x" * 20_000}))
        answers.append(client.post("/login" if step != "step02_session_middleware" else "/cart", files={"x": "y"}))

    assert {200, 404, 405, 413, 415, 422, 431} <= {
        expect(answer, range(200, 500), headers=dict(STRICT)).status_code for answer in answers
    }
    assert (403 in {answer.status_code for answer in answers}) == (step != "step01_jwt_login")


def test_an_answer_without_denylist_does_so_too(servers: dict[str, Server], start_step: StartStep) -> None:
    """Otherwise the one answer that is not the app's usual way goes into a cache."""
    no_denylist = start_step("step03_combined", DENYLIST_URL=NO_REDIS).wait_until_ready()
    with visit(servers["step03_combined"]) as client, visit(no_denylist) as other:
        other.cookies = log_in(client).cookies

        expect(other.get("/me"), 503, headers=dict(STRICT))


@pytest.mark.parametrize("step", ["step01_jwt_login", "step03_combined"])
def test_the_log_says_whose_password_was_right_or_wrong_and_not_what_was_typed(
    servers: dict[str, Server], step: str
) -> None:
    """Otherwise nobody sees the guessing, or the log gives away a password."""
    server = servers[step]
    with visit(server) as client:
        before = len(server.log)
        expect(client.post("/login", data=WRONG), 401)
        expect(client.post("/login", data=WRONG | {"username": "wonderland"}), 401)
        expect(client.post("/login", data=ALICE), 200)

    said = re.findall(r"Password of .*", server.log[before:])
    assert said == ["Password of alice: wrong", "Password of an unknown user: wrong", "Password of alice: right"]
    assert not re.search("wonderland|looking-glass", server.log)


def test_the_log_names_each_login_by_its_jti_when_it_begins_and_when_it_is_over(servers: dict[str, Server]) -> None:
    """Otherwise nobody can follow a stolen login through the log."""
    server = servers["step03_combined"]
    with visit(server) as client:
        before = len(server.log)
        first, second = (jti_of(log_in(client)) for _ in range(2))
        expect(client.post("/logout"), 204)

    said = re.findall(r"Login (\S+) (of alice begins|is over)", server.log[before:])
    assert said == [(jti, what) for jti in (first, second) for what in ("of alice begins", "is over")]
