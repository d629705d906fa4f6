"""The HTML report on one submission: what was reached, and what to do about the rest; all of it escaped."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.classroom.grade import Grade, Mark

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 48rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
h1 { margin-bottom: 0; } h2 { margin-top: 2rem; } .score { font-size: 1.25rem; }
table { border-collapse: collapse; width: 100%; }
td, th { text-align: left; padding: .3rem .5rem; vertical-align: top; }
tr { border-bottom: 1px solid #ddd; } td.points { white-space: nowrap; text-align: right; }
.reached { color: #14621f; } .missed { color: #9b1c1c; } .waits { color: #6b4a00; }
pre { background: #f6f6f6; padding: .75rem; white-space: pre-wrap; overflow-wrap: anywhere; }
"""
STATES = {"reached": "reached", "missed": "missed", "waits": "does not count yet", "not judged": "could not be judged"}


def page(step: str, grade: Grade) -> str:
    """Return the report as a page of its own."""
    rows = "".join(row(mark) for mark in grade.marks)
    todo = "".join(section(mark) for mark in grade.marks if mark.failed or (mark.state == "waits" and mark.outcomes))
    problem = ""
    if grade.problem:
        problem = f"<h2>The tests did not run to the end</h2><pre>{escape(grade.problem)}</pre>"
    elif not todo:
        todo = "<h2>All of it holds</h2><p>Nothing is left to do.</p>"
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(grade.name)}: {step}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head><body>'
        f"<h1>{escape(grade.name)}</h1>"
        f'<p class="score">Step {step[-1]}: <b>{grade.points} of {grade.possible} points</b></p>{problem}'
        f"<h2>Objectives</h2><table><tr><th>Objective<th>State<th>Points</tr>{rows}</table>{todo}</body></html>\n"
    )


def row(mark: Mark) -> str:
    """Return the objective's line in the table."""
    state = STATES[mark.state] if mark.outcomes else "not tried"
    return (
        f'<tr><td>{escape(mark.objective.title)}<td class="{mark.state.split()[0]}">{state}'
        f'<td class="points">{mark.points} of {mark.objective.points}</tr>'
    )


def section(mark: Mark) -> str:
    """Return what is wrong with an objective, test by test, and what to read."""
    parts = [f"<h2>{escape(mark.objective.title)}</h2>"]
    if mark.waits_for and not mark.failed:
        waits = "; ".join(escape(title) for title in mark.waits_for)
        parts.append(f"<p>Its tests hold. They count only beside: {waits}.</p>")
    for function in dict.fromkeys(outcome.function for outcome in mark.failed):
        failed = [outcome for outcome in mark.failed if outcome.function == function]
        more = f" (and {len(failed) - 1} more of this kind)" if len(failed) > 1 else ""
        parts.append(f"<h3>{escape(in_words(failed[0].test))}{more}</h3><pre>{escape(failed[0].message)}</pre>")
    if mark.failed:
        parts.append(f"<p>Read: {escape(mark.objective.read)}</p>")
    return "".join(parts)


def in_words(test: str) -> str:
    """Return a test's name as the sentence that it is."""
    function, _, parameters = test.partition("[")
    sentence = function.removeprefix("test_").replace("_", " ").capitalize()
    return f"{sentence}: {parameters.removesuffix(']')}" if parameters else sentence
