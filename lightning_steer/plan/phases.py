"""The phases of a run: how many tokens go through how many blocks, how many states are scored, what is generated."""

from collections.abc import Sequence
from typing import NamedTuple

from lightning_steer.modules import written
from lightning_steer.plan.machine import Speed
from lightning_steer.plan.rows import Part, Rows
from lightning_steer.selection.coarse import LEAST_LAYERS, SHARE
from lightning_steer.workflows.search import CONTINUATION

TRAINED = 3.0
"""Passes that a step of training costs: one forward, and a backward of twice as many operations."""
DRAWS, CURVE = 20, 5
"""Random directions of a steering module's test, and those at every strength, where nothing else is set."""
AT_ONCE = 1024
"""States whose log-probabilities are computed together when continuations are scored."""


class Phase(NamedTuple):
    """One phase of a run."""

    name: str
    passes: float
    """Tokens times the blocks that they go through."""
    states: float = 0.0
    """States that go through the vocabulary head."""
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
        return self.factor * (self.passes * speed.block + self.states * speed.head) + self.steps * speed.step


class Needs(NamedTuple):
    """The largest batches of a run: what its memory depends on."""

    batch: tuple[int, int]
    """Rows, copies counted, and tokens of the largest batch."""
    read: tuple[int, int]
    """The same of the largest whose states are kept at every site."""
    sites: int
    compared: int
    """States whose predictions are compared at once, unsteered and steered."""
    copies: int
    """Steered copies of them."""
    scored: int
    """States whose predictions are scored at once."""
    generated: tuple[int, int]
    """Texts that are generated side by side, and the tokens of each in the end."""


