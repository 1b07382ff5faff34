"""Where the tokens stand that an edit is given, for methods that decide once for a whole row.

An edit is ``h -> h'`` and knows no tokens. The caller in :mod:`lightning_steer.lm` knows them and says so with
:func:`reading`; a method asks with :func:`current`. Without tokens, as in the toy network, every vector is a row.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

from torch import Tensor

from lightning_steer.errors import UserError


class RowTokens(NamedTuple):
    """The rows of one forward pass."""

    index: Tensor
    """``[R, T]`` position of each token in its row, -1 for padding."""
    prompt: Tensor
    """``[R]`` number of tokens of each row's prompt."""
    decided: dict[Any, Tensor]
    """What was decided in earlier passes over the same rows; the caller keeps it as long as these run."""

    def hold(self, method: object, passes: Tensor) -> Tensor:
        """Return for all tokens of a row what holds at the last token of its prompt, also in later passes.

        Args:
            method: whose decision it is.
            passes: ``[*, R, T]`` bool, or with rows and tokens in one dimension.

        Raises:
            ValueError: these are not the rows of the pass, or the prompt's last token has not been seen.
        """
        if passes.numel() % self.index.numel():
            raise UserError(
                f"a decision for each row needs all {list(self.index.shape)} tokens of a pass, not {passes.numel()}"
            )
        by_row = passes.reshape(-1, *self.index.shape)
        last = (self.index == self.prompt.unsqueeze(1) - 1).to(passes.device)
        seen, decision = last.any(1), (by_row & last).any(2)
        if not bool(seen.all()):
            earlier = self.decided.get(method)
            if earlier is None:
                raise UserError(
                    "whether a row is steered is decided at the last token of its prompt, which this pass does not "
                    "hold: give the prompt in one piece"
                )
            decision = decision.where(seen, earlier)
        self.decided[method] = decision
        return decision.unsqueeze(2).expand_as(by_row).reshape(passes.shape)


_ANNOUNCED: ContextVar[RowTokens | None] = ContextVar("announced_rows", default=None)


@contextmanager
def announcing(index: Tensor, prompt: Tensor) -> Iterator[None]:
    """Say of the forward pass inside the block which rows it reads, for what follows the decoder's tokens."""
    token = _ANNOUNCED.set(RowTokens(index, prompt, {}))
    try:
        yield
    finally:
        _ANNOUNCED.reset(token)


def announced() -> RowTokens | None:
    """Return the rows that the pass which runs now was announced with; None if it must be told from its inputs."""
    return _ANNOUNCED.get()


_CURRENT: ContextVar[Callable[[], RowTokens] | None] = ContextVar("row_tokens", default=None)


def current() -> RowTokens | None:
    """Return the rows that the edit which runs now was given; None if nobody knows of any."""
    read = _CURRENT.get()
    return None if read is None else read()


@contextmanager
def reading(read: Callable[[], RowTokens]) -> Iterator[None]:
    """Let methods that are called inside the block ask ``read`` for the rows."""
    token = _CURRENT.set(read)
    try:
        yield
    finally:
        _CURRENT.reset(token)
