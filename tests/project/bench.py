"""What the steps cost: `make bench`, some five minutes on a machine that does nothing else.

Each step runs beside a bare FastAPI route, and beside habits of many projects, one at a time
(tests/project/bench_apps.py). They take turns, so that whatever slows the machine slows them all.
"""

import asyncio
import os
import platform
import re
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

ROOT = Path(__file__).parent.parent.parent
sys.path.insert(0, str(ROOT))

from tests.classroom.grade import progress  # noqa: E402 - found once the root is on the path
from tests.project.conftest import launch_app  # noqa: E402
from tests.server import Server, stop  # noqa: E402

ROUNDS, SECONDS, CONNECTIONS = 5, 2, 16
STORMS, STORM_SECONDS = (8, 16, 32), 5
FORM = {"username": "alice", "password": "wonderland"}
HERE = "tests.project.bench_apps"
APPS = {
    "bare route": f"{HERE}:bare",
    "step 1": "step01_jwt_login.main:app",
    "step 2": "step02_session_middleware.main:app",
    "SessionMiddleware alone": f"{HERE}:plain_sessions",
    "step 3": "step03_combined.main:app",
    "server-side session": f"{HERE}:classic",
    "bare + a def dependency": f"{HERE}:with_def",
    "bare + BaseHTTPMiddleware": f"{HERE}:with_base_http",
    "bare + look-up in a thread": f"{HERE}:with_thread",
    "hash in the event loop": f"{HERE}:hash_in_loop",
}
READ, CART, ADD = ("GET", "/me"), ("GET", "/cart"), ("POST", "/cart")
STORMED = ("step 1", "step 3", "hash in the event loop")
MEASURED = [
    *[(name, READ) for name in APPS if name not in ("step 2", "SessionMiddleware alone", "hash in the event loop")],
    *[(name, line) for name in ("step 2", "SessionMiddleware alone") for line in (CART, ADD)],
    *[(name, line) for name in ("step 3", "server-side session") for line in (CART, ADD)],
]


# The load: a process of its own, which sends the next request on a connection as soon as the last one is answered


class Connection(asyncio.Protocol):
    """One connection, busy until its loop ends; notes how long each answer took, in seconds."""

    def __init__(self, request: bytes, times: list[float]) -> None:
        self.request, self.times, self.answer = request, times, b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        self.transport = transport
        self.send()

    def send(self) -> None:
        self.sent = time.perf_counter()
        self.transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        self.answer += data
        head, _, body = self.answer.partition(b"\r\n\r\n")
        length = re.search(rb"(?i)content-length: (\d+)", head)
        if length and len(body) >= int(length[1]):
            if not head.startswith(b"HTTP/1.1 200 "):
                sys.exit(f"answered {head[:40]!r}")
            self.times.append(time.perf_counter() - self.sent)
            self.answer = b""
            self.send()


async def send_for(seconds: float, url: str, request: bytes, connections: int) -> list[float]:
    """Send the request over and over; return how long each answer took."""
    times: list[float] = []
    loop, port = asyncio.get_running_loop(), urlsplit(url).port or 80
    opened = [
        await loop.create_connection(lambda: Connection(request, times), "127.0.0.1", port) for _ in range(connections)
    ]
    await asyncio.sleep(seconds)
    for transport, _ in opened:
        transport.close()
    return times


def load(seconds: float, url: str, request: bytes, connections: int) -> list[float]:
    """Do so in a process of the pool; return the times in order of size."""
    return sorted(asyncio.run(send_for(seconds, url, request, connections)))


# The requests


def log_in(server: Server) -> dict[str, str]:
    """Return the headers of a visitor who is logged in, as far as the app has logins, with tea in the cart."""
    with httpx.Client(base_url=server.url, trust_env=False) as client:
        answer = client.post("/login", data=FORM)
        client.post("/cart", json={"item": "tea"})
        token = answer.json().get("access_token") if answer.status_code == 200 else None
        cookies = "; ".join(f"{name}={value}" for name, value in client.cookies.items())
    return {"Authorization": f"Bearer {token}"} if token else {"Cookie": cookies} if cookies else {}


def request_of(method: str, path: str, **more: Any) -> bytes:
    """Return a request as it goes over the wire."""
    request = httpx.Request(method, f"http://127.0.0.1{path}", **more)
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in request.headers.items())]
    return "\r\n".join([*lines, "", ""]).encode() + request.content


def memory_of(server: Server) -> float | None:
    """Return the resident memory of the server in MiB; only Linux says it like this."""
    assert server.process
    status = Path(f"/proc/{server.process.pid}/status")
    found = re.search(r"VmRSS:\s+(\d+)", status.read_text()) if status.exists() else None
    return int(found[1]) / 1024 if found else None


