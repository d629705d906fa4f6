"""Step 3 through faults: many workers, a bad Redis, a bad disk, a killed process, a clock that jumps."""

import asyncio
import contextlib
import os
import re
import secrets
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import ANY
from urllib.parse import urlencode, urlsplit

import httpx
import pytest

from step03_combined import denylist as denylist_module
from step03_combined.denylist import SQLiteDenylist
from tests import forge
from tests.conftest import JWT_KEY, SESSION_KEY, Browser, Launch
from tests.expect import expect
from tests.project.conftest import ROOT, RedisServer, need
from tests.server import Server, free_port, launch, stop
from tests.test_step03_combined import ALICE, EMPTY, IS_ALICE, SESSION_COOKIE, TOKEN_COOKIE, add, log_in

STEP = "step03_combined"
KEEP_SECONDS = 2 * 60 * 60
Run = Callable[..., subprocess.CompletedProcess[str]]
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="stops and kills processes as only Unix can")


def made_up_login() -> dict[str, str]:
    """Return the cookies of a login of Alice with tea in the cart, without the 20 ms that her password takes."""
    jti = secrets.token_urlsafe(16)
    token = forge.token(forge.good_claims("step03", seconds=3600) | {"jti": jti}, JWT_KEY)
    data = {"jti": jti, "order_id": secrets.token_urlsafe(16), "renewed": int(time.time()), "cart": {"tea": 2}}
    return {TOKEN_COOKIE: token, SESSION_COOKIE: forge.cookie(data, SESSION_KEY)}


def wait_until(it_is_true: Callable[[], bool]) -> None:
    """Return once it is true; AssertionError if it is not within 20 seconds."""
    end = time.monotonic() + 20
    while not it_is_true():
        assert time.monotonic() < end, "It did not come true within 20 seconds."
        time.sleep(0.02)


def alice(browser: Browser, server: Server) -> httpx.Client:
    """Return a browser in which Alice logged in and chose two teas."""
    client = log_in(browser(to=server))
    add(client, "tea", 2)
    return client


# Many workers, many machines


