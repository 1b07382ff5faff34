"""Rules that select the steered tokens.

Tokens are counted from the first real one of their row; padding has the index -1.
"""

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from lightning_steer.numbers import ranged


class Positions(ABC):
    """A rule that picks tokens."""

    needs_prompt = True
    """Whether the rule depends on the end of the prompt."""

    @abstractmethod
    def mask(self, index: Tensor, prompt: Tensor) -> Tensor | None:
        """Return the selected tokens ``[B, T]`` bool, or None for all of them.

        Args:
            index: ``[B, T]`` position of each token in its row, -1 for padding.
            prompt: ``[B]`` number of tokens of each row's prompt.
        """


def described(positions: Positions) -> str:
    """Return the rule with its settings, as records of caches and runs have it."""
    return f"{type(positions).__name__}({', '.join(f'{name}={value!r}' for name, value in vars(positions).items())})"


class AllTokens(Positions):
    """Every token."""

    needs_prompt = False

    def mask(self, index: Tensor, prompt: Tensor) -> Tensor | None:
        return None


class PromptTokens(Positions):
    """The prompt, none of what follows it."""

    def mask(self, index: Tensor, prompt: Tensor) -> Tensor | None:
        return (index >= 0) & (index < prompt.unsqueeze(1))


class LastPromptToken(Positions):
    """The last token of the prompt: the one that predicts the first token of the answer."""

    def mask(self, index: Tensor, prompt: Tensor) -> Tensor | None:
        return index == prompt.unsqueeze(1) - 1


class GeneratedTokens(Positions):
    """What follows the prompt, and none of the prompt."""

    def mask(self, index: Tensor, prompt: Tensor) -> Tensor | None:
        return index >= prompt.unsqueeze(1)


class TokensFrom(Positions):
    """A token and all after it.

    Args:
        offset: counted from the row's first token; if negative, from the end of the prompt (-1 is its last token).
    """

    @ranged
    def __init__(self, offset: int) -> None:
        self.offset = offset

    @property
    def needs_prompt(self) -> bool:  # type: ignore[override]
        """Whether the token is counted from the prompt's end."""
        return self.offset < 0

    def mask(self, index: Tensor, prompt: Tensor) -> Tensor | None:
        start = prompt + self.offset if self.offset < 0 else torch.full_like(prompt, self.offset)
        return (index >= 0) & (index >= start.clamp_min(0).unsqueeze(1))


class TokenAt(Positions):
    """One token.

    Args:
        offset: counted from the row's first token; if negative, from the end of the prompt (-1 is its last token). Of a
            text that is read whole, the text counts as the prompt.
    """

    @ranged
    def __init__(self, offset: int) -> None:
        self.offset = offset

    @property
    def needs_prompt(self) -> bool:  # type: ignore[override]
        """Whether the token is counted from the prompt's end."""
        return self.offset < 0

    def mask(self, index: Tensor, prompt: Tensor) -> Tensor | None:
        place = prompt + self.offset if self.offset < 0 else torch.full_like(prompt, self.offset)
        return (index >= 0) & (index == place.unsqueeze(1))
