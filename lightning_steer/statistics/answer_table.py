"""Estimates from true classes and answers before and after: accuracy, SPI, balanced accuracy, MCC, F1 and changes."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import norm as normal
from scipy.stats import t as student

from lightning_steer.errors import UserError
from lightning_steer.statistics import answer_figures as figures
from lightning_steer.statistics import intervals
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
        draws: number of posterior draws.
        seed: seed of the draws.
    """

    classes: int
    draws: int = 500
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
            ``mcc``, ``f1`` and ``precision`` with steering; with the suffix ``_base`` without it, and with ``_change``
            the difference.
        """
        tables = [as_columns(column) for column in (truth, before, after)]
        shape = np.broadcast_shapes(*(t.shape for t in tables))
        tables = [np.broadcast_to(t, shape) for t in tables]
        for table in tables:
            wrong = table[~np.isin(table, np.arange(self.classes))]
            if len(wrong):
                raise UserError(f"classes are whole numbers from 0 to {self.classes - 1}, not {wrong[0]:g}")
        clusters = as_clusters(cluster, shape[0])
        by_name = self.intervals(*tables, clusters=clusters)
        return {name: intervals.estimates(shape[0], clusters) for name, intervals in by_name.items()}

    def intervals(
        self, truth: NDArray, before: NDArray, after: NDArray, clusters: Clusters | None
    ) -> dict[str, Intervals]:
        """Return values and ends by name, from columns ``[n, C]``."""
        right_before, right_after = (before == truth).astype(float), (after == truth).astype(float)
        k, cells = self.classes, self.classes**3
        cell = ((truth * k + before) * k + after).astype(int)
        counts = np.stack([np.bincount(column, minlength=cells) for column in cell.T]).astype(float)
        counts = counts.reshape(-1, k, k, k)
        reason = CLUSTERED if clusters else TOO_MANY if k > MOST_CLASSES else None
        if reason is None:
            return self.from_counts(counts)
        before_share, after_share = (Share().interval(right, clusters) for right in (right_before, right_after))
        change = Change().interval(right_after - right_before, clusters)
        spi = self._spi(counts) if clusters is None else Intervals.none(_observed_spi(counts), CLUSTERED)
        no_interval = {name: Intervals.none(value, reason) for name, value in all_figures(counts).items()}
        return _with_accuracy(before_share, after_share, change) | {"spi": spi} | no_interval

    def from_counts(self, counts: NDArray) -> dict[str, Intervals]:
        """Return values and ends by name for independent rows, counted as ``[C, K, K, K]`` truth x before x after."""
        n = int(counts[0].sum())
        right = [figures.accuracy(counts.sum(axis)) * n for axis in (-1, -2)]
        how = "exact (Clopper-Pearson)"
        before, after = (Intervals(r / n, *intervals.clopper_pearson(r, n), how) for r in right)
        _, broken, fixed, _ = _four(counts).T
        change = Intervals((fixed - broken) / n, *intervals.tango(fixed, broken, n), "score (Tango)")
        observed, ends = all_figures(counts), []
        for chunk in np.split(counts, range(CHUNK, len(counts), CHUNK)):
            drawn = all_figures(self._posterior(chunk))
            ends.append(np.quantile(np.stack([drawn[name] for name in observed]), TAILS, axis=-1))
        drawn_low, drawn_high = np.concatenate(ends, -1)
        low, high = _stretched(observed, drawn_low, drawn_high, counts)
        posterior = {name: Intervals(observed[name], low[i], high[i], POSTERIOR) for i, name in enumerate(observed)}
        return _with_accuracy(before, after, change) | {"spi": self._spi(counts)} | posterior

    def _posterior(self, counts: NDArray) -> NDArray:
        """Return draws ``[C, draws, K, K, K]`` for ``counts [C, K, K, K]``; a candidate's do not depend on the others.

        A gamma of prior and count is the sum of both, and the prior's are the same for all candidates. Draws lie
        contiguous in memory, as sums run over cells.
        """
        k, flat = self.classes, counts.reshape(len(counts), -1)
        prior = np.random.default_rng(self.seed).standard_gamma(MASS / flat.shape[1], size=(flat.shape[1], self.draws))
        drawn = np.repeat(prior[:, None], len(flat), 1)
        for c, table in enumerate(flat):
            present = np.flatnonzero(table)
            seed = np.concatenate([[self.seed], table[present].astype(int), present])
            random = np.random.default_rng(seed)  # other tables, other draws
            drawn[present, c] += random.standard_gamma(table[present, None], size=(len(present), self.draws))
        return drawn.reshape(k, k, k, len(flat), self.draws).transpose(3, 4, 0, 1, 2)

    def _spi(self, counts: NDArray) -> Intervals:
        n = counts[0].sum()
        rows, index = np.unique(_four(counts), axis=0, return_inverse=True)
        # a candidate's draws do not depend on the others
        seeded = (np.random.default_rng([self.seed, *four.astype(int)]) for four in rows)
        chances = np.stack([r.standard_gamma(f + 0.5, (self.draws, 4)) for r, f in zip(seeded, rows, strict=True)])
        chances /= chances.sum(-1, keepdims=True)
        both, broken, fixed = chances[..., 0], chances[..., 1], chances[..., 2]
        low, high = np.quantile(figures.spi(both + broken, both + fixed), TAILS, axis=-1)
        value, factor = figures.spi(rows[:, :2].sum(1) / n, rows[:, ::2].sum(1) / n), _student(rows[:, :2].sum(1), n)
        low, high = np.minimum(low, value), np.maximum(high, value)
        low, high = (np.clip(value + factor * (end - value), -1, 1)[index.ravel()] for end in (low, high))
        return Intervals(_observed_spi(counts), low, high, POSTERIOR)


CHUNK = 32
POSTERIOR = "posterior (Dirichlet)"
TAILS = ((1 - LEVEL) / 2, (1 + LEVEL) / 2)


def _four(counts: NDArray) -> NDArray:
    """Return ``[C, 4]`` rows that are right before and after, only before, only after, and never."""
    both = np.einsum("cttt->c", counts)
    before, after = np.einsum("ctta->c", counts), np.einsum("ctbt->c", counts)
    return np.stack([both, before - both, after - both, counts.sum((1, 2, 3)) - before - after + both], -1)


def _student(right: NDArray, n: float) -> NDArray:
    """Return the ratio of Student's quantile to the normal's, for the rarer of right and wrong answers."""
    rarer = np.maximum(np.minimum(right, n - right), 3)
    return student.ppf(TAILS[1], rarer - 1) / normal.ppf(TAILS[1])


def _stretched(observed: dict[str, NDArray], low: NDArray, high: NDArray, counts: NDArray) -> tuple[NDArray, NDArray]:
    """Return ends widened by the ratio of Student's quantile for the rarest class to the normal one."""
    rows = counts.sum((2, 3))
    rarest = np.where(rows > 0, rows, np.inf).min(-1)
    factor = student.ppf(TAILS[1], np.maximum(rarest - 1, 1)) / normal.ppf(TAILS[1])
    value = np.stack(list(observed.values()))
    lowest = np.array([0.0 if not (name.endswith("change") or name.startswith("mcc")) else -1.0 for name in observed])
    highest = np.array([2.0 if name == "mcc_change" else 1.0 for name in observed])
    lowest[[name == "mcc_change" for name in observed]] = -2.0
    low, high = np.minimum(low, value), np.maximum(high, value)
    low = np.maximum(value - factor * (value - low), lowest[:, None])
    return low, np.minimum(value + factor * (high - value), highest[:, None])


def _observed_spi(counts: NDArray) -> NDArray:
    return figures.spi(figures.accuracy(counts.sum(-1)), figures.accuracy(counts.sum(-2)))


def _with_accuracy(before: Intervals, after: Intervals, change: Intervals) -> dict[str, Intervals]:
    by_name = {"accuracy_base": before, "accuracy": after, "accuracy_change": change}
    return by_name | {name.replace("accuracy", "recall"): intervals for name, intervals in by_name.items()}


def all_figures(cells: NDArray) -> dict[str, NDArray]:
    """Return every figure ``[...]`` of ``cells [..., K, K, K]``, truth x before x after."""
    before, after = cells.sum(-1), cells.sum(-2)
    by_name = {}
    for name, figure in FIGURES.items():
        value_before, value_after = figure(before), figure(after)
        by_name |= {f"{name}_base": value_before, name: value_after, f"{name}_change": value_after - value_before}
    return by_name
