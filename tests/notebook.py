"""Run a notebook's cells one after the other, as a reader would, and keep what each prints.

``python tests/notebook.py docs/quickstart.ipynb`` writes what they print into the file.
"""

import contextlib
import io
import json
import sys
from pathlib import Path
from typing import Any


def printed(notebook: dict[str, Any]) -> list[str]:
    """Run all code cells in one namespace; return what each prints."""
    names: dict[str, Any] = {"__name__": "__main__"}
    texts = []
    for number, cell in enumerate(notebook["cells"], 1):
        if cell["cell_type"] == "code":
            with contextlib.redirect_stdout(io.StringIO()) as output:
                exec(compile("".join(cell["source"]), f"cell {number}", "exec"), names)  # a file of this project
            texts.append(output.getvalue())
    return texts


def stored(notebook: dict[str, Any]) -> list[str]:
    """Return what each code cell printed when the notebook was written."""
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    return ["".join("".join(output["text"]) for output in cell["outputs"]) for cell in cells]


def fill(path: Path) -> None:
    """Run a notebook and write what its cells print into it."""
    notebook = json.loads(path.read_text())
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    for number, (cell, text) in enumerate(zip(cells, printed(notebook), strict=True), 1):
        cell["execution_count"] = number
        stream = {"name": "stdout", "output_type": "stream", "text": text.splitlines(keepends=True)}
        cell["outputs"] = [stream] if text else []
    path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    fill(Path(sys.argv[1]))