class Work(NamedTuple):
    """A run: its phases, and what it needs at a number of tokens per batch."""

    phases: list[Phase]
    rows: list[tuple[Rows, int]]
    """Rows that run together with their copies, and how many these are."""
    read: Rows
    """Rows that are read at every site."""
    sites: int
    reference: list[tuple[Rows, int]]
    """Texts whose predictions are compared, and the steered copies."""
    prompts: Rows
    new: int
    """Tokens that are generated after each prompt."""

    def needs(self, tokens_per_batch: int) -> Needs:
        """Return the largest batches."""
        texts = [(rows.batch(tokens_per_batch, copies + 1), copies) for rows, copies in self.reference]
        compared = [(rows * tokens // (copies + 1), copies) for (rows, tokens), copies in texts]
        sizes = [rows.batch(tokens_per_batch, number) for rows, number in self.rows]
        sizes.append(self.read.batch(tokens_per_batch))
        longest = max(self.prompts.tokens, default=0)
        return Needs(
            max(sizes, key=lambda size: size[0] * size[1]),
            self.read.batch(tokens_per_batch),
            self.sites,
            *max(compared, default=(0, 0)),
            min(AT_ONCE, max((rows.scored * number for rows, number in self.rows), default=0)),
            (len(self.prompts.tokens), longest + self.new if longest else 0),
        )


def generation(name: str, prompts: Rows, new: int, depth: int, times: int = 1) -> Phase:
    """Return the phase that continues prompts side by side by ``new`` tokens, ``times`` times."""
    count = len(prompts.tokens)
    steps = times * new if count else 0
    return Phase(name, times * prompts.total * depth, times * count, steps, times * new * count)


def shown(name: str, prompts: Rows, depth: int, times: int) -> Phase:
    """Return the phase that continues prompts, and scores what was written with the unsteered model."""
    phase = generation(name, prompts, written.NEW, depth, times)
    scored = times * (prompts.total + written.NEW * len(prompts.tokens))
    return phase._replace(passes=phase.passes + scored * depth, states=phase.states + phase.written)


def above(tokens: int, layer: int, copies: int, depth: int) -> int:
    """Return the passes of steered copies: blocks up to the layer run once for all of them."""
    return tokens * (layer + 1 + copies * (depth - layer - 1))


def adapted(
    parts: Sequence[Part],
    reference: Rows,
    depth: int,
    layers: Sequence[int],
    strengths: int,
    draws: int = DRAWS,
    curve: int = CURVE,
    refitted: bool = False,
    training: int = 0,
) -> Work:
    """Return the work of fitting and testing a steering module.

    Args:
        parts: what is fitted to, chosen on and held out.
        reference: texts that steering should leave alone.
        depth: blocks of the model.
        layers: those that are steered.
        strengths: how many are tried.
        draws: random directions.
        curve: of them, how many at every strength.
        refitted: whether the method is fitted to 1, 2, 4, ... rows, too.
        training: passes over the rows of a method that is trained through the output; 0 for a closed form.
    """
    fit, select, test = parts
    first, last = min(layers), max(layers)
    if fit.read is None:
        read = Phase("fit: read and score the rows", fit.questions.total * depth, fit.questions.scored)
    else:
        read = Phase("fit: read the pairs", fit.read.total * (last + 1))
    rows = len(fit.questions.tokens)
    copies = 3 + draws + strengths * (1 + curve) + (rows.bit_length() + 1 if refitted else 0)
    sides = 1 + draws + strengths
    measured = fit.questions + test.questions
    prompts = Rows(test.prompts.tokens[: written.PROMPTS])
    moved = sum(part.read.total // 2 for part in (fit, test) if part.read is not None) * (last + 1)
    phases = [read]
    if training:
        asked = fit.questions
        phases = [Phase("fit: train", training * asked.total * depth, training * asked.scored, factor=TRAINED)]
    phases += [
        Phase(
            f"fit: try {strengths} strengths",
            select.questions.total * depth + above(select.questions.total, first, strengths, depth),
            select.questions.scored * (1 + strengths),
        ),
        Phase(
            f"test: {copies} copies with controls",
            read.passes + moved + measured.total * depth + above(measured.total, first, copies, depth),
            read.states + measured.scored * (1 + copies),
        ),
    ]
    if reference.tokens:
        phases.append(
            Phase(
                f"test: {sides} copies of unrelated text",
                reference.total * depth + above(reference.total, first, sides, depth),
                reference.total * (1 + sides),
            )
        )
    if fit.read is not None:
        phases.append(shown("test: text at held-out prompts", prompts, depth, 2))
    else:
        prompts = Rows([])
    runs = [(select.questions, strengths), (measured, copies)]
    return Work(phases, runs, fit.read or fit.questions, len(layers), [(reference, sides)], prompts, written.NEW)


def searched(
    parts: Sequence[Part],
    reference: tuple[Rows, Rows],
    openings: tuple[Rows, Rows],
    depth: int,
    layers: Sequence[int],
    strengths: Sequence[int],
    full_grid: bool,
) -> Work:
    """Return the work of ``steer``: a search over layers and strengths, and the test of what it has chosen.

    Args:
        parts: what is fitted to, chosen on and held out.
        reference: unrelated texts that choose, and those that judge.
        openings: first words of both, which the model continues.
        depth: blocks of the model.
        layers: those that may be chosen.
        strengths: how many are tried, for each method.
        full_grid: whether every layer is tried at all strengths.
    """
    fit, select, _ = parts
    choosing, judging = (
        texts + Rows([length + CONTINUATION for length in opening.tokens])
        for texts, opening in zip(reference, openings, strict=True)
    )
    share = 1.0 if full_grid or len(layers) < LEAST_LAYERS else SHARE
    own = generation("unrelated text of the model's own", openings[0] + openings[1], CONTINUATION, depth)
    assert fit.read is not None
    phases = [own, Phase("read the pairs", len(strengths) * fit.read.total * (max(layers) + 1))]
    passes = states = 0.0
    for count in strengths:
        passes += sum(
            above(select.questions.total + choosing.total, layer, count, depth) + choosing.total * depth
            for layer in layers
        )
        states += len(layers) * (select.questions.scored * count + choosing.total * (1 + count))
    name = f"search {len(layers)} layers, {sum(strengths)} strengths" + (", at most" if share < 1 else "")
    phases.append(Phase(name, share * passes, share * states))
    prompts = Rows(select.prompts.tokens[: written.PROMPTS])
    phases.append(shown("text at the pairs' prompts", prompts, depth, 1 + len(strengths)))
    middle = layers[len(layers) // 2]
    after = adapted(parts, judging, depth, [middle], max(strengths))
    steered = judging.total * depth + above(judging.total, middle, 1, depth)
    return after._replace(
        phases=[*phases, *after.phases, Phase("unrelated text that judges", steered, 2 * judging.total)],
        rows=[*after.rows, *((select.questions, count) for count in strengths)],
        sites=len(layers),
        reference=[*after.reference, *((choosing, count) for count in strengths)],
        prompts=max(prompts, after.prompts, openings[0], key=lambda rows: len(rows.tokens)),
    )
