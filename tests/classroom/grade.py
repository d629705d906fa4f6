"""Grade one app, or a class.

make grade        says what holds and what does not, in the order in which one would write it, and what to do first
make grade-all    grades each submission in a folder, two at a time: a table, results.csv, HTML reports
The objectives and their points are in objectives/, a file per step.
"""

import argparse
import contextlib
import re
import sys
import tempfile
import time
import tomllib
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path

from tests.classroom import report, write_it
from tests.classroom.handed_in import find_app, look_at, printable, unpack
from tests.classroom.judge import Judgement, Outcome, judge, stop_all
from tests.classroom.progress import Progress
from tests.classroom.results import Results
from tests.classroom.steps import HERE, MY, ROOT, STEPS, names_of_tests

# It gave what it should have refused: another answer (a server error, too) opens no door
LETS_IN = re.compile(
    r"Your app (answered 2\d\d .*\nIt should answer (4\d\d|200 \{\"items\": \{\}|200 \{\"claims\": )|took a cookie)"
)


@dataclass
class Objective:
    """What a part of the points is given for."""

    name: str
    title: str
    points: int
    read: str
    tests: list[str]  # functions, beginnings of names in brackets, or details (a header, words): they share the points
    needs: list[str] = field(default_factory=list)  # tests, of which one must hold: a right request works
    cap: int = 100  # where it lets someone in who must not: the most that the grade can be
    otherwise: str = ""  # what follows where a detail is wrong


@dataclass
class Mark:
    """What an app got for an objective."""

    objective: Objective
    entries: dict[str, list[Outcome]]  # of each of its tests
    works: bool  # one of the tests that it needs holds
    complete: bool  # every test has run: a detail of which nothing was said is right

    def state_of(self, entry: str) -> str:
        """Say whether a test, or a group of them, is reached, missed, not judged, or waits for a right request."""
        kinds = {outcome.outcome for outcome in self.entries[entry]}
        if "failed" in kinds or (not kinds and (entry.startswith("test_") or not self.complete)):
            return "missed"
        return "waits" if not self.works else "not judged" if kinds == {"skipped"} else "reached"

    def share(self, state: str) -> float:
        """Return the points of the tests in this state."""
        return self.objective.points * [*map(self.state_of, self.entries)].count(state) / len(self.entries)

    @property
    def state(self) -> str:
        """The objective's own: that of its tests, if they agree."""
        states = {self.state_of(entry) for entry in self.entries}
        return states.pop() if len(states) == 1 else "missed" if "missed" in states else "in part"

    @property
    def lost(self) -> bool:
        """Whether points are missing."""
        return self.share("missed") + self.share("waits") > 0

    @property
    def failed(self) -> list[Outcome]:
        """What went wrong, first things first."""
        return [outcome for some in self.entries.values() for outcome in some if outcome.outcome == "failed"]

    @property
    def lets_in(self) -> bool:
        """Whether it lets someone in who must not be."""
        return self.objective.cap < 100 and any(LETS_IN.match(outcome.message) for outcome in self.failed)


@dataclass
class Grade:
    """What a submission got."""

    name: str
    marks: list[Mark]
    problem: str = ""  # why the tests did not run, or not to the end
    look_at: list[str] = field(default_factory=list)  # lines that no test can judge

    @property
    def doors(self) -> list[Mark]:
        """The objectives that let someone in."""
        return [mark for mark in self.marks if mark.lets_in]

    @property
    def cap(self) -> int:
        """The most that the grade can be."""
        caps = [mark.objective.cap for mark in self.doors]
        return min([100, *caps] if len(caps) < 2 else [40, *caps])

    @property
    def points(self) -> int:
        """The points that were reached: those of what could not be judged are not among them."""
        return round(min(sum(mark.share("reached") for mark in self.marks), self.cap * self.possible / 100))

    @property
    def possible(self) -> int:
        """The points that could be reached: what could not be judged costs nothing."""
        return round(100 - sum(mark.share("not judged") for mark in self.marks))

    @property
    def first(self) -> Mark | None:
        """What to repair first: that a right request works; then what lets someone in."""
        broken = [mark for mark in self.marks if mark.failed]
        basic = [mark for mark in broken if not mark.objective.needs and mark.state == "missed"]
        return next(iter([*(basic if len(basic) > 2 else []), *self.doors, *broken]), None)


def load(step: str) -> list[Objective]:
    """Return the objectives of a step, in order; exits with a sentence if they cannot be graded by."""
    file = HERE / "objectives" / f"{step}.toml"
    try:
        objectives = [Objective(name, **fields) for name, fields in tomllib.loads(file.read_text("utf-8")).items()]
    except (TypeError, tomllib.TOMLDecodeError) as error:  # TypeError: a field that is missing, or mistyped
        raise SystemExit(f"{file.name}: {str(error).removeprefix('Objective.__init__() ')}.") from None
    entries, names = [entry for o in objectives for entry in o.tests], names_of_tests(step)
    wrong = [f"{entry} stands there twice" for entry in {e for e in entries if entries.count(e) > 1}]
    wrong += [f"{name} has no objective" for name in names if not entry_of(name, entries)]
    named = {entry.partition("[")[0] for entry in [*entries, *(need for o in objectives for need in o.needs)]}
    wrong += [f"there is no {name}" for name in named if name.startswith("test_") and name not in names]
    if sum(objective.points for objective in objectives) != 100:
        wrong.append(f"the points add up to {sum(objective.points for objective in objectives)}, not to 100")
    if wrong:
        raise SystemExit(f"{file.name}: " + "; ".join(sorted(wrong)) + ".")
    return objectives


