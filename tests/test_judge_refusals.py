"""Tables and options that cannot be judged: one sentence with row and column, exit code 2, nothing written."""

import json
from pathlib import Path

import numpy as np
import pytest

from lightning_steer.outcomes import judge
from lightning_steer.outcomes.__main__ import main
from lightning_steer.outcomes.promise_text import parse

HEAD = "item,setting,measure,value\n"
GOOD = HEAD + "a,0,m,1\nb,0,m,0\na,1,m,1\nb,1,m,1\n"
CASES: list[tuple[str, str | bytes, tuple[str, ...], tuple[str, ...]]] = []


def bad(name: str, text: str | bytes, *expected: str, more: tuple[str, ...] = (), file: str = "x.csv") -> None:
    CASES.append((f"{file}: {name}", text, (file, *more), expected))


def row(text: str, *expected: str, name: str = "", more: tuple[str, ...] = ()) -> None:
    """A fifth row below a good table; the header is row 1, so it is row 6."""
    bad(name or text[:30], GOOD + text, "row 6", *expected, more=more)


def rows(*records: dict) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


def record(item: object = "a", setting: object = 0, value: object = 1, **more: object) -> dict:
    return {"item": item, "setting": setting, "measure": "m", "value": value, **more}


# values
row("c,0,m,nan\n", "column value", "'nan'", "finite")
row("c,0,m,NaN\n", "column value", "'NaN'", "finite")
row("c,0,m,inf\n", "column value", "'inf'", "finite")
row("c,0,m,-Infinity\n", "column value", "'-Infinity'", "finite")
row("c,0,m,NA\n", "column value", "'NA'", "finite")
row("c,0,m,None\n", "column value", "'None'", "finite")
row("c,0,m,1e999\n", "column value", "'1e999'", "not a number")
row("c,0,m,\n", "column value", "empty", name="an empty value")
row("c,0,m,  \n", "column value", "empty", name="a blank value")
row("c,0,m,yes\n", "column value", "'yes'", "not a number")
row("c,0,m,=1+1\n", "column value", "'=1+1'", "not a number")
row("c,0,m,=A2\n", "column value", "'=A2'", "not a number")
row('c,0,m,"=HYPERLINK(""http://x"")"\n', "column value", "HYPERLINK", "not a number", name="a link as a formula")
row("c,0,m,+cmd|'/c calc'!A0\n", "column value", "not a number", name="a command as a formula")
row("c,0,m,__import__('os')\n", "column value", "not a number", name="Python")
row('c,0,m,"0,5"\n', "column value", "'0,5'", "point", name="a decimal comma")
row("c,0,m,1_000\n", "column value", "'1_000'", name="an underscore")
row("c,0,m,0x1\n", "column value", "'0x1'")
row("c,0,m,50%\n", "column value", "'50%'")
row("c,0,m,\uff11\n", "column value", "not a number", name="a full-width digit")
row("c,0,m,true\n", "column value", "true and false", "'m'", name="true among numbers")
row("c,0,m," + "9" * 10**6 + "\n", "column value", "1,000,000 characters", name="10^6 digits")
row("c,0,m," + "x" * 10**6 + "\n", "column value", "1,000,000 characters", "not a number", name="10^6 letters")
bad("outside the declared range", HEAD + "a,0,m,1\na,1,m,7\n", "row 3", "column value", "7", "0 to 5",
    more=("--range", "m=0..5"))  # fmt: skip
bad("below the declared range", HEAD + "a,0,m,-1\na,1,m,2\n", "row 2", "column value", "-1", "0 to 5",
    more=("--range", "m=0..5"))  # fmt: skip
