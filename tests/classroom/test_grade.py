"""Grading: each test counts once, and whatever a submission does costs its own grade and nobody else's."""

import csv
import json
import os
import socket
from pathlib import Path

import pytest

from tests import forge
from tests.classroom import grade
from tests.classroom.grade import Grade, find_app, grade_class, grade_submission, mark_all, text_only, write_results
from tests.classroom.judge import Judgement, Outcome
from tests.classroom.report import page
from tests.classroom.steps import STEPS, copy_step, names_of_tests
from tests.server import free_port

needs_process_groups = pytest.mark.skipif(not hasattr(os, "killpg"), reason="needs Linux, macOS or WSL")


# The objectives


@pytest.mark.parametrize("step", STEPS)
def test_each_test_belongs_to_exactly_one_objective_and_the_points_add_up(step: str) -> None:
    """Otherwise a mistake costs twice, or nothing."""
    objectives = grade.load(step)
    entries = [entry for objective in objectives for entry in objective.tests]

    assert len(entries) == len(set(entries))
    assert {entry for entry in entries if "[" not in entry} | {e.partition("[")[0] for e in entries} == set(
        names_of_tests(step)
    )
    assert all(grade.entry_of(test, entries) for test in names_of_tests(step))
    assert sum(objective.points for objective in objectives) == 100
    assert {need for objective in objectives for need in objective.needs} <= {o.name for o in objectives}


def test_each_kind_of_bad_token_belongs_to_an_objective_and_each_kind_that_is_named_exists() -> None:
    """Otherwise an objective is reached because none of its tests has run."""
    entries = [entry for objective in grade.load("step01") for entry in objective.tests]
    function = "test_a_token_that_is_not_acceptable_is_refused"

    found = {grade.entry_of(f"{function}[{kind}]", entries) for kind in forge.BAD_TOKENS}

    assert found == {entry for entry in entries if entry.startswith(function)}


def outcomes_of(step: str, **changes: str) -> list[Outcome]:
    """Return an outcome for each test: passed, but for those of the objectives that are named."""
    return [
        Outcome(test, changes.get(objective.name, "passed"), "Your app ...")
        for objective in grade.load(step)
        for test in objective.tests
    ]


def states(step: str, outcomes: list[Outcome]) -> dict[str, str]:
    """Return the state of each objective."""
    return {mark.objective.name: mark.state for mark in mark_all(grade.load(step), Judgement(outcomes))}


def test_an_objective_is_reached_when_all_its_tests_hold() -> None:
    outcomes = outcomes_of("step01")

    assert set(states("step01", outcomes).values()) == {"reached"}


def test_an_objective_is_missed_when_one_of_its_tests_fails_or_has_not_run() -> None:
    outcomes = outcomes_of("step01")
    failed = next(outcome for outcome in outcomes if outcome.test == "test_the_token_carries_no_secret")
    failed.outcome = "failed"
    outcomes = [outcome for outcome in outcomes if outcome.test != "test_the_page_is_there"]

    missed = {name for name, state in states("step01", outcomes).items() if state == "missed"}

    assert missed == {"token", "start"}


def test_refusing_everything_reaches_nothing() -> None:
    """Otherwise an app that answers 401 to all has half the points."""
    found = states("step01", outcomes_of("step01", login="failed", token="failed", me="failed"))

    assert found["expiry"] == found["signature"] == found["passwords"] == "waits"


def test_what_cannot_be_judged_costs_nothing_unless_it_is_the_apps_own_doing() -> None:
    """Otherwise a server in another language loses points, or an app without any cookie wins them."""
    judged = Grade("x", mark_all(grade.load("step02"), Judgement(outcomes_of("step02", settings="skipped"))))
    cookieless = states("step02", outcomes_of("step02", cart="failed", signature="skipped"))

    assert (judged.points, judged.possible) == (96, 96)
    assert cookieless["signature"] == "waits"


# What is handed in


def test_the_app_is_found_by_its_settings_or_by_its_main(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/main.py").write_text("app = 1")
    (tmp_path / "b").mkdir()
    (tmp_path / "b/main.py").write_text("from .denylist import x")
    (tmp_path / "c").mkdir()
    (tmp_path / "c/grade.toml").write_text('command = "node server.js {port}"')
    (tmp_path / "d/inside").mkdir(parents=True)
    (tmp_path / "d/inside/main.py").write_text("app = 1")

    assert find_app(tmp_path / "a") == {"folder": tmp_path / "a", "app": "main:app"}
    assert find_app(tmp_path / "b") == {"folder": tmp_path, "app": "b.main:app"}
    assert find_app(tmp_path / "c") == {"folder": tmp_path / "c", "command": "node server.js {port}"}
    assert find_app(tmp_path / "d") == {"folder": tmp_path / "d", "app": "inside.main:app"}


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [(None, "There is no main.py"), ("app = ", "cannot be read"), ("app = 7", "must say"), ("", "must say")],
)
def test_what_cannot_be_started_is_said_in_a_sentence(tmp_path: Path, settings: str | None, sentence: str) -> None:
    if settings is not None:
        (tmp_path / "grade.toml").write_text(settings)

    assert sentence in grade_submission("step01", tmp_path, 60).problem


def test_what_cannot_even_be_copied_is_said_too(tmp_path: Path) -> None:
    """Otherwise one strange file costs the whole class its grades."""
    if not hasattr(os, "mkfifo"):
        pytest.skip("needs named pipes")
    (tmp_path / "main.py").write_text("app = 1")
    os.mkfifo(tmp_path / "pipe")

    assert "could not be graded" in grade_submission("step01", tmp_path, 60).problem


# A class


