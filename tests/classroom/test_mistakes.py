"""The bank of mistakes proves itself: each mistake turns red what it names, and no test is without one."""

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.classroom.break_it import Mistake, break_copy, load, prove, prove_all, put_into_my
from tests.classroom.steps import HERE, ROOT, STEPS, names_of_tests
from tests.server import launch, stop

BANK = {f"{step} {mistake.name}": mistake for step in STEPS for mistake in load(step)}


@pytest.fixture(scope="session")
def verdicts() -> dict[str, str]:
    """What is wrong with each mistake of the bank; "" is as it should be. Two at a time, so all of them at once."""
    return {f"{mistake.step} {mistake.name}": wrong for mistake, wrong in prove_all(BANK.values())}


@pytest.mark.parametrize("name", BANK)
def test_a_mistake_turns_red_what_it_names_and_the_test_says_why(verdicts: dict[str, str], name: str) -> None:
    """Otherwise a learner breaks the step and nothing happens, or something else does."""
    assert verdicts[name] == ""


@pytest.mark.parametrize("name", BANK)
def test_a_mistake_is_a_few_lines_of_code_with_a_story_and_a_source(name: str) -> None:
    """Otherwise it is a riddle, not a lesson."""
    mistake = BANK[name]
    code = (ROOT / STEPS[mistake.step] / mistake.file).read_text(encoding="utf-8")

    assert code.count(mistake.old) == 1
    ast.parse(code.replace(mistake.old, mistake.new))
    assert len(mistake.new.splitlines()) <= 15
    assert mistake.title
    assert mistake.source
    assert len(mistake.story.split()) >= 10
    assert {test.partition("[")[0] for test in mistake.red} <= set(names_of_tests(mistake.step))


@pytest.mark.parametrize("name", [name for name, mistake in BANK.items() if mistake.curl])
def test_the_commands_make_use_of_the_mistake_and_not_of_the_step_itself(name: str, tmp_path: Path) -> None:
    """Otherwise a learner types what leads nowhere."""
    mistake = BANK[name]
    step = STEPS[mistake.step]
    break_copy(mistake, tmp_path / step)
    servers = [
        launch(f"{step}.main:app", folder, tmp_path / f"{number}.log", {"DENYLIST_URL": f"sqlite:///{tmp_path}/list"})
        for number, folder in enumerate((tmp_path, ROOT))
    ]

    shown = []
    for server in servers:
        port = server.wait_until_ready().url.rpartition(":")[2]
        script = mistake.curl.replace("localhost:8000", f"127.0.0.1:{port}").replace(".venv/bin/python", sys.executable)
        done = subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
        shown.append(done.stdout)
    stop(servers)

    assert mistake.curl_shows in shown[0]
    assert mistake.curl_shows not in shown[1] or mistake.name == "no-expiry"


@pytest.mark.parametrize("step", STEPS)
def test_three_mistakes_of_each_step_say_how_to_make_use_of_them(step: str) -> None:
    """Otherwise the chapters have nothing to try by hand."""
    assert sum(bool(mistake.curl) for mistake in load(step)) >= 3


def test_no_test_of_the_steps_is_without_a_mistake_that_it_catches() -> None:
    """Otherwise nobody knows whether that test can fail at all."""
    excused = tomllib.loads((HERE / "mistakes" / "none.toml").read_text(encoding="utf-8"))
    every = {(file, test) for step in STEPS for test, file in names_of_tests(step).items()}
    caught = {
        (names_of_tests(mistake.step)[test.partition("[")[0]], test.partition("[")[0])
        for mistake in BANK.values()
        for test in mistake.red
    }

    assert {test for _, test in every - caught} == set(excused)


def test_a_bank_that_is_wrong_is_found_out() -> None:
    """Otherwise the proof proves nothing: a change of nothing, and a message that is about something else."""
    real = BANK["step01 await-forgotten"]
    harmless = Mistake(**vars(real) | {"new": real.old})
    vague = Mistake(**vars(real) | {"red": real.red[:1], "says": "the moon"})
    broken = Mistake(**vars(real) | {"new": "    if ("})
    drifted = Mistake(**vars(real) | {"old": "nowhere in the file"})

    assert prove(harmless) == "test_a_wrong_password_is_refused stays green"
    assert "does not say 'the moon'" in prove(vague)
    assert "did not start" in prove(broken)
    assert "IndentationError" in prove(broken)
    assert "old is 0 times in main.py" in prove(drifted)


@pytest.fixture
def my(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder of the test's own in place of my/."""
    folder = tmp_path / "my"
    monkeypatch.setattr("tests.classroom.break_it.MY", folder)
    monkeypatch.setattr("tests.classroom.break_it.ROOT", tmp_path)
    return folder


@pytest.mark.usefixtures("my")
def test_a_broken_copy_is_made_once_and_never_written_over(capsys: pytest.CaptureFixture[str]) -> None:
    """Otherwise what a learner has found and repaired is gone at the next try."""
    folder = put_into_my("step01", "await-forgotten")
    (folder / "main.py").write_text("# repaired")
    put_into_my("step01", "await-forgotten")

    assert (folder / "main.py").read_text() == "# repaired"
    assert "is left as it is" in capsys.readouterr().out


@pytest.mark.usefixtures("my")
def test_a_secret_mistake_is_not_given_away(capsys: pytest.CaptureFixture[str]) -> None:
    """Otherwise there is nothing to find."""
    put_into_my("step02", "secret")

    said = capsys.readouterr().out
    assert "Which mistake is it?" in said
    assert not [mistake for mistake in load("step02") if mistake.name in said or mistake.title in said]