bad("no range for a promise about a grade", HEAD + "a,0,m,1\na,1,m,7\n", "'m'", "range", more=("--benefit", "m>=0"))
bad("no range for a promise about 0 and 1", GOOD, "'m'", "--range m=0..1", "true and false", more=("--benefit", "m>=0"))
# names
row("c" * 10**6 + ",0,m,1\n", "column item", "1,000,000 characters", name="an item of 10^6 characters")
row("c,0," + "m" * 1001 + ",1\n", "column measure", "1,001 characters", name="a measure of 1,001 characters")
row(",0,m,1\n", "column item", "empty", name="no item")
row("c,,m,1\n", "column setting", "empty", name="no setting")
row("c,0,,1\n", "column measure", "empty", name="no measure")
row('"c\nd",0,m,1\n', "column item", "line break", name="a line break in a name")
row("c,strong,m,1\n", "column setting", "'strong'", "name among strengths")
row("c,O.5,m,1\n", "column setting", "'O.5'", "name among strengths", name="a letter O for a zero")
row("c,=0.5,m,1\n", "column setting", "'=0.5'", "name among strengths", name="a formula as a strength")
row("c,nan,m,1\n", "column setting", "'nan'", "name among strengths", name="NaN as a strength")
row("c,1e400,m,1\n", "column setting", "'1e400'", name="a strength beyond all numbers")
# shape
row("c,0,m\n", "3 cells", "4 columns", name="a row too short")
row("c,0,m,1,2\n", "5 cells", "4 columns", name="a row too long")
row("c;0;m;1\n", "1 cells", "4 columns", name="semicolons in one row")
bad("no rows", HEAD, "x.csv", "no rows")
bad("nothing", "", "x.csv", "item", "lacks")
bad("blank lines", "\n\n\n", "x.csv", "lacks")
bad("no header", "a,0,m,1\nb,0,m,0\n", "row 1", "lacks item")
bad("a header without value", "item,setting,measure\na,0,m\n", "row 1", "lacks value")
bad("a header without setting", "item,measure,value\na,m,1\n", "row 1", "lacks setting")
bad("a column twice", "item,item,setting,value\na,b,0,1\n", "row 1", "both the item")
bad("setting and strength", "item,setting,strength,value\na,0,0,1\n", "row 1", "both the setting")
bad("a misspelt column", "item,setting,measure,value,clusters\na,0,m,1,x\n", "row 1", "'clusters'", "'cluster'")
bad("a misspelt group", "item,setting,measure,value,groop\na,0,m,1,x\n", "row 1", "'groop'", "'group'")
bad("semicolons", GOOD.replace(",", ";"), "row 1", "semicolons", "commas")
bad("tabs", GOOD.replace(",", "\t"), "row 1", "tabs", "commas")
bad("bars", GOOD.replace(",", "|"), "row 1", "bars", "commas")
bad("commas in a .tsv", GOOD, "row 1", "commas", "tabs", file="x.tsv")
bad("an open quote", GOOD + '"c,0,m,1\n' * 1, "row 6", "quote")
bad("an open quote in the middle", HEAD + '"a,0,m,1\nb,0,m,0\n', "row 2", "quote")
bad("a quote within a cell", GOOD + '"c"d,0,m,1\n', "row 6", "CSV")
bad("Latin-1", "item,setting,value\ncaf\xe9,0,1\n".encode("latin-1"), "x.csv", "UTF-8")
bad("UTF-16", GOOD.encode("utf-16"), "x.csv", "UTF-8")
bad("zero bytes", GOOD.encode() + b"\0", "x.csv", "binary")
bad("a spreadsheet", b"PK\x03\x04", "x.xlsx", ".csv", file="x.xlsx")
bad("a damaged Parquet file", b"PAR1", "x.parquet", "damaged", file="x.parquet")
# pairs
row("a,1,m,1\n", "item 'a'", "setting '1'", "first in row 4", name="a row twice")
row("a,1.0,m,0\n", "item 'a'", "first in row 4", name="a row twice, the strength written otherwise")
row(" a ,1,m,1\n", "item 'a'", "first in row 4", name="a row twice, with blanks")
row("c,1,m,1\n", "item 'c'", "setting '0'", "missing", name="an item without its baseline")
row("c,0,m,1\n", "item 'c'", "setting '1'", "missing", name="an item at the baseline alone")
bad("a setting with one item", GOOD + "a,2,m,1\n", "item 'b'", "setting '2'", "missing")
bad("no baseline", HEAD + "a,1,m,1\na,2,m,0\n", "strength 0", "1, 2", "--baseline")
bad("no baseline of this measure", GOOD + "a,1,k,1\na,2,k,1\n", "'k'", "baseline", "row 6")
bad("no baseline among names", HEAD + "a,x,m,1\na,y,m,0\n", "'baseline'", "x, y", "--baseline")
bad("a baseline that is not there", GOOD, "strength 3", "0, 1", more=("--baseline", "3"))
bad("a baseline of another name", HEAD + "a,x,m,1\na,y,m,0\n", "'z'", "x, y", more=("--baseline", "z"))
bad("a named baseline beside strength 0", HEAD + "a,none,m,1\na,0,m,1\na,1,m,1\n", "'none'", "strength 0",
    more=("--baseline", "none"))  # fmt: skip
