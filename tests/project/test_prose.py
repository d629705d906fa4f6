"""The README files say what is true: snippets stand in the code, commands answer as shown, links lead somewhere.

How a README is read:

- ```python: stands word for word in the code; after `<!-- not from the code: runs as m:app -->` it is an app.
- ```console: lines with `$ ` are typed, the lines below are the answer; `...` stands for what varies, alone in a line
  for any number of lines. All of a file is typed into one shell, against the step of that folder.
- ```diff: lines to change in a copy. The console blocks up to the next heading run against that copy, in a shell of
  their own. `@@` separates places. In a chapter a change is a mistake on purpose: the original must not answer as
  shown, and the test that is said to be red must be. Elsewhere the comment `<!-- changes FILE -->` names the file, and
  the copy must pass the tests of its step.
- ```sh: starts or installs something, so it is only looked at. So are ```powershell and ```toml.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.classroom.steps import names_of_tests, read_toml
from tests.project.conftest import ROOT, STEPS, launch_app, need
from tests.server import stop

READMES = sorted(path for folders in ("", "[!.]*/", "tests/*/") for path in ROOT.glob(f"{folders}*.md"))
READMES = [path for path in READMES if path.parent.name != "my"]
LANGUAGES = "python|console|diff|sh|powershell|mermaid|toml"
# A heading; or a block, perhaps with a comment before it
PIECE = re.compile(rf"^(#.*)|(?:^(<!--.*)\n+)?^```({LANGUAGES})\n((?:.*\n)*?)```$", re.MULTILINE)


@dataclass
class Block:
    """What stands between two fences, and where."""

    path: Path
    line: int
    language: str
    heading: str  # with its number signs
    note: str  # the HTML comment before it
    text: str

    def __str__(self) -> str:
        return f"{self.path.relative_to(ROOT)}:{self.line}"


@dataclass
class Scene:
    """Console blocks that are typed into one shell, and the app that answers: a step, a changed copy, or a snippet."""

    path: Path
    app: str
    block: Block | None = None
    consoles: list[Block] = field(default_factory=list)

    def __str__(self) -> str:
        return str(self.block or self.path.relative_to(ROOT))


def blocks_of(path: Path) -> list[Block]:
    blocks, heading, readme = [], "", path.read_text(encoding="utf-8")
    for piece in PIECE.finditer(readme):
        new_heading, note, language, text = piece.groups("")
        heading = new_heading or heading
        if not new_heading:
            blocks.append(Block(path, readme.count("\n", 0, piece.start(3)) + 1, language, heading, note, text))
    assert readme.count("\n```") == 2 * len(blocks), f"{path}: a block is open, or in a language that nobody checks"
    return blocks


def scenes_of(path: Path) -> list[Scene]:
    folder = path.parent.name
    default = Scene(path, f"{folder if folder in STEPS else STEPS[0]}.main:app")
    scenes, here, heading = [default], default, ""
    for block in blocks_of(path):
        if block.heading != heading:
            here, heading = default, block.heading
        runs = re.search(r"runs as ([\w.:]+)", block.note)
        if block.language == "diff":
            changes = re.search(r"changes (\w+)/main.py", block.note)
            here = Scene(path, f"{changes[1]}.main:app" if changes else default.app, block)
            scenes.append(here)
        elif block.language == "python" and runs:
            here = Scene(path, runs[1], block)
            scenes.append(here)
        elif block.language == "console":
            here.consoles.append(block)
    return [scene for scene in scenes if scene.consoles]


BLOCKS = [block for path in READMES for block in blocks_of(path)]
SCENES = [scene for path in READMES for scene in scenes_of(path)]
CHANGES = [scene for scene in SCENES if scene.block and scene.block.language == "diff"]
MISTAKES = [scene for scene in CHANGES if scene.path.parent.name in STEPS]


def blocks_in(language: str) -> list[Block]:
    return [block for block in BLOCKS if block.language == language]


@pytest.mark.parametrize("block", blocks_in("python"), ids=str)
def test_a_snippet_stands_word_for_word_in_the_code(block: Block) -> None:
    if "not from the code" in block.note:
        compile(block.text, str(block), "exec")
        return
    folder = block.path.parent
    sources = folder.glob("*.py") if folder.name in STEPS else ROOT.glob("step0*/*.py")
    texts = ["\n" + source.read_text(encoding="utf-8") for source in sources]

    assert any("\n" + block.text in text for text in texts), f"{block}: not in the code:\n{block.text}"


def changed(source: str, diff: str) -> str:
    """Apply a diff without line numbers; what it takes away must stand there, and once."""
    for place in re.split(r"^@@.*\n", diff, flags=re.MULTILINE):
        lines = place.splitlines()
        assert all(line[0] in "-+ " for line in lines), place
        old, new = ("\n" + "".join(f"{line[1:]}\n" for line in lines if line[0] in signs) for signs in ("- ", "+ "))
        assert source.count(old) == 1, f"stands {source.count(old)} times in the code:\n{old}"
        source = source.replace(old, new)
    return source


def test_a_console_block_before_the_next_heading_shows_what_a_change_does() -> None:
    """Otherwise nothing tries whether the change fits the code."""
    assert [str(scene.block) for scene in CHANGES] == list(map(str, blocks_in("diff")))


def original_of(scene: Scene) -> Path:
    return ROOT.joinpath(*scene.app.removesuffix(":app").split(".")).with_suffix(".py")


def write(block: Block, source: Path, folder: Path) -> None:
    """Put the app that a block makes into a folder: the source with changes, or the snippet in its place."""
    copy, text = folder / source.relative_to(ROOT), block.text
    if block.language == "diff":
        shutil.copytree(source.parent, copy.parent, ignore=shutil.ignore_patterns(".env", "*.sqlite3*", "__pycache__"))
        text = changed(source.read_text(encoding="utf-8"), text)
    copy.parent.mkdir(exist_ok=True)
    copy.write_text(text, encoding="utf-8")


@contextmanager
def stage(scene: Scene, scratch: Path, original: bool = False) -> Iterator[str]:
    """Run the app of a scene; give its URL."""
    folder = ROOT
    if scene.block and not original:
        folder = scratch
        write(scene.block, original_of(scene), folder)
    server = launch_app(scene.app, scratch, folder, PYTHONPATH=str(ROOT))
    try:
        yield server.wait_until_ready().url
    finally:
        stop([server])


def typed(block: Block) -> list[tuple[str, str]]:
    """Return each command of a console block, and the answer that stands below it."""
    commands = re.split(r"^\$ ", block.text, flags=re.MULTILINE)
    assert commands[0] == "", f"{block}: begins with an answer"
    return [(command, answer) for command, _, answer in (each.partition("\n") for each in commands[1:])]


def wrong_answers(scene: Scene, url: str, home: Path) -> list[str]:
    """Type all that a scene types, and return what was answered in another way than it says."""
    lines = [each for block in scene.consoles for each in typed(block)]
    script = "".join(f"{command}\nprintf '\\n=====%s\\n' $?\n" for command, _ in lines)
    script = script.replace("http://127.0.0.1:8000", url).replace(".venv/bin/python", sys.executable)
    env = os.environ | {"HOME": str(home), "no_proxy": "127.0.0.1", "TMPDIR": str(home)}
    done = subprocess.run(["bash", "-c", script], cwd=ROOT, env=env, capture_output=True, text=True, timeout=60)
    answers = re.split(r"\n=====(\d+)\n", done.stdout.replace("\r\n", "\n"))
    problems = []
    for (command, expected), got, code in zip(lines, answers[::2], answers[1::2], strict=False):
        # diff says with 1 that there is something to show
        right_code = code == "0" or (command.startswith("diff ") and code == "1")
        if not right_code or not pattern(expected).fullmatch(got.strip("\n") + "\n" if got.strip("\n") else ""):
            problems.append(f"{scene}:\n$ {command}\nexpected:\n{expected}\ngot (exit {code}):\n{got}\n{done.stderr}")
    assert len(answers) == 2 * len(lines) + 1, done.stderr
    return problems


def pattern(answer: str) -> re.Pattern[str]:
    """Return what the answer in a README stands for; `...` is what varies."""
    lines = [".*?".join(map(re.escape, line.split("..."))) + "\n" for line in answer.splitlines()]
    return re.compile("".join("(?:.*\n)*?" if line == ".*?\n" else line for line in lines))


@pytest.fixture
def shell(tmp_path: Path) -> Path:
    """A home folder for a shell, on a machine that has bash and curl."""
    if sys.platform == "win32":
        pytest.skip("The console blocks are for bash; the PowerShell blocks stand for them on Windows.")
    assert need("bash", "bash") and need("curl", "curl")
    home = tmp_path / "home"
    home.mkdir()
    (home / ".curlrc").write_text("silent\nshow-error\n")
    return home


@pytest.mark.parametrize("scene", SCENES, ids=str)
def test_a_command_answers_what_the_readme_says(scene: Scene, shell: Path, tmp_path: Path) -> None:
    with stage(scene, tmp_path) as url:
        problems = wrong_answers(scene, url, shell)

    assert not problems, "\n\n".join(problems)


@pytest.mark.parametrize("scene", MISTAKES, ids=str)
def test_the_step_itself_withstands_the_attack_on_its_broken_copy(scene: Scene, shell: Path, tmp_path: Path) -> None:
    with stage(scene, tmp_path, original=True) as url:
        problems = wrong_answers(scene, url, shell)

    assert problems, f"{scene}: the attack works without the mistake"


def judged(scene: Scene, folder: Path, test: str = "") -> "subprocess.CompletedProcess[str]":
    """Run the tests of a step, or one of them, on its changed copy."""
    assert scene.block
    write(scene.block, original_of(scene), folder)
    tests = f"{ROOT}/tests/test_{original_of(scene).parent.name}.py{test}"
    command = [sys.executable, "-m", "pytest", "-q", "-c", f"{ROOT}/pyproject.toml", tests, "--app", scene.app]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)


@pytest.mark.parametrize("scene", [scene for scene in CHANGES if scene not in MISTAKES], ids=str)
def test_a_change_that_is_no_mistake_passes_the_tests_of_its_step(scene: Scene, tmp_path: Path) -> None:
    done = judged(scene, tmp_path)

    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("scene", MISTAKES, ids=str)
def test_a_mistake_turns_the_test_red_that_the_chapter_names(scene: Scene, tmp_path: Path) -> None:
    """Otherwise a learner waits for a test that stays green."""
    assert scene.block
    below = scene.path.read_text(encoding="utf-8").split(scene.block.text, 1)[1]
    named = re.search(r"^Red is, among others, `[\w/.]+(::test_\w+)`\.$|^#", below, re.MULTILINE)

    assert named and named[1], f"{scene}: which test is red?"
    done = judged(scene, tmp_path, named[1])
    assert done.returncode == pytest.ExitCode.TESTS_FAILED, done.stdout + done.stderr


# What starts or installs something


MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
INSTALLS = ("Install and run", "Windows, without make")


def test_every_make_target_in_the_prose_exists() -> None:
    named = {target for path in READMES for target in re.findall(r"\bmake ([a-z0-9-]+)[`\n ]", code(path))}

    assert named and [one for one in named if not re.search(rf"^{one}( \w+)*:", MAKEFILE, re.MULTILINE)] == []


def test_every_step_and_mistake_that_is_given_to_make_exists() -> None:
    asked_for = re.compile(r"\bmake [^`\n]*\bSTEP=(\w+)(?: MISTAKE=([\w-]+))?")
    given = {pair for path in READMES for pair in asked_for.findall(code(path))}
    steps = {step.partition("_")[0] for step in STEPS}
    there = {(step, name) for step in steps for name in read_toml(f"mistakes/{step}")}

    assert {step for step, _ in given} == steps
    assert {pair for pair in given if pair[1] not in ("", "secret")} <= there


def code(path: Path) -> str:
    """Return all that a README shows as code, in blocks or within a line."""
    return "\n".join([*(block.text for block in blocks_of(path)), *re.findall(r"(`[^`\n]+`)", prose(path))])


@pytest.mark.parametrize("block", blocks_in("sh"), ids=str)
def test_a_command_that_starts_something_names_what_exists(block: Block) -> None:
    for line in block.text.replace("\\\n", "").splitlines():
        assert is_known(line, block), f"{block}: {line}"


def is_known(line: str, block: Block) -> bool:
    words = [word for word in shlex.split(line) if not re.fullmatch(r"[A-Z_]+=\S*", word)]
    match [words[0].removeprefix(".venv/bin/"), *words[1:]]:
        case ["make", _]:
            return True  # test_every_make_target_in_the_prose_exists
        case ["mkdir", "-p", "my", "&&", "cp", "-R", folder, "my/"]:
            return folder in STEPS
        case ["mkdir" | "docker" | "export", *_]:
            return block.path.parent.name == "classroom"
        case ["uvicorn", app, *options]:
            made_here = [scene.app for scene in SCENES if scene.path == block.path]
            known = app in made_here or app.removeprefix("my.").removesuffix(".main:app") in STEPS
            return known and options in ([], ["--reload"], ["--reload", "--reload-dir", "my"])
        case ["python", "-m", "pytest", *arguments]:
            files = [word for word in arguments if word.startswith("tests/")]
            assert all((ROOT / file).exists() for file in files), f"{block}: {line}"
            return all(option in {"--app", "--url", "--denylist-url"} for option in arguments if option.startswith("-"))
    return block.heading.strip("# ") in INSTALLS  # test_the_plain_commands_are_those_that_ci_tries


def test_the_plain_commands_are_those_that_ci_tries() -> None:
    workflows = [path.read_text(encoding="utf-8") for path in ROOT.glob(".github/workflows/*.yml")]
    tried = {line.strip().removesuffix(" &") for text in workflows for line in text.splitlines()}
    blocks = [block for block in BLOCKS if block.heading.strip("# ") in INSTALLS]
    plain = [line for block in blocks for line in block.text.splitlines() if block.language in ("sh", "powershell")]

    assert len(plain) > 5
    assert [line for line in plain if line not in tried and not line.startswith("make ")] == []


@pytest.mark.parametrize("block", [b for b in blocks_in("powershell") if b.path.parent.name in STEPS], ids=str)
def test_powershell_asks_the_same_as_curl(block: Block) -> None:
    consoles = [other for scene in SCENES for other in scene.consoles if other.path == block.path]
    commands = "\n".join(command for other in consoles if other.heading == block.heading for command, _ in typed(other))

    assert asked(block.text, "Invoke-RestMethod ") == asked(commands, "curl ")


def asked(commands: str, program: str) -> set[str]:
    """Return what is asked for: method and path, fields of the body, names of the headers; of cookies nothing."""
    found = {"Content-Type"}
    for line in re.findall(rf"\b{program}([^|\n]*)", commands):
        path = re.findall(r"127\.0\.0\.1:8000(/\w*(?:/\w+)?)", line)[0]
        body = "".join(re.findall(r"(?:-d|--data|-Body) ('[^']*'|@{.*?})", line))
        method = re.findall(r"(?:-X|-Method) (\w+)", line) or ["POST" if body else "GET"]
        found |= {f"{method[0].upper()} {path}", *(f"{a}={b}" for a, b in re.findall(r'(\w+)"? ?[=:] ?"?(\w+)', body))}
        found |= set(re.findall(r"""(?:-H|--header|-Headers) (?:@{)?['"]?([\w-]+)""", line))
    return found


@pytest.mark.parametrize("block", [b for b in blocks_in("powershell") if str(b).startswith("tests")], ids=str)
def test_powershell_runs_the_same_as_sh(block: Block) -> None:
    *settings, command = block.text.replace(".venv\\Scripts\\", ".venv/bin/").splitlines()
    settings = [re.sub(r'^\$env:(\w+) = "([^"\s]*)"$', r"\1=\2", line) for line in settings]
    in_sh = [other.text for other in blocks_in("sh") if (other.path, other.heading) == (block.path, block.heading)]

    assert " ".join([*settings, command]) + "\n" in in_sh


# Links


def prose(path: Path) -> str:
    """Return a README without its blocks."""
    return re.sub(r"^```.*?^```$", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


def anchors(path: Path) -> set[str]:
    """Return what GitHub makes of the headings."""
    headings = re.findall(r"^#+ (.*)$", prose(path), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", READMES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_leads_somewhere(path: Path) -> None:
    text = prose(path)
    links = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'(?:src|srcset|href)="([^"]+)"', text)
    links = [link for link in links if not re.match(r"[a-z]+:", link)]

    assert [link for link in links if not leads_somewhere(path, link)] == []


def leads_somewhere(path: Path, link: str) -> bool:
    name, _, anchor = link.partition("#")
    target = (path.parent / name).resolve() if name else path
    return target.exists() and target.is_relative_to(ROOT) and (not anchor or anchor in anchors(target))


@pytest.mark.parametrize("path", READMES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_file_and_test_that_is_named_exists(path: Path) -> None:
    named = re.findall(r"`((?!my/)[\w.-]+/[\w./-]+\.(?:py|md|html|ipynb|yml))(?:::(\w+))?`", prose(path))

    assert [file for file, _ in named if not (ROOT / file).exists()] == []
    assert [test for file, test in named if test and test not in names_of_tests(ROOT / file)] == []


def test_every_requirement_names_the_test_that_proves_it() -> None:
    """Otherwise the table promises what nobody checks."""
    lines = (ROOT / "tests/REQUIREMENTS.md").read_text(encoding="utf-8").splitlines()
    rows = [line for line in lines if line.startswith(("| ASVS", "| RFC"))]

    assert 20 <= len(rows) <= 30
    assert [row for row in rows if not re.search(r"\| `tests/[\w/]+\.py::test_\w+`", row)] == []


HEADING = "The idea|Run it|Try it|Read the code|Break it|What changed since the last step|Check yourself|"
HEADINGS = [f"{HEADING}What a real project still needs|{more}Answers" for more in ("", "Which one for your project?|")]


@pytest.mark.parametrize("step", STEPS)
def test_a_chapter_has_the_headings_of_every_chapter_and_folded_answers(step: str) -> None:
    text = prose(ROOT / step / "README.md")
    headings = re.findall(r"^## (.*)$", text, flags=re.MULTILINE)
    rest, answers = text.partition("\n## Check yourself\n")[2].split("\n## Answers\n")

    assert "|".join(headings) == (HEADINGS[1] if step == STEPS[-1] else HEADINGS[0])
    assert answers.count("<summary>") == len(re.findall(r"^\d\. .*\?", rest, re.MULTILINE)) == 3
    assert not re.sub(r"<details>.*?</details>", "", answers, flags=re.DOTALL).strip()


def test_the_first_screen_needs_no_word_of_the_field() -> None:
    screen = (ROOT / "README.md").read_text(encoding="utf-8").partition("\n## How to read a step\n")[0]

    assert re.findall(r"\b(?:sub|jti|denylist|claims?)\b", screen) == []


@pytest.mark.parametrize("path", READMES, ids=lambda path: str(path.relative_to(ROOT)))
def test_words_are_plain_and_every_server_can_be_moved_to_another_port(path: Path) -> None:
    starts = re.search(r"^(\w+=\S* )?\S*\buvicorn ", path.read_text(encoding="utf-8"), re.MULTILINE)

    assert re.findall(r"armou?r|half of a login|nobody is anybody|the jar", prose(path), re.IGNORECASE) == []
    assert not starts or re.search(r"`--port 8001` behind any (plain command|uvicorn)", prose(path))