def entry_of(test: str, entries: list[str]) -> str:
    """Return the longest entry that names the test, "" if none does; of a mere function, any of its parameters'."""
    fitting = [e for e in entries if test == e or test.startswith(e if "[" in e else f"{e}[")]
    return max(fitting or [e for e in entries if e.partition("[")[0] == test], key=len, default="")


def mark_all(objectives: list[Objective], judgement: Judgement) -> list[Mark]:
    """Return the mark for each objective."""
    entries = [entry for objective in objectives for entry in objective.tests]
    found: dict[str, list[Outcome]] = {entry: [] for entry in entries}
    for outcome in judgement.outcomes:
        found.setdefault(entry_of(outcome.test, entries), []).append(outcome)
    passed = {name for o in judgement.outcomes if o.outcome == "passed" for name in (o.test, o.function)}
    complete = bool(judgement.outcomes) and not judgement.problem
    return [
        Mark(o, {entry: found[entry] for entry in o.tests}, not o.needs or bool(passed & set(o.needs)), complete)
        for o in objectives
    ]


# One app


def grade_app(step: str, app: str, hint: int, function: str) -> int:
    """Print what holds and what does not; return 0 if all does. The app is module:attribute, a folder or a URL."""
    objectives, url = load(step), app if app.startswith(("http://", "https://")) else ""
    found = find_app(Path(app)) if Path(app).is_dir() else {"folder": ROOT, "app": "" if url else app}
    with Progress(0) as progress:

        def tell(done: int, total: int) -> None:
            progress.finished, progress.total = done - 1, total
            progress.done("") if sys.stderr.isatty() else None

        judgement = judge(step, **found, url=url, tell=tell)
    grade = Grade(app, mark_all(objectives, judgement), judgement.problem)
    for mark in grade.marks:
        print(f"{mark.state:10} {mark.share('reached'):5.1f} of {mark.objective.points:2}  {mark.objective.title}")
    print(f"{'':10} {grade.points:5} of {grade.possible}\n")
    for mark in grade.doors:
        print(f"It lets in who must not be: {mark.objective.title}. So it is at most {grade.cap}.")
    if grade.problem:
        print(printable(grade.problem))
    if grade.first and not grade.problem:
        print(f"First: {grade.first.objective.title}. ({report.in_words(grade.first.failed[0].test)})\n")
        print(
            f"{printable(report.explained(grade.first, grade.first.failed[0]))}\n\nRead: {grade.first.objective.read}"
        )
    elif grade.points == grade.possible:
        print("All of it holds.")
    if not url:
        print_hints(step, Path(app) if Path(app).is_dir() else file_of(app), grade, hint, function)
    return 0 if grade.points == grade.possible and not grade.problem else 1


def file_of(app: str) -> Path:
    """Return the folder where an app's module is."""
    return (ROOT / app.partition(":")[0].replace(".", "/")).parent


def print_hints(step: str, folder: Path, grade: Grade, hint: int, function: str = "") -> None:
    """Print what is still to be written, and the hints up to the one that was asked for."""
    code = {file.name: file.read_text(encoding="utf-8", errors="replace") for file in folder.glob("*.py")}
    open_tasks = write_it.not_written(step, code)
    if open_tasks:
        print(f"Not written yet: {', '.join(task.name for task in open_tasks)}.")
    first = grade.first.failed[0] if grade.first else None
    task, slip = write_it.hint_for(step, code, first, function) if first or open_tasks or function else (None, "")
    print(f"\n{slip}" if slip else "")
    if task and hint:
        for number, text in enumerate(task.hints[:hint], 1):
            print(f"Hint {number} of {len(task.hints)} for {task.name}: {text}\n")
    elif task:
        print(f"A hint for {task.name}: add HINT=1 (for another function: FUNCTION=its name)")


def grade_at_each_save(step: str, app: str, hint: int, function: str) -> None:
    """Grade, and grade again whenever a file of the app is saved."""
    from watchfiles import watch  # comes with uvicorn[standard], which not every environment has

    folder = Path(app) if Path(app).is_dir() else file_of(app)
    with contextlib.suppress(KeyboardInterrupt):
        grade_app(step, app, hint, function)
        for _ in watch(folder):
            print("\n" + "-" * 80)
            grade_app(step, app, hint, function)


# A class


