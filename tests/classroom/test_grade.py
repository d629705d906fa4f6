"""Grading: what each is worth, and whatever a submission does costs its own grade and nobody else's."""

import csv
import json
import os
import signal
import socket
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

from tests import forge
from tests.classroom import grade
from tests.classroom.grade import Grade, grade_class, grade_submission, mark_all
from tests.classroom.handed_in import find_app, look_at, unpack
from tests.classroom.judge import Judgement, Outcome
from tests.classroom.made_up import CLASS, SEEN, graded, kept, run
from tests.classroom.report import page
from tests.classroom.results import Results, text_only
from tests.classroom.steps import ROOT, STEPS, copy_step
from tests.server import free_port, launch, stop

needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
seen = json.loads(SEEN.read_text(encoding="utf-8"))


# The points


@pytest.mark.parametrize("name", CLASS)
def test_a_made_up_class_gets_what_a_fair_teacher_would_give(name: str) -> None:
    """Otherwise a header costs more than a door that is open."""
    graded_now = graded(name, seen[name], seen[f"{name.partition(' ')[0]} right: every test"])
    points, right = 100 * graded_now.points / graded_now.possible, CLASS[name]["points"]

    assert points <= right + 8 * (not CLASS[name].get("at_most"))
    assert points >= right - 8 or CLASS[name].get("at_most")


SAMPLE = ["step01 www-authenticate-forgotten", "step01 right-by-uvicorn-run", "step02 another-signer"]


@needs_linux
@pytest.mark.parametrize("name", list(CLASS) if os.environ.get("WHOLE_CLASS") else SAMPLE)
def test_what_is_kept_of_the_made_up_class_is_what_the_tests_say(name: str) -> None:
    """Otherwise the points above are those of tests that there once were; WHOLE_CLASS=1 runs them all (minutes)."""
    now, every = kept(run(name)), seen[f"{name.partition(' ')[0]} right: every test"]

    assert now["problem"] == ""
    assert set(now["failed"]) == set(seen[name]["failed"])
    assert graded(name, now, every).points == graded(name, seen[name], every).points


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("points = 2", "points = 3", "add up to 101"),
        ("points = 2", "pionts = 2", "'pionts'"),
        ('"test_the_page_is_there"', "", "test_the_page_is_there has no objective"),
        ('"test_the_page_is_there"', '"test_the_page_is_here"', "there is no test_the_page_is_here"),
    ],
)
def test_objectives_that_cannot_be_graded_by_are_told_of_before_anything_is_graded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old: str, new: str, sentence: str
) -> None:
    """Otherwise a class is graded for an hour, and the last line is a traceback."""
    text = (ROOT / "tests/classroom/objectives/step01.toml").read_text(encoding="utf-8")
    (tmp_path / "objectives").mkdir()
    (tmp_path / "objectives/step01.toml").write_text(text.replace(old, new, 1), encoding="utf-8")
    monkeypatch.setattr(grade, "HERE", tmp_path)

    with pytest.raises(SystemExit, match=sentence):
        grade.load("step01")


@pytest.mark.parametrize("step", STEPS)
def test_each_test_belongs_to_one_objective(step: str) -> None:
    """Otherwise a mistake costs twice, or nothing."""
    entries = [entry for objective in grade.load(step) for entry in objective.tests]
    kinds = {test for test in seen[f"{step} right: every test"] if "not_acceptable" in test}

    assert {kind for kind in kinds if not grade.entry_of(kind, entries)} == set()
    assert {e for e in entries if "[" in e} <= {grade.entry_of(f"{e}x", entries) for e in entries}
    assert step == "step02" or len(kinds) == len(forge.BAD_TOKENS)


def outcomes_of(step: str, **changes: str) -> list[Outcome]:
    """Return an outcome for each test: passed, but for those of the objectives that are named."""
    return [
        Outcome(test, changes.get(objective.name, "passed"), "Your app ...")
        for objective in grade.load(step)
        for test in objective.tests
    ]


def test_what_is_not_judged_is_shown_and_is_no_gain() -> None:
    """Otherwise a cookie that the tests cannot read is worth points, or an app without any cookie wins them."""
    outcomes = outcomes_of("step02", signature="skipped")
    judged = Grade("x", mark_all(grade.load("step02"), Judgement(outcomes)))
    cookieless = Grade("x", mark_all(grade.load("step02"), Judgement(outcomes_of("step02", cart="failed"))))

    assert (judged.points, judged.possible) == (90, 90)
    assert "A spoiled cookie counts as none" in page("step02", judged).partition("Not judged")[2]
    assert {m.state for m in cookieless.marks if m.objective.name == "signature"} == {"waits"}


