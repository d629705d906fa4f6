"""The exercises: made from the steps as they are, failing where something is missing, and never written over."""

import ast
from pathlib import Path

import pytest

from tests.classroom import write_it
from tests.classroom.grade import grade_of
from tests.classroom.judge import Outcome, judge
from tests.classroom.steps import ROOT, STEPS, copy_step, file_of_tests, names_of_tests, read_toml
from tests.classroom.write_it import functions_of, hint_for, is_written, load, make_exercise, not_written, waits_for


def red_without(step: str, missing: list[str], folder: Path, tests: list[str]) -> set[str]:
    """Return the tests that fail while these functions are missing; the folder must not be there yet."""
    make_exercise(step, folder / "mine", [task for task in load(step) if task.name in missing])
    judgement = judge(step, folder, app="mine.main:app", tests=tests)
    assert judgement.problem == ""
    return {outcome.function for outcome in judgement.outcomes if outcome.outcome == "failed"}


@pytest.mark.parametrize("step", STEPS)
def test_a_test_that_names_a_function_fails_without_it(step: str, tmp_path: Path) -> None:
    """Otherwise a hint is for a function that the test has nothing to do with. (A function of each step, for time.)"""
    name, needs = load(step)[0].name, read_toml(f"exercises/{step}")["tests"]
    tests = [test for test in needs if name in needs[test]]

    assert set(needs) == set(names_of_tests(file_of_tests(step)))
    assert red_without(step, [name], tmp_path, tests) == set(tests)


@pytest.mark.parametrize("step", STEPS)
def test_each_function_written_in_order_turns_a_test_green(step: str, tmp_path: Path) -> None:
    """Otherwise a learner writes one after the other and gets no credit for it."""
    names, greens = [task.name for task in load(step)], [task.green for task in load(step)]

    for done in range(len(names) + 1):
        assert red_without(step, names[done:], tmp_path / str(done), greens) == set(greens[done:])


@pytest.mark.parametrize("step", STEPS)
def test_what_is_taken_out_is_only_the_bodies_and_the_step_is_the_solution(step: str, tmp_path: Path) -> None:
    """Otherwise the exercise has drifted from the step, or lost a docstring or a comment of it."""
    make_exercise(step, tmp_path / "mine")

    for file in (ROOT / STEPS[step]).glob("*.py"):
        solution, exercise = file.read_text("utf-8"), (tmp_path / "mine" / file.name).read_text("utf-8")
        tasks = [task for task in load(step) if task.file == file.name]
        assert set(exercise.splitlines()) - set(solution.splitlines()) == {f"    {t.body}  # write me" for t in tasks}
        for task in tasks:
            assert ast.get_docstring(functions_of(exercise)[task.name])
            assert is_written(solution, task)
            assert not is_written(exercise, task)


@pytest.mark.parametrize("step", STEPS)
def test_each_function_has_three_hints_and_nothing_points_elsewhere(step: str) -> None:
    """Otherwise HINT=3 has nothing to say, or a hint leads elsewhere."""
    data = read_toml(f"exercises/{step}")
    tests = {
        test for some in [*data["first"].values(), *(slip.get("tests", []) for slip in data["slips"])] for test in some
    }

    assert all(len(task.hints) == 3 and all(task.hints) for task in load(step))
    assert {*data["first"], *(slip["function"] for slip in data["slips"])} <= set(data["functions"])
    assert tests <= {"WWW-Authenticate", *names_of_tests(file_of_tests(step))}


