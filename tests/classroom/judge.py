"""Run a step's tests on an app, in processes of their own that see nothing of this one, and say what came out."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from tests.classroom.steps import file_of_tests

RECORD = Path(__file__).with_name("record.py")
# An app that is judged gets no secrets of whoever judges it, only what programs cannot do without
PASSED_ON = ("PATH", "LANG", "LC_ALL", "TZ", "SYSTEMROOT", "PATHEXT", "COMSPEC", "PROCESSOR_ARCHITECTURE")
RUNNING: dict["subprocess.Popen[bytes]", str] = {}  # the runs of now, each with what marks its processes


@dataclass
class Outcome:
    """What one test said about an app."""

    test: str  # its name, with its parameters in brackets; or the name of a detail (a header)
    outcome: str  # passed, failed or skipped
    message: str  # in plain words: what the app did, what it should do, what follows otherwise

    @property
    def function(self) -> str:
        """The test's name without its parameters."""
        return self.test.partition("[")[0]


@dataclass
class Judgement:
    """What all tests said, and why they did not finish if they did not."""

    outcomes: list[Outcome] = field(default_factory=list)
    problem: str = ""


def judge(
    step: str,
    folder: Path,
    app: str = "",
    url: str = "",
    tests: Iterable[str] = (),
    seconds: float = 600,
    tell: Callable[[int, int], None] = lambda done, total: None,
) -> Judgement:
    """Judge an app (as uvicorn finds it from the folder, or a command that starts a server on {port}), or a URL.

    When the time is over, or the tests are through, every process that was started in between is ended.
    """
    with tempfile.TemporaryDirectory(prefix="judged-", ignore_cleanup_errors=True) as scratch:
        chosen = [f"{file_of_tests(step)}::{test}" for test in tests] or [str(file_of_tests(step))]
        names = (*PASSED_ON, "JWT_SECRET_KEY", "SESSION_SECRET_KEY") if url else PASSED_ON
        environment = {name: os.environ[name] for name in names if name in os.environ}
        # The commands of this environment (python, uvicorn) before those of the system
        environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), environment.get("PATH", os.defpath)])
        environment |= {"HOME": scratch, "TMPDIR": scratch, "TEMP": scratch}
        environment |= {"PYTHONDONTWRITEBYTECODE": "1", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
        judgement, late = Judgement(), threading.Event()
        log = Path(scratch, "log of the tests")
        ours, theirs = channel()
        with log.open("wb") as output, ours:
            process = subprocess.Popen(
                [sys.executable, str(RECORD), *(["--url", url] if url else ["--app", app]), *chosen],
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=theirs,
                stderr=output,
                start_new_session=True,  # a group of its own, that Ctrl+C does not reach
            )
            os.close(theirs)
            RUNNING[process] = scratch

            def end() -> None:
                late.set()
                end_all(process, scratch)

            timer = threading.Timer(seconds, end)
            timer.start()
            try:
                complete = take(ours, judgement, tell)
            finally:
                timer.cancel()
                end_all(process, scratch)
                RUNNING.pop(process, None)
        if late.is_set():
            judgement.problem = (
                f"The tests were not through after {seconds:.0f} seconds: the app hangs, or is very slow."
            )
        elif not complete and not judgement.problem:
            said = log.read_text(encoding="utf-8", errors="replace")[-2_000:]
            judgement.problem = f"The tests were broken off after {len(judgement.outcomes)} outcomes:\n{said}"
        elif not judgement.outcomes and not judgement.problem:
            judgement.problem = "No test ran:\n" + log.read_text(encoding="utf-8", errors="replace")[-2_000:]
        return judgement


def channel() -> tuple[TextIO, int]:
    """Return the two ends of what outcomes come through: a socket, as whoever finds a pipe in /proc can write to it."""
    if os.name == "nt":
        reader, writer = os.pipe()
    else:
        reader, writer = (end.detach() for end in socket.socketpair())
    return os.fdopen(reader, encoding="utf-8"), writer


def take(lines: TextIO, judgement: Judgement, tell: Callable[[int, int], None]) -> bool:
    """Take in what the tests say; return whether they have said that this was all."""
    total, complete = 0, False
    with contextlib.suppress(ConnectionError, json.JSONDecodeError):
        for line in lines:
            entry = json.loads(line)
            total, complete = entry.get("total", total), "end" in entry
            judgement.problem = entry.get("problem", judgement.problem)
            if "test" in entry:
                judgement.outcomes.append(Outcome(**entry))
                tell(len(judgement.outcomes), total)
    return complete


def stop_all() -> None:
    """End every run of now."""
    for process, mark in list(RUNNING.items()):
        end_all(process, mark)


def end_all(process: "subprocess.Popen[bytes]", mark: str) -> None:
    """End a run and all that it has started, by force: on Linux also what has left its group."""
    if process.poll() is None and hasattr(signal, "SIGSTOP"):
        process.send_signal(signal.SIGSTOP)  # it is the parent of all orphans, and must start nothing more
    end = time.monotonic() + 5
    while (found := started_by(process.pid, mark)) and time.monotonic() < end:
        for pid in found:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)
    if hasattr(os, "killpg"):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()
    process.wait()


def started_by(parent: int, mark: str) -> set[int]:
    """Return the living processes that descend from this one, or have the mark in their environment (Linux only)."""
    parents: dict[int, int] = {}
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            state, ppid = (folder / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[:2]
            if state not in "ZX":
                parents[int(folder.name)] = int(ppid)
                found |= {int(folder.name)} if mark.encode() in (folder / "environ").read_bytes() else set()

    def descends(pid: int) -> bool:
        return pid in parents and (parents[pid] == parent or descends(parents[pid]))

    return {pid for pid in parents if pid in found or descends(pid)} - {parent, os.getpid()}
