"""The documents: every link and every path in them leads somewhere, and the pages are built without a warning."""

import ast
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from conftest import ROOT

PACKAGE = ROOT / "lightning_steer"
DOCUMENTS = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
DOCUMENTS += sorted((ROOT / "checkpoints/pocket").glob("*/README.md"))
TEXTS = [
    *DOCUMENTS,
    *sorted((ROOT / "lightning_steer").rglob("*.py")),
    *sorted((ROOT / "configs").rglob("*.yaml")),
    *(path for name in ("benchmarks", "docs", "tests") for path in sorted((ROOT / name).glob("*.py"))),
    *sorted((ROOT / ".github").rglob("*.yml")),
    *(ROOT / name for name in ("Makefile", "pyproject.toml", "mkdocs.yml")),
]
MADE_UP = {"mean_projection", "test_mean_projection", "answer_entropy", "test_answer_entropy", "NAME"}
"""What the pages on adding something tell the reader to write."""


def links(document: Path) -> list[str]:
    targets = re.findall(r"\]\(([^)\s]+)[^)]*\)", document.read_text())
    return [target for target in targets if not re.match(r"[a-z]+:|#", target)]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document: Path) -> None:
    for target in links(document):
        assert (document.parent / target.partition("#")[0]).exists(), target


def test_documents_that_are_mentioned_exist() -> None:
    mentioned = {
        (path, name) for path in TEXTS for name in re.findall(r"(?<![\w/])docs/[\w/-]+\.md\b", path.read_text())
    }
    assert mentioned
    assert not [(str(path), name) for path, name in mentioned if not (ROOT / name).is_file()]


def test_files_that_documents_name_exist() -> None:
    """Paths in backquotes, from the project or from the package."""
    named = {
        (document, name)
        for document in DOCUMENTS
        for name in re.findall(r"`((?:[\w.]+/)+[\w.]+\.(?:py|yaml|toml))\b", document.read_text())
        if not name.startswith("logs/") and Path(name).stem not in MADE_UP
    }
    assert len(named) > 10
    missing = [(str(d), name) for d, name in named if not (ROOT / name).exists() and not (PACKAGE / name).exists()]
    assert not missing


def test_every_document_is_found_from_the_first_page() -> None:
    docs = ROOT / "docs"
    seen, waiting = set(), [docs / "index.md"]
    while waiting:
        page = waiting.pop()
        seen.add(page)
        targets = [(page.parent / target.partition("#")[0]).resolve() for target in links(page)]
        waiting += [path for path in targets if path.suffix == ".md" and path not in seen and path.is_file()]
    assert set(docs.rglob("*.md")) <= seen


class Page(HTMLParser):
    """What a page shows by name, and what it loads."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.loaded: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = {name: value or "" for name, value in attrs}
        self.names.add(attributes.get("id", ""))
        if tag in ("script", "img", "iframe", "link"):
            self.loaded.append(attributes.get("src") or attributes.get("href", ""))


def test_the_pages_are_built_without_a_warning_and_show_every_public_name(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs_api_autonav")  # an environment of before the extra `docs`
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert [line for line in done.stderr.splitlines() if not line.startswith("INFO")] == []
    assert done.returncode == 0
    pages = {path.relative_to(tmp_path): Page(path.read_text()) for path in tmp_path.rglob("*.html")}
    for path, page in pages.items():
        assert not [target for target in page.loaded if target.startswith(("http:", "https:", "//"))], path
    kinds = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for file in sorted(PACKAGE.rglob("*.py")):
        where = file.relative_to(ROOT).with_suffix("")
        if any(part.startswith("_") and part != "__init__" for part in where.parts):
            continue
        shown = pages["reference" / where.parent / f"{where.name.replace('__init__', 'index')}.html"].names
        module = ".".join(where.parts).removesuffix(".__init__")
        public = [node.name for node in ast.parse(file.read_text()).body if isinstance(node, kinds)]
        names = {module, *(f"{module}.{name}" for name in public if not name.startswith("_"))}
        assert names <= shown, names - shown
