"""What the checks of the repository itself need from the machine."""

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.server import free_port

ROOT = Path(__file__).parent.parent.parent


def need(program: str, install: str) -> str:
    """Return where a program is; without it skip, or fail where nothing may be missing (in CI)."""
    found = shutil.which(program)
    if found is None and os.environ.get("CI"):
        pytest.fail(f"{program} is missing, and in CI nothing may be: install {install}")
    if found is None:
        pytest.skip(f"{program} is missing: install {install}, for example with apt-get install {install}")
    return found


class RedisServer:
    """A Redis of the test's own, on a free port, which can be stopped and started again."""

    def __init__(self, program: str, folder: Path) -> None:
        """Choose a port; start nothing yet."""
        self.program, self.folder, self.port = program, folder, free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *options: str) -> None:
        """Start it, and return once it answers."""
        fixed = ["--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder), "--save", ""]
        self.process = subprocess.Popen([self.program, *fixed, *options], stdout=subprocess.DEVNULL)
        for _ in range(500):
            ping = subprocess.run(["redis-cli", "-p", str(self.port), "ping"], capture_output=True, check=False)
            if ping.stdout:
                return
            time.sleep(0.02)
        raise AssertionError("redis-server does not answer")

    def stop(self) -> None:
        """Stop it, as a power cut would."""
        if self.process:
            self.process.kill()
            self.process.wait()
            self.process = None


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis that is not started yet."""
    server = RedisServer(need("redis-server", "redis-server"), tmp_path)
    yield server
    server.stop()


@pytest.fixture(scope="session")
def run() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a command in the root of the repository and return what it printed."""

    def run_it(*command: str) -> subprocess.CompletedProcess[str]:
        # A make inside `make check` would inherit its flags, and say which folder it enters.
        env = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
        return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False, timeout=300)

    return run_it
