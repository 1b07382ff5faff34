"""Pairs without a prompt, and pairs from two text files: read, split, linted and steered with like any others."""

from pathlib import Path

import pytest
import torch
from conftest import ROOT
from decoders import decoder, letters

import lightning_steer as ls
from lightning_steer.__main__ import main
from lightning_steer.data.behaviours.module import BehaviourDataModule
from lightning_steer.data.behaviours.pairs import Pairs
from lightning_steer.lm.tokens import MultipleChoice

BASE = str(ROOT / "checkpoints/pocket/base")


def two_files(positives: str, negatives: str) -> tuple[Path, Path]:
    paths = Path("positives.txt"), Path("negatives.txt")
    for path, text in zip(paths, (positives, negatives), strict=True):
        path.write_text(text)
    return paths


def test_the_words_that_begin_both_lines_are_the_prompt(workshop: Path) -> None:
    paths = two_files("I am  so glad\n\nYes\n", "I am sad\r\nNo")
    assert ls.read_pairs(*paths) == [("I am", "so glad", "sad"), ("", "Yes", "No")]


@pytest.mark.parametrize(
    ("positives", "negatives", "sentence"),
    [
        ("a b\na c\n", "a d\n", "has 2 lines of text and negatives.txt has 1"),
        ("\n", "\n", "has 0 lines"),
        ("a b\na\n", "a c\na d\n", "line 2 of positives.txt .* must differ before one of them ends"),
        ("a b\n", "a b\n", "must differ"),
    ],
)
def test_files_that_are_no_pairs(positives: str, negatives: str, sentence: str, workshop: Path) -> None:
    with pytest.raises(ValueError, match=sentence):
        ls.read_pairs(*two_files(positives, negatives))


def test_three_files(workshop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    two_files("a b\n", "a c\n")
    assert main(["steer", "--llm", BASE, "--pairs", "positives.txt", "negatives.txt", "more.txt"]) == 2
    assert "not from 3: positives.txt, negatives.txt, more.txt" in capsys.readouterr().err


def test_the_same_from_one_file_and_from_two(workshop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The lint says the same of a file of pairs and of the two files of their texts."""
    pairs = ls.read_pairs(ROOT / "configs/pairs.jsonl")
    apart = [pair for pair in pairs if pair.positive.split()[0] != pair.negative.split()[0]]
    lines = ["\n".join(f"{pair.prompt} {getattr(pair, side)}" for pair in apart) for side in ("positive", "negative")]
    two_files(*lines)
    assert ls.read_pairs("positives.txt", "negatives.txt") == apart
    Path("pairs.csv").write_text(
        "prompt,positive,negative\n" + "".join(",".join(f'"{text}"' for text in pair) + "\n" for pair in apart)
    )
    codes = main(["lint", "pairs.csv"]), main(["lint", "positives.txt", "negatives.txt"])
    out = capsys.readouterr().out
    assert codes[0] == codes[1]
    assert out[: len(out) // 2] == out[len(out) // 2 :]


def test_no_prompt_ties_no_pairs() -> None:
    data = BehaviourDataModule(Pairs([ls.ContrastPair("", f"good {i}", f"bad {i}") for i in range(20)]))
    data.setup()
    assert [len(part) for part in data.parts] == [8, 2, 10]
    assert len({cluster for part in data.clusters for cluster in part}) == 20


@pytest.mark.parametrize("marked", [True, False], ids=["the tokenizer marks the beginning", "it does not"])
def test_without_a_prompt_a_text_begins_where_the_model_begins(marked: bool) -> None:
    """Scored, read and continued after one and the same mark, whether or not the tokenizer puts it there."""
    llm = ls.LLM("tiny", layers=[1]).adopt(decoder("llama"), letters(bos=marked))
    tokenizer, begin = llm.tokenizer, llm.tokenizer.bos_token_id
    question = MultipleChoice("", ("kind", "rude"))
    ids = [begin, *tokenizer("kind", add_special_tokens=False)["input_ids"]]
    assert llm.prompts([""], 1) == [[begin]]
    assert llm.texts([question])[0].ids == ids
    with torch.no_grad():
        logits = llm.model(torch.tensor([ids])).logits[0].log_softmax(-1)
    expected = sum(logits[place, token] for place, token in enumerate(ids[1:]))
    torch.testing.assert_close(llm.scores([question])[0][0, 0], expected)


def test_steer_with_two_files(workshop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pairs = ls.read_pairs(ROOT / "configs/pairs.jsonl")
    two_files("\n".join(pair.positive for pair in pairs), "\n".join(pair.negative for pair in pairs))
    steer = ["steer", "--llm", BASE, "--pairs", "positives.txt", "negatives.txt", "--layers", "2", "--strengths", "0.5"]
    assert main([*steer, "--max_new_tokens", "3", "--budget", "9"]) == 0
    assert Path("logs/steer/positives/vector.safetensors").exists()
    assert "held-out" in capsys.readouterr().out
