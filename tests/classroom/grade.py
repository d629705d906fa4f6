"""Grade one app, or a class.

make grade        says what holds and what does not, in the order in which one would write it, and what to do first
make grade-all    grades each submission in a folder, two at a time: a table, results.csv, a report for each
The objectives and their points are in objectives/, a file per step.
"""

import argparse
import contextlib
import re
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from tomllib import TOMLDecodeError

from tests.classroom import results, write_it
from tests.classroom.handed_in import find_app, look_at, printable, unpack
from tests.classroom.judge import RUNNING, URL, Judgement, Outcome, Tell, end_all, judge
from tests.classroom.steps import MY, ROOT, STEPS, file_of_tests, names_of_tests, read_toml

# It gave what it should have refused: another answer (a server error, too) opens no door
LETS_IN = re.compile(
    r"Your app (answered (2\d\d .*\nIt should answer 4\d\d|\[201, 201)|took a cookie"
    r"|answered 2\d\d .* to GET .*\nIt should answer 200 \{\"(items\": \{\}|claims\": ))"
)
# It refused what is right, or crashed over it: that comes before what lets someone in
RIGHT_FAILS = re.compile(r"Your app (broke|answered [45]\d\d.*\nIt should answer 2)")


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
    states: dict[str, str]  # of each of its tests: reached, missed, not judged; or waits for a right request that works
    failed: list[Outcome]  # what went wrong, first things first

    def share(self, state: str) -> float:
        """Return the points of the tests in this state."""
        return self.objective.points * [*self.states.values()].count(state) / len(self.states)

    @property
    def state(self) -> str:
        """The objective's own: that of its tests, if they agree."""
        states = set(self.states.values())
        return states.pop() if len(states) == 1 else "missed" if "missed" in states else "in part"

    @property
    def lost(self) -> bool:
        """Whether points are missing."""
        return not {"missed", "waits"}.isdisjoint(self.states.values())


@dataclass
class Grade:
    """What a submission got."""

    name: str
    marks: list[Mark]
    problem: str  # why the tests did not run, or not to the end
    look_at: list[str]  # lines that no test can judge
    doors: list[Mark]  # the objectives that let someone in
    cap: int  # the most that the grade can be, then
    points: int  # what was reached: what could not be judged is not in it
    possible: int  # what could be reached: what could not be judged costs nothing
    first: Mark | None  # what to repair first


def load(step: str) -> list[Objective]:
    """Return the objectives of a step, in order; exits with a sentence if they cannot be graded by."""
    try:
        objectives = [Objective(name, **fields) for name, fields in read_toml(f"objectives/{step}").items()]
    except (TypeError, TOMLDecodeError) as error:  # TypeError: a field that is missing, or mistyped
        raise SystemExit(f"{step}.toml: {str(error).removeprefix('Objective.__init__() ')}.") from None
    entries, names = [entry for o in objectives for entry in o.tests], names_of_tests(file_of_tests(step))
    wrong = [f"{entry} stands there twice" for entry in {e for e in entries if entries.count(e) > 1}]
    wrong += [f"{name} has no objective" for name in names if not entry_of(name, entries)]
    named = {entry.partition("[")[0] for entry in [*entries, *(need for o in objectives for need in o.needs)]}
    wrong += [f"there is no {name}" for name in named if name.startswith("test_") and name not in names]
    if sum(objective.points for objective in objectives) != 100:
        wrong.append(f"the points add up to {sum(objective.points for objective in objectives)}, not to 100")
    if wrong:
        raise SystemExit(f"{step}.toml: " + "; ".join(sorted(wrong)) + ".")
    return objectives


def entry_of(test: str, entries: list[str]) -> str:
    """Return the longest entry that names the test, "" if none does; of a mere function, any of its parameters'."""
    fitting = [e for e in entries if test == e or test.startswith(e if "[" in e else f"{e}[")]
    return max(fitting or [e for e in entries if e.partition("[")[0] == test], key=len, default="")


