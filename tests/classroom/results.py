"""The results of a class: a folder for each run, in which a result is written as soon as it is there."""

import csv
import hashlib
import json
import re
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests.classroom import report
from tests.classroom.handed_in import printable
from tests.classroom.judge import Judgement, Outcome

if TYPE_CHECKING:
    from tests.classroom.grade import Grade


@dataclass
class Results:
    """What is known of a run."""

    folder: Path

    @staticmethod
    def run_of(step: str, submissions: Path) -> str:
        """Return what a run is about: results of another are not mixed with it."""
        return json.dumps({"step": step, "submissions": str(submissions.resolve())})

    @classmethod
    def folder_for(cls, where: Path, step: str, submissions: Path) -> Path:
        """Return the folder of the last run if it was about the same and was stopped, else one for a new run."""
        for folder in sorted(where.glob("*"), reverse=True)[:1]:
            about = folder / "run.json"
            same = about.is_file() and about.read_text() == cls.run_of(step, submissions)
            if same and not (folder / "finished").exists():
                return folder
        return where / time.strftime("%Y-%m-%d_%H.%M.%S")

    @classmethod
    def open(cls, folder: Path, step: str, submissions: Path) -> "Results":
        """Begin a run in a folder, or go on with it; SystemExit if it has the results of another one."""
        about = folder / "run.json"
        if about.is_file() and about.read_text() != cls.run_of(step, submissions):
            raise SystemExit(f"{folder} has the results of another run: choose another folder, RESULTS=...")
        folder.mkdir(parents=True, exist_ok=True)
        about.write_text(cls.run_of(step, submissions))
        return cls(folder)

    def file(self, name: str, suffix: str) -> Path:
        """Return the file about a submission, whatever its name is."""
        safe = re.sub(r"[^\w.-]", "_", name, flags=re.ASCII)[:60]
        return self.folder / f"{safe}_{hashlib.sha256(name.encode(errors='replace')).hexdigest()[:6]}{suffix}"

    def get(self, submission: Path) -> tuple[Judgement, list[str]] | None:
        """Return what is known of a submission, None if nothing is, or if it has been changed."""
        file = self.file(submission.name, ".json")
        kept = json.loads(file.read_text("utf-8")) if file.is_file() else {}
        if kept.get("of") != fingerprint(submission):
            return None
        return Judgement([Outcome(**o) for o in kept["outcomes"]], kept["problem"]), kept["look_at"]

    def put(self, submission: Path, judgement: Judgement, look_at: list[str]) -> None:
        """Keep what came out."""
        kept = asdict(judgement) | {"look_at": look_at, "of": fingerprint(submission)}
        new = self.file(submission.name, ".new")
        new.write_text(json.dumps(kept), "utf-8")
        new.replace(self.file(submission.name, ".json"))  # never half a file

    def write(self, step: str, grade: "Grade", grades: Iterable["Grade"]) -> None:
        """Write the report of a submission, and the table anew. utf-8-sig: Excel takes it for another code else."""
        self.file(grade.name, ".html").write_text(report.page(step, grade), "utf-8", "replace")
        with (self.folder / "results.csv").open("w", encoding="utf-8-sig", errors="replace", newline="") as file:
            table = csv.writer(file)
            names = [mark.objective.name for mark in grade.marks]
            table.writerow(["submission", "points", "of", "at most", *names, "look at", "problem"])
            for one in sorted(grades, key=lambda grade: grade.name):
                each = [round(mark.share("reached"), 1) for mark in one.marks]
                row: list[str | float] = [one.name, one.points, one.possible, one.cap, *each, "\n".join(one.look_at)]
                table.writerow([text_only(cell) for cell in [*row, report.in_a_line(one.problem)]])

    def finish(self, step: str, grades: list["Grade"]) -> None:
        """Write all reports anew, and that this run is through."""
        for grade in grades:
            self.write(step, grade, grades)
        (self.folder / "finished").touch()


def text_only(cell: str | float) -> str | float:
    """Return a cell that no spreadsheet takes for a formula, without control characters."""
    if not isinstance(cell, str):
        return cell
    cell = printable(cell)
    return f"'{cell}" if cell.lstrip().startswith(("=", "+", "-", "@")) else cell


def fingerprint(submission: Path) -> str:
    """Return what changes when what was handed in does."""
    files = sorted(submission.rglob("*")) if submission.is_dir() else [submission]
    digest = hashlib.sha256()
    for file in files:
        digest.update(str(file.relative_to(submission.parent)).encode(errors="replace"))
        digest.update(file.read_bytes() if file.is_file() else b"")
    return digest.hexdigest()
