"""Grading: what each is worth, and whatever a submission does costs its own grade and nobody else's."""

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
from tests.classroom import grade, results
from tests.classroom.grade import grade_class, grade_of, grade_submission
from tests.classroom.handed_in import find_app, look_at, unpack
from tests.classroom.judge import Judgement, Outcome
from tests.classroom.made_up import CLASS, SEEN, graded, kept, run
from tests.classroom.steps import ROOT, STEPS, copy_step
from tests.server import free_port, launch, stop

needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")


def hand_in(folder: Path, code: str) -> Path:
    """Make a submission of a main.py alone."""
    folder.mkdir(parents=True)
    (folder / "main.py").write_text(code, encoding="utf-8")
    return folder


# The points


@pytest.mark.parametrize("name", CLASS)
def test_a_made_up_class_gets_what_a_fair_teacher_would_give(name: str) -> None:
    """Otherwise a header costs more than a door that is open."""
    grade_now, right = graded(name, SEEN[name]), CLASS[name]["points"]
    points = 100 * grade_now.points / grade_now.possible

    assert points <= right + 8 * (not CLASS[name].get("at_most"))
    assert points >= right - 8 or CLASS[name].get("at_most")


SAMPLE = ["step01 www-authenticate-forgotten", "step01 right-by-uvicorn-run", "step02 another-signer"]


@needs_linux
@pytest.mark.parametrize("name", list(CLASS) if os.environ.get("WHOLE_CLASS") else SAMPLE)
def test_what_is_kept_of_the_made_up_class_is_what_the_tests_say(name: str) -> None:
    """Otherwise the points above are those of tests that there once were; WHOLE_CLASS=1 runs them all (minutes)."""
    now = kept(run(name))

    assert now["problem"] == ""
    assert set(now["failed"]) == set(SEEN[name]["failed"])
    assert graded(name, now).points == graded(name, SEEN[name]).points


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
    monkeypatch.setattr("tests.classroom.steps.HERE", tmp_path)

    with pytest.raises(SystemExit, match=sentence):
        grade.load("step01")


@pytest.mark.parametrize("step", STEPS)
def test_each_entry_of_an_objective_has_a_test(step: str) -> None:
    """Otherwise its points are out of reach."""
    entries = [entry for objective in grade.load(step) for entry in objective.tests]
    used = {grade.entry_of(test, entries) for test in SEEN[f"{step} right: every test"]}

    assert {entry for entry in entries if entry.startswith("test_")} == used


def outcomes_of(step: str, **changes: str) -> list[Outcome]:
    """Return an outcome for each test: passed, but for those of the objectives that are named."""
    return [
        Outcome(test, changes.get(objective.name, "passed"), "Your app ...")
        for objective in grade.load(step)
        for test in objective.tests
    ]


def test_what_is_not_judged_is_shown_and_is_no_gain() -> None:
    """Otherwise a cookie that the tests cannot read is worth points, or an app without any cookie wins them."""
    judged = grade_of("step02", "x", Judgement(outcomes_of("step02", signature="skipped")))
    cookieless = grade_of("step02", "x", Judgement(outcomes_of("step02", cart="failed")))

    assert (judged.points, judged.possible) == (90, 90)
    assert "A spoiled cookie counts as none" in results.text(judged).partition("Not judged")[2]
    assert {m.state for m in cookieless.marks if m.objective.name == "signature"} == {"waits"}


# What is handed in


@pytest.mark.parametrize(
    ("file", "code", "folder", "app"),
    [
        ("main.py", "app = 1", ".", "main:app"),
        ("b c/main.py", "\ufefffrom .denylist import x", ".", "package.main:app"),
        ("grade.toml", 'command = "node server.js {port}"', ".", "node server.js {port}"),
        ("in/inside/app.py", "app = 1", "in/inside", "app:app"),
        ("cafe/main.py", "from cafe.users import USERS", ".", "cafe.main:app"),
    ],
)
def test_the_app_is_found_wherever_it_is(file: str, code: str, folder: str, app: str, tmp_path: Path) -> None:
    """Otherwise whoever packs it in another way has no points."""
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / file).write_text(code, encoding="utf-8")

    assert find_app(tmp_path) == {"folder": tmp_path / folder, "app": app}


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [(None, "There is no main.py"), ("app = ", "cannot be read"), ("app = 7", "must say"), ("", "must say")],
)
def test_what_cannot_be_started_is_said_in_a_sentence(tmp_path: Path, settings: str | None, sentence: str) -> None:
    if settings is not None:
        (tmp_path / "grade.toml").write_text(settings)

    assert sentence in grade_submission("step01", tmp_path, 60).problem


