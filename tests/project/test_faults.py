"""Step 3 through faults: many workers, Redis good and bad, a bad disk, a killed process, a clock that jumps."""

import asyncio
import contextlib
import os
import re
import secrets
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import ANY

import httpx
import pytest

from step03_combined import denylist as denylist_module
from step03_combined.denylist import SQLiteDenylist
from tests.conftest import Browser, Launch
from tests.expect import expect
from tests.project.conftest import NO_REDIS, RedisServer, as_header, made_up_login, need, run, wait_until
from tests.server import Server, free_port
from tests.test_step03_combined import ALICE, EMPTY, IS_ALICE, add, log_in

STEP = "step03_combined"
KEEP_SECONDS = 2 * 60 * 60
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="stops and kills processes as only Unix can")


def alice(browser: Browser, server: Server) -> httpx.Client:
    """Return a browser in which Alice logged in and chose two teas."""
    client = log_in(browser(to=server))
    add(client, "tea", 2)
    return client


# Many workers, many machines


@contextlib.contextmanager
def paused(process: int) -> Iterator[None]:
    """Hold a process still, as if it hung."""
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


# Redis, good and bad


def test_step_3_keeps_its_contract_with_redis_too(redis: RedisServer) -> None:
    """Otherwise what holds on one machine does not hold on many."""
    redis.start()

    result = run(sys.executable, "-m", "pytest", "-q", f"tests/test_{STEP}.py", "--denylist-url", redis.url)

    assert result.returncode == 0, result.stdout
    assert "skipped" not in result.stdout.splitlines()[-1], result.stdout


def test_an_entry_leaves_redis_by_itself_when_no_token_can_need_it(
    redis: RedisServer, start: Launch, browser: Browser
) -> None:
    """Otherwise the denylist grows for ever."""
    redis.start()
    client = alice(browser, start(DENYLIST_URL=redis.url).wait_until_ready())
    expect(client.post("/checkout"), 201)
    expect(client.post("/logout"), 204)

    keys = redis.cli("keys", "*").split()
    assert len(keys) == 2
    for key in keys:
        assert KEEP_SECONDS - 60 < int(redis.cli("ttl", key)) <= KEEP_SECONDS, key


def asked_at_once(client: httpx.Client) -> set[int]:
    """Ask for /me on 400 connections before the first answer is read; return the statuses."""
    url, [cookies] = client.base_url, as_header(client.cookies.items()).values()
    request = b"GET /me HTTP/1.1\r\nHost: %b\r\nCookie: %b\r\n\r\n" % (url.netloc, cookies)
    with contextlib.ExitStack() as opened:
        to = (url.host, url.port or 80)
        connections = [opened.enter_context(socket.create_connection(to, timeout=10)) for _ in range(400)]
        for connection in connections:
            connection.sendall(request)
        return {int(connection.recv(100).split()[1]) for connection in connections}


def test_400_visitors_at_one_moment_are_all_served_and_all_told_when_redis_is_silent(
    redis: RedisServer, start: Launch, browser: Browser
) -> None:
    """Otherwise a full cafe is told that the denylist is out of reach, or waits for ever when it is."""
    redis.start()
    client = log_in(browser(to=start(DENYLIST_URL=redis.url)))

    assert asked_at_once(client) == {200}

    with paused(redis.process.pid):
        began = time.monotonic()
        assert asked_at_once(client) == {503}
        assert time.monotonic() - began < 3
    assert asked_at_once(client) == {200}


@contextlib.contextmanager
def full(redis: RedisServer) -> Iterator[None]:
    """Let Redis take nothing more."""
    redis.cli("config", "set", "maxmemory", "1")
    yield
    redis.cli("config", "set", "maxmemory", "0")


def ensure_nothing_ends_in_silence(
    browser: Browser, server: Server, while_full: contextlib.AbstractContextManager[None]
) -> None:
    """Check out and log out while the denylist takes nothing more, and once more when it does again."""
    client = alice(browser, server)
    ended = browser(client.cookies, server)
    add(log_in(client), "tea", 2)
    with while_full:
        expect(client.get("/me"), 200, IS_ALICE)
        expect(ended.get("/me"), 401)
        expect(client.post("/checkout"), 503, {"detail": ANY}, {"Set-Cookie": None})
        expect(client.post("/logout"), 503, {"detail": ANY}, {"Set-Cookie": None})
        expect(browser(to=server).post("/login", data=ALICE), 200)
    expect(client.post("/checkout"), 201)
    expect(client.post("/logout"), 204)


