"""Follow a batch while it is generated: the text of every row after every token, and a way to stop all rows."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import StoppingCriteria

from lightning_steer.lm.continuations import PARTIAL
from lightning_steer.lm.language_model import up_to


class Follower(StoppingCriteria):
    """Asked by ``generate`` after every token whether to stop; hands on what is written so far.

    Args:
        tokenizer: decodes the tokens.
        ends: tokens that end a text.
        write: given the text of each row, after every token.
        stopped: whether to stop now.
    """

    def __init__(
        self,
        tokenizer: Any,
        ends: Sequence[int | None],
        write: Callable[[list[str]], object],
        stopped: Callable[[], bool],
    ) -> None:
        self.tokenizer, self.ends, self.write, self.stopped = tokenizer, ends, write, stopped
        self.prompt: int | None = None

    def __call__(self, input_ids: Tensor, _scores: object, **_more: object) -> Tensor:
        """Write, and return ``[B]``: True for every row once it is to stop."""
        if self.prompt is None:  # called for the first time after the first new token
            self.prompt = input_ids.shape[1] - 1
        rows = [up_to(self.ends, row) for row in input_ids[:, self.prompt :].tolist()]
        texts = self.tokenizer.batch_decode(rows, skip_special_tokens=True)
        self.write([text.rstrip(PARTIAL) for text in texts])  # the rest of a character comes with the next token
        return torch.full((len(rows),), self.stopped(), device=input_ids.device)
