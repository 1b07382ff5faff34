"""Anisotropy against loops over all pairs, its laws, and streamed sums against rows in memory."""

from itertools import combinations

import numpy as np
import pytest
import torch
from reweighted import bootstrap_weights, leave_one_out
from torch import Tensor

from lightning_steer.metrics.anisotropy import centred_cosine, cosine, participation_ratio, top_share
from lightning_steer.statistics.jackknife import estimates_of_left_out

MEASURES = [cosine, centred_cosine, participation_ratio, top_share]
SCALE = torch.linspace(0.3, 2, 6, dtype=torch.float64)


def case(seed: int = 0, n: int = 25, sites: tuple[int, ...] = (), d: int = 6) -> Tensor:
    """Rows with a common mean and unequal variances."""
    g = torch.Generator().manual_seed(seed)
    return torch.randn(n, *sites, d, generator=g, dtype=torch.float64) * torch.linspace(0.3, 2, d) + 0.7


def by_loop(h: Tensor, weights: list[float]) -> dict[str, float]:
    """All measures, pair by pair."""
    rows = h.numpy()
    pairs = [(i, j, weights[i] * weights[j]) for i, j in combinations(range(len(rows)), 2)]
    total = sum(w for *_, w in pairs)

    def mean_cosine(x: np.ndarray) -> float:
        return sum(w * x[i] @ x[j] / np.linalg.norm(x[i]) / np.linalg.norm(x[j]) for i, j, w in pairs) / total

    x = rows - np.average(rows, axis=0, weights=weights)
    lengths = sum(w * (x[i] @ x[i]) * (x[j] @ x[j]) for i, j, w in pairs)
    eigenvalues = np.linalg.eigvalsh(np.cov(rows.T, aweights=weights))
    return {
        "cosine": mean_cosine(rows),
        "centred_cosine": mean_cosine(x),
        "participation_ratio": lengths / sum(w * (x[i] @ x[j]) ** 2 for i, j, w in pairs),
        "top_share": eigenvalues.max() / eigenvalues.sum(),
    }


@pytest.mark.parametrize("n", [25, 4])  # more and fewer rows than dimensions
def test_measures_are_the_loops(n: int) -> None:
    h = case(n=n, sites=(2,))
    weights = bootstrap_weights(n, 5)
    weights = weights[(weights > 0).sum(1) > 2]
    for site in range(2):
        expected = by_loop(h[:, site], [1.0] * n)
        drawn = [by_loop(h[:, site], some.tolist()) for some in weights]
        for measure in MEASURES:
            assert float(measure(h)[site]) == pytest.approx(expected[measure.__name__])
            measures = measure(h, weights)
            assert measures.shape == (len(weights), 2)
            assert measures[:, site].tolist() == pytest.approx([draw[measure.__name__] for draw in drawn])
            torch.testing.assert_close(measure(h[:, site], weights), measures[:, site])


def test_with_many_rows_they_are_the_textbook_ones() -> None:
    h = case(n=200_000)
    variance = SCALE.square()
    assert float(participation_ratio(h)) == pytest.approx(
        float(variance.sum() ** 2 / variance.square().sum()), rel=0.01
    )
    assert float(top_share(h)) == pytest.approx(float(variance.max() / variance.sum()), rel=0.01)
    assert float(centred_cosine(h)) == pytest.approx(0, abs=1e-4)
    units = h / h.norm(dim=1, keepdim=True)
    assert float(cosine(h)) == pytest.approx(float(units.mean(0).square().sum()), abs=1e-4)


@pytest.mark.parametrize("measure", MEASURES)
def test_no_measure_depends_on_axes_or_units(measure: object) -> None:
    h = case(1)
    turn = torch.linalg.qr(torch.randn(6, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64))[0]
    value = measure(h)  # type: ignore[operator]
    for other in (h @ turn, 7 * h, h.flip(0)):
        torch.testing.assert_close(measure(other), value)  # type: ignore[operator]


def test_a_common_mean_shows_in_the_cosine_only() -> None:
    h = case(2)
    far = h + 30
    assert float(cosine(far)) > 0.99 > 0.5 > float(cosine(h - h.mean(0)))
    for measure in (centred_cosine, participation_ratio, top_share):
        torch.testing.assert_close(measure(far), measure(h))


def test_a_line_and_a_ball() -> None:
    g = torch.Generator().manual_seed(0)
    line = torch.randn(50, 1, generator=g) * torch.ones(8) + 1
    assert float(participation_ratio(line)) == pytest.approx(1, rel=1e-5)
    assert float(top_share(line)) == pytest.approx(1)
    ball = torch.randn(4000, 8, generator=g)
    assert float(participation_ratio(ball)) == pytest.approx(8, rel=0.02)
    assert float(top_share(ball)) == pytest.approx(1 / 8, rel=0.1)


def test_few_rows_do_not_make_the_ratio_small() -> None:
    """60 rows of a ball in 40 dimensions: the eigenvalues' ratio reads 24, the one over pairs 40."""
    ratios, plain = [], []
    for seed in range(60):
        h = torch.randn(60, 40, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        ratios.append(float(participation_ratio(h)))
        eigenvalues = torch.linalg.eigvalsh(h.T.cov())
        plain.append(float(eigenvalues.sum() ** 2 / eigenvalues.square().sum()))
    assert np.mean(ratios) == pytest.approx(40, rel=0.03)
    assert np.mean(plain) < 25


def test_rows_without_direction_or_spread() -> None:
    h = case(3)
    zero = torch.cat([h, torch.zeros(1, 6)])
    assert float(cosine(zero)) == pytest.approx(float(cosine(h)) * 25 * 24 / (26 * 25))
    same = torch.ones(5, 6)
    assert float(cosine(same)) == pytest.approx(1)
    assert participation_ratio(same).isnan()
    assert top_share(same).isnan()


def test_intervals_cover_the_truth() -> None:
    """Jackknife over 15 blocks of rows; with fewer rows (120: 96.8 %) it errs on the wide side, as jackknives do.

    The centred cosine needs its debias.
    """
    d, n, runs = 12, 480, 500
    scale = torch.linspace(0.5, 2, d, dtype=torch.float64)
    variance = scale.square()
    population = torch.randn(400_000, d, generator=torch.Generator().manual_seed(999), dtype=torch.float64) * scale
    truth = {
        "cosine": float(cosine(population + 0.6)),
        "centred_cosine": 0.0,
        "participation_ratio": float(variance.sum() ** 2 / variance.square().sum()),
    }
    hits = dict.fromkeys(truth, 0)
    left_out = leave_one_out(torch.arange(n) % 15)
    for run in range(runs):
        g = torch.Generator().manual_seed(run)
        h = torch.randn(n, d, generator=g, dtype=torch.float64) * scale + 0.6
        for measure, debias in ((cosine, False), (participation_ratio, False), (centred_cosine, True)):
            values = measure(h).numpy()[None], measure(h, left_out).numpy()[:, None]
            estimates = estimates_of_left_out(*values, n, 15, debias=debias)[0]
            hits[measure.__name__] += estimates.low <= truth[measure.__name__] <= estimates.high
    assert 0.93 <= hits["cosine"] / runs <= 0.97
    assert 0.93 <= hits["participation_ratio"] / runs <= 0.97
    assert hits["centred_cosine"] / runs >= 0.93  # hardly varies at 0, so that it errs on the safe side
