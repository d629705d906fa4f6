"""A made-up class, whose grades a fair teacher would give: class/, a file per step; what its tests say, in seen.json.

python -m tests.classroom.made_up    runs all tests on all of them (minutes) and writes seen.json anew
"""

import json
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tests.classroom.grade import Grade, grade_of, grade_submission
from tests.classroom.judge import Judgement, Outcome
from tests.classroom.steps import HERE, STEPS, copy_step, read_toml

CLASS: dict[str, dict[str, Any]] = {
    f"{step} {name}": submission for step in STEPS for name, submission in read_toml(f"class/{step}").items()
}
FILE = HERE / "class" / "seen.json"
SEEN: dict[str, Any] = json.loads(FILE.read_text("utf-8"))


def run(name: str) -> Judgement:
    """Run all tests of its step on a submission: the step with some changes, or files in place of the step's."""
    step, submission = name.partition(" ")[0], CLASS[name]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch, "x")
        copy_step(step, folder, submission.get("changes", []))
        for file, text in submission.get("files", {}).items():
            (folder / file).write_text(text, "utf-8")
        return grade_submission(step, folder, 300)


def kept(judgement: Judgement) -> dict[str, Any]:
    """Return of a judgement what decides the points: what did not pass, and the beginnings of two lines of why."""
    failed = {o.test: o.message.split("\n")[:2] for o in judgement.outcomes if o.outcome == "failed"}
    return {
        "problem": judgement.problem,
        "failed": {test: "\n".join(line[:120] for line in lines) for test, lines in failed.items()},
        "skipped": [o.test for o in judgement.outcomes if o.outcome == "skipped"],
    }


def graded(name: str, seen: dict[str, Any]) -> Grade:
    """Return the grade that follows from what was kept."""
    step = name.partition(" ")[0]
    every = [test for test in SEEN[f"{step} right: every test"] if test not in seen["failed"]]
    outcomes = [Outcome(test, "skipped" if test in seen["skipped"] else "passed", "") for test in every]
    outcomes += [Outcome(test, "failed", message) for test, message in seen["failed"].items()]
    return grade_of(step, name, Judgement(outcomes, seen["problem"]))


def main() -> None:
    """Run all, and say what each got, and what would be fair."""
    some = sys.argv[1:] or list(CLASS)
    with ThreadPoolExecutor(2) as pool:
        for name, judgement in zip(some, pool.map(run, some), strict=True):
            if name.endswith(" right"):
                SEEN[f"{name}: every test"] = sorted(outcome.test for outcome in judgement.outcomes)
            SEEN[name] = kept(judgement)
            FILE.write_text(json.dumps(SEEN, indent=0, sort_keys=True, ensure_ascii=False) + "\n", "utf-8")
            grade = graded(name, SEEN[name])
            print(f"{name:40} {grade.points:3} of {grade.possible} ({CLASS[name]['points']}) {grade.problem[:200]}")


if __name__ == "__main__":
    main()
