"""The lint of pairs: what is planted is found with its size, clean pairs raise nothing, bad files get a sentence."""

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT
from scipy.stats import binomtest

import lightning_steer as ls
from lightning_steer.__main__ import main
from lightning_steer.lint import Imbalance, LintReport, lint_pairs
from lightning_steer.lint.imbalance import sign_test
from lightning_steer.lint.records import Pair
from lightning_steer.lint.texts import answer, first_word, label, options

BASE = ROOT / "checkpoints/pocket/base"
WORDS = [
    a + b for a in ("ba", "ke", "lo", "mi", "nu", "pra", "sto", "tri") for b in ("n", "rt", "la", "mo", "st", "ck")
]
WEIGHTS = [1 / (rank + 1) for rank in range(len(WORDS))]


def text(draw: random.Random, count: int | None = None) -> str:
    return " ".join(draw.choices(WORDS, WEIGHTS, k=count or draw.randint(2, 12)))


def lettered(draw: random.Random, n: int, share: float = 0.5) -> list[Pair]:
    """Questions with two options; the positive is (A) with probability ``share``."""
    sides = [("(A)", "(B)") if draw.random() < share else ("(B)", "(A)") for _ in range(n)]
    return [(f"Question {i}: {text(draw)}?\n (A) {text(draw)}\n (B) {text(draw)}", *side)
            for i, side in enumerate(sides)]  # fmt: skip


def free(draw: random.Random, n: int) -> list[Pair]:
    return [(f"Prompt {i}", f"{text(draw)} {i}", f"{text(draw)} {i}.") for i in range(n)]


def labelled(draw: random.Random, n: int) -> list[Pair]:
    return [(f"Is it {i}? Yes or No", *draw.sample(["Yes", "No"], 2)) for i in range(n)]


def clustered(draw: random.Random, n: int) -> list[Pair]:
    """Prompts with one to six pairs, in all of which the same side is longer and begins alike."""
    pairs: list[Pair] = []
    while len(pairs) < n:
        first, second = draw.sample(["Sorry,", "Sure,"], 2)
        longer, shorter = draw.sample([8, 3], 2)
        prompt, room = f"Prompt {len(pairs)}", min(draw.randint(1, 6), n - len(pairs))
        pairs += [
            (prompt, f"{first} {text(draw, longer)} {j}", f"{second} {text(draw, shorter)} {j}") for j in range(room)
        ]
    return pairs


def of(report: LintReport, feature: str) -> Imbalance:
    return next(imbalance for imbalance in report.imbalances if imbalance.feature == feature)


def test_a_letter_that_is_always_the_positive_is_found_with_its_size() -> None:
    report = lint_pairs(lettered(random.Random(1), 54, 1.0))
    letter = of(report, "letter A")
    assert (letter.share.value, letter.share.n) == (1, 54)
    assert letter.share.low == pytest.approx(0.025 ** (1 / 54))  # Clopper and Pearson's, when all are alike
    assert letter.tells
    assert letter.same_as == ["position", "first word '(a)'"]
    (finding,) = report.findings
    assert "54 of 54" in finding.sentence
    assert "letter A alone tells positives from negatives in 100.0 %" in finding.sentence
    assert finding.sentence in str(report)


@pytest.mark.parametrize("share", [0.5, 0.6, 0.8, 1.0])
@pytest.mark.parametrize("n", [10, 54])
def test_the_interval_holds_the_planted_share(n: int, share: float) -> None:
    """A quick form of 4,000 draws: no sign that it holds in less than 95 %."""
    draw, draws = random.Random(n), 200
    shares = [of(lint_pairs(lettered(draw, n, share)), "letter A").share for _ in range(draws)]
    held = sum(estimate.low <= share <= estimate.high for estimate in shares)
    assert binomtest(held, draws, 0.95, "less").pvalue > 0.01


@pytest.mark.parametrize("n", [10, 60])
@pytest.mark.parametrize("clean", [lettered, free, labelled, clustered])
def test_clean_pairs_raise_anything_in_one_of_twenty_draws_at_most(
    clean: Callable[[random.Random, int], list[Pair]], n: int
) -> None:
    """A quick form of 4,000 draws: no sign that the risk, over all features together, is above 5 %."""
    draw, draws = random.Random(n), 200
    raised = sum(bool(lint_pairs(clean(draw, n)).findings) for _ in range(draws))
    assert binomtest(raised, draws, 0.05, "greater").pvalue > 0.01


