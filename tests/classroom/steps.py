"""What the classroom needs to know about the steps: their names, their files, their tests."""

import re
import shutil
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
HERE = Path(__file__).parent
MY = ROOT / "my"  # what learners write and break; git ignores it
STEPS = {"step01": "step01_jwt_login", "step02": "step02_session_middleware", "step03": "step03_combined"}


def file_of_tests(step: str) -> Path:
    """Return the file of the step's tests."""
    return ROOT / "tests" / f"test_{STEPS[step]}.py"


def names_of_tests(step: str) -> list[str]:
    """Return the names of the step's test functions, in their order; steps 2 and 3 have some in common."""
    texts = [file_of_tests(step).read_text(encoding="utf-8")]
    if "from tests.cart_and_cookie import *" in texts[0]:
        texts.append((ROOT / "tests" / "cart_and_cookie.py").read_text(encoding="utf-8"))
    return [name for text in texts for name in re.findall(r"^def (test_\w+)", text, re.MULTILINE)]


def copy_step(step: str, folder: Path) -> None:
    """Copy the step's code and page, and nothing that a run has left behind (keys, a denylist)."""
    folder.mkdir(parents=True)
    for file in (ROOT / STEPS[step]).iterdir():
        if file.suffix in (".py", ".html"):
            shutil.copy(file, folder)
