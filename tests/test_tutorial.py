"""The tutorial notebook: what is stored in it is whole, and its claims hold when it is run anew."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest

import overtone

nbformat = pytest.importorskip("nbformat")

NOTEBOOK = Path(__file__).parents[1] / "examples" / "tutorial.ipynb"
LARGEST = 600_000  # bytes
# A path from the root, not the end of a tag, of a relative path or of a link; or one from a drive.
ABSOLUTE = re.compile(r"(?<![\w.<:/])/[\w.~-]+/|\b[A-Z]:\\")


def cells(notebook: Any, kind: str) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == kind]


def texts(cell: Any) -> list[str]:
    """What a cell printed or showed, pictures aside."""
    shown = [output.get("text", "") for output in cell.outputs]
    for output in cell.outputs:
        shown += [text for kind, text in output.get("data", {}).items() if kind.startswith("text/")]
    return shown


def test_the_notebook_is_valid_small_and_every_cell_of_it_compiles() -> None:
    notebook = nbformat.read(NOTEBOOK, 4)
    nbformat.validate(notebook)
    assert NOTEBOOK.stat().st_size < LARGEST
    for cell in cells(notebook, "code"):
        compile(cell.source, cell.id, "exec")


def test_what_is_stored_is_one_run_without_errors_warnings_or_places_on_a_machine() -> None:
    code = cells(nbformat.read(NOTEBOOK, 4), "code")
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    for cell in code:
        assert not [o for o in cell.outputs if o.output_type == "error" or o.get("name") == "stderr"]
        assert not [text for text in texts(cell) if ABSOLUTE.search(text)]


def test_an_absolute_path_would_be_found_and_a_tag_or_a_relative_path_is_none() -> None:
    assert ABSOLUTE.search("written to /home/someone/run")
    assert ABSOLUTE.search(r"C:\Users")
    assert not ABSOLUTE.search("<td>tutorial-run/cured</td><br/> https://example.org/a/b")


def test_what_the_tutorial_links_to_is_there() -> None:
    text = "\n".join(cell.source for cell in cells(nbformat.read(NOTEBOOK, 4), "markdown"))
    links = re.findall(r"\]\(([^)]+)\)", text)
    assert links
    assert all((NOTEBOOK.parent / link).exists() for link in links)


@pytest.mark.slow
def test_run_anew_it_finds_the_digit_ignored_and_then_learned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    monkeypatch.setenv("PYTHONPATH", str(Path(overtone.__file__).parents[1]))  # the kernel runs elsewhere
    copy = Path(shutil.copy(NOTEBOOK, tmp_path))
    notebook = nbformat.read(copy, 4)
    code = cells(notebook, "code")
    for cell in code:
        cell.outputs, cell.execution_count = [], None
    # Its own cells assert what it claims of digits, stamps, ensembles and neighbours.
    nbclient.NotebookClient(notebook, timeout=1200, resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert sum("assert" in cell.source for cell in code) == 4
    shown = "\n".join(text for cell in code for text in texts(cell))
    assert "This encoder ignores digit." in shown
    assert "This encoder ignores nothing that was asked about (digit and stamp)." in shown
    assert (tmp_path / "tutorial-run" / "cured" / "report.html").exists()
