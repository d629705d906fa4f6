"""Step 3 with its denylist in a real Redis."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from urllib.parse import urlsplit

from tests.conftest import Browser, Launch
from tests.expect import expect
from tests.project.conftest import RedisServer
from tests.server import Server
from tests.test_step03_combined import IS_ALICE, add, log_in

STEP = "step03_combined"


def test_step_3_keeps_its_contract_with_redis_too(
    redis: RedisServer, run: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    """Otherwise what holds on one machine does not hold on many."""
    redis.start()
    tests = "tests/test_step03_combined.py"

    result = run(sys.executable, "-m", "pytest", "-q", tests, "--denylist-url", redis.url)

    assert result.returncode == 0, result.stdout
    assert "skipped" not in result.stdout.splitlines()[-1], result.stdout


def test_a_redis_that_comes_back_is_used_again_and_has_forgotten_nothing_that_it_kept(
    redis: RedisServer, start: Launch, browser: Browser
) -> None:
    """Otherwise one failure of Redis needs a restart of every app."""
    server = start(DENYLIST_URL=redis.url).wait_until_ready()
    client = browser(to=server)
    redis.start("--appendonly", "yes", "--appendfsync", "always")
    add(log_in(client), "tea", 2)
    ended = browser(client.cookies, server)
    log_in(client)

    redis.stop()
    expect(client.get("/me"), 503)
    expect(ended.get("/me"), 503)
    expect(client.post("/logout"), 503)
    redis.start("--appendonly", "yes", "--appendfsync", "always")

    expect(client.get("/me"), 200, IS_ALICE)
    expect(ended.get("/me"), 401)
    expect(client.post("/logout"), 204)
    expect(client.get("/me"), 401)


def test_an_entry_leaves_redis_by_itself_when_no_token_can_need_it(
    redis: RedisServer, start: Launch, browser: Browser, run: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    """Otherwise the denylist grows for ever."""
    redis.start()
    client = log_in(browser(to=start(DENYLIST_URL=redis.url).wait_until_ready()))
    add(client, "tea", 2)
    expect(client.post("/checkout"), 201)
    expect(client.post("/logout"), 204)

    keys = run("redis-cli", "-p", str(redis.port), "keys", "*").stdout.split()
    assert len(keys) == 2
    for key in keys:
        seconds = int(run("redis-cli", "-p", str(redis.port), "ttl", key).stdout)
        assert 2 * 3600 - 60 < seconds <= 2 * 3600, f"{key} leaves in {seconds} s"


def asked_at_once(server: Server, cookies: str, times: int) -> list[int]:
    """Ask for /me on so many connections before the first answer is read; return the statuses."""
    where = urlsplit(server.url)
    request = f"GET /me HTTP/1.1\r\nHost: {where.netloc}\r\nCookie: {cookies}\r\n\r\n".encode()
    with contextlib.ExitStack() as opened:
        to = (where.hostname or "", where.port or 0)
        connections = [opened.enter_context(socket.create_connection(to, timeout=10)) for _ in range(times)]
        for connection in connections:
            connection.sendall(request)
        return [int(connection.recv(100).split()[1]) for connection in connections]


def test_400_visitors_at_one_moment_are_all_served_and_all_told_when_redis_is_silent(
    redis: RedisServer, start: Launch, browser: Browser
) -> None:
    """Otherwise a full cafe is told that the denylist is out of reach, or waits for ever when it is."""
    redis.start()
    server = start(DENYLIST_URL=redis.url).wait_until_ready()
    cookies = "; ".join(f"{name}={value}" for name, value in log_in(browser(to=server)).cookies.items())

    assert set(asked_at_once(server, cookies, 400)) == {200}

    assert redis.process
    os.kill(redis.process.pid, signal.SIGSTOP)
    began = time.monotonic()
    assert set(asked_at_once(server, cookies, 400)) == {503}
    assert time.monotonic() - began < 3
    os.kill(redis.process.pid, signal.SIGCONT)
    assert set(asked_at_once(server, cookies, 400)) == {200}
