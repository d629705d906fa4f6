"""Grade one app, or a class.

make grade        says what holds and what does not, in the order in which one would write it, and what to do first
make grade-all    grades each subfolder of a folder, two at a time: a table, results.csv, results.json, HTML reports
The objectives and their points are in objectives/, a file per step.
"""

import argparse
import csv
import json
import re
import shutil
import sys
import tempfile
import tomllib
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tests.classroom import report, write_it
from tests.classroom.judge import Judgement, Outcome, judge
from tests.classroom.progress import Progress
from tests.classroom.steps import HERE, MY, ROOT, STEPS

NOT_HANDED_IN = shutil.ignore_patterns(".git", ".venv", "venv", "__pycache__", ".env", "*.sqlite3*")


@dataclass
class Objective:
    """What a part of the points is given for."""

    name: str
    title: str
    points: int
    read: str
    tests: list[str]
    needs: list[str] = field(default_factory=list)  # it counts only if these hold too
    write: str = ""  # the function of the step that it is mostly about


@dataclass
class Mark:
    """What an app got for an objective."""

    objective: Objective
    state: str  # reached; missed; waits (its tests hold, but not those of what it needs); not judged
    outcomes: list[Outcome]  # of its tests, in its order
    waits_for: list[str]  # titles of what it needs and what does not hold

    @property
    def points(self) -> int:
        """All of the objective's points, or none."""
        return self.objective.points if self.state == "reached" else 0

    @property
    def failed(self) -> list[Outcome]:
        """What went wrong, first things first."""
        return [outcome for outcome in self.outcomes if outcome.outcome == "failed"]


@dataclass
class Grade:
    """What a submission got."""

    name: str
    marks: list[Mark]
    problem: str = ""  # why the tests did not run, or not to the end

    @property
    def points(self) -> int:
        """The points that were reached."""
        return sum(mark.points for mark in self.marks)

    @property
    def possible(self) -> int:
        """The points that could be reached: what could not be judged costs nothing."""
        return sum(mark.objective.points for mark in self.marks if mark.state != "not judged")


def load(step: str) -> list[Objective]:
    """Return the objectives of a step, in order."""
    text = (HERE / "objectives" / f"{step}.toml").read_text(encoding="utf-8")
    return [Objective(name, **fields) for name, fields in tomllib.loads(text).items()]


def entry_of(test: str, entries: list[str]) -> str:
    """Return the longest entry that names the test, "" if none does."""
    fitting = [e for e in entries if test == e or test.startswith(e if "[" in e else f"{e}[")]
    return max(fitting, key=len, default="")


def mark_all(objectives: list[Objective], judgement: Judgement) -> list[Mark]:
    """Return the mark for each objective."""
    entries = [entry for objective in objectives for entry in objective.tests]
    found: dict[str, list[Outcome]] = {entry: [] for entry in entries}
    for outcome in judgement.outcomes:
        entry = entry_of(outcome.test, entries)
        if not entry:
            raise SystemExit(f"{outcome.test} belongs to no objective: name it in tests/classroom/objectives.")
        found[entry].append(outcome)
    outcomes = {o.name: [outcome for entry in o.tests for outcome in found[entry]] for o in objectives}
    complete = {o.name: all(found[entry] for entry in o.tests) for o in objectives}
    holds = {
        name: complete[name] and {"passed"} <= {o.outcome for o in some} <= {"passed", "skipped"}
        for name, some in outcomes.items()
    }
    marks = []
    for objective in objectives:
        waits_for = [other.title for other in objectives if other.name in objective.needs and not holds[other.name]]
        skipped = {outcome.outcome for outcome in outcomes[objective.name]} == {"skipped"}
        if skipped and complete[objective.name] and not waits_for:
            state = "not judged"
        elif not holds[objective.name] and not (skipped and waits_for):
            state = "missed"
        else:
            state = "waits" if waits_for else "reached"
        marks.append(Mark(objective, state, outcomes[objective.name], waits_for))
    return marks


# One app


