"""One phase of a run: how many tokens go through how many blocks, in how many batches, and what is generated.

A batch of few tokens takes as long as reading the weights, a large one as long as its operations; so both are counted,
and tokens that are generated one after the other apart from them.
"""

from typing import NamedTuple

from lightning_steer.modules import written
from lightning_steer.plan.machine import Speed
from lightning_steer.plan.rows import TokenRows

CHECKED, CHECKED_TOKENS = 8, 12
"""Passes by which a loaded model is checked, and the tokens of each."""


class Phase(NamedTuple):
    """One phase of a run."""

    name: str
    passes: float
    """Tokens times the blocks that they go through."""
    states: float = 0.0
    """States that go through the vocabulary head."""
    calls: float = 0.0
    """Batches times the blocks that they go through: each reads the weights, however few its tokens are."""
    heads: float = 0.0
    """Batches that go through the vocabulary head."""
    steps: int = 0
    """Tokens that are generated one after the other."""
    written: int = 0
    """Tokens that are generated in all."""
    factor: float = 1.0
    """What a pass costs: 1 forward, 3 with the gradient."""

    def tokens(self, depth: int) -> float:
        """Return the tokens, of the whole network."""
        return self.passes / depth + self.written

    def flops(self, depth: int, block: float, head: float) -> float:
        """Return the floating-point operations, from those of a token in a block and of a state in the head."""
        return self.factor * ((self.passes + self.written * depth) * block + (self.states + self.written) * head)

    def seconds(self, speed: Speed) -> float:
        """Return the time at a measured speed."""
        blocks = self.passes * speed.block + self.calls * speed.call
        head = self.states * speed.head + self.heads * speed.head_call
        return self.factor * (blocks + head) + self.steps * speed.step


def generation(name: str, prompts: TokenRows, new: int, depth: int, times: int = 1) -> Phase:
    """Return the phase that continues prompts side by side by ``new`` tokens, ``times`` times."""
    count = len(prompts.tokens)
    calls = times if count else 0
    steps = calls * (new - 1)  # the first token is read off the prompt
    return Phase(name, times * prompts.total * depth, times * count, calls * depth, calls, steps, times * new * count)


def shown(name: str, prompts: TokenRows, depth: int, times: int) -> Phase:
    """Return the phase that continues prompts, and scores what was written with the unsteered model."""
    phase = generation(name, prompts, written.NEW, depth, times)
    total = times * (prompts.total + written.NEW * len(prompts.tokens))
    return together(name, phase, Phase("", total * depth, phase.written, phase.calls, phase.heads))


def checked(depth: int) -> Phase:
    """Return the phase in which a loaded model is compared with itself on a few tokens."""
    states = CHECKED * CHECKED_TOKENS
    return Phase("load: check the model", states * depth, states, CHECKED * depth, CHECKED)


def above(tokens: int, layer: int, copies: int, depth: int) -> int:
    """Return the passes of steered copies: blocks up to the layer run once for all of them."""
    return tokens * (layer + 1 + copies * (depth - layer - 1))


def read(rows: TokenRows, blocks: int, batch: int) -> Phase:
    """Return the work of reading the two sides of pairs, one after the other, up to a block."""
    return Phase("", rows.total * blocks, calls=max(2, rows.batches(batch)) * blocks)


def scored(rows: TokenRows, depth: int, batch: int, copies: int = 1, layer: int = -1) -> Phase:
    """Return the work of scoring rows, in copies that are steered from a layer on.

    Args:
        rows: the rows.
        depth: blocks of the model.
        batch: tokens per batch, copies counted.
        copies: how many.
        layer: the first that is steered; the blocks up to it run once for all copies.
    """
    batches = rows.batches(batch, copies)
    return Phase("", above(rows.total, layer, copies, depth), rows.scored * copies, batches * depth, batches)


def compared(texts: TokenRows, depth: int, batch: int, copies: int, layer: int) -> Phase:
    """Return the work of comparing predictions for texts, unsteered and in steered copies; as for :func:`scored`."""
    batches = texts.batches(batch, copies + 1)
    passes = texts.total * depth + above(texts.total, layer, copies, depth)
    return Phase("", passes, texts.total * (1 + copies), 2 * batches * depth, batches * (1 + copies))


def together(name: str, *phases: Phase, times: float = 1.0) -> Phase:
    """Return phases as one, all of the same factor, so many times."""
    counts = [times * sum(column) for column in zip(*(phase[1:-1] for phase in phases), strict=True)]
    return Phase(name, *counts, phases[0].factor)  # type: ignore[arg-type]
