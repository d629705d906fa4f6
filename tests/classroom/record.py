"""Run pytest and say each outcome as soon as it is known, a line of JSON each: python record.py --app ... TESTS.

A program of its own: what it judges must not be able to replace a module that the tests import, so the folder
of the judged app is not where this process looks for modules. Nor can what it judges add outcomes: they go into a
socket that no other process has, and only the last line, with pytest's exit code, makes them complete.
"""

import ctypes
import json
import os
import re
import secrets
import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).parent.parent.parent)

import pytest  # noqa: E402

from tests import conftest, expect  # noqa: E402

LONGEST = 2_000  # of a message, in characters
SILENCES = 5  # tests in a row without an answer: there will be none
# What a traceback says of libraries, and not of the app
FOREIGN_FRAMES = re.compile(r'  File "(?:<frozen|[^"]*(?:site-packages|lib/python3))[^"]*".*\n(?:    .*\n)*')


class Recorder:
    """A pytest plugin: one line of JSON per test; no further test for an app that does not start, or never answers."""

    session: pytest.Session
    started = False
    silences = 0

    def __init__(self, channel: int) -> None:
        self.channel = channel
        self.said: set[str] = set()

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self.session = session
        self.say(total=len(session.items))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "teardown" or (report.when == "setup" and report.passed):
            return
        message = "" if report.passed else in_plain_words(report)
        if report.when == "setup" and report.failed and not self.started:
            self.stop(message)
            return
        self.started = True
        self.say(test=report.nodeid.partition("::")[2], outcome=report.outcome, message=message)
        for detail in set(expect.details or {}) - self.said:
            self.said.add(detail)
            self.say(test=detail, outcome="failed", message=(expect.details or {})[detail])
        self.silences = self.silences + 1 if message in conftest.NO_ANSWER.values() else 0
        if self.silences == SILENCES:
            self.stop(message)

    def stop(self, problem: str) -> None:
        """Run no further test, and write down why."""
        self.say(problem=problem)
        self.session.shouldstop = problem

    def say(self, **entry: str | int) -> None:
        """Send a line of JSON."""
        os.write(self.channel, f"{json.dumps(entry)}\n".encode())


def in_plain_words(report: pytest.TestReport) -> str:
    """Return what a test says: its sentences about the app, else the line of the error."""
    if isinstance(report.longrepr, tuple):  # a skip
        return report.longrepr[2].removeprefix("Skipped: ")
    if isinstance(report.longrepr, str):  # tests/conftest.py has put the sentences before the traceback
        return report.longrepr.partition("\n\n")[0][:LONGEST]
    crash = getattr(report.longrepr, "reprcrash", None)
    message = (crash.message if crash else str(report.longrepr)).removeprefix("AssertionError: ")
    message = FOREIGN_FRAMES.sub("", message)
    # Of a long log, the first line says what is wrong and the last ones why.
    return message if len(message) <= LONGEST else f"{message.partition(chr(10))[0]}\n...{message[-LONGEST:]}"


def main(*arguments: str) -> int:
    """Run the tests; the exit code is pytest's."""
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        libc.prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER: it is the parent of all orphans, so that they are found
        libc.prctl(4, 0, 0, 0, 0)  # PR_SET_DUMPABLE: /proc/PID/mem and /proc/PID/fd are root's alone
    channel = os.dup(1)  # no process that is started from here inherits it
    os.dup2(2, 1)
    recorder = Recorder(channel)
    # New ones for each run, so that no app can know them beforehand; not of one length, so that mixing them up shows
    conftest.JWT_KEY, conftest.SESSION_KEY = secrets.token_urlsafe(30), secrets.token_urlsafe(36)
    # Who asks for single tests wants to see them fail, be it by a header alone (the bank of mistakes)
    expect.details = None if any("::" in argument for argument in arguments) else {}
    code = int(pytest.main(["-q", "--assert=plain", *arguments], plugins=[recorder]))
    recorder.say(end=code)
    return code


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