def test_the_p_value_is_that_of_the_sign_test_over_prompts() -> None:
    signs = np.array([1, 1, 1, 1, 1, 1, -1, 0, 0])
    assert sign_test(signs, np.arange(9)) == pytest.approx(binomtest(6, 7).pvalue)
    assert sign_test(signs[:5], np.arange(5)) is None  # 2 / 32 is no evidence
    assert sign_test(signs, np.array([0, 0, 0, 0, 0, 0, 1, 1, 1])) is None
    repeated = np.repeat([1, 1, 1, 1, 1, 1, 1, -1], 3)
    assert sign_test(repeated, np.repeat(np.arange(8), 3)) == pytest.approx(binomtest(7, 8).pvalue)


def test_p_values_are_corrected_over_all_features() -> None:
    """Length 12 : 0, and the first word 9 : 1: the smaller p-value is doubled, the larger one is not."""
    first = ["Sure"] * 9 + ["Sorry"] + ["Other"] * 2
    pairs = [
        (f"p{i}", f"{word} and much more", "Sure" if word == "Sorry" else f"No{i}") for i, word in enumerate(first)
    ]
    report = lint_pairs(pairs)
    assert of(report, "length").p == pytest.approx(2 * binomtest(12, 12).pvalue)
    assert of(report, "first word 'sure'").p == pytest.approx(binomtest(9, 10).pvalue)


def test_the_length_of_a_letter_is_that_of_its_option() -> None:
    pairs = [(f"q{i}\n (A) {'long ' * 5}\n (B) short", *sides)
             for i, sides in enumerate([("(A)", "(B)"), ("(B)", "(A)")] * 10)]  # fmt: skip
    length = of(lint_pairs(pairs), "letter A")
    assert length.same_as == ["position", "length", "first word '(a)'"]
    assert length.share.value == 0.5


def test_a_feature_that_decides_few_pairs_does_not_tell_them_all() -> None:
    pairs = [(f"p{i}", f"{'Nope' if i < 12 else 'well'} aa", "well bb") for i in range(60)]
    (finding,) = lint_pairs(pairs).findings
    assert (finding.feature, finding.pairs) == ("first word 'nope'", 12)
    assert "alone" not in finding.sentence


@pytest.mark.parametrize(
    ("continuation", "letter"),
    [
        ("(A)", "A"),
        ("B", "B"),
        ("C)", "C"),
        ("A. tea", "A"),
        ("(B) tea", "B"),
        ("A dog", None),
        ("I'm", None),
        ("", None),
    ],
)
def test_labels(continuation: str, letter: str | None) -> None:
    assert label(continuation) == letter


def test_texts() -> None:
    prompt = "Which?\n (A) tea \n B. hot milk"
    assert {key: prompt[slice(*span)] for key, span in options(prompt).items()} == {"A": "tea", "B": "hot milk"}
    assert options("(A) one\n(A) two") == {}
    assert [answer(prompt, side) for side in ("(B)", "(A) tea", "C")] == ["hot milk", "(A) tea", "C"]
    assert [first_word(side) for side in ("Sorry, no", "...", "(A)")] == ["sorry", "...", "(a)"]


def test_repetitions_are_found_whatever_their_form() -> None:
    pairs = [
        ("One", "yes", "no"),
        ("Two", "a b", "c"),
        ("two ", "A  b", "C"),
        ("Two", "c", "a b"),
        ("Three", "No", "no"),
    ]
    repetitions = {finding.sentence.split(":")[0]: finding.pairs for finding in lint_pairs(pairs).findings}
    assert repetitions == {
        "1 pair has the same text as positive and negative but for case and blanks (the first is pair 5)": 1,
        "1 pair has a repetition of an earlier pair (the first is pair 3)": 1,
        "1 pair has an earlier pair with its sides exchanged (the first is pair 4)": 1,
        "3 pairs have a prompt that differs from another one in case or blanks only (the first is pair 2)": 3,
    }


def test_held_out_pairs_that_were_fitted_to_are_found() -> None:
    pairs = [(f"p{i}", f"good {i}", f"bad {i}") for i in range(4)]
    held_out = [("P0", "new", "other"), ("new", "bad  3", "good 9"), ("clean", "x", "y")]
    findings = lint_pairs(pairs, held_out).findings
    assert [(finding.feature, finding.pairs) for finding in findings] == [("leakage", 1), ("leakage", 1)]
    assert "1 of 3 held-out pairs has a prompt that is also fitted to (the first is held-out pair 1)" in str(findings)
    assert "a continuation that is also fitted to (the first is held-out pair 2)" in str(findings)


def test_labels_do_not_leak() -> None:
    draw = random.Random(0)
    pairs = lettered(draw, 20)
    assert not lint_pairs(pairs, [(f"new {prompt}", *sides) for prompt, *sides in lettered(draw, 5)]).findings


