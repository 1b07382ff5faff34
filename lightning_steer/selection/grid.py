"""Choose a layer and a strength from a table of both: the largest effect among those whose damage stays in a budget."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lightning_steer.errors import UserError
from lightning_steer.selection.halving import Round, spent

ROUNDING = 1e-5
"""Effects up to this are those of a batch's rounding: a method that changes nothing has them, too."""


class Grid(NamedTuple):
    """What steering does at every layer and strength, on rows that choose and do not judge."""

    layers: Sequence[int]
    strengths: Sequence[float]
    effect: Tensor
    """``[layers, strengths]`` mean change of the margin, in nats per token; NaN where it could not be measured."""
    damage: Tensor
    """``[layers, strengths]`` KL to the baseline on unrelated text, in nats per token; NaN where nothing was tried."""
    rows: int
    """Rows behind each effect."""
    rounds: Sequence[Round] = ()
    """Of successive halving, by the places of layers; those left out count as not tried. Empty without it."""

    def widened(self, more: "Grid") -> "Grid":
        """Return this grid with the strengths of another; both are of the same layers and rows."""
        return self._replace(
            strengths=[*self.strengths, *more.strengths],
            effect=torch.cat([self.effect, more.effect], 1),
            damage=torch.cat([self.damage, more.damage], 1),
        )

    @classmethod
    def untried(cls, layers: Sequence[int], strengths: Sequence[float], rows: int) -> "Grid":
        """Return a grid of which nothing has been tried."""
        nothing = torch.full((len(layers), len(strengths)), torch.nan, dtype=torch.float64)
        return cls(layers, strengths, nothing, nothing, rows)

    @property
    def tried(self) -> Tensor:
        """``[layers, strengths]`` whether a setting was tried."""
        return ~self.damage.isnan()

    def filled(self, layer: int, places: Sequence[int], effect: Tensor, damage: Tensor) -> "Grid":
        """Return this grid with one layer's figures, ``[strengths]`` each, at strengths by their places."""
        tables = self.effect.clone(), self.damage.clone()
        for table, figures in zip(tables, (effect, damage), strict=True):
            table[layer, list(places)] = figures
        return self._replace(effect=tables[0], damage=tables[1])

    def without_untried(self) -> "Grid":
        """Return this grid without the strengths that were tried at no layer."""
        was_tried = self.tried.any(0)
        strengths = [strength for strength, keep in zip(self.strengths, was_tried.tolist(), strict=True) if keep]
        return self._replace(strengths=strengths, effect=self.effect[:, was_tried], damage=self.damage[:, was_tried])


class Setting(NamedTuple):
    """One layer and one strength, by their places in a grid."""

    layer: int
    strength: int


def within_budget(grid: Grid, budget: float) -> list[Setting]:
    """Return the settings that help and whose damage is at most ``budget``, the largest effect first."""
    order = grid.effect.flatten().argsort(descending=True, stable=True).tolist()
    places = [divmod(place, len(grid.strengths)) for place in order]
    return [Setting(*cell) for cell in places if grid.damage[cell] <= budget and grid.effect[cell] > ROUNDING]


def reason(grid: Grid, setting: Setting, budget: float, broken: int) -> str:
    """Return why a setting was chosen; ``broken`` are those with a larger effect that broke text."""
    cell, allowed = tuple(setting), int((grid.damage <= budget).sum())
    layers, strengths = _tried(int(grid.tried.any(1).sum()), "layer"), _tried(len(grid.strengths), "strength")
    text = (
        f"Layer {grid.layers[setting.layer]} ({layers}, counted from 0) and strength "
        f"{grid.strengths[setting.strength]:g} ({strengths}) have the largest effect, {grid.effect[cell]:.3f} "
        f"nats per token on {grid.rows} pairs that do not judge it, among the {allowed} of {int(grid.tried.sum())} "
        f"settings tried that change unrelated text by at most {budget:g} nats per token (here {grid.damage[cell]:.3f})"
    )
    if broken:
        text += f"; {broken} with a larger effect broke the text that is generated at the pairs' own prompts"
    if grid.rounds:
        text += _halved(grid.rounds)
    elif untried := int((~grid.tried).sum()):
        text += f"; {untried} settings farther from the best were not tried (full_grid tries all)"
    if setting.strength == len(grid.strengths) - 1:
        text += "; it is the strongest setting that was tried, and a stronger one may do better"
    return text


def none_will_do(grid: Grid, budget: float) -> UserError:
    """Return the error that no setting helps within the budget and leaves text whole."""
    helping, largest = int((grid.effect > ROUNDING).sum()), float(grid.effect.nan_to_num(-math.inf).max())
    settings, least = within_budget(grid, budget), float(grid.damage.nan_to_num(math.inf).min())
    return UserError(
        f"no layer and strength moves the margin as meant (largest effect {largest:.3g} nats per token), "
        f"changes unrelated text by at most {budget:g} nats per token (least {least:.3g}) and "
        "leaves text at the pairs' own prompts whole: "
        + (
            f"all {len(settings)} that do the first two repeat words, or write what is less likely than the positives: "
            "give smaller strengths or more pairs"
            if settings
            else "raise the budget, or give smaller strengths or more pairs"
            if helping
            else "give more pairs, or another method"
        )
        + ", or leave the model as it is"
    )


def _halved(rounds: Sequence[Round]) -> str:
    parts = [f"{len(stage.candidates)} of {stage.passes}" for stage in rounds]
    whole = len(rounds[0].candidates) * rounds[-1].passes
    return (
        f"; layers were trained by successive halving ({', '.join(parts)} passes over the pairs: {spent(rounds)} "
        f"passes instead of {whole}; full_grid trains all layers to the end)"
    )


def _tried(count: int, what: str) -> str:
    return f"{count} {what}{'s' * (count > 1)} tried"
