"""Run a step's tests on an app, in processes of their own that see nothing of this one, and say what came out."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tests.classroom.steps import file_of_tests

RECORD = Path(__file__).with_name("record.py")
# An app that is judged gets no secrets of whoever judges it, only what programs cannot do without
PASSED_ON = ("PATH", "LANG", "LC_ALL", "TZ", "SYSTEMROOT", "PATHEXT", "COMSPEC", "PROCESSOR_ARCHITECTURE")


@dataclass
class Outcome:
    """What one test said about an app."""

    test: str  # its name, with its parameters in brackets
    outcome: str  # passed, failed or skipped
    message: str  # in plain words: what the app did, what it should do, what follows otherwise

    @property
    def function(self) -> str:
        """The test's name without its parameters."""
        return self.test.partition("[")[0]


@dataclass
class Judgement:
    """What all tests said, and why they did not finish if they did not."""

    outcomes: list[Outcome]
    problem: str = ""


def judge(
    step: str,
    folder: Path,
    app: str = "",
    command: str = "",
    tests: Iterable[str] = (),
    seconds: float = 600,
) -> Judgement:
    """Judge an ASGI app (as uvicorn finds it from the folder) or a command that starts a server on {port}.

    When the time is over, or the tests are through, every process that was started in between is ended.
    """
    with (
        tempfile.TemporaryDirectory(prefix="results-") as private,
        tempfile.TemporaryDirectory(prefix="judged-", ignore_cleanup_errors=True) as scratch,
    ):
        results, log = Path(private, "results.jsonl"), Path(private, "log")
        results.touch()
        chosen = [f"{file_of_tests(step)}::{test}" for test in tests] or [str(file_of_tests(step))]
        judged = ["--app", app] if app else ["--command", command]
        environment = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
        # The commands of this environment (python, uvicorn) before those of the system
        environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), environment.get("PATH", os.defpath)])
        environment |= {"HOME": scratch, "TMPDIR": scratch, "TEMP": scratch}
        environment |= {"PYTHONDONTWRITEBYTECODE": "1", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
        problem = ""
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, str(RECORD), str(results), *judged, *chosen],
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # a group of its own: what the app starts is ended with it
            )
            try:
                process.wait(seconds)
            except subprocess.TimeoutExpired:
                problem = f"The tests were not through after {seconds:.0f} seconds: the app hangs, or is very slow."
            finally:
                end_group(process)
        lines = [json.loads(line) for line in results.read_text(encoding="utf-8").splitlines()]
        outcomes = [Outcome(**line) for line in lines if "test" in line]
        problem = next((line["problem"] for line in lines if "problem" in line), problem)
        if not lines and not problem:
            problem = "No test ran:\n" + log.read_text(encoding="utf-8", errors="replace")[-2_000:]
        return Judgement(outcomes, problem)


def end_group(process: subprocess.Popen[bytes]) -> None:
    """End a process and all that it has started, by force."""
    if hasattr(os, "killpg"):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()
    process.wait()