def grade_app(step: str, app: str, hint: int, function: str) -> int:
    """Print what holds and what does not; return 0 if all does."""
    print(f"Running the tests of {step} on {app} ...\n", flush=True)
    judgement = judge(step, ROOT, app=app)
    grade = Grade(app, mark_all(load(step), judgement), judgement.problem)
    words = {"reached": "holds", "missed": "not yet", "waits": "waits", "not judged": "not judged"}
    for mark in grade.marks:
        print(f"{words[mark.state]:11} {mark.points:3} of {mark.objective.points:2}  {mark.objective.title}")
    print(f"{'':11} {grade.points:3} of {grade.possible}\n")
    if grade.problem:
        print(grade.problem)
    first = next((mark for mark in grade.marks if mark.failed), None)
    if first and not grade.problem:
        print(f"First: {first.objective.title}. ({report.in_words(first.failed[0].test)})\n")
        print(f"{first.failed[0].message}\n\nRead: {first.objective.read}")
    elif grade.points == grade.possible:
        print("All of it holds.")
    print_hints(step, app, first, hint, function)
    return 0 if grade.points == grade.possible and not grade.problem else 1


def print_hints(step: str, app: str, first: Mark | None, hint: int, function: str = "") -> None:
    """Print what is still to be written, and the hints up to the one that was asked for."""
    file = ROOT / (app.partition(":")[0].replace(".", "/") + ".py")
    tasks = {task.name: task for task in write_it.load(step)}
    try:
        code = file.read_text(encoding="utf-8")
        open_tasks = [task for task in tasks.values() if not write_it.is_written(code, task)]
    except (OSError, SyntaxError):
        open_tasks = []
    if open_tasks:
        print(f"Not written yet: {', '.join(task.name for task in open_tasks)}.")
    task = open_tasks[0] if open_tasks else tasks.get(first.objective.write) if first else None
    task = tasks.get(function, task)
    if task and hint:
        for number, text in enumerate(task.hints[:hint], 1):
            print(f"\nHint {number} of {len(task.hints)} for {task.name}: {text}")
    elif task:
        print(f"A hint for {task.name}: add HINT=1 (for another function: FUNCTION={'|'.join(tasks)})")


# A class