def grade_of(step: str, name: str, judgement: Judgement, waits_for: Callable[[Outcome], int] = lambda _: 0) -> Grade:
    """Return the grade that follows from what the tests say; tests that wait for what is not written come last."""
    objectives = load(step)
    entries = [entry for objective in objectives for entry in objective.tests]
    found: dict[str, list[Outcome]] = {entry: [] for entry in entries}
    for outcome in judgement.outcomes:
        found.setdefault(entry_of(outcome.test, entries), []).append(outcome)
    passed = {name for o in judgement.outcomes if o.outcome == "passed" for name in (o.test, o.function)}
    complete = bool(judgement.outcomes) and not judgement.problem

    def urgency(outcome: Outcome) -> tuple[int, bool]:
        return waits_for(outcome), not RIGHT_FAILS.match(outcome.message)

    def state_of(entry: str, works: bool) -> str:
        kinds = {outcome.outcome for outcome in found[entry]}
        if "failed" in kinds or (not kinds and (entry.startswith("test_") or not complete)):
            return "missed"  # a detail of which nothing was said is right
        return "waits" if not works else "not judged" if kinds == {"skipped"} else "reached"

    marks = []
    for o in objectives:
        states = {entry: state_of(entry, not o.needs or bool(passed & set(o.needs))) for entry in o.tests}
        failed = [one for e in o.tests for one in found[e] if one.outcome == "failed"]
        marks.append(Mark(o, states, sorted(failed, key=urgency)))
    broken = [mark for mark in marks if mark.failed]
    doors = [m for m in broken if m.objective.cap < 100 and any(LETS_IN.match(one.message) for one in m.failed)]
    cap = min([40 if len(doors) > 1 else 100, *(mark.objective.cap for mark in doors)])
    possible = round(100 - sum(mark.share("not judged") for mark in marks))
    reached = min(sum(mark.share("reached") for mark in marks), cap * possible / 100)
    points = min(round(reached), possible - bool(broken))  # all of them only if nothing is wrong
    right = [mark for mark in broken if RIGHT_FAILS.match(mark.failed[0].message)]
    first = min([*right, *doors, *broken], key=lambda mark: urgency(mark.failed[0]), default=None)
    return Grade(name, marks, judgement.problem, judgement.look_at, doors, cap, points, possible, first)


# One app


def progress(done: int, total: int, what: str = "") -> None:
    """Show how much is done: one line that grows on a terminal and goes with the last, a line for each elsewhere."""
    on_terminal, filled = sys.stderr.isatty(), 30 * done // max(total, 1)
    line = f"[{'#' * filled}{'.' * (30 - filled)}] {done}/{total} {what}"[:100]
    if on_terminal:
        line = f"\r\033[K{line if done < total else ''}"
    print(line, end="" if on_terminal else "\n", file=sys.stderr, flush=True)


def grade_app(step: str, app: str, hint: int, function: str) -> int:
    """Print what holds and what does not; return 0 if all does. The app is module:attribute, a folder or a URL."""
    load(step)
    tell = progress if sys.stderr.isatty() else None
    if Path(app).exists():
        judgement = grade_submission(step, Path(app), 600, tell)
    else:
        judgement = judge(step, ROOT, app, tell=tell)
    if tell:
        tell(1, 1)  # it may have stopped before the last test
    files = [] if app.startswith(URL) else folder_of(app).glob("*.py")
    code = {file.name: file.read_text(encoding="utf-8", errors="replace") for file in files}
    grade = grade_of(step, app, judgement, write_it.waits_for(step, code))
    print(results.text(grade, 1))
    if code:
        print_hints(step, code, grade, hint, function)
    return 0 if grade.points == grade.possible and not grade.problem else 1


def folder_of(app: str) -> Path:
    """Return the folder where an app's code is."""
    return Path(app) if Path(app).is_dir() else (ROOT / app.partition(":")[0].replace(".", "/")).parent


def print_hints(step: str, code: dict[str, str], grade: Grade, hint: int, function: str = "") -> None:
    """Print what is still to be written, and the hints up to the one that was asked for."""
    open_tasks = write_it.not_written(step, code)
    if open_tasks:
        print(f"Not written yet: {', '.join(task.name for task in open_tasks)}.")
    first = grade.first.failed[0] if grade.first else None
    task, slip = write_it.hint_for(step, code, first, function)
    print(f"\n{slip}" if slip else "")
    if task and hint:
        for number, text in enumerate(task.hints[:hint], 1):
            print(f"Hint {number} of {len(task.hints)} for {task.name}: {text}\n")
    elif task:
        print(f"A hint for {task.name}: add HINT=1 (for another function: FUNCTION=its name)")
    elif first:
        print("There is no hint for this one: see the message, and the chapter.")