def test_what_a_tokenizer_does_not_know_or_tell_apart() -> None:
    tokenizer = ls.LLM(str(BASE))
    tokenizer.load()
    pairs = [("The hill bakers are", "kind", "rude"), ("The mill bakers are", "kind ☃", "rude"),
             ("The town bakers are", "kind", "rude")]  # fmt: skip
    report = lint_pairs(pairs, tokenizer=tokenizer.tokenizer)
    (finding,) = report.findings
    assert (finding.feature, finding.pairs) == ("tokens", 1)
    assert "pair 2" in finding.sentence


class Alike:
    """A tokenizer for which a text is one token, and case makes no difference."""

    unk_token_id, eos_token_id, bos_token_id = None, 1, 1

    def __init__(self) -> None:
        self.texts: list[str] = []

    def ids(self, text: str) -> list[int]:
        for word in text.casefold().split():
            if word not in self.texts:
                self.texts.append(word)
        return [2 + self.texts.index(word) for word in text.casefold().split()]

    def __call__(self, texts: str | list[str], add_special_tokens: bool = True) -> dict[str, object]:
        return {"input_ids": self.ids(texts) if isinstance(texts, str) else [self.ids(text) for text in texts]}

    def decode(self, ids: list[int], **_settings: object) -> str:
        return " ".join(self.texts[i - 2] for i in ids)


def test_identical_tokens_and_lengths_in_tokens() -> None:
    pairs = [(f"prompt {i}", "internationalization", "a b") for i in range(8)]
    report = lint_pairs([*pairs, ("prompt 9", "Good", "gooD")], tokenizer=Alike())
    assert [finding.feature for finding in report.findings][:2] == ["duplicates", "tokens"]
    assert "same tokens on both sides (the first is pair 9)" in report.findings[1].sentence
    assert of(report, "length").same_as == ["first token 'a'"]
    assert of(report, "length").share.value == 0  # more letters, and fewer tokens


@pytest.mark.parametrize("name", ["envy-kindness", "greed-charity", "wrath-patience"])
def test_released_pairs_that_are_one_vector_for_a_letter(name: str) -> None:
    folder = os.environ.get("LIGHTNING_STEER_DATA")
    if not folder:
        pytest.skip("LIGHTNING_STEER_DATA names no folder of real data")
    rows = json.loads((Path(folder) / f"caa_dynamic/{name}_generate.json").read_text())
    report = lint_pairs([tuple(row.values()) for row in rows])
    letter = of(report, "letter A")
    assert letter.share.value == 1
    assert letter.share.low > 0.93
    assert letter.tells


def test_no_torch_is_loaded() -> None:
    code = "import sys, lightning_steer.lint; print('torch' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"


def test_bad_pairs_in_memory() -> None:
    with pytest.raises(ValueError, match="no pairs"):
        lint_pairs([])
    with pytest.raises(TypeError, match="pair 2 is 'text'"):
        lint_pairs([("a", "b", "c"), "text"])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="held_out, pair 1 has an empty continuation"):
        lint_pairs([("a", "b", "c")], [("a", " ", "c")])


# ---- the command


def write(path: Path, pairs: list[Pair]) -> str:
    columns = ("prompt", "positive", "negative")
    path.write_text("".join(json.dumps(dict(zip(columns, pair, strict=True))) + "\n" for pair in pairs))
    return str(path)


def test_the_command_finds_a_letter_and_says_so_by_its_exit_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["lint", write(tmp_path / "a.jsonl", lettered(random.Random(1), 40, 1.0))]) == 1
    printed = capsys.readouterr().out
    assert "letter A: positive in 100.0 % [91.2, 100.0] of 40 pairs" in printed
    assert "Warning: The positive is the answer A in 40 of 40 pairs" in printed
    clean = write(tmp_path / "b.jsonl", lettered(random.Random(2), 40))
    assert main(["lint", clean]) == 0
    assert "Nothing was raised." in capsys.readouterr().out
    assert main(["lint", clean, "--held_out", clean]) == 1
    assert "40 of 40 held-out pairs have a prompt that is also fitted to" in capsys.readouterr().out


