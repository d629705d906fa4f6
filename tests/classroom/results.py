"""The results of a class: a folder for each run, in which a result is written as soon as it is there."""

import csv
import hashlib
import json
import re
import time
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from tests.classroom import report
from tests.classroom.handed_in import printable
from tests.classroom.judge import Judgement, Outcome

if TYPE_CHECKING:
    from tests.classroom.grade import Grade

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


def write(folder: Path, step: str, grade: "Grade", grades: Iterable["Grade"]) -> None:
    """Write the report of a submission, whatever its name is, and the table anew."""
    digest = hashlib.sha256(grade.name.encode(errors="replace")).hexdigest()[:6]
    file_name = re.sub(r"[^\w.-]", "_", grade.name, flags=re.ASCII)[:60] + f"_{digest}.html"
    (folder / file_name).write_text(report.page(step, grade), "utf-8", "replace")
    # utf-8-sig: Excel takes it for another code else
    with (folder / "results.csv").open("w", encoding="utf-8-sig", errors="replace", newline="") as file:
        table = csv.writer(file)
        names = [mark.objective.name for mark in grade.marks]
        table.writerow(["submission", "points", "of", "at most", *names, "look at", "problem"])
        for one in sorted(grades, key=lambda grade: grade.name):
            each = [round(mark.share("reached"), 1) for mark in one.marks]
            texts = [text_only(text) for text in (one.name, "\n".join(one.look_at), report.in_a_line(one.problem))]
            table.writerow([texts[0], one.points, one.possible, one.cap, *each, *texts[1:]])


def text_only(cell: str) -> str:
    """Return a cell that no spreadsheet takes for a formula, without control characters."""
    cell = printable(cell)
    return f"'{cell}" if cell.lstrip().startswith(("=", "+", "-", "@")) else cell


def fingerprint(submission: Path) -> str:
    """Return what changes when what was handed in does."""
    files = sorted(submission.rglob("*")) if submission.is_dir() else [submission]
    digest = hashlib.sha256(submission.name.encode(errors="replace"))
    for file in files:
        digest.update(str(file.relative_to(submission.parent)).encode(errors="replace"))
        digest.update(file.read_bytes() if file.is_file() else b"")
    return digest.hexdigest()
