"""What the classroom needs to know about the steps: their names, their files, their tests."""

import re
import shutil
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent.parent
HERE = Path(__file__).parent
MY = ROOT / "my"  # what learners write and break; git ignores it
STEPS = {"step01": "step01_jwt_login", "step02": "step02_session_middleware", "step03": "step03_combined"}


def read_toml(name: str) -> dict[str, Any]:
    """Return what a TOML file of the classroom says."""
    return tomllib.loads((HERE / f"{name}.toml").read_text(encoding="utf-8"))


def file_of_tests(step: str) -> Path:
    """Return the file of the step's tests."""
    return ROOT / "tests" / f"test_{STEPS[step]}.py"


def names_of_tests(file: Path) -> dict[str, Path]:
    """Return the names of a file's test functions, with the file where each stands: steps 2 and 3 share one."""
    code = file.read_text(encoding="utf-8")
    names = dict.fromkeys(re.findall(r"^def (test_\w+)", code, re.MULTILINE), file)
    for shared in re.findall(r"^from tests\.(\w+) import \*", code, re.MULTILINE):
        names |= names_of_tests(ROOT / "tests" / f"{shared}.py")
    return names


def copy_step(step: str, folder: Path, changes: Iterable[tuple[str, str, str]] = ()) -> None:
    """Copy the step's code and page, with changes (file, old, new), and nothing that a run has left behind."""
    folder.mkdir(parents=True)
    for file in (ROOT / STEPS[step]).iterdir():
        if file.suffix in (".py", ".html"):
            shutil.copy(file, folder)
    for name, old, new in changes:
        code = (folder / name).read_text(encoding="utf-8")
        if code.count(old) != 1:
            raise SystemExit(f"{step}: {old!r} is {code.count(old)} times in {name}.")
        (folder / name).write_text(code.replace(old, new), encoding="utf-8")
