"""The shape of a dose-response: what is certain, and how often it is wrong."""

import numpy as np
import pytest
from numpy.typing import NDArray

from lightning_steer.statistics.dose_response import LEVEL, both_signs, p_values, shape

SETS = 800


def tables(chances: list[float], n: int, sets: int, cluster: NDArray | None = None) -> NDArray:
    """Draw ``[sets, S, n]`` of 0 and 1; an item is about as easy at all strengths, and alike within its cluster."""
    random = np.random.default_rng(5)
    luck = (
        random.random((sets, 1, n))
        if cluster is None
        else random.random((sets, 1, int(cluster.max()) + 1))[..., cluster]
    )
    again = random.random((sets, len(chances), n)) < 0.3
    luck = np.where(again, random.random(again.shape), luck)
    return (luck < np.array(chances)[:, None]).astype(float)


def too_often(share: float) -> bool:
    return share > LEVEL + 2.6 * np.sqrt(LEVEL * (1 - LEVEL) / SETS)


@pytest.mark.parametrize("chances", [[0.5] * 6, [0.1, 0.3, 0.5, 0.5, 0.5, 0.5], [0.9, 0.9, 0.9, 0.6, 0.6, 0.2]])
@pytest.mark.parametrize("clustered", [False, True])
def test_a_monotone_response_is_seldom_said_to_turn_back(chances: list[float], clustered: bool) -> None:
    cluster = np.repeat(np.arange(40), 5) if clustered else None
    shapes = [shape(values, True, 0, 1, cluster) for values in tables(chances, 200, SETS, cluster)]
    assert not too_often(np.mean([shape_of_draw.monotone is False for shape_of_draw in shapes]))
    if chances[0] >= chances[-1]:
        assert not too_often(np.mean([shape_of_draw.rise is not None for shape_of_draw in shapes]))
    if chances[0] <= chances[-1]:
        assert not too_often(np.mean([shape_of_draw.fall is not None for shape_of_draw in shapes]))
    if chances[0] != chances[-1]:
        assert np.mean([shape_of_draw.monotone is True for shape_of_draw in shapes]) > 0.8


def test_uncorrected_pairs_would_be_wrong_too_often() -> None:
    """Without the correction for 15 pairs, a flat response would rise or fall in far too many tables."""
    flat = tables([0.5] * 6, 200, SETS)
    wrong = np.mean([shape(values, True, 0, 1).rise is not None for values in flat])
    pairs = [(i, j) for i in range(6) for j in range(i + 1, 6)]
    least = [p_values(np.stack([v[j] - v[i] for i, j in pairs]), True, 0, 1, None).min() for v in flat]
    assert not too_often(float(wrong))
    assert too_often(float(np.mean(np.array(least) < LEVEL)))


def test_a_response_that_turns_back_is_seen() -> None:
    for values in tables([0.2, 0.5, 0.8, 0.5, 0.2], 200, 20):
        response = shape(values, True, 0, 1)
        assert response.monotone is False
        assert (response.rise.start, response.rise.end, response.fall.start, response.fall.end) == (0, 2, 2, 4)
        assert max(response.rise.p, response.fall.p) < LEVEL
        assert response.pairs == 10


def test_both_signs_are_seldom_called_alike_when_one_does_nothing() -> None:
    """The worst case: one sign moves the measure a lot, the other not at all; three pairs are looked at."""
    strengths = [-3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0]
    one_sided = tables([0.3, 0.3, 0.3, 0.3, 0.8, 0.8, 0.8], 200, SETS)
    assert not too_often(np.mean([bool(both_signs(v, strengths, True, 0, 1)) for v in one_sided]))
    alike = both_signs(tables([0.8, 0.7, 0.6, 0.3, 0.6, 0.7, 0.8], 200, 1)[0], strengths, True, 0, 1)
    assert [(s, sign) for s, sign, _ in alike] == [(1, 1), (2, 1), (3, 1)]


def test_grades_need_a_range() -> None:
    values = np.stack([np.zeros(50), np.full(50, 3.0)])
    assert shape(values, False, -np.inf, np.inf).monotone is None
    assert shape(values, False, 0, 10).rise is not None
    assert shape(values, False, 0, 10).how == "betting on the range"