def test_a_full_redis_ends_nothing_in_silence_and_lets_nobody_back_in(
    redis: RedisServer, start: Launch, browser: Browser
) -> None:
    """Otherwise a logout is answered with 204, and a copy of the cookies lives on."""
    redis.start()

    ensure_nothing_ends_in_silence(browser, start(DENYLIST_URL=redis.url).wait_until_ready(), full(redis))


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


def test_a_redis_behind_tls_and_a_password_needs_a_known_certificate_and_the_right_password(
    redis: RedisServer, start: Launch, browser: Browser, tmp_path: Path
) -> None:
    """Otherwise whoever stands between the app and Redis says that nothing is over, or Redis has to stand open."""
    certificate, key, port = tmp_path / "certificate.pem", tmp_path / "key.pem", free_port()
    made = [need("openssl", "openssl"), "req", "-x509", "-nodes", "-newkey", "rsa:2048", "-days", "1"]
    name = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run([*made, *name, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    files = ["--tls-cert-file", str(certificate), "--tls-key-file", str(key), "--tls-ca-cert-file", str(certificate)]
    redis.start("--requirepass", "rabbit-hole", "--tls-port", str(port), "--tls-auth-clients", "no", *files)
    right = f"rediss://:rabbit-hole@127.0.0.1:{port}/0?ssl_ca_certs={certificate}"
    unknown, wrong, none = right.partition("?")[0], right.replace("rabbit-hole", "mirror"), redis.url

    for url in (right, unknown, wrong, none):
        server = start(DENYLIST_URL=url).wait_until_ready()

        answer = log_in(browser(to=server)).post("/logout")

        expect(answer, 204) if url == right else expect(answer, 503, {"detail": ANY}, {"Set-Cookie": None})
        assert not re.search("rabbit-hole|mirror", server.log)


def test_a_visitors_cart_needs_no_denylist(start: Launch, browser: Browser) -> None:
    """Otherwise a fault of the denylist closes the cafe to those who have no login to check."""
    server = start(DENYLIST_URL=NO_REDIS).wait_until_ready()
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


@contextlib.contextmanager
def full_disk(server: Server, file: Path) -> Iterator[None]:
    """Let no file of the server grow beyond what this one has."""
    import resource

    assert server.process
    before = resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (file.stat().st_size, before[1]))
    yield
    resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, before)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits a process that already runs")
def test_a_full_disk_is_503_and_then_works_again(start: Launch, browser: Browser, tmp_path: Path) -> None:
    """Otherwise a full disk is a 500, or a logout that is lost."""
    server = start(DENYLIST_URL=f"sqlite:///{tmp_path / 'denylist.sqlite3'}").wait_until_ready()

    ensure_nothing_ends_in_silence(browser, server, full_disk(server, tmp_path / "denylist.sqlite3-wal"))


def test_a_sqlite_file_that_can_only_be_read_stops_the_start(tmp_path: Path) -> None:
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
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise the file grows for ever."""
    denylist, sizes = SQLiteDenylist(str(tmp_path / "denylist.sqlite3"), KEEP_SECONDS), []
    for hour in range(24):
        now = hour * 3600.0
        monkeypatch.setattr(denylist_module, "time", SimpleNamespace(time=lambda now=now: now))
        for _ in range(60):
            asyncio.run(denylist.add(f"login:{secrets.token_urlsafe(16)}"))
        oldest = denylist.reader.execute("SELECT min(expires) - ? FROM denylist", (now,)).fetchone()[0]
        sizes.append(denylist.reader.execute("PRAGMA page_count").fetchone()[0])
        assert 0 <= oldest <= KEEP_SECONDS
    denylist.reader.close()

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


# A clock that jumps


# Python runs a module of this name before all else
SITECUSTOMIZE = "import time\nreal = time.time\ntime.time = lambda: real() + {}"


@pytest.mark.parametrize("wrong", [-3600, 3600], ids=["slow", "fast"])
def test_a_clock_that_jumps_an_hour_either_way_revives_nothing(
    start: Launch, browser: Browser, tmp_path: Path, wrong: int
) -> None:
    """Otherwise a wrong clock, for a minute, makes a stolen copy good again."""
    (tmp_path / "sitecustomize.py").write_text(SITECUSTOMIZE.format(wrong), encoding="utf-8")
    clocks, copies = [start(), start(PYTHONPATH=str(tmp_path))], []
    for begins, ends in product(clocks, clocks):
        client = alice(browser, begins)
        copies.append(dict(client.cookies))
        expect(client.post("/checkout"), 201)
        expect(browser(copies[-1], ends).post("/logout"), 204)

    for server in clocks:
        expect(alice(browser, server).post("/logout"), 204)  # drops what this clock takes for old
        for copy in copies:
            for anywhere in clocks:
                expect(browser(copy, anywhere).get("/me"), 401)
                expect(browser(copy, anywhere).post("/checkout"), 401)
