"""The repository keeps its own house rules."""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.project.conftest import ROOT, run
from tests.server import free_port

STEPS = sorted(ROOT.glob("step0*/main.py"))
STEP_TESTS = [*sorted((ROOT / "tests").glob("test_step0*.py")), ROOT / "tests/cart_and_cookie.py"]

# What has the same name in two steps and is not the same, and why.
DIFFERENT = {
    "Claims": "step 3's token is for another audience and names its login by jti",
    "issue_token": "step 3's token names its login by jti",
    "login": "step 1 hands out the token, step 3 sets cookies and ends older logins",
    "me": "step 1 asks a bearer token, step 3 both cookies",
    "read_token": "step 3's logout also ends a login whose token has expired, so it says at which time",
    "show_session": "step 2 shows the cookie, step 3 what both cookies say",
}
CODE = sorted(ROOT.glob("step0*/*.py"))
REQUIREMENTS = [(ROOT / name).read_text(encoding="utf-8") for name in ("requirements.txt", "requirements-dev.txt")]
LONGEST = dict(zip(STEPS, (75, 108, 190), strict=True))  # in lines that are not blank


def definitions(source: str) -> Iterator[tuple[str, str]]:
    """Yield the name and the text of each function and class of a module, without decorators."""
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name, ast.get_source_segment(source, node) or ""


def shared() -> dict[str, list[str]]:
    """Return what more than one step has, by name: each definition in main.py and cart.py, of other files the whole."""
    found = defaultdict(list)
    for file in CODE:
        source = file.read_text(encoding="utf-8")
        for name, text in definitions(source) if file.name in ("main.py", "cart.py") else [(file.name, source)]:
            found[name].append(text)
    return {name: texts for name, texts in found.items() if len(texts) > 1}


SHARED = shared()


@pytest.mark.parametrize("name", sorted(SHARED))
def test_what_two_steps_share_is_the_same_to_the_letter(name: str) -> None:
    """Otherwise diff -r between two steps shows noise instead of the lesson."""
    is_same = len(set(SHARED[name])) == 1

    assert is_same != (name in DIFFERENT), f"{name}: make it the same, or say in DIFFERENT why not"


def test_what_is_known_to_be_shared_is_there() -> None:
    assert {name for name in SHARED if name.endswith(".py")} == {"cookies.py", "hardening.py", "users.py"}
    assert set(DIFFERENT) <= set(SHARED)


@pytest.mark.parametrize("file", CODE, ids=lambda file: f"{file.parent.name}/{file.name}")
def test_a_file_can_be_read_in_one_go(file: Path) -> None:
    """Otherwise the idea drowns."""
    lines = [line for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]

    assert len(lines) <= LONGEST.get(file, 95)


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.parent.name)
def test_nothing_in_a_main_is_used_before_it_is_defined(step: Path) -> None:
    """Otherwise a reader has to scroll back."""
    body = ast.parse(step.read_text(encoding="utf-8")).body
    defined_at = {
        name.id: place
        for place, node in reversed(list(enumerate(body)))
        for name in ast.walk(node)
        if isinstance(node, ast.Assign) and isinstance(name, ast.Name) and isinstance(name.ctx, ast.Store)
    }
    defined_at |= {node.name: place for place, node in enumerate(body) if hasattr(node, "name")}

    for place, node in enumerate(body):
        used = {name.id for name in ast.walk(node) if isinstance(name, ast.Name)}
        used -= {arg.arg for arg in ast.walk(node) if isinstance(arg, ast.arg)}
        assert [name for name in used if defined_at.get(name, place) > place] == []


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.parent.name)
def test_a_route_is_not_decorated_for_its_documentation(step: Path) -> None:
    """Otherwise a reader meets what only /docs wants on the way to the idea."""
    for node in ast.walk(ast.parse(step.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("app."):
            assert not {word.arg for word in node.keywords} & {"responses", "summary", "description", "openapi_extra"}


@pytest.mark.parametrize("file", CODE, ids=lambda file: f"{file.parent.name}/{file.name}")
def test_a_step_stands_alone(file: Path) -> None:
    """Otherwise a copy of its folder does not run."""
    elsewhere = r"^\s*(?:from|import) (?:\.\.|step\d|tests|notebooks).*"

    assert re.findall(elsewhere, file.read_text(encoding="utf-8"), re.MULTILINE) == []


@pytest.mark.parametrize("path", STEP_TESTS, ids=lambda path: path.stem)
def test_a_test_says_in_its_name_what_holds_and_in_its_docstring_what_follows_otherwise(path: Path) -> None:
    """Otherwise a learner reads a failure and does not know why it matters."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            assert (ast.get_docstring(node) or "").startswith("Otherwise "), node.name
            assert len(node.name.split("_")) >= 5, node.name


def test_the_requirements_are_pinned_by_hash_and_name_no_registry() -> None:
    """Otherwise an install is not the same tomorrow, or only works where it was made."""
    for text in REQUIREMENTS:
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
    learner, developer = (set(re.findall(r"^(\S+==\S+)", text, re.MULTILINE)) for text in REQUIREMENTS)

    assert learner
    assert learner <= developer


def test_bare_make_lists_every_target_with_a_line() -> None:
    """Otherwise nobody knows what there is."""
    listed = run("make").stdout.splitlines()
    phony = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)

    assert phony
    assert [line.split()[1] for line in listed] == phony[1].split()
    assert all(len(line.split()) > 3 for line in listed)


SAYS = {"PORT=99999": "Port 99999 cannot be used", "JWT_SECRET_KEY=short": "JWT_SECRET_KEY must have at least 32 bytes"}


@pytest.mark.parametrize(("setting", "sentence"), SAYS.items())
def test_a_start_that_cannot_be_says_so_in_one_sentence(setting: str, sentence: str) -> None:
    """Otherwise a beginner reads a traceback."""
    result = run("make", "step01", f"PORT={free_port()}", setting)

    said = [line for line in result.stderr.splitlines() if not line.startswith("make")]
    assert result.returncode != 0
    assert len(said) == 1
    assert said[0].startswith(sentence)


def test_a_python_that_is_too_old_is_named_in_one_sentence(tmp_path: Path) -> None:
    """Otherwise a beginner reads a traceback."""
    old = tmp_path / "python-too-old"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)

    result = run("make", "--always-make", ".venv/bin/python", f"PYTHON={old}")

    assert result.returncode != 0
    assert result.stdout.startswith("Python 3.11 or newer is needed")
