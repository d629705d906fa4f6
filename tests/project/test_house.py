"""The repository keeps its own house rules."""

import ast
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.project.conftest import ROOT
from tests.server import free_port

STEPS = sorted(ROOT.glob("step0*/main.py"))
STEP_TESTS = [*sorted((ROOT / "tests").glob("test_step0*.py")), ROOT / "tests/cart_and_cookie.py"]
Run = Callable[..., subprocess.CompletedProcess[str]]

# What has the same name in two steps and is not the same, and why.
DIFFERENT = {
    "Claims": "step 3's token is for another audience and names its login by jti",
    "issue_token": "step 3's token names its login by jti",
    "login": "step 1 hands out the token, step 3 sets cookies and ends older logins",
    "me": "step 1 asks a bearer token, step 3 both cookies",
    "openapi": "step 1 has a bearer token, step 2 one cookie, step 3 two",
    "show_session": "step 2 shows the cookie, step 3 what both cookies say",
}


def definitions(source: str) -> Iterator[tuple[str, str]]:
    """Yield the name and the text of each function and class of a module, without decorators."""
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name, ast.get_source_segment(source, node) or ""


def shared() -> dict[str, dict[str, str]]:
    """Return what more than one step defines: by name, the text in each step."""
    found: dict[str, dict[str, str]] = {}
    for step in STEPS:
        for name, text in definitions(step.read_text(encoding="utf-8")):
            found.setdefault(name, {})[step.parent.name] = text
    return {name: texts for name, texts in found.items() if len(texts) > 1}


@pytest.mark.parametrize("name", sorted(shared()))
def test_what_two_steps_share_is_the_same_to_the_letter(name: str) -> None:
    """Otherwise diff between two steps shows noise instead of the lesson."""
    versions = set(shared()[name].values())

    assert (len(versions) == 1) != (name in DIFFERENT), f"{name}: make it the same, or say in DIFFERENT why not"


def test_only_what_is_there_is_excused_for_being_different() -> None:
    assert set(DIFFERENT) <= set(shared())


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.parent.name)
def test_a_step_stands_alone(step: Path) -> None:
    """Otherwise a copy of its folder does not run."""
    for node in ast.walk(ast.parse(step.read_text(encoding="utf-8"))):
        modules = [a.name for a in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            modules = [node.module or ""]
        assert not [name for name in modules if re.match(r"step\d|tests|notebooks", name)]


@pytest.mark.parametrize("path", STEP_TESTS, ids=lambda path: path.stem)
def test_a_test_says_in_its_name_what_holds_and_in_its_docstring_what_follows_otherwise(path: Path) -> None:
    """Otherwise a learner reads a failure and does not know why it matters."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            assert (ast.get_docstring(node) or "").startswith("Otherwise "), node.name
            assert len(node.name.split("_")) >= 5, node.name


def test_the_requirements_are_pinned_by_hash_and_name_no_registry() -> None:
    """Otherwise an install is not the same tomorrow, or only works where it was made."""
    for name in ("requirements.txt", "requirements-dev.txt"):
        text = (ROOT / name).read_text(encoding="utf-8")
        assert "://" not in text
        assert not re.search(r"^--", text, re.MULTILINE)
        pins = re.split(r"\n(?=\S)", text)
        assert all("--hash=sha256:" in pin for pin in pins if not pin.startswith("#"))


def test_every_action_is_pinned_by_hash() -> None:
    """Otherwise the workflow runs whatever the tag points at that day."""
    text = (ROOT / ".github/workflows/check.yml").read_text(encoding="utf-8")

    actions = re.findall(r"uses: (.*)", text)
    assert actions
    assert all(re.fullmatch(r"[\w/-]+@[0-9a-f]{40} # v[\d.]+", action) for action in actions)


def test_the_developers_requirements_hold_the_learners() -> None:
    """Otherwise what is checked is not what a learner runs."""
    learner, developer = (
        set(re.findall(r"^(\S+==\S+)", (ROOT / name).read_text(encoding="utf-8"), re.MULTILINE))
        for name in ("requirements.txt", "requirements-dev.txt")
    )

    assert learner
    assert learner <= developer


def test_bare_make_lists_every_target_with_a_line(run: Run) -> None:
    """Otherwise nobody knows what there is."""
    listed = run("make").stdout.splitlines()
    phony = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)

    assert phony
    assert [line.split()[1] for line in listed] == phony[1].split()
    assert all(len(line.split()) > 3 for line in listed)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["PORT=99999"], "Port 99999 cannot be used"),
        (["JWT_SECRET_KEY=short"], "JWT_SECRET_KEY must have at least 32 bytes"),
    ],
)
def test_a_start_that_cannot_be_says_so_in_one_sentence(run: Run, arguments: list[str], sentence: str) -> None:
    """Otherwise a beginner reads a traceback."""
    result = run("make", "step01", f"PORT={free_port()}", *arguments)

    said = [line for line in result.stderr.splitlines() if not line.startswith("make")]
    assert result.returncode != 0
    assert len(said) == 1
    assert said[0].startswith(sentence)


def test_a_python_that_is_too_old_is_named_in_one_sentence(run: Run, tmp_path: Path) -> None:
    """Otherwise a beginner reads a traceback."""
    old = tmp_path / "python-too-old"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)

    result = run("make", "--always-make", ".venv/bin/python", f"PYTHON={old}")

    assert result.returncode != 0
    assert result.stdout.startswith("Python 3.11 or newer is needed")
