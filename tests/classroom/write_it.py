"""Write a step yourself: the step with the bodies of its important functions taken out.

make exercise    makes it in my/, from the step's main.py as it is today; the solution is the step itself
Which functions, in the order in which one would write them, and three hints for each: exercises/, a file per step.
"""

import argparse
import ast
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

from tests.classroom.steps import HERE, MY, ROOT, STEPS, copy_step

NOT_WRITTEN = "raise NotImplementedError"


@dataclass
class Task:
    """One function to write."""

    name: str
    hints: list[str]  # three: what it is about, how to go about it, nearly the code
    body: str = (
        NOT_WRITTEN  # what stands there until then: where raising would stop everything, an answer that is neutral
    )


def load(step: str) -> list[Task]:
    """Return the functions to write, in order."""
    text = (HERE / "exercises" / f"{step}.toml").read_text(encoding="utf-8")
    return [Task(name, **fields) for name, fields in tomllib.loads(text)["functions"].items()]


def holds_from_the_start(step: str) -> list[str]:
    """Return the names of the tests that hold before anything is written."""
    text = (HERE / "exercises" / f"{step}.toml").read_text(encoding="utf-8")
    names: list[str] = tomllib.loads(text)["holds_from_the_start"]
    return names


def functions_of(code: str) -> dict[str, ast.FunctionDef | ast.AsyncFunctionDef]:
    """Return the functions of a module by name."""
    found = ast.parse(code).body
    return {node.name: node for node in found if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def take_out(code: str, tasks: list[Task]) -> str:
    """Return the code with other bodies for these functions; their docstrings stay, and all else to the letter."""
    lines = code.splitlines(keepends=True)
    functions = functions_of(code)
    for task in sorted(tasks, key=lambda task: functions[task.name].lineno, reverse=True):
        node = functions[task.name]
        last_of_docstring = node.body[0].end_lineno or 0
        lines[last_of_docstring : node.end_lineno] = [f"    {task.body}  # write me\n"]
    return "".join(lines)


def is_written(code: str, task: Task) -> bool:
    """Say whether something else stands in the function's place than what the exercise began with."""
    node = functions_of(code).get(task.name)
    return node is None or [ast.unparse(statement) for statement in node.body[1:]] != [task.body]


def make_exercise(step: str, folder: Path) -> None:
    """Put the exercise into a folder that is not there yet."""
    copy_step(step, folder)
    main = folder / "main.py"
    main.write_text(take_out(main.read_text(encoding="utf-8"), load(step)), encoding="utf-8")


def main() -> int:
    """Make an exercise in my/."""
    parser = argparse.ArgumentParser(prog="tests.classroom.write_it")
    parser.add_argument("--step", choices=STEPS, required=True)
    step = parser.parse_args().step
    folder = MY / step
    if folder.exists():
        sys.exit(
            f"{folder.relative_to(ROOT)} is there already and is left as it is. To begin anew, rename or delete it."
        )
    make_exercise(step, folder)
    names = ", ".join(task.name for task in load(step))
    print(f"Your exercise: {folder.relative_to(ROOT)}/main.py\nWrite, in this order: {names}.")
    print(f"Each docstring says what the function gives. Leave a `{NOT_WRITTEN}` until you come to it.")
    print(f"\nAfter each try:       make grade STEP={step} APP=my.{step}.main:app")
    print(f"When you are stuck:   make grade STEP={step} APP=my.{step}.main:app HINT=1   (then 2, then 3)")
    print(f"To try it by hand:    .venv/bin/uvicorn my.{step}.main:app --reload --reload-dir my/{step}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
