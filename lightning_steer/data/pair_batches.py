"""Pairs of texts as batches, shared by the data modules of stereotypes and of behaviours."""

import hashlib
from collections.abc import Sequence
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from lightning_steer.data.base import PairBatch
from lightning_steer.data.pocket.text import BOS, chat
from lightning_steer.errors import UserError
from lightning_steer.lm.tokens import MultipleChoice


class PairBatches(Dataset[PairBatch]):
    """Batches of consecutive rows of nearly equal size, so that each process gets a share of each.

    Args:
        questions: the questions to score, one a row.
        negative: index of the option to move away from.
        positive: index of the option to move towards.
        cluster: ``[n]`` the target term or prompt of each row, as a number.
        size: maximum rows of a batch.
        own: the rows of a batch that this process takes.
    """

    def __init__(
        self,
        questions: Sequence[MultipleChoice],
        negative: int,
        positive: int,
        cluster: Sequence[int],
        size: int,
        own: slice = slice(None),
    ) -> None:
        self.questions, self.negative, self.positive, self.cluster = questions, negative, positive, cluster
        self.own, self.count = own, -(-len(questions) // size)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, j: int) -> PairBatch:
        if not 0 <= j < self.count:
            raise IndexError(j)
        n = len(self.questions)
        rows = range(j * n // self.count, (j + 1) * n // self.count)[self.own]
        questions = [self.questions[row] for row in rows]
        sides = [[MultipleChoice(q.prompt, (q.choices[i],)) for q in questions] for i in (self.negative, self.positive)]
        return PairBatch(
            questions,
            *sides,
            y=torch.tensor([self.cluster[row] for row in rows], dtype=torch.int64),
            row=torch.tensor(list(rows), dtype=torch.int64),
        )

    def loader(self) -> DataLoader[PairBatch]:
        """Return a loader of the batches in row order."""
        collate: Any = _identity
        return DataLoader(self, batch_size=None, collate_fn=collate)


def _identity(batch: PairBatch) -> PairBatch:
    """Return the batch unchanged; the default collation would turn tuples of options into lists."""
    return batch


def rank(seed: int, name: str) -> bytes:
    """Return a sort key that orders names at random, yet the same everywhere and for any set of names."""
    return hashlib.sha256(f"{seed}/{name}".encode()).digest()


def checked_shares(fit_share: float, select_share: float) -> tuple[float, float, float]:
    """Return the shares of the fitted, selection and held-out parts; raises ValueError if one of them is empty."""
    test_share = 1 - fit_share - select_share
    if not min(fit_share, select_share, test_share) >= 1e-9:
        raise UserError(
            "fit_share and select_share are above 0 and leave something to test on, "
            f"not {fit_share:g} and {select_share:g}"
        )
    return fit_share, select_share, test_share


def in_chat(prompt: str) -> str:
    """Return the prompt in the pocket language's chat form, without the begin mark that its tokenizer adds."""
    return chat(prompt).removeprefix(f"{BOS} ")