bad("a single setting", HEAD + "a,0,m,1\nb,0,m,1\n", "row 2", "'0'", "single setting")
bad(
    "an item in two clusters", "item,setting,value,cluster\na,0,1,x\na,1,1,y\n", "row 3", "column cluster", "'y'", "'x'"
)
bad("an item in two groups", "item,setting,value,group\na,0,1,x\na,1,1,y\n", "row 3", "column group", "'y'", "'x'")
bad("no cluster in one row", "item,setting,value,cluster\na,0,1,x\na,1,1,\n", "row 3", "column cluster", "empty")
bad("no such column of clusters", GOOD, "row 1", "'topic'", more=("--cluster", "topic"))
bad("two judges", "item,setting,value,judge\na,0,1,x\na,1,1,x\na,0,1,y\na,1,1,y\n", "row 4", "column judge", "x, y",
    "--judge")  # fmt: skip
bad("another judge", "item,setting,value,judge\na,0,1,x\na,1,1,x\n", "'z'", "x", more=("--judge", "z"))
bad("a seed that is missing", "item,setting,value,seed\na,0,1,1\na,1,1,1\na,0,1,2\n", "row 4", "seed '2'", "missing")
# JSON lines
JSON = {"file": "x.jsonl"}
bad("text as a value", rows(record(), record(setting=1, value="b")), "row 2", "column value", "'b'", file="x.jsonl")
bad("null as a value", rows(record(), record(setting=1, value=None)), "row 2", "column value", "empty", file="x.jsonl")
bad("NaN as a value", rows(record(), record(setting=1, value=float("nan"))), "row 2", "column value", "nan", **JSON)
bad("a list as a value", rows(record(), record(setting=1, value=[1])), "row 2", "column value", "[1]", file="x.jsonl")
bad("true among numbers", rows(record(), record(setting=1, value=True)), "column value", "true and false", **JSON)
bad("an object as an item", rows(record(), record(item={"x": 1})), "row 2", "column item", file="x.jsonl")
bad("null as an item", rows(record(), record(item=None)), "row 2", "column item", "empty", file="x.jsonl")
bad("infinity as a setting", rows(record(), record(setting=float("inf"))), "row 2", "column setting", **JSON)
bad("a key less", rows(record(), {"item": "b"}), "row 2", "'measure'", "not there", file="x.jsonl")
bad("a key more", rows(record(), record(other=1)), "row 2", "'other'", "there", file="x.jsonl")
bad("a key twice", '{"item": "a", "item": "b", "setting": 0, "value": 1}\n', "row 1", "'item' twice", file="x.jsonl")
bad("a list", "[1]\n", "row 1", "object", file="x.jsonl")
bad("half an object", rows(record()) + '{"item": ', "row 2", "object", file="x.jsonl")
bad("deep nesting", rows(record()) + "[" * 10**5 + "\n", "row 2", "object", file="x.jsonl")
# options
bad("a promise about no measure", GOOD, "'refused'", "m", more=("--benefit", "refused>=0"))
bad("a promise about no group", GOOD, "'safe'", "none", more=("--range", "m=0..1", "--benefit", "m[safe]>=0"))
bad("a harm without a benefit", GOOD, "benefit", more=("--harm", "m<=.05"))
bad("a promise twice", GOOD, "two promises", more=("--benefit", "m>=0", "--benefit", "m>=.1"))
bad("a limit beyond the range", GOOD, "limit", "-1 and 1", more=("--range", "m=0..1", "--benefit", "m>=1"))
bad("delta 0", GOOD, "delta", "0.0", more=("--delta", "0"))
bad("delta NaN", GOOD, "delta", "nan", more=("--delta", "nan"))
bad("split 0", GOOD, "split", "0.0", more=("--split", "0"))
bad("split of nobody", GOOD, "split", "'m'", more=("--split", ".01", "--range", "m=0..1", "--benefit", "m>=0"))
bad("a range that is no range", GOOD, "--range", "'m'", more=("--range", "m"))
bad("a range upside down", GOOD, "'m'", "smaller first", more=("--range", "m=5..0"))
bad("a range of no measure", GOOD, "'k'", "no measure", more=("--range", "k=0..5"))
bad("a page of another kind", GOOD, "out.pdf", ".html", more=("--html", "out.pdf"))
bad("a table that is not there", GOOD, "y.csv", "no file", more=("y.csv",))
bad("no name before =", GOOD, "'=x.csv'", "measure", more=("=x.csv",))
bad("the same table twice", GOOD, "x.csv, row 2", "again", more=("x.csv",))


