"""The prompt baseline: positive examples before the prompt, instead of a shift inside the network.

How many is chosen as a strength is, within the same budget: the examples stand before the reference texts, too. A
pocket model follows no instructions, so there is none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from lightning_steer.lm.language_model import LLM
from lightning_steer.lm.tokens import MultipleChoice, row_of
from lightning_steer.metrics.drift import next_token_kl
from lightning_steer.modules import written
from lightning_steer.selection.grid import Grid, within_budget
from lightning_steer.workflows.search import Search

if TYPE_CHECKING:
    from lightning_steer.studies.arena.language import LanguageCell

SHOTS = (1, 2, 4)


@torch.no_grad()
def measured(llm: LLM, search: Search, before: str) -> tuple[float, float, float]:
    """Return effect, change of the preferred share, and damage of text put before prompts and reference texts."""
    columns = []
    for base, batch in zip(search.baseline, search.batches, strict=True):
        questions = [MultipleChoice(f"{before} {question.prompt}", question.choices) for question in batch.x]
        columns.append(search.evaluation.rows(base, llm.scores(questions), batch))
    effect, preferred = (
        float(torch.cat([rows[name] for rows in columns], 1).mean())
        for name in ("margin_change", "intended_preferred_change")
    )
    return effect, preferred, max(text_kl(llm, texts, before) for texts in search.texts if texts)


@torch.no_grad()
def text_kl(llm: LLM, texts: list[str], before: str) -> float:
    """Return the mean KL of what is predicted after every token of the texts, nats per token."""
    total, count = 0.0, 0
    for text in texts:
        states = [
            llm.decoder.states(llm.decoder.collate(llm.rows([MultipleChoice(each)]), llm.pad))[0]
            for each in (text, f"{before} {text}")
        ]
        tokens = len(states[0]) - 1  # the first one only begins a text
        base, after = (llm.logits(h[-tokens:]).log_softmax(-1) for h in states)
        total, count = total + float(next_token_kl(base, after).sum()), count + tokens
    return total / count


@torch.no_grad()
def breaks(cell: LanguageCell, before: str) -> bool:
    """Tell whether what the model writes after the choosing prompts is broken, as the search judges it."""
    llm, fluency = cell.llm, cell.fluency
    if fluency.baseline is None:
        return False
    tokens = llm.continued([f"{before} {prompt}" for prompt in fluency.prompts], None, written.NEW)
    ids = llm.prompts(fluency.prompts, 1)
    rows = [row_of(prompt, [(0, after)], i) for i, (prompt, after) in enumerate(zip(ids, tokens, strict=True))]
    texts = llm.tokenizer.batch_decode(tokens, skip_special_tokens=True)
    repeated = torch.tensor([written.repetition(text) for text in texts])
    steered = written.Written(texts, written.surprise(llm, rows), repeated)
    return bool(written.broken(steered, fluency.baseline, fluency.positive))


def outcome(cell: LanguageCell) -> dict[str, Any]:
    """Choose the number of examples on the choosing rows, and judge it on the held-out ones."""
    shown = cell.data.continued(0, max(SHOTS))
    prefixes = [" ".join(f"{q.prompt}{q.choices[0]}" for q in shown[:k]) for k in SHOTS]
    figures = [measured(cell.llm, cell.choosing, before) for before in prefixes]
    table = torch.tensor(figures, dtype=torch.float64)
    grid = Grid([0], [float(k) for k in SHOTS], table[None, :, 0], table[None, :, 2], cell.choosing.rows)
    judged = [measured(cell.llm, cell.judging, before) for before in prefixes]
    curve = [[float(k), effect, kl] for k, (effect, _, kl) in zip(SHOTS, judged, strict=True)]
    for setting in within_budget(grid, cell.budget):
        if not breaks(cell, prefixes[setting.strength]):
            effect, preferred, kl = judged[setting.strength]
            return {"effect": effect, "preferred": preferred, "damage": kl, "layer": None,
                    "strength": float(SHOTS[setting.strength]), "curve": curve}  # fmt: skip
    return {"effect": 0.0, "preferred": 0.0, "damage": 0.0, "layer": None, "strength": 0.0, "curve": curve}
