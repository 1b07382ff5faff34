"""Every fenced block of every document runs as it stands there, or says why it does not."""

import json
import re
import subprocess
from pathlib import Path

import pages
import pytest
from conftest import ROOT

DOCUMENTS = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
DOCUMENTS += sorted((ROOT / "checkpoints/pocket").glob("*/README.md"))
NAMES = [str(path.relative_to(ROOT)) for path in DOCUMENTS]


def blocks(name: str) -> list[pages.Block]:
    try:
        return pages.blocks((ROOT / name).read_text())
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


SHOWING = [name for name in NAMES if "```" in (ROOT / name).read_text()]
COMMANDS = [words for name in NAMES for block in blocks(name) if block.language in ("console", "bash")
            for words in pages.shell(block.text)]  # fmt: skip


def test_what_is_looked_at() -> None:
    assert {"README.md", "CONTRIBUTING.md", "SECURITY.md", "docs/vectors.md"} <= set(NAMES)
    assert {"README.md", "CONTRIBUTING.md", "docs/vectors.md", "docs/scaling.md"} <= set(SHOWING)
    marks = [block.mark.partition(": ")[2] for name in NAMES for block in blocks(name) if "not run" in block.mark]
    assert set(marks) == set(pages.REASONS)  # no reason without a block


@pytest.mark.parametrize("target", sorted({words[1] for words in COMMANDS if words[0] == "make"}))
def test_targets_exist(target: str) -> None:
    subprocess.run(["make", "--dry-run", target], cwd=ROOT, check=True, capture_output=True)


@pytest.mark.parametrize("name", SHOWING)
def test_blocks_run_in_their_order(name: str, tmp_path: Path) -> None:
    code_blocks = blocks(name)
    pages.checkout(ROOT, tmp_path)
    printed = pages.run(code_blocks, tmp_path)
    for path in tmp_path.glob("logs/**/report.json"):
        assert json.loads(path.read_text())["metrics"]
    if name == "docs/judge.md":
        assert (tmp_path / "judgement.html").is_file()
        assert any("**Setting 2 is certified at confidence 0.95" in text for text in printed)
        assert "2\n" in printed  # as its comment says
    if name == "docs/experiments.md":
        assert (tmp_path / "logs/mine/mean_difference/report.json").is_file()
    if name == "README.md":
        shown = [
            (block.text, text) for block, text in zip(code_blocks, printed, strict=True) if block.language == "python"
        ]
        assert len(shown) == 2  # by a search, and by a vector file
        assert "drift on reference texts" in shown[0][1]  # damage is said with the effect
        for text, output_of_block in shown:
            baseline, steered = [line.strip() for line in output_of_block.splitlines() if line.strip()][-2:]
            assert [baseline, steered] == re.findall(r"print\(.*# (.*)$", text, re.MULTILINE)
            assert baseline != steered


def test_lines_that_were_not_printed_are_found() -> None:
    pages.check_printed("a  b\nc\n", "x a b y\nc")
    with pytest.raises(ValueError, match="the line 'a c'"):
        pages.check_printed("a c\n", "a b\nc")
