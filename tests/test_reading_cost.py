"""To understand any one method at most 4 files and 200 lines must be read, whatever else the package holds.

Counted are the method's file and all that it imports, directly or not. A name taken from a package's ``__init__`` is a
call with a documented contract: the file that defines it counts, but not what that file imports.
"""

import ast
from pathlib import Path

import pytest
from conftest import ROOT

PACKAGE = ROOT / "lightning_steer"
METHODS = sorted(path.stem for path in (PACKAGE / "methods").glob("*.py") if path.stem not in ("__init__", "base"))


def imported(path: Path) -> list[tuple[str, str]]:
    """``(module, name)`` of everything that a file imports, also inside functions; ``(module, "")`` of modules."""
    nodes = list(ast.walk(ast.parse(path.read_text())))
    assert not any(isinstance(node, ast.ImportFrom) and node.level for node in nodes), "imports here are absolute"
    from_modules = [(node.module or "", alias.name) for node in nodes if isinstance(node, ast.ImportFrom)
                    for alias in node.names]  # fmt: skip
    return [
        *from_modules,
        *((alias.name, "") for node in nodes if isinstance(node, ast.Import) for alias in node.names),
    ]


def file_of(module: str, root: Path) -> Path | None:
    path = root.parent.joinpath(*module.split(".")).with_suffix(".py")
    return path if path.is_file() else None


def to_read(path: Path, root: Path) -> set[Path]:
    """Return the files that must be read to understand one."""
    files, contracts, todo = set(), set(), [path]
    while todo:
        here = todo.pop()
        if here in files:
            continue
        files.add(here)
        for module, name in imported(here):
            direct = file_of(module, root) or file_of(f"{module}.{name}", root)
            init = root.parent.joinpath(*module.split("."), "__init__.py")
            if direct is not None:
                todo.append(direct)
            elif init.is_file():
                homes = [home for home, known in imported(init) if known == name]
                contracts |= {file for file in (file_of(home, root) for home in homes) if file is not None}
    return files | contracts


def lines(files: set[Path]) -> int:
    return sum(len(path.read_text().splitlines()) for path in files)


@pytest.mark.parametrize("name", METHODS)
def test_a_method_is_understood_from_four_files_of_two_hundred_lines(name: str) -> None:
    files = to_read(PACKAGE / "methods" / f"{name}.py", PACKAGE)
    assert PACKAGE / "methods/base.py" in files
    assert len(files) <= 4, sorted(file.name for file in files)
    assert lines(files) <= 200, {file.name: lines({file}) for file in files}


def test_the_count_follows_imports_and_stops_at_contracts(tmp_path: Path) -> None:
    root = tmp_path / "house"
    for name, text in {
        "__init__": "",
        "methods/__init__": "",
        "methods/one": "from house.base import Base\nfrom house.probes import fit\n",
        "base": "def late():\n    import house.deep\n",
        "deep": "from house import numbers\n",
        "numbers": "\n",
        "probes/__init__": "from house.probes.solver import fit as fit\nfrom house.probes.other import more as more\n",
        "probes/solver": "from house.probes.inner import step\n",
        "probes/inner": "\n",
        "probes/other": "\n",
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / f"{name}.py").write_text(text)
    files = to_read(root / "methods/one.py", root)
    assert {path.relative_to(root).as_posix() for path in files} == {
        *("methods/one.py", "base.py", "deep.py", "numbers.py", "probes/solver.py"),
    }
    assert lines(files) == 2 + 2 + 1 + 1 + 1
