"""Write a step yourself: the step with the bodies of its important functions taken out.

make exercise    makes it in my/, from the step as it is today; the solution is the step itself
Which functions, three hints for each, which test needs which of them, and slips that show: exercises/, a file per step.
"""

import argparse
import ast
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.classroom.judge import Outcome
from tests.classroom.steps import MY, STEPS, copy_step, read_toml

NOT_WRITTEN = "raise NotImplementedError"


@dataclass
class Task:
    """One function to write."""

    name: str
    green: str  # a test that turns green with it, and needs none of the functions after it
    hints: list[str]  # three: what it is about, how to go about it, nearly the code
    file: str = "main.py"
    body: str = NOT_WRITTEN  # until then; a neutral answer where raising would stop what comes before


def load(step: str) -> list[Task]:
    """Return the functions to write, in order."""
    return [Task(name, **fields) for name, fields in read_toml(f"exercises/{step}")["functions"].items()]


def functions_of(code: str) -> dict[str, ast.FunctionDef | ast.AsyncFunctionDef]:
    """Return the functions of a module by name; none of one that cannot be read."""
    try:
        found = ast.parse(code).body
    except (SyntaxError, ValueError):
        return {}
    return {node.name: node for node in found if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def statements_of(node: ast.FunctionDef | ast.AsyncFunctionDef) -> list[ast.stmt]:
    """Return a function's body without its docstring."""
    return node.body[1:] if ast.get_docstring(node) else node.body


def take_out(code: str, tasks: list[Task]) -> str:
    """Return the code with other bodies for these functions; their docstrings stay, and all else to the letter."""
    lines, functions = code.splitlines(keepends=True), functions_of(code)
    for task in sorted(tasks, key=lambda task: functions[task.name].lineno, reverse=True):
        node = functions[task.name]
        lines[node.body[0].end_lineno : node.end_lineno] = [f"    {task.body}  # write me\n"]
    return "".join(lines)


def is_written(code: str, task: Task) -> bool:
    """Say whether something else stands in the function's place than what the exercise began with."""
    node = functions_of(code).get(task.name)
    return node is None or "\n".join(map(ast.unparse, statements_of(node))) != ast.unparse(ast.parse(task.body))


def not_written(step: str, code: dict[str, str]) -> list[Task]:
    """Return the functions that are still to be written, in order; code has the files of the learner's app by name."""
    return [task for task in load(step) if not is_written(code.get(task.file, ""), task)]


def crashed_in(message: str) -> list[str]:
    """Return the name of the function in which the app crashed, if the message says so."""
    return re.findall(r"Its log says: .*, in (\w+) \(", message)


def waits_for(step: str, code: dict[str, str]) -> Callable[[Outcome], int]:
    """Return what says how far down the order one must write until a test can pass; 0 if all that it needs is there."""
    needs = read_toml(f"exercises/{step}")["tests"]
    place = {task.name: number for number, task in enumerate(not_written(step, code), 1)}
    return lambda outcome: max(
        place.get(name, 0) for name in ["", *needs.get(outcome.function, []), *crashed_in(outcome.message)]
    )


def hint_for(step: str, code: dict[str, str], outcome: Outcome | None, function: str = "") -> tuple[Task | None, str]:
    """Return the function that a hint is for, and what is said of a slip that shows in the answer ("": none does).

    The outcome is the first test that failed. Where the app crashed comes first; then what the test needs and is not
    written; then what a slip shows; then what the test is about; then, of what it needs, what was written last.
    """
    data, tasks = read_toml(f"exercises/{step}"), {task.name: task for task in load(step)}
    test, text = (outcome.function, f"{outcome.test}\n{outcome.message}") if outcome else ("", "")
    needed = data["tests"].get(test, []) if outcome else list(tasks)
    open_tasks = [task.name for task in not_written(step, code)]
    slips = [s for s in data["slips"] if test in s.get("tests", [test]) and re.search(s["shows"], text, re.DOTALL)]
    slips = [slip for slip in slips if slip["function"] not in open_tasks]
    names = [slip["function"] for slip in slips if "log says" in slip["shows"]]  # where the app crashed, for sure
    names += [name for name in crashed_in(text) if name in tasks] + [name for name in open_tasks if name in needed]
    slips = [slip for slip in slips if slip["function"] in names[:1] or not names]
    names += [slip["function"] for slip in slips]
    names += [name for name, tests in data["first"].items() if test in tests] + (needed[::-1] if outcome else [])
    task = tasks.get(function) or next((tasks[name] for name in names), None)
    return task, slips[0]["says"] if slips and task and task.name == slips[0]["function"] else ""


def make_exercise(step: str, folder: Path, tasks: list[Task] | None = None) -> None:
    """Put the exercise into a folder that is not there yet: without these functions, or without all of them."""
    copy_step(step, folder)
    for name in {task.file for task in load(step)}:
        code = (folder / name).read_text(encoding="utf-8")
        out = [task for task in (load(step) if tasks is None else tasks) if task.file == name]
        (folder / name).write_text(take_out(code, out), encoding="utf-8")


def main() -> int:
    """Make an exercise in my/."""
    parser = argparse.ArgumentParser(prog="tests.classroom.write_it")
    parser.add_argument("--step", choices=STEPS, required=True)
    step = parser.parse_args().step
    folder = MY / step
    if folder.exists():
        sys.exit(f"my/{step} is there already and is left as it is. To begin anew, rename or delete it.")
    make_exercise(step, folder)
    names = ", ".join(f"{task.name} ({task.file})" for task in load(step))
    print(f"Your exercise: my/{step}\nWrite, in this order: {names}.")
    print("Each docstring says what the function gives. Leave what says `# write me` until you come to it.")
    print(f"\nAfter each try:       make grade STEP={step} APP=my.{step}.main:app")
    print(f"When you are stuck:   make grade STEP={step} APP=my.{step}.main:app HINT=1   (then 2, then 3)")
    print(f"To try it by hand:    .venv/bin/uvicorn my.{step}.main:app --reload --reload-dir my/{step}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