# The measurement


def percentile(times: list[float], part: float) -> float:
    """Return a percentile of sorted times, in milliseconds; infinite if nothing was answered in time."""
    return 1000 * times[min(int(len(times) * part), len(times) - 1)] if times else float("inf")


def start_all(folder: Path) -> tuple[dict[str, Server], dict[str, float]]:
    """Start every app, one after the other; return them, and how many seconds each took."""
    servers: dict[str, Server] = {}
    seconds: dict[str, float] = {}
    for name, app in APPS.items():
        began = time.perf_counter()
        servers[name] = launch_app(app, folder, UVICORN_ACCESS_LOG="false").wait_until_ready()
        seconds[name] = time.perf_counter() - began
    return servers, seconds


def measure(
    servers: dict[str, Server], pool: ProcessPoolExecutor
) -> tuple[dict[Any, list[list[float]]], dict[Any, list[float]]]:
    """Return the times of all answers, a list per round; and those to GET /me while so many others log in."""
    headers = {name: log_in(server) for name, server in servers.items()}
    headers["bare route"] = headers["step 3"]  # the same to parse
    steps, done = ROUNDS * len(MEASURED) + len(STORMS) * len(STORMED), 0
    rounds, storms = defaultdict(list), {}
    for _ in range(ROUNDS):
        for name, line in MEASURED:
            request = request_of(*line, headers=headers[name], json={"item": "tea"} if line == ADD else None)
            loaded = pool.submit(load, SECONDS, servers[name].url, request, CONNECTIONS)
            rounds[name, line].append(loaded.result())
            progress(done := done + 1, steps)
    for logins in STORMS:
        for name in STORMED:
            url = servers[name].url
            storm = pool.submit(load, STORM_SECONDS + 2, url, request_of("POST", "/login", data=FORM), logins)
            time.sleep(1)
            loaded = pool.submit(load, STORM_SECONDS, url, request_of(*READ, headers=headers[name]), 1)
            storms[name, logins] = loaded.result()
            storm.result()
            progress(done := done + 1, steps)
    return rounds, storms


# The report


def machine() -> str:
    """Name the machine, and what ran on it."""
    cpu = Path("/proc/cpuinfo")
    model = re.search(r"model name\s*: (.*)", cpu.read_text()) if cpu.exists() else None
    packages = ", ".join(f"{name} {version(name)}" for name in ("fastapi", "starlette", "uvicorn"))
    where = f"{model[1] if model else platform.processor()}, {os.cpu_count()} cores, {platform.system()}"
    return f"{where}; Python {platform.python_version()}, {packages}."


def report(servers: dict[str, Server], seconds: dict[str, float], rounds: Any, storms: Any) -> None:
    """Print the tables."""
    rates = {key: [len(times) / SECONDS for times in each] for key, each in rounds.items()}
    print(f"{machine()}\n\n{CONNECTIONS} connections, {ROUNDS} rounds of {SECONDS} s, medians.\n")
    print("| App | Request | Requests per second | Of the bare route | p50, ms | p99, ms |\n|---|---|---|---|---|---|")
    for (name, line), each in rates.items():
        part = statistics.median(rate / bare for rate, bare in zip(each, rates["bare route", READ], strict=True))
        p50, p99 = (statistics.median(percentile(times, p) for times in rounds[name, line]) for p in (0.5, 0.99))
        print(f"| {name} | {' '.join(line)} | {statistics.median(each):.0f} | {part:.0%} | {p50:.1f} | {p99:.1f} |")
    print(f"\np99 of GET /me, in ms, while others log in (inf: no answer within {STORM_SECONDS} s):\n")
    print(f"| App | {' | '.join(f'{logins} logins' for logins in STORMS)} |\n|---{'|---' * len(STORMS)}|")
    for name in STORMED:
        print(f"| {name} | {' | '.join(f'{percentile(storms[name, logins], 0.99):.0f}' for logins in STORMS)} |")
    print("\n| App | Start, s | Memory after all that, MiB |\n|---|---|---|")
    for name in APPS:
        print(f"| {name} | {seconds[name]:.2f} | {memory_of(servers[name]) or float('nan'):.0f} |")


def main() -> None:
    """Measure and report."""
    with tempfile.TemporaryDirectory() as folder, ProcessPoolExecutor(2, get_context("spawn")) as pool:
        servers: dict[str, Server] = {}
        try:
            servers, seconds = start_all(Path(folder))
            report(servers, seconds, *measure(servers, pool))
        finally:
            stop(list(servers.values()))


if __name__ == "__main__":
    main()
