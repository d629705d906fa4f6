"""What came out: a text about one app; for a class a folder for each run, with such a text for each, and a table."""

import contextlib
import csv
import hashlib
import json
import re
import time
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from tests import forge
from tests.classroom.handed_in import printable
from tests.classroom.judge import Judgement, Outcome

if TYPE_CHECKING:
    from tests.classroom.grade import Grade, Mark

ANSWER = re.compile(r"Your app answered (\d+)[\s\S]* to (\w+ /[\w/]*)[\s\S]*\nIt should answer (\d)")
LOG = "run.jsonl"  # what the run is about, then a line for each submission


def about(step: str, submissions: Path) -> str:
    """Return what a run is about: results of another are not mixed with it."""
    return json.dumps({"step": step, "submissions": str(submissions.resolve())})


def folder_for(where: Path, step: str, submissions: Path) -> Path:
    """Return the folder of the last run if it was about the same and was stopped, else one for a new run."""
    for log in sorted(where.glob(f"*/{LOG}"))[-1:]:
        same = log.read_text("utf-8").partition("\n")[0] == about(step, submissions)
        if same and not log.with_name("finished").exists():
            return log.parent
    return where / time.strftime("%Y-%m-%d_%H.%M.%S")


def begin(folder: Path, step: str, submissions: Path) -> dict[str, Judgement]:
    """Begin a run, or go on with it: return what it knows, by fingerprint; SystemExit if it is of another class."""
    log = folder / LOG
    folder.mkdir(parents=True, exist_ok=True)
    if not log.exists():
        log.write_text(about(step, submissions) + "\n", "utf-8")
    run, *lines = log.read_text("utf-8").splitlines()
    if run != about(step, submissions):
        raise SystemExit(f"{folder} has the results of another run: choose another folder, RESULTS=...")
    known = {}
    for entry in map(json.loads, lines):
        outcomes = [Outcome(**outcome) for outcome in entry["outcomes"]]
        known[entry["of"]] = Judgement(outcomes, entry["problem"], entry["look_at"])
    return known


def keep(folder: Path, of: str, judgement: Judgement) -> None:
    """Write down what came out."""
    with (folder / LOG).open("a", encoding="utf-8") as log:
        log.write(json.dumps({"of": of} | asdict(judgement)) + "\n")


def write(folder: Path, grade: "Grade", grades: Iterable["Grade"]) -> None:
    """Write the report of a submission, whatever its name is, and the table anew."""
    digest = hashlib.sha256(grade.name.encode(errors="replace")).hexdigest()[:6]
    file_name = re.sub(r"[^\w.-]", "_", grade.name, flags=re.ASCII)[:60] + f"_{digest}.txt"
    looks = "".join(f"To look at: {printable(line)}\n" for line in grade.look_at)
    (folder / file_name).write_text(f"{printable(grade.name)}\n\n{text(grade)}\n{looks}", "utf-8", "replace")
    # utf-8-sig: Excel takes it for another code else
    with (folder / "results.csv").open("w", encoding="utf-8-sig", errors="replace", newline="") as file:
        table = csv.writer(file)
        names = [mark.objective.name for mark in grade.marks]
        table.writerow(["submission", "points", "of", "at most", *names, "look at", "problem"])
        for one in sorted(grades, key=lambda grade: grade.name):
            each = [round(mark.share("reached"), 1) for mark in one.marks]
            texts = [text_only(cell) for cell in (one.name, "\n".join(one.look_at), in_a_line(one.problem))]
            table.writerow([texts[0], one.points, one.possible, one.cap, *each, *texts[1:]])


def text_only(cell: str) -> str:
    """Return a cell that no spreadsheet takes for a formula, without control characters."""
    cell = printable(cell)
    return f"'{cell}" if cell.lstrip().startswith(("=", "+", "-", "@")) else cell


def fingerprint(submission: Path) -> str:
    """Return what changes when what was handed in does."""
    digest = hashlib.sha256()
    for file in [submission, *sorted(submission.rglob("*"))]:
        digest.update(str(file.relative_to(submission.parent)).encode(errors="replace"))
        digest.update(file.read_bytes() if file.is_file() else b"")
    return digest.hexdigest()


