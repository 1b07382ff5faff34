"""Choose a direction by its scores, within a budget of KL: the rule of refusal_direction.

Of all candidates (a token position and a layer each) keep those whose KL on harmless prompts is within the budget,
whose addition induces the behaviour enough, and whose layer lies in the first part of the network; of these take the
smallest score after ablation (Arditi et al. 2024, arXiv 2406.11717, appendix C). Scores are means over prompts, so the
choice has an error; without the prompts' own scores one can only say how far other choices are.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from lightning_steer.errors import UserError


class CandidateDirection(NamedTuple):
    """One direction with its scores; a score that is NaN excludes it."""

    position: int
    """Token position that it was read at, from the end."""
    layer: int
    ablated: float
    """Score of the behaviour where the direction is ablated: smaller is better."""
    added: float
    """Score of the behaviour where the direction is added: larger is better."""
    kl: float
    """KL of the ablated network to the baseline on unrelated prompts, in nats."""


class BudgetRange(NamedTuple):
    """Budgets from ``low`` to below ``high`` give the same choice, all else equal."""

    low: float
    high: float


@dataclass(frozen=True)
class KLBudget:
    """The rule, and how far its choice is from another.

    Args:
        budget: largest KL.
        least_added: least score where the direction is added.
        depth: share of the layers, from the first on, that candidates come from.
    """

    budget: float = 0.1
    least_added: float = 0.0
    depth: float = 0.8

    def __post_init__(self) -> None:
        if not self.budget >= 0:
            raise UserError(f"a budget of KL is at least 0, not {self.budget}")
        if not 0 < self.depth <= 1:
            raise UserError(f"depth is a share of the layers, above 0 and at most 1, not {self.depth}")

    def allowed(self, candidates: Sequence[CandidateDirection], layers: int) -> list[CandidateDirection]:
        """Return the candidates that the rule allows, the best first; ties as they came.

        Args:
            candidates: all that were scored.
            layers: layers of the network.
        """
        eligible = [candidate for candidate in self._eligible(candidates, layers) if candidate.kl <= self.budget]
        return sorted(eligible, key=lambda candidate: candidate.ablated)

    def choose(self, candidates: Sequence[CandidateDirection], layers: int) -> CandidateDirection | None:
        """Return the choice; None where the rule allows no candidate."""
        allowed = self.allowed(candidates, layers)
        return allowed[0] if allowed else None

    def same_choice(self, candidates: Sequence[CandidateDirection], layers: int) -> BudgetRange | None:
        """Return the budgets that give the same choice; None where nothing is chosen."""
        chosen = self.choose(candidates, layers)
        if chosen is None:
            return None
        better = [
            candidate.kl for candidate in self._eligible(candidates, layers) if candidate.ablated < chosen.ablated
        ]
        return BudgetRange(chosen.kl, min(better, default=math.inf))

    def _eligible(self, candidates: Sequence[CandidateDirection], layers: int) -> list[CandidateDirection]:
        """Return the candidates that the rule allows if KL does not count."""
        return [
            candidate
            for candidate in candidates
            if candidate.layer < self.depth * layers
            and candidate.added >= self.least_added
            and not math.isnan(candidate.ablated)
            and not math.isnan(candidate.kl)
        ]