def test_a_zip_is_unpacked_inside_its_folder_and_not_if_it_is_a_bomb(tmp_path: Path) -> None:
    """Otherwise whoever hands in a zip is not graded, or fills the disk."""
    for name, file, code in (("ä.zip", "../Übung/main.py", "app = 1"), ("bomb.zip", "main.py", "#" * 60_000_000)):
        with zipfile.ZipFile(tmp_path / name, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(file, code)

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
    ],
)
def test_what_no_test_can_see_is_listed_with_its_line(tmp_path: Path, code: str, why: str) -> None:
    """Otherwise whoever reads the grades takes it for good."""
    assert why in "\n".join(look_at("step01", hand_in(tmp_path / "x", code)))


def test_a_copy_of_the_step_is_found_whatever_its_names_are(tmp_path: Path) -> None:
    """Otherwise a copy of the step has 100 points, and nobody looks at it."""
    copy_step("step01", tmp_path / "x")
    main = tmp_path / "x/main.py"
    main.write_text(main.read_text().replace("read_token", "lies").replace("claims", "inhalt"))

    assert "a copy of step01_jwt_login" in look_at("step01", tmp_path / "x")[0]


# A class


@pytest.fixture
def class_of_six(tmp_path: Path) -> Path:
    """A right submission, and five that are no apps."""
    copy_step("step01", tmp_path / "class/äda")
    (tmp_path / "class/notes.pdf").write_text("my homework")
    ends = "app = FastAPI()\n\n@app.middleware('http')\nasync def end(request, call_next):\n    os._exit(3)"
    for name, code in {
        "c a": "open('litter', 'w').close()\nprint('thanks for all the fish')\nraise SystemExit",
        "c?a": "from fastapi import FastAPI\napp = FastAPI(\n\n@app.get('/'",
        "=1+1": f"import os\nfrom fastapi import FastAPI\n{ends}",
        "sly\x1b[2J": "import os, signal\nos.kill(os.getppid(), signal.SIGKILL)\napp = 1",
    }.items():
        hand_in(tmp_path / "class" / name, code)
    return tmp_path / "class"


