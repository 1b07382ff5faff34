"""How many tokens the rows of a data set have, counted by the model's tokenizer if it is on this machine."""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lightning_steer.data.base import SteeringDataModule
from lightning_steer.lm import loading
from lightning_steer.lm.language_model import LLM
from lightning_steer.lm.tokens import MultipleChoice, TokenRow, batches, rows_of

BYTES = 4
"""UTF-8 bytes of a token, where no tokenizer counts: that of English text."""


class TokenRows(NamedTuple):
    """Rows of tokens."""

    tokens: list[int]
    """Length of each row."""
    scored: int = 0
    """States in them whose predictions are scored."""

    @property
    def total(self) -> int:
        """Count the tokens of all rows."""
        return sum(self.tokens)

    def batch(self, tokens_per_batch: int, copies: int = 1) -> tuple[int, int]:
        """Return rows, copies counted, and tokens of the largest batch; no row gives no batch."""
        groups = self._groups(tokens_per_batch, copies)
        sizes = [(copies * len(group), len(group[-1].ids)) for group in groups]
        return max(sizes, key=math.prod, default=(0, 0))

    def batches(self, tokens_per_batch: int, copies: int = 1) -> int:
        """Count the batches of all rows with so many copies of each."""
        return len(self._groups(tokens_per_batch, copies))

    def _groups(self, tokens_per_batch: int, copies: int) -> list[list[TokenRow]]:
        rows = [TokenRow(range(length), [], [], length, 0, []) for length in self.tokens]  # type: ignore[arg-type]
        return batches(rows, max(1, tokens_per_batch // copies))

    def __add__(self, other: "TokenRows") -> "TokenRows":  # type: ignore[override]
        return TokenRows([*self.tokens, *other.tokens], self.scored + other.scored)


class DataPart(NamedTuple):
    """One part of a data set: to fit to, to choose on, or held out."""

    questions: TokenRows
    """What is scored."""
    read: TokenRows | None
    """Texts of pairs that a method is fitted to; None where the questions themselves are read."""
    prompts: TokenRows
    """Different prompts."""


class Counter:
    """Counts tokens as a language model reads them.

    Args:
        llm: a model that is not loaded.
        tokenizer: its tokenizer; None to estimate, at four bytes a token.
    """

    def __init__(self, llm: LLM, tokenizer: Any = None) -> None:
        self.llm, self.exact = llm, tokenizer is not None
        llm.tokenizer = tokenizer

    def questions(self, questions: Iterable[MultipleChoice]) -> TokenRows:
        """Return the rows that score the options of questions side by side, or that read texts without options."""
        rows = TokenRows([])
        for question in questions:
            rows.tokens.append(0)
            if not self.exact:
                options = [_estimate(option) for option in question.choices]
                rows.tokens[-1] = _estimate(question.prompt) + sum(options)
                rows = rows._replace(scored=rows.scored + sum(options))
                continue
            written = MultipleChoice(self.llm.prompt(question.prompt), question.choices)
            split = rows_of(self.llm.tokenizer, 0, written, not self.llm.chat, True)
            rows.tokens[-1:] = [len(row.ids) for row in split]
            rows = rows._replace(scored=rows.scored + sum(len({slot for slot, *_ in row.reads}) for row in split))
        return rows

    def texts(self, texts: Iterable[str]) -> TokenRows:
        """Return the rows of whole texts."""
        return self.questions(MultipleChoice(text) for text in texts)

    def part(self, batches: Iterable[Any]) -> DataPart:
        """Return the rows of the batches of a data module."""
        batches = list(batches)
        questions = [question for batch in batches for question in batch.x]
        pairs = [batch.pair for batch in batches if batch.pair is not None]
        texts = [q for pair in pairs for side in pair for q in side]
        read = self.texts(q.prompt + "".join(q.choices[:1]) for q in texts) if pairs else None
        return DataPart(self.questions(questions), read, self.texts(dict.fromkeys(q.prompt for q in questions)))

    def parts(self, data: SteeringDataModule) -> Sequence[DataPart]:
        """Return what is fitted to, chosen on and held out."""
        data.setup("fit")
        held_out, *_ = data.test_dataloader()
        return [self.part(loader) for loader in (data.train_dataloader(), data.val_dataloader(), held_out)]


def tokenizer_of(folder: Path) -> Any:
    """Return a model's tokenizer; None without its files, where of some families a made-up one would be loaded."""
    if not any(folder.glob("tokenizer*")) and not any(folder.glob("vocab*")):
        return None
    try:
        return loading.load_tokenizer(str(folder))
    except ValueError:  # a plan can do without
        return None


def _estimate(text: str) -> int:
    return max(1, math.ceil(len(text.encode()) / BYTES))