def find_app(folder: Path) -> dict[str, Any]:
    """Return how to start what was handed in, as arguments of judge; SystemExit in words if it cannot be told."""
    settings = folder / "grade.toml"
    if settings.is_file():
        try:
            entries = tomllib.loads(settings.read_text(encoding="utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise SystemExit(f"grade.toml cannot be read: {error}.") from None
        for key in ("app", "command"):
            if isinstance(entries.get(key), str):
                return {"folder": folder, key: entries[key]}
        raise SystemExit('grade.toml must say app = "module:attribute" or command = "... {port}".')
    mains = [folder / "main.py"] if (folder / "main.py").is_file() else sorted(folder.glob("*/main.py"))
    if len(mains) != 1:
        raise SystemExit("There is no main.py, or more than one, and no grade.toml that says what to start.")
    package = mains[0].parent
    # `from .denylist import ...` works in a package only
    if package == folder and not re.search(r"^from \.", mains[0].read_text("utf-8", "replace"), re.MULTILINE):
        return {"folder": folder, "app": "main:app"}
    return {"folder": package.parent, "app": f"{package.name}.main:app"}


def grade_submission(step: str, submission: Path, seconds: float) -> Grade:
    """Judge a copy of what was handed in. Whatever goes wrong is this grade's problem, and no other's."""
    judgement = Judgement([])
    with tempfile.TemporaryDirectory(prefix="submission-", ignore_cleanup_errors=True) as scratch:
        copy = Path(scratch, "submission")
        try:
            shutil.copytree(submission, copy, symlinks=True, ignore=NOT_HANDED_IN)
            judgement = judge(step, **find_app(copy), seconds=seconds)
        except SystemExit as error:
            judgement.problem = str(error)
        except Exception as error:  # whatever this one has come up with, the others must be graded
            judgement.problem = f"It could not be graded: {error}"
    problem = judgement.problem.replace(f"{scratch}/", "")
    return Grade(submission.name, mark_all(load(step), judgement), problem)


def grade_class(step: str, submissions: Path, results: Path, seconds: float) -> list[Grade]:
    """Grade all subfolders, two at a time, and write the results."""
    folders = sorted(f for f in submissions.iterdir() if f.is_dir() and not f.name.startswith("."))
    if not folders:
        raise SystemExit(f"There are no folders in {submissions}.")
    grades: dict[str, Grade] = {}
    with Progress(len(folders)) as progress, ThreadPoolExecutor(2) as pool:
        running = {pool.submit(grade_submission, step, folder, seconds): folder.name for folder in folders}
        for done in as_completed(running):
            grades[running[done]] = done.result()
            progress.done(running[done])
    in_order = [grades[folder.name] for folder in folders]
    write_results(step, in_order, results)
    return in_order


def write_results(step: str, grades: list[Grade], results: Path) -> None:
    """Write results.csv, results.json and a report for each submission."""
    results.mkdir(parents=True, exist_ok=True)
    with (results / "results.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(["submission", "points", "of", *[o.name for o in load(step)], "problem"])
        for grade in grades:
            each = [mark.points if mark.state != "not judged" else "" for mark in grade.marks]
            row = [grade.name, grade.points, grade.possible, *each, in_a_line(grade.problem)]
            table.writerow([text_only(cell) for cell in row])
    everything = [
        {"submission": grade.name, "points": grade.points, "of": grade.possible, "problem": grade.problem}
        | {"objectives": [asdict(mark) | {"points": mark.points} for mark in grade.marks]}
        for grade in grades
    ]
    (results / "results.json").write_text(json.dumps(everything, indent=1), encoding="utf-8")
    for number, grade in enumerate(grades, 1):
        name = re.sub(r"[^A-Za-z0-9_.-]", "_", grade.name)[:60]
        (results / f"{number:03}_{name}.html").write_text(report.page(step, grade), encoding="utf-8")


def text_only(cell: str | int) -> str | int:
    """Return a cell that no spreadsheet takes for a formula."""
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(("=", "+", "-", "@", "\t", "\r")) else cell


def in_a_line(problem: str) -> str:
    """Return a problem's first line, and of a log that follows the last one, which says why."""
    lines = [line for line in problem.splitlines() if line.strip()]
    return " ".join([lines[0], lines[-1].strip()]) if len(lines) > 1 else problem


def print_table(grades: list[Grade]) -> None:
    """Print a line for each submission: its points, and what is missing."""
    width = max(len(grade.name) for grade in grades)
    for grade in grades:
        missing = ", ".join(mark.objective.name for mark in grade.marks if mark.state in ("missed", "waits"))
        why = in_a_line(grade.problem) or (f"missing: {missing}" if missing else "all of it holds")
        print(f"{grade.name:{width}}  {grade.points:3} of {grade.possible:3}  {why}")


def main() -> int:
    """Grade an app or a class."""
    parser = argparse.ArgumentParser(prog="tests.classroom.grade")
    parser.add_argument("--step", choices=STEPS, required=True)
    parser.add_argument("--app", help="module:attribute, as uvicorn would find it from here")
    parser.add_argument("--hint", type=int, choices=(1, 2, 3), default=0)
    parser.add_argument("--function", default="", help="which function the hint is for; default: the next one")
    parser.add_argument("--submissions", type=Path, help="a folder with a subfolder for each submission")
    parser.add_argument("--results", type=Path, help="default: my/grades_STEP")
    parser.add_argument("--seconds", type=float, default=300, help="the time limit of each submission")
    options = parser.parse_args()
    if options.submissions:
        if not options.submissions.is_dir():
            raise SystemExit(f"{options.submissions} is no folder.")
        results = options.results or MY / f"grades_{options.step}"
        print_table(grade_class(options.step, options.submissions, results, options.seconds))
        print(f"\nresults.csv, results.json and a report for each are in {results}")
        return 0
    if not options.app:
        parser.error("say which app: APP=my.step01.main:app, or which folder: SUBMISSIONS=...")
    return grade_app(options.step, options.app, options.hint, options.function)


if __name__ == "__main__":
    sys.exit(main())
