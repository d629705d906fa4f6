"""Break a step on purpose. The bank of mistakes that people really make is in mistakes/, a file per step.

make break       puts a broken copy of a step into my/ and runs it; without MISTAKE it lists what there is
"""

import argparse
import os
import random
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tests.classroom.judge import judge
from tests.classroom.steps import MY, ROOT, STEPS, copy_step, read_toml
from tests.server import SETTINGS, Server

# The app starts and answers: it stays green in every mistake that does not name it
CONTROL = "test_the_page_is_there"


@dataclass
class Mistake:
    """A few changed lines of a step, and what comes of them."""

    step: str
    name: str
    title: str
    story: str  # who made it, or how it bites
    source: str
    old: str  # occurs once in the file
    new: str
    red: list[str]  # the tests that it must turn red; the first one is the one to look at
    says: str  # what that one says about it
    file: str = "main.py"
    curl: str = ""  # how to make use of it
    curl_shows: str = ""  # what that prints, among other things


def load(step: str) -> list[Mistake]:
    """Return the mistakes of a step, in the order of its file."""
    return [Mistake(step, name, **fields) for name, fields in read_toml(f"mistakes/{step}").items()]


def prove(mistake: Mistake, tries: int = 5) -> str:
    """Return what is wrong with a mistake of the bank, "" if it turns red what it should, and says why."""
    step, tests = STEPS[mistake.step], list(dict.fromkeys([CONTROL, *mistake.red]))
    with tempfile.TemporaryDirectory(prefix="broken-") as scratch:
        try:
            copy_step(mistake.step, Path(scratch, step), [(mistake.file, mistake.old, mistake.new)])
        except SystemExit as error:
            return str(error)
        judgement = judge(mistake.step, Path(scratch), app=f"{step}.main:app", tests=tests)
    failed = [(name, o.message) for o in judgement.outcomes if o.outcome == "failed" for name in (o.test, o.function)]
    red = dict(failed)
    if judgement.problem:
        return judgement.problem
    if CONTROL in red and CONTROL not in mistake.red:
        return f"the app does not start, or has no page: {red[CONTROL]}"
    if green := [test for test in mistake.red if test not in red]:
        # A comparison of times can fail to see it on a busy machine, where requests arrive one by one
        return prove(mistake, tries - 1) if tries > 1 else f"{green[0]} stays green"
    said = "\n".join(message for name, message in failed if name == mistake.red[0])
    return "" if mistake.says in said else f"{mistake.red[0]} does not say {mistake.says!r}, but:\n{said}"


def put_into_my(step: str, name: str) -> Path:
    """Return the folder of the broken copy; it is made if it is not there yet, and never written over."""
    found = [mistake for mistake in load(step) if name in (mistake.name, "secret")]
    if not found:
        raise SystemExit(f"There is no mistake {name} in {step}. `make break STEP={step}` lists them.")
    mistake = random.choice(found)
    folder = MY / f"{step}_{name.replace('-', '_')}"
    if folder.exists():
        print(f"{folder.relative_to(ROOT)} is there already and is left as it is. To begin anew, delete it.\n")
    else:
        copy_step(step, folder, [(mistake.file, mistake.old, mistake.new)])
        print(f"A broken copy of {step} is in {folder.relative_to(ROOT)}.\n")
    if name == "secret":
        print("Which mistake is it? Try the app, run the tests, read the code; `diff` only when you have given up.")
    else:
        print(f"{mistake.title}\n\n{mistake.story.strip()}\n\nSource: {mistake.source}")
        if mistake.curl:
            print(f"\nMake use of it, in another terminal:\n{mistake.curl}", end="")
    print(f"\nSee what the tests say, in another terminal:\nmake grade STEP={step} APP=my.{folder.name}.main:app\n")
    return folder


def run(folder: Path, port: str) -> int:
    """Run the app in a folder of my/ until it is stopped, without keys: it makes up its own."""
    if Server(f"http://127.0.0.1:{port}").answers():
        raise SystemExit(f"Port {port} is taken: something else listens there. Choose another, PORT=8001 for instance.")
    settings = {name: value for name, value in os.environ.items() if name not in SETTINGS}
    watched = folder.relative_to(ROOT).as_posix()
    command = ["uvicorn", f"my.{folder.name}.main:app", "--port", port, "--reload", "--reload-dir", watched]
    print(" ".join(command), flush=True)
    try:
        return subprocess.call([sys.executable, "-m", *command], cwd=ROOT, env=settings)
    except KeyboardInterrupt:
        return 0


def main() -> int:
    """List, or break and run."""
    parser = argparse.ArgumentParser(prog="tests.classroom.break_it")
    parser.add_argument("--step", choices=STEPS, help="default: all of them")
    parser.add_argument("--mistake", help="the name of a mistake, or secret: one of them, without saying which")
    parser.add_argument("--port", default="8000")
    options = parser.parse_args()
    steps = [options.step] if options.step else list(STEPS)
    if not options.mistake:
        for step in steps:
            print(f"{step}\n" + "\n".join(f"  {mistake.name:40} {mistake.title}" for mistake in load(step)) + "\n")
        print(f"Choose one: make break STEP={steps[0]} MISTAKE={load(steps[0])[0].name}, or MISTAKE=secret")
        return 0
    if not options.step:
        parser.error("say which step: STEP=step01")
    return run(put_into_my(options.step, options.mistake), options.port)


if __name__ == "__main__":
    sys.exit(main())
