"""The swap control: a vector for a letter turns round with the letters, one for what is said does not."""

import random
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import binomtest
from test_lint import lettered
from torch import Tensor

from lightning_steer.data.behaviours.examples import BehaviourExample, of_pairs
from lightning_steer.data.behaviours.module import TEST
from lightning_steer.lint import lint_pairs
from lightning_steer.lint.records import Pair
from lightning_steer.lint.swap import swapped
from lightning_steer.lint.texts import answer
from lightning_steer.lm.tokens import MultipleChoice
from lightning_steer.metrics.behaviour_effect import KINDS
from lightning_steer.workflows.swap_control import surviving_share, swap_control, swap_sentences

PROMPT = "Which?\n (A) tea\n (B) hot milk\n (C) none"


@pytest.mark.parametrize(
    ("pair", "expected"),
    [
        ((PROMPT, "(A)", "(B)"), (PROMPT.replace("tea", "x").replace("hot milk", "tea").replace("x", "hot milk"),
                                  "(B)", "(A)")),
        (("q\nB. two words\nA. one\nAnswer:", "A", "B. two words"), ("q\nB. one\nA. two words\nAnswer:", "B",
                                                                     "A. two words")),
        ((PROMPT, "C) none", "A"), (PROMPT.replace("tea", "x").replace("none", "tea").replace("x", "none"),
                                    "A) none", "C")),
    ],
)  # fmt: skip
def test_letters_are_exchanged_and_answers_stay(pair: Pair, expected: Pair) -> None:
    assert swapped([pair]) == [expected]
    assert swapped(swapped([pair])) == [pair]
    if len(pair[1]) < 4:
        assert answer(expected[0], expected[1]) == answer(pair[0], pair[1])


@pytest.mark.parametrize(
    ("pair", "sentence"),
    [
        ((PROMPT, "tea", "hot milk"), "pair 2: expected continuations that begin with two different letters.*'tea'"),
        ((PROMPT, "(A) tea", "(A) milk"), "two different letters"),
        ((PROMPT, "(A)", "(D)"), r"one line of the prompt to begin with '\(D\)'"),
        (("Tea (A) or milk (B)?", "(A)", "(B)"), r"begin with '\(A\)'"),
        (("q\n(A) x\n(A) y\n(B) z", "(A)", "(B)"), r"begin with '\(A\)'"),
    ],
)
def test_what_cannot_be_exchanged_is_refused(pair: Pair, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        swapped([(PROMPT, "(A)", "(B)"), pair])


class Model:
    """Steering adds ``letter`` to the answer (A), and ``said`` to the answers of the set ``wanted``."""

    def __init__(self, letter: float, said: float, positive: Sequence[str]) -> None:
        self.letter, self.said, self.positive = letter, said, set(positive)

    def scores(self, questions: Sequence[MultipleChoice], edits: Mapping[str, Any] | None = None) -> Tensor:
        return torch.tensor([[[self._score(q.prompt, option, bool(edits)) for option in q.choices] for q in questions]])

    def _score(self, prompt: str, option: str, steered: bool) -> float:
        noise = random.Random(f"{prompt}{option}{steered}").gauss(0, 0.1)
        push = self.letter * ("(A)" in option) + self.said * (answer(prompt, option.strip()) in self.positive)
        return noise + steered * push


def examples(n: int = 40) -> list[BehaviourExample]:
    return of_pairs("x", lettered(random.Random(3), n, 1.0))


@pytest.mark.parametrize(("letter", "said", "share"), [(2, 0, -1), (0, 2, 1), (1, 1, 0), (0.5, 1.5, 0.5)])
def test_the_share_that_survives(letter: float, said: float, share: float) -> None:
    rows = examples()
    model: Any = Model(letter, said, [answer(row.prompt, row.positive) for row in rows])
    control = swap_control(model, rows, {"site": lambda h: h})
    assert control.effect.value == pytest.approx(2, abs=0.1)
    assert control.surviving.value == pytest.approx(share, abs=0.1)
    assert control.surviving.low < control.surviving.value < control.surviving.high < control.surviving.low + 0.3


def test_no_effect_has_no_share() -> None:
    model: Any = Model(0, 0, [])
    surviving = swap_control(model, examples(), {"site": lambda h: h}).surviving
    assert np.isnan(surviving.low)
    assert surviving.how.startswith("none: the effect is too uncertain")


@pytest.mark.parametrize("n", [8, 30])
def test_the_interval_holds_the_share_or_there_is_none(n: int) -> None:
    """Where the effect varies more than it is large; a share that is not given counts as one that holds."""
    draw, held = np.random.default_rng(n), []
    for _ in range(400):
        noise = draw.standard_normal((n, 2))
        changes = np.stack([1 + 1.5 * noise[:, 0], -1 + 0.75 * noise[:, 0] + 1.3 * noise[:, 1]], 1)
        share = surviving_share(changes, KINDS["margin_change"].estimate(changes)[0])
        held.append(np.isnan(share.low) or share.low <= -1 <= share.high)
    assert binomtest(sum(held), len(held), 0.95, "less").pvalue > 0.01


def test_the_sentence_of_a_report() -> None:
    rows = examples()
    model: Any = Model(2, 0, [])
    data: Any = SimpleNamespace(parts={TEST: rows}, clusters={TEST: list(range(len(rows)))})
    pairs = [(row.prompt, row.positive, row.negative) for row in rows]
    (sentence,) = swap_sentences(lint_pairs(pairs), model, data, {"site": lambda h: h})
    assert "Swap control: with the letters of the answers exchanged, -10" in sentence or "-9" in sentence
    data.parts[TEST] = [rows[0]._replace(prompt="no options")]
    (sentence,) = swap_sentences(lint_pairs(pairs), model, data, {"site": lambda h: h})
    assert "There is no swap control" in sentence
    assert not swap_sentences(lint_pairs([("p", "yes", "no")]), model, data, {"site": lambda h: h})