# What a learner may get wrong in the solution, what must come of it, and a word of what is said
SLIPS = [
    ("step01", "matches = await ", "matches = ", "authenticate", "awaited"),
    ("step01", "user = await ", "user = ", "login", "awaited"),
    ("step01", "PASSWORD_HASHES.get(username, NOBODYS_HASH)", "PASSWORD_HASHES[username]", "authenticate", "KeyError"),
    (
        "step01",
        "HASHER.verify(password_hash, password)",
        "HASHER.hash(password) == password_hash",
        "authenticate",
        "==",
    ),
    ("step01", 'algorithms=["HS256"]', 'algorithms=["HS384"]', "read_token", "audience"),
    ("step01", "claims.exp > time.time() and ", "", "read_token", "expired"),
    ("step02", '    request.session["cart"] = cart  # the', "    # the", "add_to_cart", "assign"),
    ("step02", "    return False  # curl", "    return True  # curl", "is_foreign", "without either header"),
    ("step03", "user = await ", "user = ", "login", "awaited"),
    ("step03", "    if login is None:\n        raise", "    if False:\n        raise", "require_login", "must raise"),
    ("step03", "response.set_cookie(TOKEN_COOKIE", "response.set_cookie('token'", "login", "goes into its cookie"),
    ("step03", 'await denylist.add(f"login:', 'await denylist.add(f"logout:', "end_logins", "name"),
    ("step03", "(jti=jti, order_id", "(jti=new_id(), order_id", "current_login", "the very jti"),
    ("step03", '    request.scope["session"] = Session()\n', "", "current_login", "empty session data"),
]


@pytest.mark.parametrize(("step", "old", "new", "function", "says"), SLIPS)
def test_a_slip_is_known_by_what_was_answered(
    step: str, old: str, new: str, function: str, says: str, tmp_path: Path
) -> None:
    """Otherwise a learner gets a hint for what is right already."""
    slips = [slip for slip in read_toml(f"exercises/{step}")["slips"] if says in slip["says"]]
    copy_step(step, tmp_path / "mine")
    for file in (tmp_path / "mine").glob("*.py"):
        file.write_text(file.read_text("utf-8").replace(old, new), "utf-8")

    tests = slips[0].get("tests") or [task.green for task in load(step)]
    judgement = judge(step, tmp_path, app="mine.main:app", tests=tests)

    first = grade_of(step, "mine", judgement).first
    assert first
    task, said = hint_for(step, {}, first.failed[0])
    assert task and (task.name, says in said) == (function, True), first.failed[0].message


def test_a_function_that_is_not_written_comes_first_only_if_the_test_needs_it(tmp_path: Path) -> None:
    """Otherwise a slip in the login leads to read_token, which is not written yet."""
    make_exercise("step01", tmp_path / "mine", load("step01")[3:])
    code = {file.name: file.read_text("utf-8") for file in (tmp_path / "mine").glob("*.py")}

    def name_for(test: str, function: str = "") -> str:
        task, _ = hint_for("step01", code, Outcome(test, "failed", "Your app answered 500"), function)
        return task.name if task else ""

    assert [task.name for task in not_written("step01", code)] == ["current_user", "read_token"]
    assert name_for("test_a_wrong_password_is_refused") == "login"
    assert name_for("test_the_token_tells_me_who_logged_in[alice]") == "current_user"
    assert name_for("test_a_wrong_password_is_refused", "issue_token") == "issue_token"
    waits = waits_for("step01", code)
    assert waits(Outcome("test_a_wrong_password_is_refused", "failed", "")) == 0
    assert waits(Outcome("test_the_token_tells_me_who_logged_in[bob]", "failed", "")) == 2


def test_a_crash_leads_to_the_function_that_crashed(tmp_path: Path) -> None:
    """Otherwise a KeyError in one function gets a hint for another."""
    old, new = 'read_count(request.session.get("visits")) + 1', 'request.session["visits"] + 1'
    copy_step("step02", tmp_path / "mine", [("main.py", old, new)])

    judgement = judge("step02", tmp_path, app="mine.main:app", tests=["test_looking_at_the_visits_counts_none"])

    first = next(outcome for outcome in judgement.outcomes if outcome.outcome == "failed")
    task, _ = hint_for("step02", {}, first)
    assert "Its log says: KeyError: 'visits', in count_visit (main.py, line " in first.message
    assert task and task.name == "count_visit"


def test_an_exercise_is_never_written_over(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Otherwise an evening's work is gone."""
    monkeypatch.setattr("tests.classroom.write_it.MY", tmp_path / "my")
    monkeypatch.setattr("sys.argv", ["write_it", "--step", "step01"])
    assert write_it.main() == 0
    (tmp_path / "my/step01/main.py").write_text("# an evening's work")

    with pytest.raises(SystemExit, match="my/step01 is there already and is left as it is"):
        write_it.main()

    assert (tmp_path / "my/step01/main.py").read_text() == "# an evening's work"
