"""Cells of choices under several promises: how often the choice breaks one, and how often there is a choice."""

import itertools
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy.stats import norm as normal

from lightning_steer.statistics.bounds import Betting, ExactPaired

SEED, K, ICC, EACH = 20_262, 10, 0.3, 10
LIMIT = 0.05
"""Limit of each harm; a benefit must exceed 0."""
CHURN = 0.04
"""Share of rows that change in either direction, beyond the mean change."""
MOST_AT_A_TIME = 2**24


@dataclass(frozen=True)
class PromiseCell:
    """One design of K candidates, a benefit, and harms that move together.

    ``at the limits``: every candidate has a large benefit and small harms except for one promise, which it breaks by
    the smallest margin: a benefit of 0, or a harm at the limit. ``growing``: benefit and harms grow with the strength,
    and the stronger half breaks every limit of a harm.
    """

    truth: str
    harms: int
    correlation: float
    n: int
    clustered: bool
    delta: float
    table = "several promises"

    @property
    def design(self) -> str:
        """Return the design in words."""
        rows = f"{self.n // EACH} clusters of {EACH}, ICC {ICC:g}" if self.clustered else f"N {self.n}"
        return f"{self.truth}, {self.harms} harms, correlation {self.correlation:g}, {rows}, delta {self.delta:g}"

    def means(self) -> NDArray:
        """Return ``[K, 1 + harms]`` true mean changes, the benefit first; of a harm a fall."""
        if self.truth == "growing":
            strength = np.arange(1, K + 1)[:, None]
            return np.hstack([0.04 * strength, np.repeat(-0.0099 * strength, self.harms, 1)])
        means = np.hstack([np.full((K, 1), 0.3), np.zeros((K, self.harms))])
        for k in range(K):
            broken = k % (1 + self.harms)
            means[k, broken] = -LIMIT if broken else 0.0
        return means

    def run(self, sets: int) -> list[dict]:
        """Return how often the choice breaks a promise, and, of growing ones, how often there is a good choice."""
        random = np.random.default_rng([SEED, zlib.crc32(self.design.encode())])
        means, risk = self.means(), self.delta / K
        limits = np.array([0.0] + [-LIMIT] * self.harms)
        keeps_all = np.all(means > limits + 1e-12, axis=1)
        counts = {"false": np.zeros(2, int), "good": np.zeros(2, int)}
        for changes in self._tables(random, means, sets):
            hoeffding = changes.mean(3) - np.sqrt(2 * np.log((1 + self.harms) / risk) / changes.shape[3]) > limits
            for i, passed in enumerate((self._certified(changes, limits, risk), hoeffding)):
                certified = np.all(passed, axis=2)
                benefit = np.where(certified, changes.mean(3)[..., 0], -np.inf)
                chosen, is_any = benefit.argmax(1), np.any(certified, axis=1)
                counts["false"][i] += (is_any & ~keeps_all[chosen]).sum()
                counts["good"][i] += (is_any & keeps_all[chosen]).sum()
        row = {"table": self.table, "design": self.design, "sets": sets, "delta": self.delta}
        named = {"false": 0.0, "good": 1.0} if keeps_all.any() else {"false": 0.0}
        return [
            {**row, "effect": effect, "certified": int(counts[name][0]), "hoeffding": int(counts[name][1])}
            for name, effect in named.items()
        ]

    def _tables(self, random: Generator, means: NDArray, sets: int) -> Iterator[NDArray]:
        """Yield ``[S, K, 1 + harms, units]`` changes: of rows, or means of clusters."""
        share = (CHURN + np.abs(means)) / 2
        rises, falls = (normal.ppf(np.clip(share + sign * means / 2, 1e-9, 1)) for sign in (1, -1))
        per_set = means.size * self.n
        for batch in np.array_split(np.arange(sets), -(-sets * per_set // MOST_AT_A_TIME)):
            units, each = (self.n // EACH, EACH) if self.clustered else (self.n, 1)
            z = latent(random, (len(batch), *means.shape), units, self.correlation, each)
            changes = (z < rises[..., None]).astype(np.int8) - (z > -falls[..., None])
            yield changes.reshape(*changes.shape[:3], -1, EACH).mean(4) if self.clustered else changes

    def _certified(self, changes: NDArray, limits: NDArray, risk: float) -> NDArray:
        """Return ``[S, K, M]`` whether each promise is certified, as in ``statistics.promises``."""
        passed = []
        for j, limit in enumerate(limits):
            outcome = changes[:, :, j]
            if self.clustered:
                passed.append(
                    Betting().refutes(outcome.reshape(-1, outcome.shape[-1]), limit, risk).reshape(outcome.shape[:2])
                )
            else:
                gains, falls = ((outcome == sign).sum(-1) for sign in (1, -1))
                passed.append(ExactPaired().refutes(gains, falls, self.n, limit, risk))
        return np.stack(passed, 2)


def latent(
    random: Generator, shape: tuple[int, int, int], units: int, correlation: float | np.float32, each: int = 1
) -> NDArray:
    """Return normal numbers ``[S, K, M, n]``, correlated over measures, and over candidates as strengths are.

    Args:
        random: draws them.
        shape: S tables, K candidates, M measures.
        units: rows of a table, or its clusters.
        correlation: of two measures.
        each: rows in a cluster, which correlate by ICC; 1: rows are independent.
    """
    sets, k, measures = shape

    def draw(n: int) -> NDArray:
        parts = [random.standard_normal((sets, a, b, n), dtype=np.float32)
                 for a, b in ((1, 1), (1, measures), (k, 1), (k, measures))]  # fmt: skip
        shared, separate = (
            np.sqrt(correlation) * common + np.sqrt(1 - correlation) * single
            for common, single in (parts[:2], parts[2:])
        )
        return np.float32(0.8) * shared + np.float32(0.6) * separate

    if each == 1:
        return draw(units)
    of_cluster = np.repeat(draw(units), each, -1)
    return np.sqrt(np.float32(ICC)) * of_cluster + np.sqrt(np.float32(1 - ICC)) * draw(units * each)


def promise_cells() -> list[PromiseCell]:
    """Return all designs."""
    designs = itertools.product(
        ("at the limits", "growing"), (2, 4), (0.0, 0.5, 0.9), (100, 250, 1000), (False, True), (0.01, 0.05)
    )
    return [PromiseCell(*design) for design in designs]