def text(grade: "Grade", most: int | None = None) -> str:
    """Return what an app got, and what is wrong, a section for each cause, what to repair first before all else."""
    lines = [f"{m.state:10}{m.share('reached'):6.1f} of{m.objective.points:3} {m.objective.title}" for m in grade.marks]
    lines += [f"{'':10} {grade.points:5} of {grade.possible}", ""]
    lines += [f"It lets in who must not be: {m.objective.title}. So it is at most {grade.cap}." for m in grade.doors]
    if grade.problem:
        lines += [f"The tests did not run to the end. {grade.problem}", ""]
    causes: dict[object, list[tuple[Mark, Outcome]]] = {}
    for mark in sorted(grade.marks, key=lambda mark: (mark is not grade.first, mark not in grade.doors)):
        for outcome in mark.failed:
            causes.setdefault(cause(mark, outcome), []).append((mark, outcome))
    for number, found in enumerate(list(causes.values())[:most]):
        mark, outcome = found[0]
        lines += [f"{'Then' if number else 'First'}: {mark.objective.title}. ({in_words(outcome.test)})", ""]
        lines += [explained(mark, outcome), ""]
        more = sorted({in_words(other.function) for _, other in found} - {in_words(outcome.function)})
        rest = f"; and {len(more) - 5} more" if len(more) > 5 else ""
        lines += [f"Of the same cause: {'; '.join(more[:5])}{rest}.", ""] if more else []
        lines += [f"Read: {mark.objective.read}", ""]
    if not causes and not grade.problem:
        lines.append("All of it holds." if grade.points == grade.possible else "")
    skipped = [entry for mark in grade.marks for entry, state in mark.states.items() if state == "not judged"]
    lines += [f"Not judged, it costs nothing: {in_words(entry)}" for entry in skipped]
    return printable("\n".join(lines))


def cause(mark: "Mark", outcome: Outcome) -> object:
    """Return what failures of one cause have in common: a right request that fails, or a test."""
    answer = ANSWER.match(outcome.message)
    if answer and ((answer[3] == "2" and answer[1][0] != "2") or answer[1][0] == "5"):
        return answer[1], answer[2], answer[3]
    return mark.objective.name, outcome.function


def explained(mark: "Mark", outcome: Outcome) -> str:
    """Return what a test says, with the consequence that really follows, and what the tokens in it say."""
    lines, answer = outcome.message.split("\n"), ANSWER.match(outcome.message)
    if mark.objective.otherwise and not outcome.test.startswith("test_"):
        lines.append(mark.objective.otherwise)
    elif answer and answer[3] == "4" and answer[1][0] in "45":
        lines[2:3] = ["Nobody gets in by it; but who writes the client, or looks for errors, learns the wrong thing."]
    elif answer and answer[3] == "2" and answer[1][0] == "5" and mark.objective.needs:
        lines[2:3] = ["A right request must work first: what this test is about could not be tried."]
    for token in dict.fromkeys(re.findall(r"[\w-]{10,}\.[\w-]{10,}(?=\.)", outcome.message)):
        with contextlib.suppress(ValueError):
            lines.append(f"The token {token[:12]}... says {forge.header_of(token)} and {forge.claims_of(token)}.")
    return "\n".join(lines)


def in_a_line(problem: str) -> str:
    """Return a problem's first line, and of a log that follows the last one, which says why."""
    lines = [line for line in problem.splitlines() if line.strip()]
    return " ".join([lines[0], lines[-1].strip()]) if len(lines) > 1 else problem


def in_words(test: str) -> str:
    """Return a test's name as the sentence that it is; the name of a header stays as it is."""
    function, _, parameters = test.partition("[")
    if not test.startswith("test_"):
        return test
    sentence = function.removeprefix("test_").replace("_", " ").capitalize()
    return f"{sentence}: {parameters.removesuffix(']')}" if parameters else sentence