# What is handed in


def test_the_app_is_found_wherever_it_is(tmp_path: Path) -> None:
    for name, code in {
        "a/main.py": "app = 1",
        "b/b c/main.py": "\ufefffrom .denylist import x",
        "c/grade.toml": 'command = "node server.js {port}"',
        "d/in/inside/app.py": "app = 1",
        "e/cafe/main.py": "from cafe.users import USERS",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(code, encoding="utf-8")

    assert find_app(tmp_path / "a") == {"folder": tmp_path / "a", "app": "main:app"}
    assert find_app(tmp_path / "b") == {"folder": tmp_path / "b", "app": "package.main:app"}
    assert find_app(tmp_path / "c") == {"folder": tmp_path / "c", "app": "node server.js {port}"}
    assert find_app(tmp_path / "d") == {"folder": tmp_path / "d/in/inside", "app": "app:app"}
    assert find_app(tmp_path / "e") == {"folder": tmp_path / "e", "app": "cafe.main:app"}


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [(None, "There is no main.py"), ("app = ", "cannot be read"), ("app = 7", "must say"), ("", "must say")],
)
def test_what_cannot_be_started_is_said_in_a_sentence(tmp_path: Path, settings: str | None, sentence: str) -> None:
    if settings is not None:
        (tmp_path / "grade.toml").write_text(settings)

    assert sentence in grade_submission("step01", tmp_path, 60)[0].problem


def test_a_zip_is_unpacked_inside_its_folder_and_not_if_it_is_a_bomb(tmp_path: Path) -> None:
    """Otherwise whoever hands in a zip is not graded, or fills the disk."""
    with zipfile.ZipFile(tmp_path / "ä.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("../Übung/main.py", "app = 1")
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("main.py", "#" * 60_000_000)

    assert find_app(unpack(tmp_path / "ä.zip", tmp_path / "new"))["folder"] == tmp_path / "new/Übung"
    with pytest.raises(SystemExit, match="too large"):
        unpack(tmp_path / "bomb.zip", tmp_path / "other")


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("import sys\nsys.path.append('/x')\nfrom step01_jwt_login.main import app", "own step"),
        ("x = 1\nimport hashlib\nhashlib.md5(b'')", "a fast hash: main.py:3"),
        ("async def login(form):\n    return HASHER.verify(a, b)", "event loop: main.py:2"),
        ('KEY = os.environ.get("JWT_SECRET_KEY", "secret")', "a secret in the source"),
        ("open('/proc/1/fd/3', 'w').write('passed')", "other processes"),
        (None, "a copy of step01_jwt_login"),
    ],
)
def test_what_no_test_can_see_is_listed_with_its_line(tmp_path: Path, code: str | None, why: str) -> None:
    """Otherwise a copy of the step has 100 points, and nobody looks at it."""
    copy_step("step01", tmp_path / "x")
    if code is not None:
        for file in (tmp_path / "x").iterdir():
            file.unlink()
    text = code or (tmp_path / "x/main.py").read_text().replace("read_token", "lies").replace("claims", "inhalt")
    (tmp_path / "x/main.py").write_text(text)

    found = look_at("step01", tmp_path / "x")

    assert why in "\n".join(found)


# A class