# A class


def grade_submission(step: str, submission: Path, seconds: float, tell: Tell | None = None) -> Judgement:
    """Judge a copy of what was handed in, and list what to look at. Whatever goes wrong is its own problem."""
    judgement, lines = Judgement(), list[str]()
    with tempfile.TemporaryDirectory(prefix="submission-", ignore_cleanup_errors=True) as scratch:
        try:
            copy = unpack(submission, Path(scratch, "submission"))
            lines = look_at(step, copy)
            judgement = judge(step, **find_app(copy), seconds=seconds, tell=tell)
        except SystemExit as error:
            judgement.problem = str(error)
        except Exception as error:  # whatever this one has come up with, the others must be graded
            judgement.problem = f"It could not be graded: {error}"
    return Judgement(judgement.outcomes, judgement.problem.replace(f"{scratch}/", ""), lines)


def grade_class(step: str, submissions: Path, folder: Path, seconds: float = 300) -> list[Grade]:
    """Grade all in a folder, two at a time; each result is written when it is there, and not made twice."""
    load(step)
    handed_in = sorted(f for f in submissions.iterdir() if not f.name.startswith((".", "__MACOSX")))
    if not handed_in:
        raise SystemExit(f"There is nothing in {submissions}.")
    known, prints = results.begin(folder, step, submissions), {file: results.fingerprint(file) for file in handed_in}
    grades = {file: grade_of(step, file.name, known[of]) for file, of in prints.items() if of in known}
    todo = [file for file in handed_in if file not in grades]
    for grade in grades.values():
        results.write(folder, grade, grades.values())
    if grades and todo:
        print(f"Going on where the last run stopped: {len(grades)} of {len(handed_in)} are graded.")
    pool, begin = ThreadPoolExecutor(2), time.monotonic()
    try:
        running = {pool.submit(grade_submission, step, file, seconds): file for file in todo}
        for number, done in enumerate(as_completed(running), 1):
            file = running[done]
            results.keep(folder, prints[file], done.result())
            grades[file] = grade_of(step, file.name, done.result())
            results.write(folder, grades[file], grades.values())
            left = (time.monotonic() - begin) / number * (len(todo) - number) / 60
            progress(number, len(todo), f"{printable(file.name)}: {grades[file].points} points, {left:.0f} min left")
    except KeyboardInterrupt:
        pool.shutdown(wait=False, cancel_futures=True)
        for process, mark in list(RUNNING.items()):
            end_all(process, mark)
        said = f"{len(grades)} of {len(handed_in)} are in {folder}; the same command goes on."
        raise SystemExit(f"\nStopped. {said}") from None
    finally:
        pool.shutdown(cancel_futures=True)
    (folder / "finished").touch()
    return [grades[file] for file in handed_in]


def print_table(grades: list[Grade]) -> None:
    """Print a line for each submission: its points, and what is missing; then what the class missed most."""
    width = max(len(printable(grade.name)) for grade in grades)
    for grade in grades:
        missing = ", ".join(mark.objective.name for mark in grade.marks if mark.lost)
        why = results.in_a_line(grade.problem) or (f"missing: {missing}" if missing else "all of it holds")
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
            parser.error("say which folder has the submissions: SUBMISSIONS=folder")
        folder = options.results or results.folder_for(MY / f"grades_{options.step}", options.step, submissions)
        print_table(grade_class(options.step, submissions, folder, options.seconds))
        print(f"\nresults.csv and a report for each are in {folder}")
        return 0
    names = [task.name for task in write_it.load(options.step)]
    if options.function and options.function not in names:
        parser.error(f"there is no function {options.function} to write, but {', '.join(names)}")
    if not options.app:
        parser.error("say which app: APP=my.step01.main:app, or which folder: SUBMISSIONS=...")
    code = grade_app(options.step, options.app, options.hint, options.function)
    if options.watch:
        from watchfiles import watch  # comes with uvicorn[standard], which not every environment has

        print("\nAt each save it is graded again. Ctrl+C ends this.", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            for _ in watch(folder_of(options.app)):
                print("\n" + "-" * 80)
                grade_app(options.step, options.app, options.hint, options.function)
    return code


if __name__ == "__main__":
    sys.exit(main())