@pytest.fixture(scope="module")
def class_of_six(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two right submissions, one of them as a command, and four that are no apps."""
    folder = tmp_path_factory.mktemp("class")
    for name in ("ada", "ben"):
        copy_step("step01", folder / name)
    (folder / "ben/grade.toml").write_text('command = "python -m uvicorn main:app --port {port}"')
    wrong = {
        "carl": "import pathlib, sys\npathlib.Path(__file__).with_name('litter').touch()\n"
        "print('thanks for all the fish')\nsys.exit(0)",
        "dora": "from fastapi import FastAPI\napp = FastAPI(\n\n@app.get('/'",
        "emil": "import os\nfrom fastapi import FastAPI\napp = FastAPI()\n\n"
        "@app.middleware('http')\nasync def end(request, call_next):\n    os._exit(3)",
        "=1+1 <script>": "app = 'no app at all'",
    }
    for name, code in wrong.items():
        (folder / name).mkdir()
        (folder / name / "main.py").write_text(code)
    return folder


@needs_process_groups
def test_each_submission_is_graded_on_its_own(class_of_six: Path, tmp_path: Path) -> None:
    """Otherwise one student's mistake costs the class its grades."""
    grades = {g.name: g for g in grade_class("step01", class_of_six, tmp_path, seconds=300)}

    assert (grades["ada"].points, grades["ada"].possible, grades["ada"].problem) == (100, 100, "")
    assert (grades["ben"].points, grades["ben"].possible, grades["ben"].problem) == (95, 95, "")
    assert "did not start" in grades["carl"].problem
    assert "thanks for all the fish" in grades["carl"].problem
    assert "SyntaxError" in grades["dora"].problem
    assert "site-packages" not in grades["dora"].problem
    assert "crashed" in grades["emil"].problem
    assert [g.points for g in grades.values() if g.name not in ("ada", "ben")] == [0, 0, 0, 0]

    rows = list(csv.DictReader((tmp_path / "results.csv").read_text(encoding="utf-8").splitlines()))
    assert [(row["submission"], row["points"]) for row in rows][:2] == [("'=1+1 <script>", "0"), ("ada", "100")]
    results = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert [entry["submission"] for entry in results] == sorted(grades)
    assert len(list(tmp_path.glob("*.html"))) == 6
    assert [path.name for path in (class_of_six / "carl").iterdir()] == ["main.py"]


@needs_process_groups
def test_a_submission_that_hangs_is_ended_with_all_that_it_has_started_and_sees_no_secrets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise one student's app stays on the machine, or reads what the instructor's shell knows."""
    port, seen = free_port(), tmp_path / "seen.txt"
    child = f"import socket, time; s = socket.create_server(('127.0.0.1', {port})); time.sleep(600)"
    (tmp_path / "hangs").mkdir()
    (tmp_path / "hangs/main.py").write_text(
        f"import os, pathlib, subprocess, sys, time\n"
        f"pathlib.Path({str(seen)!r}).write_text(repr(dict(os.environ)))\n"
        f"subprocess.Popen([sys.executable, '-c', {child!r}])\n"
        f"time.sleep(600)\n"
    )
    monkeypatch.setenv("INSTRUCTORS_SECRET", "the-password-of-the-course")

    graded = grade_submission("step01", tmp_path / "hangs", seconds=6)

    assert "not through after 6 seconds" in graded.problem
    assert graded.points == 0
    assert "JWT_SECRET_KEY" in seen.read_text()
    assert "the-password-of-the-course" not in seen.read_text()
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0


@needs_process_groups
def test_a_submission_cannot_replace_what_the_tests_import(tmp_path: Path) -> None:
    """Otherwise a file named httpx.py gives itself all the points."""
    (tmp_path / "sly/tests").mkdir(parents=True)
    (tmp_path / "sly/main.py").write_text("from fastapi import FastAPI\napp = FastAPI()\n")
    for name in ("httpx.py", "pytest.py", "tests/expect.py", "conftest.py", "sitecustomize.py"):
        (tmp_path / "sly" / name).write_text("import os\nos._exit(0)\n")

    graded = grade_submission("step01", tmp_path / "sly", seconds=120)

    assert graded.points == 0
    assert any("404" in outcome.message for mark in graded.marks for outcome in mark.failed)


# The report


def test_a_report_says_what_went_wrong_and_lets_nothing_of_it_run(tmp_path: Path) -> None:
    """Otherwise a student's app runs in the instructor's browser."""
    outcomes = outcomes_of("step01", token="failed")
    for outcome in outcomes:
        outcome.message = "Your app answered <img src=x onerror=alert(1)>"
    graded = Grade("<script>alert(1)</script>", mark_all(grade.load("step01"), Judgement(outcomes)), "<b>")

    html = page("step01", graded)

    assert "<script" not in html
    assert "<img" not in html
    assert "<b>" not in html.replace("<b>88 of 100 points</b>", "")
    assert "Your app answered &lt;img" in html
    assert "Read: RFC 7519 section 4.1" in html


def test_two_submissions_of_nearly_the_same_name_have_a_report_each(tmp_path: Path) -> None:
    marks = mark_all(grade.load("step01"), Judgement([]))

    write_results("step01", [Grade("a/b", marks), Grade("a?b", marks), Grade("x" * 300, marks)], tmp_path)

    assert len(list(tmp_path.glob("*.html"))) == 3


@pytest.mark.parametrize("cell", ["=1+1", "+1", "-1", "@x"])
def test_no_cell_of_the_table_is_a_formula(cell: str) -> None:
    """Otherwise a folder's name runs in the instructor's spreadsheet."""
    assert text_only(cell) == f"'{cell}"
