"""One table for each model, behaviour and seed: what steering does to every item, at every layer and strength.

What is true is measured on items and on texts that no search has seen.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lightning_steer.data.behaviours.examples import BehaviourExample
from lightning_steer.data.behaviours.module import BehaviourDataModule, question
from lightning_steer.data.behaviours.pairs import ContrastPair, Pairs
from lightning_steer.data.pocket.items import neutral_texts
from lightning_steer.data.pocket.prompts import behaviour_items
from lightning_steer.lm.language_model import LLM
from lightning_steer.methods import MeanDifference
from lightning_steer.metrics.behaviour_effect import behaviour_rows
from lightning_steer.modules import interventions
from lightning_steer.selection.grid import Grid, Setting
from lightning_steer.workflows.explore import explore
from lightning_steer.workflows.fluency import Fluency
from lightning_steer.workflows.search import Search, own_text
from lightning_steer.workflows.steer import SHARES, reference_texts_for
from lightning_steer.workflows.trials import FURTHER

BUDGET = 0.1
STRENGTHS = [*MeanDifference.default_strengths, *(strength for more in FURTHER for strength in more)]
OTHERS, PER_TOPIC, TEXTS = 1000, 10, 64
"""Seed and number of the items, and number of the texts, that tell the truth: others than those of the search."""


class SettingsTable(NamedTuple):
    """What a search saw, what it chose, and what is true."""

    full: Grid
    """Every layer and strength, as the search measures them."""
    chosen: Setting | None
    """The choice of the search from coarse to fine, by its places in the full grid; None if nothing would do."""
    whole: Tensor
    """``[layers, strengths]`` whether a setting keeps text whole; looked at within the budget alone."""
    effects: dict[str, Tensor]
    """``[items, layers, strengths]`` change of the margin (nats per token) and of the preference of other items."""
    true_damage: Tensor
    """``[layers, strengths]`` damage to other texts."""

    @property
    def allowed(self) -> Tensor:
        """``[layers, strengths]`` what keeps text whole within the budget, by its true damage."""
        return (self.true_damage <= BUDGET) & self.whole

    @property
    def share_of_best(self) -> float:
        """True effect of the choice over the largest one within the true budget; NaN without a choice."""
        true = self.effects["margin_change"].mean(0)
        best = float(torch.where(self.allowed, true, -math.inf).max())
        return math.nan if self.chosen is None else float(true[self.chosen]) / best


def pairs(behaviour: str, per_topic: int, seed: int) -> list[ContrastPair]:
    """Return pairs of the pocket language, each once."""
    items = behaviour_items(behaviour, per_topic, seed)
    return list(dict.fromkeys(ContrastPair(item.prompt, item.positive, item.negative) for item in items))


@torch.no_grad()
def table(llm: LLM, behaviour: str, per_topic: int, seed: int) -> SettingsTable:
    """Search with pairs of one seed, and score other items at every setting.

    Args:
        llm: a pocket model that reads and steers all layers.
        behaviour: a behaviour of the pocket language.
        per_topic: pairs for each of its 20 topics.
        seed: draws pairs and split.
    """
    data = BehaviourDataModule(Pairs(pairs(behaviour, per_topic, seed)), None, False, *SHARES, seed=seed)
    search = Search(llm, data, MeanDifference, reference_texts_for(llm, None)[::2])
    fluency = Fluency(llm, data, search.methods, BUDGET)
    few = explore(search, fluency, MeanDifference.default_strengths, FURTHER, full_grid=False)
    chosen = fluency.best_whole(few)
    full = search.grid(STRENGTHS)
    fresh = [text for text, _ in neutral_texts(TEXTS, OTHERS + seed)]
    seen = {*search.texts[0], *search.texts[1]}
    fresh = [text for text in fresh if text not in seen]
    written = own_text(llm, fresh, without=sorted(seen))
    true_damage = torch.stack([search.damage(layer, STRENGTHS, [fresh, written]) for layer in range(len(llm.sites))])
    whole = torch.ones_like(full.damage, dtype=torch.bool)
    for layer, strength in ((full.damage <= BUDGET) | (true_damage <= BUDGET)).nonzero().tolist():
        whole[layer, strength] = fluency.whole(full, Setting(layer, strength))
    setting = None if chosen is None else Setting(chosen.layer, STRENGTHS.index(few.strengths[chosen.strength]))
    return SettingsTable(
        full, setting, whole, _effects(llm, search, pairs(behaviour, PER_TOPIC, OTHERS + seed)), true_damage
    )


def _effects(llm: LLM, search: Search, items: Sequence[ContrastPair]) -> dict[str, Tensor]:
    questions = [question(BehaviourExample(str(i), "", *pair)) for i, pair in enumerate(items)]
    base, layers = llm.scores(questions)[0], []
    for site in llm.sites:
        group = interventions.steered("", {site: search.methods[site]}, STRENGTHS)
        layers.append(behaviour_rows(base, llm.scores(questions, *interventions.together([group], [site]))))
    margin, preference = (torch.stack([rows[name].T for rows in layers], 1) for name in ("margin_change", "preference"))
    before = behaviour_rows(base, base.unsqueeze(0))["preference"].T.unsqueeze(2)
    return {"margin_change": margin, "preference_change": preference - before}
