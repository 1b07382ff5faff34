"""Pairs of texts as batches: what data modules of stereotypes and of behaviours have in common."""

import hashlib
from collections.abc import Sequence
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from lightning_steer.data.pocket.text import BOS, chat
from lightning_steer.data.questions import Contrast
from lightning_steer.lm.tokens import Question


class Contrasts(Dataset[Contrast]):
    """Batches of consecutive rows, as equal in size as can be, so that each process gets a share of each.

    Args:
        questions: what is scored, a row each.
        unwanted: for each row the option to move away from, by its place.
        wanted: the option to move towards.
        cluster: ``[n]`` the target term or prompt of each row, as a number.
        size: the most rows of a batch.
        own: the rows of a batch that this process takes.
    """

    def __init__(
        self,
        questions: Sequence[Question],
        unwanted: int,
        wanted: int,
        cluster: Sequence[int],
        size: int,
        own: slice = slice(None),
    ) -> None:
        self.questions, self.unwanted, self.wanted, self.cluster = questions, unwanted, wanted, cluster
        self.own, self.count = own, -(-len(questions) // size)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, j: int) -> Contrast:
        if not 0 <= j < self.count:
            raise IndexError(j)
        n = len(self.questions)
        rows = range(j * n // self.count, (j + 1) * n // self.count)[self.own]
        asked = [self.questions[row] for row in rows]
        sides = [[Question(q.prompt, (q.options[i],)) for q in asked] for i in (self.unwanted, self.wanted)]
        return Contrast(
            asked,
            *sides,
            y=torch.tensor([self.cluster[row] for row in rows], dtype=torch.int64),
            row=torch.tensor(list(rows), dtype=torch.int64),
        )

    def loader(self) -> DataLoader[Contrast]:
        """Batch after batch, in the order of the rows."""
        as_it_is: Any = _as_it_is
        return DataLoader(self, batch_size=None, collate_fn=as_it_is)


def _as_it_is(batch: Contrast) -> Contrast:
    """The default would make lists of the tuples of options."""
    return batch


def rank(seed: int, name: str) -> bytes:
    """A place in an order that is random and yet the same everywhere, whatever else is ordered."""
    return hashlib.sha256(f"{seed}/{name}".encode()).digest()


def checked_shares(fit_share: float, select_share: float) -> tuple[float, float, float]:
    """Shares of the fitted, the selecting and the held-out part; raises ValueError if one of them is empty."""
    rest = 1 - fit_share - select_share
    if not min(fit_share, select_share, rest) >= 1e-9:
        raise ValueError(
            "fit_share and select_share are above 0 and leave something to test on, "
            f"not {fit_share:g} and {select_share:g}"
        )
    return fit_share, select_share, rest


def in_chat(prompt: str) -> str:
    """The prompt in the pocket language's chat form, without the begin mark that its tokenizer writes itself."""
    return chat(prompt).removeprefix(f"{BOS} ")
