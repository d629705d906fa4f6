"""The exercises: made from the steps as they are, failing where something is missing, and never written over."""

import ast
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.classroom import grade, write_it
from tests.classroom.judge import Judgement, judge
from tests.classroom.steps import ROOT, STEPS, names_of_tests
from tests.classroom.write_it import functions_of, is_written, make_exercise, take_out


def code_of(step: str) -> str:
    """Return the step's main.py."""
    return (ROOT / STEPS[step] / "main.py").read_text(encoding="utf-8")


def put_back(exercise: str, step: str, names: list[str]) -> str:
    """Return the exercise with some of the step's functions in their places: what a learner would have written."""
    for name in names:
        missing, solution = functions_of(exercise)[name], functions_of(code_of(step))[name]
        lines, original = exercise.splitlines(keepends=True), code_of(step).splitlines(keepends=True)
        lines[missing.lineno - 1 : missing.end_lineno] = original[solution.lineno - 1 : solution.end_lineno]
        exercise = "".join(lines)
    return exercise


@pytest.fixture(scope="session")
def handed_out(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Judgement]:
    """What the tests say about each exercise before anything is written."""
    folder = tmp_path_factory.mktemp("exercises")
    for step in STEPS:
        make_exercise(step, folder / step)
    with ThreadPoolExecutor(2) as pool:
        return dict(zip(STEPS, pool.map(lambda step: judge(step, folder, app=f"{step}.main:app"), STEPS), strict=True))


@pytest.mark.parametrize("step", STEPS)
def test_an_exercise_starts_and_fails_exactly_the_tests_that_concern_what_is_missing(
    handed_out: dict[str, Judgement], step: str
) -> None:
    """Otherwise a learner looks for a mistake where there is none, or passes without writing anything."""
    judgement = handed_out[step]
    outcomes: dict[str, set[str]] = {}
    for outcome in judgement.outcomes:
        outcomes.setdefault(outcome.function, set()).add(outcome.outcome)

    held = {name for name, some in outcomes.items() if "passed" in some and "failed" not in some}

    assert judgement.problem == ""
    assert set(outcomes) == set(names_of_tests(step))
    assert held == set(write_it.holds_from_the_start(step))
    assert sum("failed" in some for some in outcomes.values()) >= 20


@pytest.mark.parametrize("step", STEPS)
def test_the_step_put_back_is_the_solution(step: str) -> None:
    """Otherwise the exercise has drifted from the step, or lost a docstring or a comment of it."""
    tasks = write_it.load(step)
    exercise = take_out(code_of(step), tasks)

    assert put_back(exercise, step, [task.name for task in tasks]) == code_of(step)
    for task in tasks:
        assert ast.get_docstring(functions_of(exercise)[task.name])
        assert not is_written(exercise, task)
        assert is_written(code_of(step), task)


@pytest.mark.parametrize("step", STEPS)
def test_each_function_has_three_hints_and_no_objective_is_about_another(step: str) -> None:
    """Otherwise HINT=3 has nothing to say, or a hint leads elsewhere."""
    tasks = write_it.load(step)

    assert all(len(task.hints) == 3 and all(task.hints) for task in tasks)
    assert {objective.write for objective in grade.load(step)} - {""} <= {task.name for task in tasks}


def test_what_was_written_holds_while_the_rest_is_missing(tmp_path: Path) -> None:
    """Otherwise a learner gets no credit for the first half of the way."""
    make_exercise("step01", tmp_path / "mine")
    main = tmp_path / "mine" / "main.py"
    main.write_text(put_back(main.read_text(), "step01", ["login", "password_is_right", "issue_token", "explain_422"]))

    marks = grade.mark_all(grade.load("step01"), judge("step01", tmp_path, app="mine.main:app"))

    reached = [mark.objective.name for mark in marks if mark.state == "reached"]
    assert reached == ["start", "login", "passwords", "token"]


def test_an_exercise_is_never_written_over(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Otherwise an evening's work is gone."""
    monkeypatch.setattr("tests.classroom.write_it.MY", tmp_path / "my")
    monkeypatch.setattr("tests.classroom.write_it.ROOT", tmp_path)
    monkeypatch.setattr("sys.argv", ["write_it", "--step", "step01"])
    assert write_it.main() == 0
    (tmp_path / "my/step01/main.py").write_text("# an evening's work")

    with pytest.raises(SystemExit, match="my/step01 is there already and is left as it is"):
        write_it.main()

    assert (tmp_path / "my/step01/main.py").read_text() == "# an evening's work"


def test_the_hints_come_one_after_the_other_for_the_first_function_that_is_not_written(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Otherwise a hint gives away too much, or speaks of what is done."""
    monkeypatch.setattr("tests.classroom.grade.ROOT", tmp_path)
    make_exercise("step01", tmp_path / "my" / "step01")
    main = tmp_path / "my/step01/main.py"
    main.write_text(put_back(main.read_text(), "step01", ["login"]))
    hints = next(task.hints for task in write_it.load("step01") if task.name == "password_is_right")

    grade.print_hints("step01", "my.step01.main:app", None, 2)

    said = capsys.readouterr().out
    assert "Not written yet: password_is_right, issue_token" in said
    assert hints[0] in said
    assert hints[1] in said
    assert hints[2] not in said
