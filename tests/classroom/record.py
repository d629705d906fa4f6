"""Run pytest and write down each outcome as soon as it is known: python record.py RESULTS [--command ...] ARGUMENTS.

A program of its own: what it judges must not be able to replace a module that the tests import, so the folder
of the judged app is not where this process looks for modules.
"""

import json
import os
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path

sys.path[0] = str(Path(__file__).parent.parent.parent)

import pytest  # noqa: E402

from tests.conftest import JWT_KEY, SESSION_KEY  # noqa: E402
from tests.server import START_SECONDS, Server, free_port  # noqa: E402

LONGEST = 2_000  # of a message, in characters
SILENCES = 5  # tests in a row without an answer: there will be none
NO_ANSWER = {
    "httpx.ReadTimeout": "Your app takes connections and does not answer.",
    "httpx.ConnectTimeout": "Your app does not take connections.",
    "httpx.ConnectError": "Your app is no longer there: it has crashed, or has ended itself.",
}
# One server error is enough for this: uvicorn closes the connection after it
BROKEN_OFF = {
    "httpx.ReadError": "Your app broke off the connection, after a server error or in a crash.",
    "httpx.RemoteProtocolError": "Your app broke off the connection, after a server error or in a crash.",
}
# What a traceback says of libraries, and not of the app
FOREIGN_FRAMES = re.compile(r'  File "(?:<frozen|[^"]*(?:site-packages|lib/python3))[^"]*".*\n(?:    .*\n)*')


class Recorder:
    """A pytest plugin: one line of JSON per test; no further test for an app that does not start, or never answers."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.session: pytest.Session | None = None
        self.started = False
        self.silences = 0

    def pytest_sessionstart(self, session: pytest.Session) -> None:
        self.session = session

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "teardown" or (report.when == "setup" and report.passed):
            return
        message = "" if report.passed else in_plain_words(report)
        if report.when == "setup" and report.failed and not self.started:
            self.stop(message)
            return
        self.started = True
        write(self.file, test=report.nodeid.partition("::")[2], outcome=report.outcome, message=message)
        self.silences = self.silences + 1 if message in NO_ANSWER.values() else 0
        if self.silences == SILENCES:
            self.stop(message)

    def stop(self, problem: str) -> None:
        """Run no further test, and write down why."""
        write(self.file, problem=problem)
        if self.session:
            self.session.shouldstop = problem


def write(file: Path, **entry: str) -> None:
    """Add a line of JSON to a file."""
    with file.open("a", encoding="utf-8") as results:
        print(json.dumps(entry), file=results)


def in_plain_words(report: pytest.TestReport) -> str:
    """Return what a test says: its sentences about the app, else the line of the error."""
    if isinstance(report.longrepr, tuple):  # a skip
        return report.longrepr[2].removeprefix("Skipped: ")
    if isinstance(report.longrepr, str):  # tests/conftest.py has put the sentences before the traceback
        return report.longrepr.partition("\n\n")[0][:LONGEST]
    crash = getattr(report.longrepr, "reprcrash", None)
    message = (crash.message if crash else str(report.longrepr)).removeprefix("AssertionError: ")
    in_words = (NO_ANSWER | BROKEN_OFF).get(message.partition(":")[0])
    if in_words:
        return in_words
    message = FOREIGN_FRAMES.sub("", message)
    # Of a long log, the first line says what is wrong and the last ones why.
    return message if len(message) <= LONGEST else f"{message.partition(chr(10))[0]}\n...{message[-LONGEST:]}"


def start_command(command: str, results: Path) -> Server:
    """Start a server of any language and wait until it answers; if it never does, write down what it printed."""
    port = free_port()
    os.environ |= {"JWT_SECRET_KEY": JWT_KEY, "SESSION_SECRET_KEY": SESSION_KEY, "PORT": str(port)}
    os.environ["DENYLIST_URL"] = f"sqlite:///{Path(os.environ['TMPDIR'], 'denylist.sqlite3')}"
    log = Path(os.environ["TMPDIR"], "server.log")
    arguments = [argument.replace("{port}", str(port)) for argument in shlex.split(command)]
    with log.open("wb") as output:
        try:
            process = subprocess.Popen(arguments, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)
        except (OSError, IndexError) as error:
            write(results, problem=f"The command cannot be run: {error}.")
            sys.exit(1)
    server = Server(f"http://127.0.0.1:{port}", process, log)
    end = time.monotonic() + START_SECONDS
    while not server.answers():
        if process.poll() is not None or time.monotonic() > end:
            write(results, problem=f"Your server did not start, or does not listen on {port}:\n{server.log[-LONGEST:]}")
            sys.exit(1)
        time.sleep(0.05)
    return server


def main(results: str, kind: str, judged: str, *tests: str) -> int:
    """Run the tests; the exit code is pytest's."""
    options = ["--app", judged] if kind == "--app" else ["--url", start_command(judged, Path(results)).url]
    return int(pytest.main(["-q", "--assert=plain", *options, *tests], plugins=[Recorder(Path(results))]))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
