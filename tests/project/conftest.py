"""What the checks of the repository itself need from the machine."""

import os
import secrets
import shutil
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests import forge
from tests.conftest import JWT_KEY, SESSION_KEY
from tests.server import Server, free_port, launch, stop

ROOT = Path(__file__).parent.parent.parent
STEPS = sorted(step.parent.name for step in ROOT.glob("step0*/main.py"))
STEP1, STEP2, STEP3 = STEPS
NO_REDIS = "redis://127.0.0.1:1/0"  # nobody listens at port 1
StartStep = Callable[..., Server]


def launch_app(app: str, folder: Path, found_from: Path = ROOT, /, **changes: str) -> Server:
    """Start an app with its log and its denylist in this folder, and with other settings if asked."""
    usual = {"JWT_SECRET_KEY": JWT_KEY, "SESSION_SECRET_KEY": SESSION_KEY}
    usual["DENYLIST_URL"] = f"sqlite:///{folder / 'denylist.sqlite3'}"
    return launch(app, found_from, folder / f"{secrets.token_hex(4)}.log", usual | changes)


@pytest.fixture(scope="module")
def start_step(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartStep]:
    """Start a step, with other settings if asked; all share one denylist, and every server is stopped in the end."""
    folder: Path = tmp_path_factory.mktemp("steps")
    started: list[Server] = []

    def start_one(step: str, **changes: str) -> Server:
        started.append(launch_app(f"{step}.main:app", folder, **changes))
        return started[-1]

    yield start_one
    stop(started)


@pytest.fixture(scope="module")
def servers(start_step: StartStep) -> dict[str, Server]:
    """The three steps."""
    started = {step: start_step(step) for step in STEPS}
    return {step: server.wait_until_ready() for step, server in started.items()}


@pytest.fixture(scope="module")
def https(start_step: StartStep) -> dict[str, Server]:
    """The steps that set cookies, as behind https."""
    started = {step: start_step(step, HTTPS_ONLY="true") for step in (STEP2, STEP3)}
    return {step: server.wait_until_ready() for step, server in started.items()}


def visit(server: Server, cookies: httpx.Cookies | None = None) -> httpx.Client:
    """Open a browser, with a copy of these cookies."""
    transport = httpx.HTTPTransport(verify=False)
    return httpx.Client(base_url=server.url, cookies=cookies, transport=transport, trust_env=False, timeout=30)


def made_up_login(**claims: Any) -> dict[str, str]:
    """Return the cookies of a login of Alice with tea in the cart, without the 20 ms that her password takes."""
    claims = forge.good_claims("step03", seconds=3600) | {"jti": secrets.token_urlsafe(16)} | claims
    data = {"jti": claims["jti"], "order_id": secrets.token_urlsafe(16), "renewed": int(time.time())}
    cookie = forge.cookie(data | {"cart": {"tea": 2}}, SESSION_KEY)
    return {"step03_token": forge.token(claims, JWT_KEY), "step03_session": cookie}


def as_header(cookies: Iterable[tuple[str, str]]) -> dict[bytes, bytes]:
    """Return the header that brings these cookies, which need not be ASCII."""
    return {b"Cookie": "; ".join(f"{name}={value}" for name, value in cookies).encode("latin-1")}


def wait_until(it_is_true: Callable[[], object]) -> None:
    """Return once it is true; AssertionError if it is not within 20 seconds."""
    end = time.monotonic() + 20
    while not it_is_true():
        assert time.monotonic() < end, "It did not come true within 20 seconds."
        time.sleep(0.02)


def run(*command: str) -> "subprocess.CompletedProcess[str]":
    """Run a command in the root of the repository."""
    # A make inside `make check` would inherit its flags, and say which folder it enters.
    env = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False, timeout=300)


def need(program: str, install: str) -> str:
    """Return where a program is; without it skip, or fail where nothing may be missing (in CI)."""
    found = shutil.which(program)
    if found is None:
        give_up = pytest.fail if os.environ.get("CI") else pytest.skip
        give_up(f"{program} is missing: install {install}, for example with apt-get install {install}")
    return found


class RedisServer:
    """A Redis of the test's own, on a free port, which can be stopped and started again."""

    process: subprocess.Popen[bytes]

    def __init__(self, program: str, folder: Path) -> None:
        """Choose a port; start nothing yet."""
        self.program, self.folder, self.port = program, folder, free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"

    def start(self, *options: str) -> None:
        """Start it, and return once it answers."""
        fixed = ["--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder), "--save", ""]
        self.process = subprocess.Popen([self.program, *fixed, *options], stdout=subprocess.DEVNULL)
        wait_until(lambda: self.cli("ping"))

    def cli(self, *words: str) -> str:
        """Return the answer to a command."""
        command = ["redis-cli", "-p", str(self.port), *words]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout

    def stop(self) -> None:
        """Stop it, as a power cut would."""
        self.process.kill()
        self.process.wait()


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis that is not started yet."""
    server = RedisServer(need("redis-server", "redis-server"), tmp_path)
    yield server
    server.stop()