@contextlib.contextmanager
def paused(process: int) -> Iterator[None]:
    """Hold a worker still, so that another one has to answer."""
    os.kill(process, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(process, signal.SIGCONT)


def test_a_logout_in_one_worker_holds_in_the_other(start: Launch, browser: Browser) -> None:
    """Otherwise a logout holds in half of the requests."""
    server = start(WEB_CONCURRENCY="2").wait_until_ready()
    wait_until(lambda: server.log.count("Application startup complete") == 2)
    one, other = map(int, re.findall(r"Started server process \[(\d+)\]", server.log))

    with paused(other):
        client = alice(browser, server)
    copy = client.cookies
    with paused(one):
        expect(browser(copy, server).get("/me"), 200, IS_ALICE)
        expect(browser(copy, server).post("/checkout"), 201)
        expect(browser(copy, server).post("/logout"), 204)

    for worker in (one, other):
        with paused(worker):
            expect(browser(copy, server).get("/me"), 401)
            expect(browser(copy, server).post("/checkout"), 401)


def test_two_machines_with_one_redis_know_of_each_others_logouts_and_orders(
    redis: RedisServer, start: Launch, browser: Browser
) -> None:
    """Otherwise what ended on one machine goes on at the next."""
    redis.start()
    here, there = (start(DENYLIST_URL=redis.url) for _ in range(2))
    client = alice(browser, here.wait_until_ready())
    everywhere = [browser(client.cookies, server) for server in (here, there.wait_until_ready()) for _ in range(8)]

    with ThreadPoolExecutor(len(everywhere)) as pool:
        orders = list(pool.map(lambda copy: copy.post("/checkout").status_code, everywhere))
    expect(browser(client.cookies, there).post("/logout"), 204)

    assert sorted(orders) == [201] + [409] * 15
    for server in (here, there):
        expect(browser(client.cookies, server).get("/me"), 401)


def test_a_thousand_logouts_at_once_over_two_processes_all_hold(start: Launch, browser: Browser) -> None:
    """Otherwise a crowd at closing time leaves some logins open."""
    servers = [start().wait_until_ready() for _ in range(2)]
    logins = [made_up_login() for _ in range(1000)]
    expect(browser(logins[0], servers[0]).get("/me"), 200, IS_ALICE)

    with ThreadPoolExecutor(16) as pool:
        logouts = pool.map(lambda n: browser(logins[n], servers[n % 2]).post("/logout").status_code, range(1000))
        assert set(logouts) == {204}
        copies = pool.map(lambda n: browser(logins[n], servers[1 - n % 2]).get("/me").status_code, range(1000))
        assert set(copies) == {401}


# A bad Redis


def test_a_full_redis_ends_nothing_in_silence_and_lets_nobody_back_in(
    redis: RedisServer, start: Launch, browser: Browser, run: Run
) -> None:
    """Otherwise a logout is answered with 204, and a copy of the cookies lives on."""
    redis.start()
    server = start(DENYLIST_URL=redis.url).wait_until_ready()
    client = alice(browser, server)
    ended = browser(client.cookies, server)
    add(log_in(client), "tea", 2)

    run("redis-cli", "-p", str(redis.port), "config", "set", "maxmemory", "1")
    expect(client.get("/me"), 200, IS_ALICE)
    expect(ended.get("/me"), 401)
    expect(client.post("/checkout"), 503, {"detail": ANY}, {"Set-Cookie": None})
    expect(client.post("/logout"), 503, {"detail": ANY}, {"Set-Cookie": None})
    expect(browser(to=server).post("/login", data=ALICE), 200)
    run("redis-cli", "-p", str(redis.port), "config", "set", "maxmemory", "0")

    expect(client.post("/checkout"), 201)
    expect(client.post("/logout"), 204)


def test_an_emptied_redis_revives_what_had_ended_and_a_new_key_ends_it_again(
    redis: RedisServer, start: Launch, browser: Browser
) -> None:
    """Otherwise what the chapter says about such an accident is not true."""
    redis.start()
    server = start(DENYLIST_URL=redis.url).wait_until_ready()
    client = log_in(browser(to=server))
    copy = browser(client.cookies, server)
    expect(client.post("/logout"), 204)
    expect(copy.get("/me"), 401)

    redis.stop()
    redis.start()

    expect(copy.get("/me"), (200, 503))  # 503: the connection that broke is noticed
    expect(copy.get("/me"), 200, IS_ALICE)
    with_new_key = start(DENYLIST_URL=redis.url, JWT_SECRET_KEY="a-new-key-after-an-accident-of-redis")
    expect(browser(copy.cookies, with_new_key.wait_until_ready()).get("/me"), 401)


def logout_with(url: str, start: Launch, browser: Browser) -> tuple[httpx.Response, Server]:
    """Log in and out with this Redis; return the answer to the logout, and the server."""
    server = start(DENYLIST_URL=url).wait_until_ready()
    return log_in(browser(to=server)).post("/logout"), server


def test_a_redis_behind_a_password_is_opened_by_the_right_one_alone(
    redis: RedisServer, start: Launch, browser: Browser
) -> None:
    """Otherwise Redis has to stand open, and whoever reaches it revives what had ended."""
    redis.start("--requirepass", "rabbit-hole")
    right, wrong = (redis.url.replace("//", f"//:{password}@") for password in ("rabbit-hole", "mirror"))

    expect(logout_with(right, start, browser)[0], 204)
    for url in (wrong, redis.url):
        answer, server = logout_with(url, start, browser)
        expect(answer, 503, {"detail": ANY}, {"Set-Cookie": None})
        assert "mirror" not in server.log


def test_a_redis_behind_tls_is_believed_with_a_certificate_that_is_known(
    redis: RedisServer, start: Launch, browser: Browser, tmp_path: Path
) -> None:
    """Otherwise whoever stands between the app and Redis says that nothing is over."""
    certificate, key, port = tmp_path / "certificate.pem", tmp_path / "key.pem", free_port()
    made = [need("openssl", "openssl"), "req", "-x509", "-nodes", "-newkey", "rsa:2048", "-days", "1"]
    name = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run([*made, *name, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    files = ["--tls-cert-file", str(certificate), "--tls-key-file", str(key), "--tls-ca-cert-file", str(certificate)]
    redis.start("--tls-port", str(port), "--tls-auth-clients", "no", *files)
    url = f"rediss://127.0.0.1:{port}/0"

    expect(logout_with(f"{url}?ssl_ca_certs={certificate}", start, browser)[0], 204)
    expect(logout_with(url, start, browser)[0], 503, {"detail": ANY}, {"Set-Cookie": None})


def test_a_visitors_cart_needs_no_denylist(start: Launch, browser: Browser) -> None:
    """Otherwise a fault of the denylist closes the cafe to those who have no login to check."""
    server = start(DENYLIST_URL=f"redis://127.0.0.1:{free_port()}/0").wait_until_ready()
    visitor = browser(to=server)

    expect(visitor.get("/cart"), 200, EMPTY)
    expect(visitor.post("/cart", json={"item": "tea"}), 200, {"items": {"tea": 1}, "total_cents": 300})


# A bad disk


def test_while_others_wait_for_a_locked_file_a_visitor_is_answered_at_once_and_then_all_works_again(
    start: Launch, browser: Browser, tmp_path: Path
) -> None:
    """Otherwise one logout during a backup freezes everybody, is a 500, or is lost."""
    file = tmp_path / "denylist.sqlite3"
    server = start(DENYLIST_URL=f"sqlite:///{file}").wait_until_ready()
    ordering, leaving, other = (browser(made_up_login(), server) for _ in range(3))
    waiting = [(ordering, "/checkout"), (leaving, "/logout")]
    with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as locker, ThreadPoolExecutor(2) as pool:
        locker.execute("BEGIN IMMEDIATE")
        answers = [pool.submit(client.post, path) for client, path in waiting]
        time.sleep(0.2)

        expect(other.get("/me"), 200, IS_ALICE)

        assert not any(answer.done() for answer in answers)
        for answer in answers:
            expect(answer.result(), 503, {"detail": ANY}, {"Set-Cookie": None})
    for client, path in waiting:
        expect(client.post(path), (201, 204))


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits a process that already runs")
def test_a_full_disk_is_503_and_then_works_again(start: Launch, browser: Browser, tmp_path: Path) -> None:
    """Otherwise a full disk is a 500, or a logout that is lost."""
    import resource

    file = tmp_path / "denylist.sqlite3"
    server = start(DENYLIST_URL=f"sqlite:///{file}").wait_until_ready()
    client = alice(browser, server)
    ended = browser(client.cookies, server)
    add(log_in(client), "tea", 2)
    assert server.process

    full = file.with_name(f"{file.name}-wal").stat().st_size  # no file may grow beyond this
    before = resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (full, before[1]))
    expect(client.get("/me"), 200, IS_ALICE)
    expect(ended.get("/me"), 401)
    expect(client.post("/checkout"), 503, {"detail": ANY}, {"Set-Cookie": None})
    expect(client.post("/logout"), 503, {"detail": ANY}, {"Set-Cookie": None})
    resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, before)

    expect(client.post("/checkout"), 201)
    expect(client.post("/logout"), 204)


@pytest.fixture
def denylist(tmp_path: Path) -> Iterator[SQLiteDenylist]:
    """A denylist in a new file."""
    opened = SQLiteDenylist(str(tmp_path / "denylist.sqlite3"), KEEP_SECONDS)
    yield opened
    opened.reader.close()


def test_a_sqlite_file_that_can_only_be_read_stops_the_start(run: Run, tmp_path: Path) -> None:
    """Otherwise nobody can log out, and the operator hears it from the guests."""
    file = tmp_path / "denylist.sqlite3"
    SQLiteDenylist(str(file), KEEP_SECONDS)
    file.chmod(0o444)
    may_do_everything = os.geteuid() == 0  # root, unless that capability is taken away

    taken = [need("setpriv", "util-linux"), "--bounding-set=-dac_override"] if may_do_everything else []
    result = run(*taken, "env", f"DENYLIST_URL=sqlite:///{file}", sys.executable, "-c", f"import {STEP}.main")

    assert result.returncode
    assert result.stderr.splitlines()[-1] == (
        f"DENYLIST_URL: cannot open {file}: attempt to write a readonly database."
    )


def test_entries_leave_when_their_time_is_over_and_the_file_stops_growing(
    denylist: SQLiteDenylist, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise the file grows for ever."""
    sizes = []
    for hour in range(24):
        now = hour * 3600.0
        monkeypatch.setattr(denylist_module, "time", SimpleNamespace(time=lambda now=now: now))
        for _ in range(60):
            asyncio.run(denylist.add(f"login:{secrets.token_urlsafe(16)}"))
        oldest = denylist.reader.execute("SELECT min(expires) - ? FROM denylist", (now,)).fetchone()[0]
        sizes.append(denylist.reader.execute("PRAGMA page_count").fetchone()[0])
        assert 0 <= oldest <= KEEP_SECONDS

    assert max(sizes[6:]) <= 1.5 * sizes[5]


# A killed process


@pytest.mark.parametrize("path", ["/logout", "/checkout"])
def test_after_kill_9_what_was_answered_holds_and_what_was_not_happens_once(
    start: Launch, browser: Browser, path: str
) -> None:
    """Otherwise a crash revives ended logins, or an order is placed twice."""
    server = start().wait_until_ready()
    logins = [made_up_login() for _ in range(300)]
    done = iter(range(300))

    def attempt(cookies: dict[str, str]) -> int | None:
        try:
            status = browser(cookies, server).post(path).status_code
        except httpx.TransportError:
            return None
        if next(done) == 100:
            assert server.process
            server.process.kill()
        return status

    with ThreadPoolExecutor(16) as pool:
        before = list(pool.map(attempt, logins))
    restarted = start().wait_until_ready()
    with ThreadPoolExecutor(16) as pool:
        after = list(pool.map(lambda cookies: browser(cookies, restarted).post(path).status_code, logins))
        copies = list(pool.map(lambda cookies: browser(cookies, restarted).get("/me").status_code, logins))
        again = list(pool.map(lambda cookies: browser(cookies, restarted).post("/checkout").status_code, logins))

    assert None in before
    if path == "/logout":
        assert 100 < before.count(204) < 300
        assert set(copies) == {401}
        assert set(again) == {401}
    else:
        assert 100 < before.count(201) < 300
        assert not [1 for pair in zip(before, after, strict=True) if pair == (201, 201)]
        assert set(after) == {201, 409}
        assert set(again) == {409}


# Stop, reload, clock


def test_a_login_that_is_under_way_is_answered_before_the_server_stops(start: Launch) -> None:
    """Otherwise each update of the app breaks somebody's request."""
    server = start().wait_until_ready()
    where, form = urlsplit(server.url), urlencode(ALICE).encode()
    assert server.process
    with socket.create_connection((where.hostname or "", where.port or 0), timeout=10) as connection:
        head = ["POST /login HTTP/1.1", f"Host: {where.netloc}", "Content-Type: application/x-www-form-urlencoded"]
        head += [f"Content-Length: {len(form)}", "Expect: 100-continue", "", ""]
        connection.sendall("\r\n".join(head).encode())
        assert connection.recv(1000).startswith(b"HTTP/1.1 100 ")  # the app has begun to read

        server.process.terminate()
        wait_until(lambda: "Shutting down" in server.log)
        connection.sendall(form)

        assert connection.recv(10_000).startswith(b"HTTP/1.1 200 ")
    server.process.wait(10)
    assert "Application shutdown complete" in server.log


def test_reload_brings_in_a_change_and_keeps_logins(tmp_path: Path, browser: Browser) -> None:
    """Otherwise a learner's change does not show, or each one logs the learner out."""
    shutil.copytree(ROOT / STEP, tmp_path / STEP, ignore=shutil.ignore_patterns(".env", "*.sqlite3*", "__pycache__"))
    keys = {"JWT_SECRET_KEY": JWT_KEY, "SESSION_SECRET_KEY": SESSION_KEY}
    reload = {"UVICORN_RELOAD": "true", "UVICORN_RELOAD_DIR": STEP}
    server = launch(f"{STEP}.main:app", tmp_path, tmp_path / "log", keys | reload)
    try:
        client = alice(browser, server.wait_until_ready())
        cart = tmp_path / STEP / "cart.py"

        cart.write_text(cart.read_text(encoding="utf-8").replace('"tea": 300', '"tea": 400'), encoding="utf-8")

        def it_is_dearer() -> bool:
            with contextlib.suppress(httpx.TransportError):  # the old process closes its connections
                return bool(client.get("/cart").json()["total_cents"] == 800)
            return False

        wait_until(it_is_dearer)

        expect(client.get("/cart"), 200, {"items": {"tea": 2}, "total_cents": 800})
        expect(client.get("/me"), 200, IS_ALICE)
    finally:
        stop([server])


HOUR = 3600
OTHER_CLOCK = """
import os, time

real = time.time
time.time = lambda: real() + float(os.environ["CLOCK_IS_FAST_BY"])

from step03_combined.main import app
"""


@pytest.fixture(params=[-HOUR, HOUR], ids=["slow", "fast"])
def clocks(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[dict[int, Server]]:
    """Two servers with one denylist: the clock of one is right, that of the other wrong by an hour."""
    (tmp_path / "other_clock.py").write_text(OTHER_CLOCK, encoding="utf-8")
    settings = {"JWT_SECRET_KEY": JWT_KEY, "SESSION_SECRET_KEY": SESSION_KEY, "PYTHONPATH": str(ROOT)}
    settings["DENYLIST_URL"] = f"sqlite:///{tmp_path / 'denylist.sqlite3'}"
    servers = {}
    for wrong in (0, request.param):
        settings["CLOCK_IS_FAST_BY"] = str(wrong)
        servers[wrong] = launch("other_clock:app", tmp_path, tmp_path / f"{wrong}.log", settings)
    yield {wrong: server.wait_until_ready() for wrong, server in servers.items()}
    stop(list(servers.values()))


def test_a_clock_that_jumps_an_hour_either_way_revives_nothing(clocks: dict[int, Server], browser: Browser) -> None:
    """Otherwise a wrong clock, for a minute, makes a stolen copy good again."""
    copies = []
    for begins, ends in [(begins, ends) for begins in clocks for ends in clocks]:
        client = alice(browser, clocks[begins])
        copies.append(dict(client.cookies))
        expect(client.post("/checkout"), 201)
        expect(browser(copies[-1], clocks[ends]).post("/logout"), 204)

    for server in clocks.values():
        expect(alice(browser, server).post("/logout"), 204)  # drops what this clock takes for old
        for copy in copies:
            for anywhere in clocks.values():
                expect(browser(copy, anywhere).get("/me"), 401)
                expect(browser(copy, anywhere).post("/checkout"), 401)
