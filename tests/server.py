"""Start the app that is judged under uvicorn, in a process of its own, and watch it from outside."""

import contextlib
import os
import re
import secrets
import shlex
import socket
import subprocess
import sys
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

START_SECONDS = 30
SETTINGS = ("JWT_SECRET_KEY", "SESSION_SECRET_KEY", "HTTPS_ONLY", "DENYLIST_URL")
handed_out: deque[int] = deque(maxlen=200)  # ports whose server may not have bound them yet


@dataclass
class Server:
    """A server that is judged; only one that was started here has a process and a log."""

    url: str
    process: subprocess.Popen[bytes] | None = None
    log_file: Path | None = None
    was_ready: bool = False

    @property
    def log(self) -> str:
        """Return what the process has printed so far."""
        return self.log_file.read_text(encoding="utf-8", errors="replace") if self.log_file else ""

    def crash_since(self, begin: int) -> str:
        """Return what the last traceback after so many bytes of the log says, and of which line of the app; or ""."""
        log = self.log_file.read_bytes()[begin:].decode("utf-8", "replace") if self.log_file else ""
        crash = re.match(r"((?: .*\n)+)(.*)", log.rpartition("Traceback (most recent call last):\n")[2])
        frames = re.findall(r'File "([^"]+)", line (\d+), in (\w+)', crash[1]) if crash else []
        own = [frame for frame in frames if not re.search("^<|site-packages|lib.python3", frame[0])]
        where = f", in {own[-1][2]} ({Path(own[-1][0]).name}, line {own[-1][1]})" if own else ""
        return crash[2] + where if crash else ""

    def wait_until_ready(self) -> "Server":
        """Return once the server takes connections; AssertionError with what it printed if it never does."""
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end:
            assert self.process
            assert self.was_ready or self.process.poll() is None, f"Your app did not start:\n{self.log}"
            if self.was_ready or self.answers():
                self.was_ready = True
                return self
            time.sleep(0.02)
        raise AssertionError(f"Your app did not answer within {START_SECONDS} seconds of its start:\n{self.log}")

    def wait_until_stopped(self) -> int:
        """Return the exit code of a start that fails; AssertionError if the server starts to answer."""
        assert self.process
        end = time.monotonic() + START_SECONDS
        while self.process.poll() is None and time.monotonic() < end:
            assert not self.answers(), f"Your app started, and should have refused to:\n{self.log}"
            time.sleep(0.02)
        assert self.process.returncode is not None, f"Your app neither started nor stopped:\n{self.log}"
        return self.process.returncode

    def answers(self) -> bool:
        """Say whether the server takes connections."""
        where = urlsplit(self.url)
        try:
            socket.create_connection((where.hostname or "", where.port or 80), timeout=1).close()
        except OSError:
            return False
        return True


def stop(servers: list[Server]) -> None:
    """End the processes, all at once, and by force those that do not listen."""
    processes = [server.process for server in servers if server.process]
    for process in processes:
        process.terminate()
    for process in processes:
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def launch(app: str, folder: Path, log_file: Path, settings: dict[str, str]) -> Server:
    """Start `uvicorn app`, or a command with {port} in it, in the folder, with these settings and no others."""
    passed_on = {
        name: value
        for name, value in os.environ.items()
        if name not in SETTINGS and name != "WEB_CONCURRENCY" and not name.startswith("UVICORN_")
    }
    port = free_port()
    command = shlex.split(app) if "{port}" in app else [sys.executable, "-m", "uvicorn", app, "--port", "{port}"]
    with log_file.open("wb") as log:
        process = subprocess.Popen(
            [part.replace("{port}", str(port)) for part in command],
            cwd=folder,
            # Fourteen hours ahead: a time that is read off the wrong clock shows, also on a machine in UTC
            env=passed_on | {"TZ": "FAR-14"} | settings,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    return Server(f"http://127.0.0.1:{port}", process, log_file)


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody uses; not one of those that systems give to outgoing connections."""
    for _ in range(100):
        # A range by process, so that two do not meet. Not random: hypothesis seeds it, and the ports would repeat
        port = 20_000 + os.getpid() % 12 * 1_000 + secrets.randbelow(1_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            if port not in handed_out:
                handed_out.append(port)
                return port
    raise AssertionError("No port at 127.0.0.1 can be had: is the loopback interface up, and has it IPv4?")
