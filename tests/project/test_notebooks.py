"""The notebooks cannot lie: what is stored in them is what their code answers today.

After a change, and after a save in JupyterLab, store them anew and read the diff:

    .venv/bin/python tests/project/test_notebooks.py
"""

import os
from base64 import b64decode
from collections.abc import Iterator
from copy import deepcopy
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

if not os.environ.get("CI"):  # there, missing is a failure
    for package in ("nbclient", "ipykernel", "matplotlib"):
        pytest.importorskip(package, reason=f"{package} is missing: `make .venv/dev` installs it")

import nbformat
from nbclient import NotebookClient
from PIL import Image

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
STORE_ANEW = "Saved by an editor? Store it anew: .venv/bin/python tests/project/test_notebooks.py"


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def path(request: pytest.FixtureRequest) -> Path:
    """Each notebook's file."""
    return Path(request.param)


@pytest.fixture
def stored(path: Path) -> Any:
    """What is in it."""
    return nbformat.read(path, as_version=4)


def run(path: Path) -> Any:
    """Return the notebook with the outputs of a run from top to bottom in a fresh kernel."""
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(
        notebook,
        timeout=60,
        kernel_name="python3",
        coalesce_streams=True,
        record_timing=False,
        resources={"metadata": {"path": str(path.parent)}},
    ).execute()
    notebook.metadata = METADATA
    for cell in notebook.cells:
        cell.metadata = {}
    return notebook


def differences(path: Path, stored: Any, fresh: Any) -> Iterator[str]:
    """Say of each cell whose output is another one now: which, what is stored, what came."""
    for old, new in zip(stored.cells, fresh.cells, strict=True):
        if what_a_reader_sees(old) != what_a_reader_sees(new):
            yield (
                f"{path.name}, cell [{old.execution_count}], which begins: {old.source.splitlines()[0]}\n"
                f"stored:\n{what_a_reader_sees(old)}\nnew:\n{what_a_reader_sees(new)}"
            )


def what_a_reader_sees(cell: Any) -> str:
    """Return what the cell shows. Of a picture only its words: it may have measured numbers in it."""
    lines = []
    for output in cell.get("outputs", ()):
        if output.output_type == "stream":
            lines.append(output.text if output.name == "stdout" else f"{output.name}: {output.text}")
        elif output.output_type == "error":
            lines.append(f"{output.ename}: {output.evalue}")
        else:
            words = {kind: output.metadata.get(kind) for kind in output.data if kind.startswith("image/")}
            texts = {kind: text for kind, text in output.data.items() if kind not in words}
            lines.append(f"{texts | words}")
    return "\n".join(lines)


def test_the_three_notebooks_are_there() -> None:
    assert [path.stem for path in NOTEBOOKS] == ["step01_jwt_login", "step02_session_middleware", "step03_combined"]


def test_every_stored_output_is_what_the_code_answers_today(
    path: Path, stored: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))  # nobody's own settings of IPython

    assert "\n\n".join(differences(path, stored, run(path))) == ""


def test_a_changed_output_is_noticed(path: Path, stored: Any) -> None:
    changed = deepcopy(stored)
    cell = next(cell for cell in changed.cells if cell.cell_type == "code" and cell.outputs)
    cell.outputs = [nbformat.v4.new_output("stream", text="another one")]

    found = list(differences(path, stored, changed))

    assert len(found) == 1
    assert path.name in found[0]
    assert "another one" in found[0]


def test_the_file_holds_only_what_a_change_of_the_notebook_changes(path: Path, stored: Any) -> None:
    code = [cell for cell in stored.cells if cell.cell_type == "code"]

    assert stored.metadata == METADATA, STORE_ANEW
    assert [cell.metadata for cell in stored.cells if cell.metadata] == [], STORE_ANEW
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1)), STORE_ANEW
    assert path.read_text("utf-8") == nbformat.writes(stored) + "\n", STORE_ANEW


def test_every_picture_is_described_in_words_and_carries_them(stored: Any) -> None:
    outputs = [output for cell in stored.cells for output in cell.get("outputs", ()) if "data" in output]
    pictures = [output for output in outputs if "image/png" in output.data]

    assert pictures
    assert [picture for picture in pictures if not picture.metadata.get("image/png", {}).get("alt")] == []
    for picture in pictures:  # that these words are the code's, the re-run says: so the picture is the code's, too
        inside = Image.open(BytesIO(b64decode(picture.data["image/png"]))).info.get("Description")
        assert inside == picture.metadata["image/png"]["alt"] == picture.data["text/plain"], STORE_ANEW


def test_a_diagram_is_a_picture(path: Path) -> None:
    mermaid = "GitHub, GitLab, nbviewer and VS Code show the source of mermaid in a notebook. Call draw() instead."

    assert path.read_text("utf-8").count("```mermaid") == 0, mermaid


def test_every_notebook_can_be_read_in_half_an_hour(stored: Any) -> None:
    assert len([cell for cell in stored.cells if cell.cell_type == "code"]) <= 35


if __name__ == "__main__":
    for notebook in NOTEBOOKS:
        nbformat.write(run(notebook), notebook)
