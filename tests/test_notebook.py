"""The notebook prints what it shows, in the state in which a reader would run it."""

import json
from pathlib import Path

import pytest
from conftest import ROOT
from notebook import printed, stored

NOTEBOOK = ROOT / "docs" / "quickstart.ipynb"


def test_the_notebook_prints_what_it_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    notebook = json.loads(NOTEBOOK.read_text())
    assert printed(notebook) == stored(notebook)


def test_the_notebook_is_small_and_whole() -> None:
    notebook = json.loads(NOTEBOOK.read_text())
    counts = [cell["execution_count"] for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert counts == list(range(1, len(counts) + 1))
    assert NOTEBOOK.stat().st_size < 20_000


def test_another_output_is_seen(tmp_path: Path) -> None:
    cell = {"cell_type": "code", "source": ["print(1 + 1)"], "outputs": [{"text": ["3\n"]}]}
    assert printed({"cells": [cell]}) == ["2\n"] != stored({"cells": [cell]})
