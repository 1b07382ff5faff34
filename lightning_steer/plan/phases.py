"""The phases of a run, and the largest batches that its memory depends on."""

from collections.abc import Sequence
from typing import NamedTuple

from lightning_steer.modules import written
from lightning_steer.plan.phase import Phase, checked, compared, generation, read, scored, shown, together
from lightning_steer.plan.rows import DataPart, TokenRows
from lightning_steer.selection.coarse import LEAST_LAYERS, SHARE
from lightning_steer.workflows.search import CONTINUATION

TRAINED = 3.0
"""Passes that a step of training costs: one forward, and a backward of twice as many operations."""
DRAWS, CURVE = 20, 5
"""Random directions of a steering module's test, and those at every strength, where nothing else is set."""
BATCH = 8192
"""Tokens per batch, where nothing else is set."""
PRINTED = 3
"""Prompts whose continuations ``steer`` prints."""


class Needs(NamedTuple):
    """The largest batches of a run: what its memory depends on."""

    batch: tuple[int, int]
    """Rows, copies counted, and tokens of the largest batch."""
    read: tuple[int, int]
    """The same of the largest whose states are kept at every site."""
    sites: int
    compared: int
    """States whose predictions are compared after one batch, unsteered and steered."""
    copies: int
    """Steered copies of them."""
    scored: int
    """States whose predictions are scored after one batch."""
    generated: tuple[int, int]
    """Texts that are generated side by side, and the tokens of each in the end."""


class Work(NamedTuple):
    """A run: its phases, and what it needs at a number of tokens per batch."""

    phases: list[Phase]
    rows: list[tuple[TokenRows, int]]
    """Rows that run together with their copies, and how many these are."""
    read: TokenRows
    """Rows that are read at every site."""
    sites: int
    reference: list[tuple[TokenRows, int]]
    """Texts whose predictions are compared, and the steered copies."""
    prompts: TokenRows
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
            max((rows.scored * number for rows, number in self.rows), default=0),
            (len(self.prompts.tokens), longest + self.new if longest else 0),
        )


def adapted(
    parts: Sequence[DataPart],
    reference: TokenRows,
    depth: int,
    layers: Sequence[int],
    strengths: int,
    draws: int = DRAWS,
    curve: int = CURVE,
    refitted: bool = False,
    training: int = 0,
    batch: int = BATCH,
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
        batch: tokens per batch, copies counted.
    """
    fit, select, test = parts
    first, last = min(layers), max(layers)
    if fit.read is None:
        reading = scored(fit.questions, depth, batch)._replace(name="fit: read and score the rows")
    else:
        reading = read(fit.read, last + 1, batch)._replace(name="fit: read the pairs")
    rows = len(fit.questions.tokens)
    copies = 3 + draws + strengths * (1 + curve) + (rows.bit_length() + 1 if refitted else 0)
    sides = 1 + draws + strengths
    prompts = TokenRows(test.prompts.tokens[: written.PROMPTS])
    moved = [read(part.read, last + 1, batch) for part in (fit, test) if part.read is not None]
    moved = [run._replace(passes=run.passes / 2, calls=run.calls / 2) for run in moved]  # one side of each pair
    phases = [reading]
    if training:
        step = together("fit: train", scored(fit.questions, depth, batch), times=training)
        phases = [step._replace(factor=TRAINED)]
    base, steered = scored(select.questions, depth, batch), scored(select.questions, depth, batch, strengths, first)
    measured = [scored(part.questions, depth, batch) for part in (fit, test)]
    measured += [scored(part.questions, depth, batch, copies, first) for part in (fit, test)]
    phases += [
        together(f"fit: try {strengths} strengths", base, steered),
        together(f"test: {copies} copies with controls", reading, *moved, *measured),
    ]
    if reference.tokens:
        phases.append(
            together(f"test: {sides} copies of unrelated text", compared(reference, depth, batch, sides, first))
        )
    if fit.read is not None:
        phases.append(shown("test: text at held-out prompts", prompts, depth, 2))
    else:
        prompts = TokenRows([])
    runs = [(select.questions, strengths), (fit.questions, copies), (test.questions, copies)]
    return Work(phases, runs, fit.read or fit.questions, len(layers), [(reference, sides)], prompts, written.NEW)


def searched(
    parts: Sequence[DataPart],
    reference: tuple[TokenRows, TokenRows],
    openings: tuple[TokenRows, TokenRows],
    depth: int,
    layers: Sequence[int],
    strengths: Sequence[int],
    full_grid: bool,
    batch: int = BATCH,
    new: int = 0,
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
        batch: tokens per batch, copies counted.
        new: tokens that are written after some held-out prompts in the end, unsteered and steered.
    """
    fit, select, test = parts
    choosing, judging = (
        texts + TokenRows([length + CONTINUATION for length in opening.tokens])
        for texts, opening in zip(reference, openings, strict=True)
    )
    share = 1.0 if full_grid or len(layers) < LEAST_LAYERS else SHARE
    each_opening = (generation("", opening, CONTINUATION, depth) for opening in openings)  # continued by itself
    own = together("unrelated text of the model's own", *each_opening)
    assert fit.read is not None
    each = [read(fit.read, max(layers) + 1, batch), scored(select.questions, depth, batch)]
    phases = [checked(depth), own, together("read the pairs", *each, times=len(strengths))]
    groups = reference[0], TokenRows(choosing.tokens[len(reference[0].tokens) :])
    cells = [
        cell
        for count in strengths
        for layer in layers
        for cell in (
            scored(select.questions, depth, batch, count, layer),
            *(compared(texts, depth, batch, count, layer) for texts in groups),
        )
    ]
    name = f"search {len(layers)} layers, {sum(strengths)} strengths" + (", at most" if share < 1 else "")
    phases.append(together(name, *cells, times=share))
    prompts = TokenRows(select.prompts.tokens[: written.PROMPTS])
    phases.append(shown("text at the pairs' prompts", prompts, depth, 1 + len(strengths)))
    middle = layers[len(layers) // 2]
    after = adapted(parts, judging, depth, [middle], max(strengths), batch=batch)
    judged = [reference[1], TokenRows(judging.tokens[len(reference[1].tokens) :])]
    last = together("unrelated text that judges", *(compared(texts, depth, batch, 1, middle) for texts in judged))
    told = generation("text that is printed", TokenRows(test.prompts.tokens[:PRINTED]), new, depth, 2)
    return after._replace(
        phases=[*phases, *after.phases, last, *([told] if new else [])],
        rows=[*after.rows, *((select.questions, count) for count in strengths)],
        sites=len(layers),
        reference=[*after.reference, *((choosing, count) for count in strengths)],
        prompts=max(prompts, after.prompts, openings[0], key=lambda rows: len(rows.tokens)),
    )