@needs_linux
def test_each_submission_is_graded_on_its_own(
    class_of_six: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Otherwise one student's mistake costs the class its grades."""
    grades = {g.name: g for g in grade_class("step01", class_of_six, tmp_path / "out")}
    grade.print_table(list(grades.values()))

    assert grades.pop("äda").points >= 98
    assert [g.points for g in grades.values()] == [0] * 5
    whys = {"c a": "all the fish", "c?a": "SyntaxError", "=1+1": "crashed", "sly\x1b[2J": "broken off"}
    for name, why in (whys | {"notes.pdf": "cannot be unpacked"}).items():
        assert why in grades[name].problem
    assert "site-packages" not in grades["c?a"].problem
    assert any("other processes" in line for line in grades["sly\x1b[2J"].look_at)
    said = capsys.readouterr()
    assert "\x1b" not in said.out and "0 min left" in said.err
    table = (tmp_path / "out/results.csv").read_bytes()
    assert table.startswith(b"\xef\xbb\xbf")  # or Excel does not see UTF-8
    assert table.splitlines()[1].startswith(b"'=1+1,0,")
    assert len(list((tmp_path / "out").glob("*.txt"))) == 6  # two of them of nearly the same name
    assert [path.name for path in (class_of_six / "c a").iterdir()] == ["main.py"]


@needs_linux
def test_ctrl_c_stops_at_once_and_the_same_command_goes_on(tmp_path: Path) -> None:
    """Otherwise an hour of grading is lost, or a student's app stays behind."""
    for name, code in {"a": "raise SystemExit", "b": "raise SystemExit", "c": "import time\ntime.sleep(600)"}.items():
        hand_in(tmp_path / "class" / name, code)
    command = [sys.executable, "-m", "tests.classroom.grade", "--step", "step01", "--results", str(tmp_path / "out")]
    command += ["--submissions", str(tmp_path / "class"), "--seconds", "4"]
    with subprocess.Popen(command, cwd=ROOT, stdout=-1, stderr=-1, text=True) as first:
        while len(list((tmp_path / "out").glob("*.txt"))) != 2:
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
    folder = results.folder_for(tmp_path, "step01", tmp_path)
    results.begin(folder, "step01", tmp_path)

    assert results.folder_for(tmp_path, "step01", tmp_path) == folder
    (folder / "finished").touch()
    assert results.folder_for(tmp_path / "new", "step01", tmp_path) != folder
    with pytest.raises(SystemExit, match="another run"):
        results.begin(folder, "step02", tmp_path)


@needs_linux
def test_a_submission_that_hangs_is_ended_with_all_that_it_has_started_and_sees_no_secrets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise one student's app stays on the machine, or reads what the instructor's shell knows."""
    port, seen_by_it = free_port(), tmp_path / "seen.txt"
    child = "import os, socket, time\nif os.fork(): os._exit(0)\nos.setsid()\n"
    child += f"s = socket.create_server(('127.0.0.1', {port}))\ntime.sleep(600)"
    code = f"import os, subprocess, sys, time\nopen({str(seen_by_it)!r}, 'w').write(repr(dict(os.environ)))\n"
    code += f"subprocess.Popen([sys.executable, '-c', {child!r}], env={{}}, start_new_session=True)\ntime.sleep(600)"
    monkeypatch.setenv("INSTRUCTORS_SECRET", "the-password-of-the-course")

    judgement = grade_submission("step01", hand_in(tmp_path / "hangs", code), seconds=6)

    assert "not through after 6 seconds" in judgement.problem
    environment = seen_by_it.read_text()
    assert "JWT_SECRET_KEY" in environment
    assert "tests-sign-their-tokens" not in environment and "the-password-of-the-course" not in environment
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0


@needs_linux
def test_a_submission_cannot_replace_what_the_tests_import_nor_add_outcomes(tmp_path: Path) -> None:
    """Otherwise a file named httpx.py, or a line for each test, gives itself all the points."""
    line = json.dumps({"test": "test_the_page_is_there", "outcome": "passed", "message": ""}) + "\n"
    code = "import contextlib, glob, os\nfrom fastapi import FastAPI\napp = FastAPI()\n"
    code += "for name in glob.glob(f'/proc/{os.getppid()}/fd/*') + glob.glob('/proc/self/fd/*'):\n"
    code += f"    with contextlib.suppress(OSError):\n        open(name, 'w').write({line!r})\n"
    hand_in(tmp_path / "sly", code)
    (tmp_path / "sly/tests").mkdir()
    for name in ("httpx.py", "pytest.py", "tests/expect.py", "conftest.py", "sitecustomize.py"):
        (tmp_path / "sly" / name).write_text("import os\nos._exit(0)\n")

    judgement = grade_submission("step01", tmp_path / "sly", seconds=120)

    grade_now = grade_of("step01", "sly", judgement)
    assert grade_now.points <= 2  # that an app refuses a key is worth nothing beside no login
    assert not [o for o in judgement.outcomes if o.test == "test_the_page_is_there" and o.outcome == "passed"]
    assert any("404" in outcome.message for mark in grade_now.marks for outcome in mark.failed)


# One app


def test_a_folder_and_a_url_can_be_graded_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise who has not got the app in this folder cannot use make grade."""
    copy_step("step02", tmp_path / "x")
    keys = {"SESSION_SECRET_KEY": "of this server alone, and long enough"}
    server = launch("x.main:app", tmp_path, tmp_path / "log", keys).wait_until_ready()
    monkeypatch.setenv("SESSION_SECRET_KEY", keys["SESSION_SECRET_KEY"])

    by_url = grade.grade_app("step02", server.url, 0, "")
    by_folder = grade.grade_app("step02", str(tmp_path / "x"), 0, "")

    stop([server])
    assert (by_url, by_folder) == (0, 0)


# The report


def test_a_report_says_what_went_wrong_once() -> None:
    """Otherwise one cause fills ten pages."""
    outcomes = outcomes_of("step01", token="failed", me="failed", login="failed")
    token = forge.token({"sub": "al"}, "key")
    for outcome in outcomes:
        outcome.message = f"Your app answered 401 \x1b[2J to POST /login with {token}\nIt should answer 200\nOtherwise"

    said = results.text(grade_of("step01", "x", Judgement(outcomes)))

    assert said.count("Your app answered 401 ?[2J") == 1
    assert "'sub': 'al'" in said
    assert "Read: RFC 6749 section 5.1" in said


def test_a_missing_header_never_means_that_anyone_is_alice() -> None:
    """Otherwise a report cries wolf."""
    name = "step01 www-authenticate-forgotten"
    said = results.text(graded(name, SEEN[name]))

    assert "must throw its token away" in said
    assert "Otherwise anyone is Alice" not in said
    assert "It lets in" not in said
