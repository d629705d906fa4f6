"""What students hand in: unpack it, find the app in it, and list the lines that no test can judge."""

import ast
import re
import shutil
import tomllib
import zipfile
from pathlib import Path
from typing import Any

from tests.classroom.steps import ROOT, STEPS, read_toml
from tests.classroom.write_it import functions_of, statements_of

NOT_HANDED_IN = shutil.ignore_patterns(".git", ".venv", "venv", "node_modules", "__*__", ".env", "*.sqlite3*")
MOST_BYTES = 50_000_000  # of a zip, unpacked


def printable(text: str) -> str:
    """Return a text without the control characters that would change a terminal; line breaks stay."""
    return "".join(c if c.isprintable() or c == "\n" else "?" for c in text)


def unpack(submission: Path, copy: Path) -> Path:
    """Put what was handed in (a folder, a zip, a .py) into a new folder, and return it."""
    if submission.is_dir():
        shutil.copytree(submission, copy, symlinks=True, ignore=NOT_HANDED_IN)
    elif submission.suffix.lower() == ".zip":
        with zipfile.ZipFile(submission) as archive:
            if sum(info.file_size for info in archive.infolist()) > MOST_BYTES:
                raise SystemExit("The zip is too large: hand in the code alone.")
            archive.extractall(copy, [i for i in archive.namelist() if not re.search(r"__MACOSX|/?\.venv/", i)])
    elif submission.suffix == ".py":
        copy.mkdir()
        shutil.copy(submission, copy / "main.py")
    else:
        raise SystemExit(f"{submission.name} is no folder, no zip and no .py: it cannot be unpacked.")
    return copy


def find_app(folder: Path) -> dict[str, Any]:
    """Return how to start what was handed in, as arguments of judge; SystemExit in words if it cannot be told."""
    settings = folder / "grade.toml"
    if settings.is_file():
        try:
            entries = tomllib.loads(settings.read_text(encoding="utf-8-sig"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise SystemExit(f"grade.toml cannot be read: {error}.") from None
        app = entries.get("command") or entries.get("app")
        if isinstance(app, str) and ("{port}" in app) == ("command" in entries):
            return {"folder": folder, "app": app}
        raise SystemExit('grade.toml must say app = "module:attribute" or command = "... {port}".')
    for name in ("main.py", "app.py"):
        mains = sorted(folder.rglob(name), key=lambda main: len(main.parts))
        if mains[1:] and len(mains[0].parts) == len(mains[1].parts):
            raise SystemExit(f"There is more than one {name}, and no grade.toml that says what to start.")
        if mains:
            return as_module(mains[0], folder)
    raise SystemExit("There is no main.py or app.py, and no grade.toml that says what to start.")


def as_module(main: Path, folder: Path) -> dict[str, Any]:
    """Return how to start a main.py: in its own folder, or as part of a package if it speaks of itself as one."""
    package, code = main.parent, main.read_text("utf-8-sig", "replace")
    if not re.search(rf"^(?:from|import) (?:\.|{re.escape(package.name)}\b)", code, re.MULTILINE):
        return {"folder": package, "app": f"{main.stem}:app"}
    if not package.name.isidentifier():
        package = package.rename(package.with_name("package"))
    return {"folder": package.parent, "app": f"{package.name}.{main.stem}:app"}


def look_at(step: str, folder: Path) -> list[str]:
    """Return what a teacher should look at: the reason, the file, the line. Copies of the step come first."""
    texts = {}
    for file in sorted(folder.rglob("*")):
        if file.is_file() and file.stat().st_size < 200_000 and file.suffix not in (".html", ".md", ".lock", ".json"):
            texts[file.relative_to(folder).as_posix()] = file.read_text("utf-8-sig", "replace")
    ours = shapes([file.read_text("utf-8") for file in (ROOT / STEPS[step]).glob("*.py")])
    both = ours & shapes([text for name, text in texts.items() if name.endswith(".py")])
    copied = f"a copy of {STEPS[step]}: {len(both)} of its {len(ours)} functions"
    found = [copied] if len(both) > 0.7 * len(ours) else []
    for why, pattern in read_toml("objectives/look_at")["patterns"].items():
        for name, text in texts.items():
            for hit in re.finditer(pattern, text, re.MULTILINE):
                number = text.count("\n", 0, hit.end()) + 1
                found.append(f"{why}: {name}:{number}: {text.splitlines()[number - 1].strip()[:120]}")
    return list(dict.fromkeys(found))[:20]


def shapes(codes: list[str]) -> set[str]:
    """Return the functions of some modules, whatever they and their names are called, without docstrings."""
    nodes = [node for code in codes for node in functions_of(code).values()]
    texts = ["".join(map(ast.dump, statements_of(node))) for node in nodes]
    return {re.sub(r"(id|attr|arg|name|value)='[^']*'", r"\1", text) for text in texts}