def test_there_are_many() -> None:
    assert len(CASES) >= 80
    assert len({name for name, *_ in CASES}) == len(CASES)


@pytest.mark.parametrize(("text", "arguments", "expected"), [case[1:] for case in CASES], ids=[c[0] for c in CASES])
def test_one_sentence_and_nothing_written(
    text: str | bytes,
    arguments: tuple[str, ...],
    expected: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(arguments[0]).write_bytes(text if isinstance(text, bytes) else text.encode())
    assert main([*arguments, "--json", "out.json"]) == 2
    printed, message = capsys.readouterr()
    assert printed == ""
    assert message.startswith("lightning_steer: ")
    assert message.count("\n") == 1
    assert len(message) < 400
    assert not [part for part in expected if part not in message], message
    assert [path.name for path in tmp_path.iterdir()] == [arguments[0]]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "m",
        "m>0",
        "m>=",
        "m>=x",
        "m>=1e999",
        "m>=nan",
        ">=0",
        "m>=0>=1",
        "m<=0",
        "m>=__import__('os')",
        "m[>=0",
        "m>=-1",
    ],
)
def test_promises_that_are_none(text: str) -> None:
    with pytest.raises(ValueError, match="a benefit"):
        parse(text, True)
    with pytest.raises(ValueError, match="a harm"):
        parse(text.replace(">", "<") if text != "m<=0" else text, False)


def test_strengths_that_agree_to_six_digits_are_two_settings(tmp_path: Path) -> None:
    """The first keeps both promises, the second breaks one: only the first may be certified, under its own name."""
    chance = np.random.default_rng(0)
    lines = ["item,setting,measure,value"]
    for item in range(400):
        for setting, refused, right in (("0", 0.2, 0.9), ("1234561", 0.9, 0.2), ("1234562", 0.6, 0.9)):
            lines += [f"{item},{setting},refused,{int(chance.random() < refused)}"]
            lines += [f"{item},{setting},right,{int(chance.random() < right)}"]
    path = tmp_path / "outcomes.csv"
    path.write_text("\n".join(lines) + "\n")
    judgement = judge(
        path, benefit="refused>=0", harms=["right falls<=.3"], ranges={"refused": (0, 1), "right": (0, 1)}
    )
    assert judgement.choice is not None
    assert judgement.choice.chosen == "1234562"
    assert "1234561" in str(judgement)


def test_a_baseline_is_no_truth_value(tmp_path: Path) -> None:
    path = tmp_path / "outcomes.csv"
    path.write_text("item,setting,measure,value\n1,0,right,1\n1,1,right,0\n")
    with pytest.raises(ValueError, match="baseline is True"):
        judge(path, baseline=True)


@pytest.mark.parametrize("ranges", [["score=0...9"], ["score=0..1", "score=0..9"]])
def test_ranges_that_are_none(ranges: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "outcomes.csv"
    path.write_text("item,setting,measure,value\n1,0,score,.5\n1,1,score,.25\n")
    assert main([str(path), *(part for text in ranges for part in ("--range", text))]) == 2
    assert "--range" in capsys.readouterr().err


@pytest.mark.parametrize("baseline", ["foo", float("nan")])
def test_a_baseline_without_rows_is_not_strength_0(baseline: object, tmp_path: Path) -> None:
    path = tmp_path / "outcomes.csv"
    path.write_text("item,setting,measure,value\n1,0,right,1\n1,1,right,0\n")
    with pytest.raises(ValueError, match=r"no row is of the baseline '(foo|nan)'"):
        judge(path, baseline=baseline)  # type: ignore[arg-type]