def grade_submission(step: str, submission: Path, seconds: float) -> tuple[Judgement, list[str]]:
    """Judge a copy of what was handed in. Whatever goes wrong is its own problem; and list what to look at."""
    judgement, lines = Judgement(), list[str]()
    with tempfile.TemporaryDirectory(prefix="submission-", ignore_cleanup_errors=True) as scratch:
        try:
            copy = unpack(submission, Path(scratch, "submission"))
            lines = look_at(step, copy)
            judgement = judge(step, **find_app(copy), seconds=seconds)
        except SystemExit as error:
            judgement.problem = str(error)
        except Exception as error:  # whatever this one has come up with, the others must be graded
            judgement.problem = f"It could not be graded: {error}"
    judgement.problem = judgement.problem.replace(f"{scratch}/", "")
    return judgement, lines


def grade_class(step: str, submissions: Path, folder: Path, seconds: float = 300) -> list[Grade]:
    """Grade all in a folder, two at a time; each result is written when it is there, and not made twice."""
    objectives = load(step)
    handed_in = sorted(f for f in submissions.iterdir() if not f.name.startswith((".", "__MACOSX")))
    if not handed_in:
        raise SystemExit(f"There is nothing in {submissions}.")
    results = Results.open(folder, step, submissions)
    grades, begin = dict[str, Grade](), time.monotonic()

    def keep(file: Path, judgement: Judgement, lines: list[str]) -> Grade:
        grades[file.name] = Grade(file.name, mark_all(objectives, judgement), judgement.problem, lines)
        return grades[file.name]

    todo = []
    for file in handed_in:
        kept = results.get(file)
        keep(file, *kept) if kept else todo.append(file)
    if grades and todo:
        print(f"Going on where the last run stopped: {len(grades)} of {len(handed_in)} are graded.")
    pool = ThreadPoolExecutor(2)
    try:
        with Progress(len(todo)) as progress:
            running = {pool.submit(grade_submission, step, file, seconds): file for file in todo}
            for number, done in enumerate(as_completed(running), 1):
                file = running[done]
                results.put(file, *done.result())
                grade = keep(file, *done.result())
                results.write(step, grade, grades.values())
                left = (time.monotonic() - begin) / number * (len(todo) - number) / 60
                progress.done(f"{printable(file.name)}: {grade.points} points, {left:.0f} min left")
    except KeyboardInterrupt:
        pool.shutdown(wait=False, cancel_futures=True)
        stop_all()
        raise SystemExit(
            f"\nStopped. {len(grades)} of {len(handed_in)} are in {folder}; the same command goes on."
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)
    in_order = [grades[file.name] for file in handed_in]
    results.finish(step, in_order)
    return in_order


def print_table(grades: list[Grade]) -> None:
    """Print a line for each submission: its points, and what is missing; then what the class missed most."""
    width = max(len(printable(grade.name)) for grade in grades)
    for grade in grades:
        missing = ", ".join(mark.objective.name for mark in grade.marks if mark.lost)
        why = report.in_a_line(grade.problem) or (f"missing: {missing}" if missing else "all of it holds")
        flag = "LOOK: " + grade.look_at[0] + "; " if grade.look_at else ""
        print(printable(f"{grade.name:{width}}  {grade.points:3} of {grade.possible:3}  {flag}{why}"))
    missed = {m.objective.title: sum(g.marks[i].lost for g in grades) for i, m in enumerate(grades[0].marks)}
    print("\nWhat most have missed:")
    for title, number in sorted(missed.items(), key=lambda item: -item[1])[:5]:
        print(f"{number:3} of {len(grades)}  {title}")


def main() -> int:
    """Grade an app or a class."""
    parser = argparse.ArgumentParser(prog="tests.classroom.grade")
    parser.add_argument("--step", choices=STEPS, required=True)
    parser.add_argument("--app", help="module:attribute, as uvicorn would find it from here, or a folder, or a URL")
    parser.add_argument("--hint", type=int, choices=(1, 2, 3), default=0)
    parser.add_argument("--function", default="", help="which function the hint is for; default: the next one")
    parser.add_argument("--watch", action="store_true", help="grade again at each save")
    parser.add_argument("--submissions", help="a folder with a folder, a zip or a .py for each submission")
    parser.add_argument("--results", type=Path, help="default: a new folder in my/grades_STEP for each run")
    parser.add_argument("--seconds", type=float, default=300, help="the time limit of each submission")
    options = parser.parse_args()
    if options.submissions is not None:
        submissions = Path(options.submissions)
        if not options.submissions or not submissions.is_dir() or submissions.resolve() == ROOT:
            raise SystemExit(
                f"Say which folder has the submissions: SUBMISSIONS={options.submissions or 'folder'} is none."
            )
        results = options.results or Results.folder_for(MY / f"grades_{options.step}", options.step, submissions)
        print_table(grade_class(options.step, submissions, results, options.seconds))
        print(f"\nresults.csv and a report for each are in {results}")
        return 0
    if not options.app:
        parser.error("say which app: APP=my.step01.main:app, or which folder: SUBMISSIONS=...")
    if options.watch:
        grade_at_each_save(options.step, options.app, options.hint, options.function)
        return 0
    return grade_app(options.step, options.app, options.hint, options.function)


if __name__ == "__main__":
    sys.exit(main())