def test_the_command_reads_files_of_caa(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    columns = ("question", "answer_matching_behavior", "answer_not_matching_behavior")
    rows = [dict(zip(columns, pair, strict=True)) for pair in lettered(random.Random(1), 40, 1.0)]
    (tmp_path / "caa.json").write_text(json.dumps(rows))
    assert main(["lint", str(tmp_path / "caa.json")]) == 1
    assert "letter A" in capsys.readouterr().out


def test_the_command_counts_in_tokens(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lint", str(ROOT / "configs/pairs.jsonl"), "--llm", str(BASE)]) == 1
    assert "first token 'measure': positive in 100.0 %" in capsys.readouterr().out


GOOD = '{"prompt": "a", "positive": "b", "negative": "c"}\n'
CAA = '{"question": "a", "answer_matching_behavior": "b", "answer_not_matching_behavior": "c"}\n'
BAD_FILES: dict[str, tuple[str | bytes, str]] = {
    "empty": ("", "is empty"),
    "blank": ("\n \n", "is empty"),
    "no JSON": ("prompt,positive,negative\n", "not JSON at example 1"),
    "cut off": (GOOD + '{"prompt": "a', "not JSON at example 2"),
    "NUL": (GOOD.encode() + b"\0", "is binary"),
    "Latin-1": ("caf\xe9".encode("latin-1"), "not UTF-8"),
    "UTF-16": (GOOD.encode("utf-16"), "not UTF-8"),
    "a number": ("7\n", "example 1 is no pair: expected an object with positive, negative"),
    "texts": ('["a", "b", "c"]', "not a"),
    "null": ("null\n", "not None"),
    "an empty object": ("{}\n", "not an empty one"),
    "no negative": ('{"prompt": "a", "positive": "b"}\n', "not positive, prompt"),
    "an unknown column": (GOOD.replace("}", ', "label": "x"}'), "not label, negative, positive, prompt"),
    "both forms": (GOOD + '{"prompt": "a", "question": "b"}\n', "example 2 is no pair"),
    "half a form": (CAA.replace(', "answer_not_matching_behavior": "c"', ""), "answer_not_matching_behavior, not"),
    "a number for a text": (GOOD.replace('"b"', "3"), "its positive is '3', where a text was expected"),
    "an empty text": (GOOD + GOOD.replace('"c"', '""'), "example 2: its negative is ''"),
    "a number for a prompt": (GOOD.replace('"a"', "3"), "its prompt is '3', where a text was expected"),
    "a key twice": ('{"prompt": "a", "prompt": "b", "positive": "c", "negative": "d"}', "has 'prompt' twice"),
    "half a character": (GOOD.replace("b", "\\ud800"), "surrogate"),
    "nested lists": ("[" * 5000, "not JSON"),
}


def refused(arguments: list[str], expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        code = main(["lint", *arguments])
    except SystemExit as end:
        code = end.code
    out, err = capsys.readouterr()
    assert code == 2
    assert out == ""
    assert len(err.strip().splitlines()) == 1
    assert err.startswith("lightning_steer: ")
    assert expected in err, err


@pytest.mark.parametrize("name", BAD_FILES)
@pytest.mark.parametrize("option", [[], ["--held_out"]])
def test_a_bad_file_is_one_sentence(
    name: str, option: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content, expected = BAD_FILES[name]
    path, good = tmp_path / "x.jsonl", tmp_path / "good.jsonl"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    good.write_text(GOOD)
    refused([str(good), *option, str(path)] if option else [str(path)], expected, capsys)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "required: PAIRS"),
        (["nowhere.jsonl"], "no file of behaviour examples nowhere.jsonl"),
        (["."], "no file of behaviour examples ."),
        (["configs/pairs.jsonl", "--held", "x"], "no option '--held' of lint; did you mean --held_out?"),
        (["configs/pairs.jsonl", "--held_out", "nowhere"], "nowhere"),
        (["configs/pairs.jsonl", "--llm", "./nowhere"], "there is no folder './nowhere'"),
        (["configs/pairs.jsonl", "--llm", "configs/pairs.jsonl"], "is a file; a model is a folder"),
        (["configs/pairs.jsonl", "--llm", "configs"], "configs has no config.json"),
        (["configs/pairs.jsonl", "--llm", ""], "there is no folder ''"),
        (["configs/pairs.jsonl", "--revision", "main"], "--revision 'main' is of a model, and none is named"),
    ],
    ids=str,
)
def test_bad_arguments_are_one_sentence(
    arguments: list[str], expected: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    refused(arguments, expected, capsys)


def test_steer_warns_of_what_the_lint_raises() -> None:
    trades = ("bakers", "potters", "weavers", "coopers")
    pairs = [ls.ContrastPair(f"The {group} {trade} are", "kind", "rude") for group in ("hill", "mill", "town")
             for trade in trades]  # fmt: skip
    texts = ["In the autumn, the grey cat watched under the tree.", "In the summer, the brown horse played."]
    vector = ls.steer(str(BASE), pairs, [2], strengths=[0.25], reference_texts=texts, budget=9)
    assert any("begins with 'kind' in 12 of 12 pairs" in warning for warning in vector.card.warnings)
