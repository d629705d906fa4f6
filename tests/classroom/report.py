"""The HTML report on one submission: what was reached, and what to do about the rest; all of it escaped."""

from __future__ import annotations

import contextlib
import re
from html import escape
from typing import TYPE_CHECKING

from tests import forge

if TYPE_CHECKING:
    from tests.classroom.grade import Grade, Mark
    from tests.classroom.judge import Outcome

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
ANSWER = re.compile(r"Your app answered (\d+)[\s\S]* to (\w+ /[\w/]*)[\s\S]*\nIt should answer (\d)")


def page(step: str, grade: Grade) -> str:
    """Return the report as a page of its own."""
    rows = "".join(row(mark) for mark in grade.marks)
    doors = "".join(f"<li>{escape(mark.objective.title)}</li>" for mark in grade.doors)
    parts = [
        f"<h2>It lets in who must not be: at most {grade.cap} points</h2><ul>{doors}</ul>" if doors else "",
        f"<h2>The tests did not run to the end</h2><pre>{escape(grade.problem)}</pre>" if grade.problem else "",
        sections(grade) or ("" if grade.problem else "<h2>All of it holds</h2><p>Nothing is left to do.</p>"),
    ]
    skipped = [e for mark in grade.marks for e in mark.entries if mark.state_of(e) == "not judged"]
    for title, lines in (("Not judged: it costs nothing", map(in_words, skipped)), ("To look at", grade.look_at)):
        listed = "".join(f"<li>{escape(line)}</li>" for line in lines)
        parts.append(f"<h2>{title}</h2><ul>{listed}</ul>" if listed else "")
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(grade.name)}: {step}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head><body>'
        f"<h1>{escape(grade.name)}</h1>"
        f'<p class="score">Step {step[-1]}: <b>{grade.points} of {grade.possible} points</b></p>'
        f"{parts[0]}<h2>Objectives</h2><table><tr><th>Objective<th>State<th>Points</tr>{rows}</table>"
        f"{''.join(parts[1:])}</body></html>\n"
    )


def row(mark: Mark) -> str:
    """Return the objective's line in the table."""
    return (
        f'<tr><td>{escape(mark.objective.title)}<td class="{mark.state.split()[0]}">{STATES.get(mark.state, "in part")}'
        f'<td class="points">{mark.share("reached"):.1f} of {mark.objective.points}</tr>'
    )


def sections(grade: Grade) -> str:
    """Return what is wrong, a section for each cause, what to repair first before all else."""
    causes: dict[object, list[tuple[Mark, Outcome]]] = {}
    marks = [mark for mark in grade.marks if mark.failed]
    for mark in sorted(marks, key=lambda mark: (mark is not grade.first, not mark.lets_in)):
        for outcome in mark.failed:
            causes.setdefault(cause(mark, outcome), []).append((mark, outcome))
    parts: list[str] = []
    for found in causes.values():
        mark, outcome = found[0]
        more = sorted({in_words(other.function) for _, other in found} - {in_words(outcome.function)})
        also = f"<p>Of the same cause: {escape('; '.join(more))}.</p>" if more else ""
        first = "" if parts else "First: "
        parts.append(
            f"<h2>{first}{escape(mark.objective.title)}</h2><h3>{escape(in_words(outcome.test))}</h3>"
            f"<pre>{escape(explained(mark, outcome))}</pre>{also}<p>Read: {escape(mark.objective.read)}</p>"
        )
    return "".join(parts)


def cause(mark: Mark, outcome: Outcome) -> object:
    """Return what failures of one cause have in common: a right request that fails, or a test."""
    answer = ANSWER.match(outcome.message)
    if answer and ((answer[3] == "2" and answer[1][0] != "2") or answer[1][0] == "5"):
        return answer[1], answer[2], answer[3]
    return mark.objective.name, outcome.function


def explained(mark: Mark, outcome: Outcome) -> str:
    """Return what a test says, with the consequence that really follows, and what the tokens in it say."""
    lines, answer = outcome.message.split("\n"), ANSWER.match(outcome.message)
    if mark.objective.otherwise and not outcome.test.startswith("test_"):
        lines.append(mark.objective.otherwise)
    elif answer and answer[3] == "4" and answer[1][0] in "45":
        lines[2:] = [
            "Nobody gets in by it; but whoever writes the client, or looks for errors, learns the wrong thing."
        ]
    elif answer and answer[3] == "2" and answer[1][0] != "2" and mark.objective.needs:
        lines[2:] = ["A right request must work first: what this test is about could not be tried."]
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