@pytest.fixture(scope="module")
def class_of_seven(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A right submission, and six that are no apps."""
    folder = tmp_path_factory.mktemp("class")
    copy_step("step01", folder / "äda")
    (folder / "notes.pdf").write_text("my homework")
    wrong = {
        "carl": "import pathlib, sys\npathlib.Path(__file__).with_name('litter').touch()\n"
        "print('thanks for all the fish')\nsys.exit(0)",
        "dora": "from fastapi import FastAPI\napp = FastAPI(\n\n@app.get('/'",
        "emil": "import os\nfrom fastapi import FastAPI\napp = FastAPI()\n\n"
        "@app.middleware('http')\nasync def end(request, call_next):\n    os._exit(3)",
        "=1+1 <script>": "app = 'no app at all'",
        "sly\x1b[2J": "import os, signal\nos.kill(os.getppid(), signal.SIGKILL)\napp = 1",
    }
    for name, code in wrong.items():
        (folder / name).mkdir()
        (folder / name / "main.py").write_text(code)
    return folder


@needs_linux
def test_each_submission_is_graded_on_its_own(
    class_of_seven: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Otherwise one student's mistake costs the class its grades."""
    grades = {g.name: g for g in grade_class("step01", class_of_seven, tmp_path)}
    grade.print_table(list(grades.values()))

    assert grades["äda"].points >= 98
    for name, why in {
        "carl": "thanks for all the fish",
        "dora": "SyntaxError",
        "emil": "crashed",
        "sly\x1b[2J": "broken off",
        "notes.pdf": "cannot be unpacked",
    }.items():
        assert why in grades[name].problem
    assert "site-packages" not in grades["dora"].problem
    assert [g.points for g in grades.values() if g.name != "äda"] == [0] * 6
    assert any("other processes" in line for line in grades["sly\x1b[2J"].look_at)
    said = capsys.readouterr()
    assert "\x1b" not in said.out
    assert "0 min left" in said.err
    assert (tmp_path / "results.csv").read_bytes().startswith(b"\xef\xbb\xbf")  # or Excel does not see UTF-8
    rows = list(csv.DictReader((tmp_path / "results.csv").read_text(encoding="utf-8-sig").splitlines()))
    assert [row["submission"] for row in rows][:1] == ["'=1+1 <script>"]
    assert len(list(tmp_path.glob("*.html"))) == 7
    assert [path.name for path in (class_of_seven / "carl").iterdir()] == ["main.py"]


@needs_linux
def test_ctrl_c_stops_at_once_and_the_same_command_goes_on(tmp_path: Path) -> None:
    """Otherwise an hour of grading is lost, or a student's app stays behind."""
    for name, code in {"a": "raise SystemExit", "b": "raise SystemExit", "c": "import time\ntime.sleep(600)"}.items():
        (tmp_path / "class" / name).mkdir(parents=True)
        (tmp_path / "class" / name / "main.py").write_text(code)
    command = [sys.executable, "-m", "tests.classroom.grade", "--step", "step01", "--results", str(tmp_path / "out")]
    command += ["--submissions", str(tmp_path / "class"), "--seconds", "4"]
    with subprocess.Popen(command, cwd=ROOT, stdout=-1, stderr=-1, text=True) as first:
        while len(list((tmp_path / "out").glob("*.json"))) != 3:  # run.json, and two results
            time.sleep(0.05)
        first.send_signal(signal.SIGINT)
        begin = time.monotonic()
        said = first.communicate()[1]

    again = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    assert time.monotonic() - begin < 30
    assert "Stopped. 2 of 3" in said
    assert "2 of 3 are graded" in again.stdout
    assert "not through after 4 seconds" in again.stdout


def test_results_of_another_run_are_neither_written_over_nor_mixed(tmp_path: Path) -> None:
    """Otherwise last week's grades are gone."""
    folder = Results.folder_for(tmp_path, "step01", tmp_path)
    Results.open(folder, "step01", tmp_path)

    assert Results.folder_for(tmp_path, "step01", tmp_path) == folder
    (folder / "finished").touch()
    assert Results.folder_for(tmp_path / "new", "step01", tmp_path) != folder
    with pytest.raises(SystemExit, match="another run"):
        Results.open(folder, "step02", tmp_path)


@needs_linux
def test_a_submission_that_hangs_is_ended_with_all_that_it_has_started_and_sees_no_secrets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise one student's app stays on the machine, or reads what the instructor's shell knows."""
    port, seen_by_it = free_port(), tmp_path / "seen.txt"
    child = "import os, socket, time\nif os.fork(): os._exit(0)\nos.setsid()\n"
    child += f"s = socket.create_server(('127.0.0.1', {port}))\ntime.sleep(600)"
    (tmp_path / "hangs").mkdir()
    (tmp_path / "hangs/main.py").write_text(
        f"import os, pathlib, subprocess, sys, time\n"
        f"pathlib.Path({str(seen_by_it)!r}).write_text(repr(dict(os.environ)))\n"
        f"subprocess.Popen([sys.executable, '-c', {child!r}], env={{}}, start_new_session=True)\n"
        f"time.sleep(600)\n"
    )
    monkeypatch.setenv("INSTRUCTORS_SECRET", "the-password-of-the-course")

    judgement, _ = grade_submission("step01", tmp_path / "hangs", seconds=6)

    assert "not through after 6 seconds" in judgement.problem
    assert "JWT_SECRET_KEY" in seen_by_it.read_text()
    assert "tests-sign-their-tokens" not in seen_by_it.read_text()
    assert "the-password-of-the-course" not in seen_by_it.read_text()
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0


@needs_linux
def test_a_submission_cannot_replace_what_the_tests_import_nor_add_outcomes(tmp_path: Path) -> None:
    """Otherwise a file named httpx.py, or a line for each test, gives itself all the points."""
    (tmp_path / "sly/tests").mkdir(parents=True)
    line = json.dumps({"test": "test_the_page_is_there", "outcome": "passed", "message": ""}) + "\n"
    (tmp_path / "sly/main.py").write_text(
        "import glob, os\nfrom fastapi import FastAPI\napp = FastAPI()\n"
        "for name in glob.glob(f'/proc/{os.getppid()}/fd/*') + glob.glob('/proc/self/fd/*'):\n"
        f"    try:\n        open(name, 'w').write({line!r})\n"
        "    except OSError:\n        pass\n"
    )
    for name in ("httpx.py", "pytest.py", "tests/expect.py", "conftest.py", "sitecustomize.py"):
        (tmp_path / "sly" / name).write_text("import os\nos._exit(0)\n")

    judgement, _ = grade_submission("step01", tmp_path / "sly", seconds=120)

    graded_now = Grade("sly", mark_all(grade.load("step01"), judgement))
    assert graded_now.points <= 2  # that an app refuses a key is worth nothing beside no login
    assert not [o for o in judgement.outcomes if o.test == "test_the_page_is_there" and o.outcome == "passed"]
    assert any("404" in outcome.message for mark in graded_now.marks for outcome in mark.failed)


# One app


def test_a_folder_and_a_url_can_be_graded_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Otherwise who has not got the app in this folder cannot use make grade."""
    copy_step("step02", tmp_path / "x")
    keys = {"SESSION_SECRET_KEY": "of this server alone, and long enough"}
    server = launch("x.main:app", tmp_path, tmp_path / "log", keys).wait_until_ready()
    monkeypatch.setenv("SESSION_SECRET_KEY", keys["SESSION_SECRET_KEY"])

    by_url = grade.grade_app("step02", server.url, 0, "")
    by_folder = grade.grade_app("step02", str(tmp_path / "x"), 0, "")

    stop([server])
    assert (by_url, by_folder) == (0, 0)
    assert "100 of 100" in capsys.readouterr().out


# The report


def test_a_report_says_what_went_wrong_once_and_lets_nothing_of_it_run() -> None:
    """Otherwise a student's app runs in the instructor's browser, or one cause fills ten pages."""
    outcomes = outcomes_of("step01", token="failed", me="failed", login="failed")
    token = forge.token({"sub": "alice"}, "key")
    did = f"Your app answered 401 <img src=x onerror=alert(1)> to POST /login with {token}\n"
    did += "It should answer 200\nOtherwise anyone is Alice."
    for outcome in outcomes:
        outcome.message = did
    graded_now = Grade("<script>alert(1)</script>", mark_all(grade.load("step01"), Judgement(outcomes)), "<b>")

    html = page("step01", graded_now)

    assert "<script" not in html
    assert "<img" not in html
    assert html.count("Your app answered 401 &lt;img") == 1
    assert "&#x27;sub&#x27;: &#x27;alice&#x27;" in html
    assert "Read: RFC 6749 section 5.1" in html


def test_a_missing_header_never_means_that_anyone_is_alice() -> None:
    """Otherwise a report cries wolf."""
    name = "step01 www-authenticate-forgotten"
    html = page("step01", graded(name, seen[name], seen["step01 right: every test"]))

    assert "must throw its token away" in html
    assert "Otherwise anyone is Alice" not in html
    assert "It lets in" not in html


def test_two_submissions_of_nearly_the_same_name_have_a_report_each(tmp_path: Path) -> None:
    results, marks = Results.open(tmp_path, "step01", tmp_path), mark_all(grade.load("step01"), Judgement())

    results.finish("step01", [Grade("a/b", marks), Grade("a?b", marks), Grade("x" * 300, marks)])

    assert len(list(tmp_path.glob("*.html"))) == 3


@pytest.mark.parametrize("cell", ["=1+1", "+1", "-1", "@x", " =1"])
def test_no_cell_of_the_table_is_a_formula(cell: str) -> None:
    """Otherwise a folder's name runs in the instructor's spreadsheet."""
    assert str(text_only(cell)).startswith("'")
