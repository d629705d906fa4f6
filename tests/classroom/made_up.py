"""A made-up class, whose grades a fair teacher would give: class/, a file per step; what its tests say, in seen.json.

python -m tests.classroom.made_up    runs all tests on all of them (minutes) and writes seen.json anew
"""

import json
import sys
import tempfile
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tests.classroom.grade import Grade, grade_submission, load, mark_all
from tests.classroom.judge import Judgement, Outcome
from tests.classroom.steps import HERE, STEPS, copy_step

CLASS = {
    f"{step} {name}": submission
    for step in STEPS
    for name, submission in tomllib.loads((HERE / "class" / f"{step}.toml").read_text("utf-8")).items()
}
SEEN = HERE / "class" / "seen.json"


def hand_in(name: str, folder: Path) -> Path:
    """Put a submission into a folder that is not there yet."""
    submission: dict[str, Any] = CLASS[name]
    copy_step(name.partition(" ")[0], folder)
    for file, old, new in submission.get("changes", []):
        code = (folder / file).read_text("utf-8")
        assert code.count(old) == 1, f"{name}: {old!r} is {code.count(old)} times in {file}."
        (folder / file).write_text(code.replace(old, new), "utf-8")
    for file, text in submission.get("files", {}).items():
        (folder / file).write_text(text, "utf-8")
    return folder


def run(name: str) -> Judgement:
    """Run all tests of its step on a submission."""
    with tempfile.TemporaryDirectory() as scratch:
        return grade_submission(name.partition(" ")[0], hand_in(name, Path(scratch, "x")), 300)[0]


def kept(judgement: Judgement) -> dict[str, Any]:
    """Return of a judgement what decides the points: what did not pass, and the first two lines of why."""
    return {
        "problem": judgement.problem,
        "failed": {
            o.test: "\n".join(line[:70] for line in o.message.split("\n")[:2])
            for o in judgement.outcomes
            if o.outcome == "failed"
        },
        "skipped": [o.test for o in judgement.outcomes if o.outcome == "skipped"],
    }


def graded(name: str, seen: dict[str, Any], every: list[str]) -> Grade:
    """Return the grade that follows from what was kept."""
    outcomes = [Outcome(test, "skipped" if test in seen["skipped"] else "passed", "") for test in every]
    outcomes = [outcome for outcome in outcomes if outcome.test not in seen["failed"]]
    outcomes += [Outcome(test, "failed", message) for test, message in seen["failed"].items()]
    return Grade(name, mark_all(load(name.partition(" ")[0]), Judgement(outcomes, seen["problem"])))


def main() -> None:
    """Run all, and say what each got."""
    some = sys.argv[1:] or list(CLASS)
    seen = json.loads(SEEN.read_text("utf-8")) if SEEN.exists() else {}
    with ThreadPoolExecutor(2) as pool:
        for name, judgement in zip(some, pool.map(run, some), strict=True):
            if name.endswith(" right"):
                seen[f"{name}: every test"] = sorted(outcome.test for outcome in judgement.outcomes)
            seen[name] = kept(judgement)
            SEEN.write_text(json.dumps(seen, indent=0, sort_keys=True, ensure_ascii=False) + "\n", "utf-8")
            grade = graded(name, seen[name], seen[f"{name.partition(' ')[0]} right: every test"])
            missed = [mark.objective.name for mark in grade.marks if mark.lost]
            right = CLASS[name]["points"]
            print(f"{name:40} {grade.points:3} of {grade.possible} ({right}) {missed} {judgement.problem[:200]}")


if __name__ == "__main__":
    main()
