"""Successive halving: train all candidates a little, keep the better half, and train these on, until one is left.

For methods that cost so much to fit that a search cannot fit them everywhere. All candidates together are trained
little more than one candidate to the end. Source: Jamieson & Talwalkar 2016, arXiv 1502.07943.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from lightning_steer.errors import UserError

KEPT = 2
"""Of so many candidates one goes on to the next round."""


class Round(NamedTuple):
    """One round: the candidates that were left, and how many passes each of them had by its end."""

    candidates: Sequence[int]
    passes: int


def spent(rounds: Sequence[Round]) -> int:
    """Return the passes of all candidates together."""
    before = [0, *(stage.passes for stage in rounds)]
    return sum(len(stage.candidates) * (stage.passes - done) for stage, done in zip(rounds, before, strict=False))


def schedule(candidates: int, passes: int) -> list[int]:
    """Return how many passes a candidate has had by the end of each round, the last being ``passes``.

    Each round doubles them while it halves the candidates; there are no more rounds than passes to double.
    """
    rounds = min(math.ceil(math.log(candidates, KEPT)), int(math.log(passes, KEPT))) if candidates > 1 else 0
    return [max(1, round(passes / KEPT ** (rounds - i))) for i in range(rounds + 1)]


def halve(candidates: int, passes: int, score: Callable[[int, int], float]) -> list[Round]:
    """Train candidates in rounds, and return the rounds; those of the last one were trained to the end.

    Args:
        candidates: how many there are.
        passes: passes over the data of one that is trained to the end.
        score: trains a candidate until it has had so many passes, from where it is, and returns how good it is then;
            larger is better, minus infinity if it is of no use.

    Raises:
        ValueError: there is no candidate, or no pass.
    """
    if candidates < 1 or passes < 1:
        raise UserError(f"halving needs at least one candidate and one pass, not {candidates} and {passes}")
    left, rounds = list(range(candidates)), []
    for so_far in schedule(candidates, passes):
        scores = {candidate: score(candidate, so_far) for candidate in left}
        rounds.append(Round(left, so_far))
        best = sorted(left, key=lambda candidate: -scores[candidate])  # ties as they came
        left = sorted(best[: math.ceil(len(best) / KEPT)])
    return rounds
