"""Answers before and after beside the truth: accuracy, SPI, balanced accuracy, MCC, F1 and their changes."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lightning_steer.statistics import answer_figures as figures
from lightning_steer.statistics.columns import Clusters, as_clusters, as_columns
from lightning_steer.statistics.estimate import LEVEL, Estimate
from lightning_steer.statistics.kinds import Change, Intervals, Share

FIGURES: dict[str, Callable[[NDArray], NDArray]] = {
    "balanced_accuracy": figures.balanced_accuracy,
    "mcc": figures.matthews,
    "f1": figures.f1,
    "precision": figures.precision,
}
MASS = 2.0
"""Prior mass over all cells of truth x before x after. With 1/2 a cell, coverage is .000 for four classes at n 60."""
CLUSTERED = "none: no interval is known to hold for rows in clusters"
TOO_MANY = "none: no interval is simulated for more than 4 classes"
MOST_CLASSES = 4


@dataclass(frozen=True)
class AnswerTable:
    """Truth and answers before and after, in K classes.

    Args:
        classes: number K of classes.
        draws: draws of a posterior.
        seed: of the draws.
    """

    classes: int
    draws: int = 1000
    seed: int = 0

    def estimate(
        self, truth: ArrayLike, before: ArrayLike, after: ArrayLike, cluster: ArrayLike | None = None
    ) -> dict[str, list[Estimate]]:
        """Return estimates for each of C candidates, by name.

        Args:
            truth: ``[n]`` or ``[n, C]`` true classes, 0 to K - 1.
            before: the same of the baseline's answers.
            after: the same of the steered answers.
            cluster: ``[n]`` the cluster of each row; None: rows are independent.

        Returns:
            ``spi``, and ``accuracy``, ``recall`` (weighted by class it is the accuracy), ``balanced_accuracy``,
            ``mcc``, ``f1`` and ``precision`` as they are with steering, with ``_base`` without, and with ``_change``
            the difference.
        """
        tables = [as_columns(column) for column in (truth, before, after)]
        shape = np.broadcast_shapes(*(t.shape for t in tables))
        tables = [np.broadcast_to(t, shape) for t in tables]
        for table in tables:
            wrong = table[~np.isin(table, np.arange(self.classes))]
            if len(wrong):
                raise ValueError(f"classes are whole numbers from 0 to {self.classes - 1}, not {wrong[0]:g}")
        clusters = as_clusters(cluster, shape[0])
        intervals = self.intervals(*tables, clusters=clusters)
        return {name: one.estimates(shape[0], clusters) for name, one in intervals.items()}

    def intervals(
        self, truth: NDArray, before: NDArray, after: NDArray, clusters: Clusters | None
    ) -> dict[str, Intervals]:
        """Return values and ends by name, from columns ``[n, C]``."""
        was, now = (before == truth).astype(float), (after == truth).astype(float)
        named = {"accuracy_base": Share().interval(was, clusters), "accuracy": Share().interval(now, clusters)}
        named["accuracy_change"] = Change().interval(now - was, clusters)
        named |= {name.replace("accuracy", "recall"): one for name, one in named.items()}
        named["spi"] = self._spi(was, now, clusters)
        k, cells = self.classes, self.classes**3
        cell = ((truth * k + before) * k + after).astype(int)
        counts = np.stack([np.bincount(column, minlength=cells) for column in cell.T]).astype(float)
        reason = CLUSTERED if clusters else TOO_MANY if k > MOST_CLASSES else None
        observed = _all_figures(counts.reshape(-1, k, k, k))
        if reason:
            return named | {name: Intervals.none(value, reason) for name, value in observed.items()}
        random, ends = np.random.default_rng(self.seed), []
        for one in counts:  # a candidate at a time: draws are large
            chances = random.standard_gamma(one + MASS / cells, size=(self.draws, cells))
            drawn = _all_figures(chances.reshape(-1, k, k, k))
            ends.append(np.nanquantile(np.stack([drawn[name] for name in observed]), TAILS, axis=-1))
        low, high = np.stack(ends, -1)
        how = "posterior (Dirichlet)"
        return named | {name: Intervals(observed[name], low[i], high[i], how) for i, name in enumerate(observed)}

    def _spi(self, was: NDArray, now: NDArray, clusters: Clusters | None) -> Intervals:
        n = len(was)
        value = figures.spi(was.mean(0), now.mean(0))
        if clusters is not None:
            return Intervals.none(value, CLUSTERED)
        counts = np.stack([(was * now).sum(0), (was * (1 - now)).sum(0), ((1 - was) * now).sum(0)], -1)
        counts = np.concatenate([counts, n - counts.sum(-1, keepdims=True)], -1)
        seen, where = np.unique(counts, axis=0, return_inverse=True)
        chances = np.random.default_rng(self.seed).standard_gamma(seen[:, None] + 0.5, (len(seen), self.draws, 4))
        chances /= chances.sum(-1, keepdims=True)
        both, broken, fixed = chances[..., 0], chances[..., 1], chances[..., 2]
        low, high = np.quantile(figures.spi(both + broken, both + fixed), TAILS, axis=-1)
        return Intervals(value, low[where.ravel()], high[where.ravel()], "posterior (Dirichlet)")


TAILS = ((1 - LEVEL) / 2, (1 + LEVEL) / 2)


def _all_figures(cells: NDArray) -> dict[str, NDArray]:
    """Return every figure ``[...]`` of ``cells [..., K, K, K]``, truth x before x after."""
    before, after = cells.sum(-1), cells.sum(-2)
    named = {}
    for name, figure in FIGURES.items():
        one, other = figure(before), figure(after)
        named |= {f"{name}_base": one, name: other, f"{name}_change": other - one}
    return named
