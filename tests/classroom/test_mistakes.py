"""The bank of mistakes proves itself: each mistake turns red what it names, and no test is without one."""

import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.classroom.break_it import load, prove, put_into_my, run
from tests.classroom.steps import ROOT, STEPS, copy_step, file_of_tests, names_of_tests, read_toml
from tests.server import launch, stop

BANK = {f"{step} {mistake.name}": mistake for step in STEPS for mistake in load(step)}


@pytest.fixture(scope="session")
def verdicts(request: pytest.FixtureRequest) -> Iterator[dict[str, Future[str]]]:
    """What is wrong with each mistake that was chosen; "" is as it should be. Two at a time."""
    names = [item.name.partition("[")[2][:-1] for item in request.session.items if "turns_red" in item.name]
    with ThreadPoolExecutor(2) as pool:
        yield {name: pool.submit(prove, BANK[name]) for name in names}
        pool.shutdown(cancel_futures=True)


@pytest.mark.parametrize("name", BANK)
def test_a_mistake_turns_red_what_it_names_and_the_test_says_why(verdicts: dict[str, Future[str]], name: str) -> None:
    """Otherwise a learner breaks the step and nothing happens, or something else does."""
    assert verdicts[name].result() == ""


@pytest.mark.parametrize("name", BANK)
def test_a_mistake_is_a_few_lines_of_code_with_a_story_and_a_source(name: str) -> None:
    """Otherwise it is a riddle, not a lesson."""
    mistake = BANK[name]

    assert len(mistake.new.splitlines()) <= 15
    assert mistake.title and mistake.source and len(mistake.story.split()) >= 10
    assert {test.partition("[")[0] for test in mistake.red} <= set(names_of_tests(file_of_tests(mistake.step)))


def test_no_mistake_uses_a_name_that_is_not_there(tmp_path: Path) -> None:
    """Otherwise a NameError turns the tests red, and not what the story tells."""
    for name, mistake in BANK.items():
        copy_step(mistake.step, tmp_path / name, [(mistake.file, mistake.old, mistake.new)])

    command = [sys.executable, "-m", "ruff", "check", "--isolated", "--select=F821", "--quiet", str(tmp_path)]
    assert subprocess.run(command, capture_output=True, text=True, check=False).stdout == ""


@pytest.mark.parametrize("name", [name for name, mistake in BANK.items() if mistake.curl])
def test_the_commands_make_use_of_the_mistake_and_not_of_the_step_itself(name: str, tmp_path: Path) -> None:
    """Otherwise a learner types what leads nowhere."""
    mistake = BANK[name]
    step = STEPS[mistake.step]
    copy_step(mistake.step, tmp_path / step, [(mistake.file, mistake.old, mistake.new)])
    shown = []
    for folder in (tmp_path, ROOT):
        settings = {"DENYLIST_URL": f"sqlite:///{tmp_path}/denylist"}
        server = launch(f"{step}.main:app", folder, tmp_path / "log", settings).wait_until_ready()
        script = mistake.curl.replace("localhost:8000", server.url.removeprefix("http://"))
        script = script.replace(".venv/bin/python", sys.executable)
        shown.append(subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True).stdout)
        stop([server])

    assert mistake.curl_shows in shown[0]
    assert mistake.curl_shows not in shown[1] or mistake.name == "no-expiry"


def test_no_test_of_the_steps_is_without_a_mistake_that_it_catches() -> None:
    """Otherwise nobody knows whether that test can fail at all."""
    excused = read_toml("mistakes/none")
    every = {(file, test) for step in STEPS for test, file in names_of_tests(file_of_tests(step)).items()}
    named = {(mistake.step, test.partition("[")[0]) for mistake in BANK.values() for test in mistake.red}
    caught = {(names_of_tests(file_of_tests(step))[test], test) for step, test in named}

    assert {test for _, test in every - caught} == set(excused)


def test_a_bank_that_is_wrong_is_found_out() -> None:
    """Otherwise the proof proves nothing: a change of nothing, and a message that is about something else."""

    def verdict(**changes: Any) -> str:
        return prove(replace(BANK["step01 await-forgotten"], **changes))

    assert verdict(new=BANK["step01 await-forgotten"].old) == "test_a_wrong_password_is_refused stays green"
    assert "does not say 'the moon'" in verdict(says="the moon")
    assert "IndentationError" in verdict(new="    if (")
    assert "is 0 times in users.py" in verdict(old="nowhere in the file")


@pytest.fixture(autouse=True)
def my(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A folder of the test's own in place of my/."""
    monkeypatch.setattr("tests.classroom.break_it.MY", tmp_path / "my")
    monkeypatch.setattr("tests.classroom.break_it.ROOT", tmp_path)


def test_a_broken_copy_is_made_once_and_never_written_over(capsys: pytest.CaptureFixture[str]) -> None:
    """Otherwise what a learner has found and repaired is gone at the next try."""
    folder = put_into_my("step01", "await-forgotten")
    (folder / "main.py").write_text("# repaired")
    put_into_my("step01", "await-forgotten")

    assert (folder / "main.py").read_text() == "# repaired"
    assert "is left as it is" in capsys.readouterr().out


def test_a_port_that_is_taken_is_said_in_words() -> None:
    """Otherwise the learner reads a traceback, or runs into the app of another step."""
    with socket.socket() as taken, pytest.raises(SystemExit, match="is taken"):
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        run(ROOT, str(taken.getsockname()[1]))


def test_a_secret_mistake_is_not_given_away(capsys: pytest.CaptureFixture[str]) -> None:
    """Otherwise there is nothing to find."""
    put_into_my("step02", "secret")

    said = capsys.readouterr().out
    assert "Which mistake is it?" in said
    assert not [mistake for mistake in load("step02") if mistake.name in said or mistake.title in said]
