"""What the conformance check costs, counted in tokens that run through the model: seconds are the machine's."""

from typing import Any

import pytest
from decoders import decoder, letters
from torch import nn

from lightning_steer.check import check
from lightning_steer.lm.language_model import LLM


class Counted:
    """Tokens and passes of a model."""

    def __init__(self, model: nn.Module) -> None:
        self.tokens = self.passes = 0
        model.get_input_embeddings().register_forward_hook(self)  # type: ignore[operator]

    def __call__(self, _module: object, inputs: tuple[Any, ...], _output: object) -> None:
        self.tokens, self.passes = self.tokens + inputs[0].numel(), self.passes + 1


@pytest.mark.parametrize(
    ("family", "window", "tokens"), [("llama", {}, 3000), ("mistral", {"sliding_window": 4096}, 3000)]
)
def test_a_hundred_million_weights_are_checked_in_thirty_seconds(family: str, window: dict, tokens: int) -> None:
    """2 x 10^8 operations a token and 20 x 10^9 a second on two slow cores: 3,000 tokens.

    With a token for every letter texts are some four times as long as with a real tokenizer.
    """
    model = decoder(family, **window)
    counted = Counted(model)
    verdicts = check(LLM(family, 0).adopt(model, letters()))
    assert all(verdict.passed for verdict in verdicts)
    assert 1000 < counted.tokens <= tokens
    assert counted.passes <= 120
