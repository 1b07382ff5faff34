"""How sure a choice from mean scores is: how often it stays if the means had errors of a given size."""

from collections.abc import Sequence

import numpy as np

from lightning_steer.studies.published.kl_budget import CandidateDirection, KLBudget

DRAWS = 2000
SEED = 0


def share_of_same_choice(
    rule: KLBudget, candidates: Sequence[CandidateDirection], layers: int, error: float, relative: float
) -> float:
    """Return the share of draws in which the same candidate is chosen.

    Args:
        rule: the rule.
        candidates: with their observed scores.
        layers: layers of the network.
        error: standard deviation of the independent normal error of both scores.
        relative: standard deviation of the error of log KL.
    """
    chosen = rule.choose(candidates, layers)
    random = np.random.default_rng(SEED)
    same = 0
    for _ in range(DRAWS):
        noise = random.standard_normal((len(candidates), 3)) * (error, error, relative)
        drawn = [
            candidate._replace(
                ablated=candidate.ablated + a, added=candidate.added + b, kl=candidate.kl * float(np.exp(c))
            )
            for candidate, (a, b, c) in zip(candidates, noise.tolist(), strict=True)
        ]
        again = rule.choose(drawn, layers)
        same += again is not None and chosen is not None and again[:2] == chosen[:2]
    return same / DRAWS
