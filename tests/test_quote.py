"""Tables in documents are those that runs have written."""

import re
from pathlib import Path

import pytest
from conftest import ROOT

from lightning_steer.report.quote import QUOTE, main, quoted

LOG = "words\n\n| other |\n|---|\n| 0 |\n\n| SPI deployed | n |\n|---|---|\n| 0.9 | 5 |\n\nmore\n"
DOCUMENT = "before\n<!-- logs/a/summary.md: SPI -->\n| old |\n<!-- end -->\nafter\n"


def test_a_table_is_replaced_by_the_one_that_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("logs/a").mkdir(parents=True)
    Path("logs/a/summary.md").write_text(LOG)
    Path("README.md").write_text(DOCUMENT)
    assert main(["README.md"]) == 0
    before = Path("README.md").read_text()
    head, end = "before\n<!-- logs/a/summary.md: SPI -->\n", "<!-- end -->\nafter\n"
    assert before == f"{head}| SPI deployed | n |\n|---|---|\n| 0.9 | 5 |\n{end}"
    assert main(["README.md"]) == 0
    assert Path("README.md").read_text() == before  # nothing is quoted twice


def test_rows_are_taken_by_name_in_the_table_s_order(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("| what | n |\n|---|---|\n| a, b | 1 |\n| c: long | 2 |\n| d | 3 |\n| a, b | 4 |\n")
    text = "<!-- a.md: what: c / a, b -->\n<!-- end -->\n"
    rows = "| what | n |\n|---|---|\n| a, b | 1 |\n| c: long | 2 |\n| a, b | 4 |\n"
    assert quoted(text, tmp_path) == (text.replace("<!-- end", f"{rows}<!-- end"), [])
    with pytest.raises(ValueError, match=r"no rows \['e'\], only \['a, b', 'c', 'd'\]"):
        quoted(text.replace("a, b", "e"), tmp_path)


def test_a_table_that_is_not_there_is_an_error_and_a_file_that_is_not_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert quoted(DOCUMENT, tmp_path) == (DOCUMENT, ["logs/a/summary.md"])
    (tmp_path / "logs/a").mkdir(parents=True)
    (tmp_path / "logs/a/summary.md").write_text("no table")
    with pytest.raises(ValueError, match="no table with 'SPI' in its first line"):
        quoted(DOCUMENT, tmp_path)
    assert main([str(tmp_path / "absent.md")]) == 2
    assert "absent.md" in capsys.readouterr().err


@pytest.mark.parametrize("path", [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))], ids=lambda p: p.name)
def test_every_quote_in_our_documents_is_whole(path: Path) -> None:
    text = path.read_text()
    begun = re.findall(r"<!-- [\w/.-]+: .+? -->", text)
    quotes = list(QUOTE.finditer(text))
    assert len(quotes) == len(begun) == text.count("<!-- end -->")
    for match in quotes:
        assert match["old"].startswith("| "), f"{path.name}: nothing is quoted from {match['file']}"
