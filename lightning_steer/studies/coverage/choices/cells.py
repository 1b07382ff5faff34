"""Cells of choices under several promises with limits that leave something to find, for rows and for clusters.

Several laws share the same random numbers: two kinds of truth, and two, three or four harms.
"""

import itertools
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm as normal

from lightning_steer.statistics.bounds import Betting, ExactPaired
from lightning_steer.studies.coverage.promises import CHURN, K, latent

SEED, EACH, LIMIT = 20_263, 5, 0.2
DELTAS, HARMS, TRUTHS = (0.01, 0.05), (2, 3, 4), ("at the limits", "growing")
RULES = "certified", "hoeffding"
FIGURES = "false", "good", "benefit", "excess"
MOST_AT_A_TIME = 2**24


@dataclass(frozen=True)
class ChoiceCell:
    """K candidates, a benefit above 0, and harms that must stay below a limit of .2.

    Args:
        correlation: of the latent numbers of two measures.
        units: independent rows, or clusters of 5 rows.
        clustered: whether they are clusters.
    """

    correlation: float
    units: int
    clustered: bool

    @property
    def design(self) -> str:
        """Return the design in words."""
        return f"correlation {self.correlation:g}, {self.units} {'clusters' if self.clustered else 'rows'}"

    def run(self, sets: int) -> list[dict[str, Any]]:
        """Return a row for each truth, number of harms and delta: sums of ``FIGURES`` by both rules."""
        random = np.random.default_rng([SEED, zlib.crc32(self.design.encode())])
        laws = list(itertools.product(TRUTHS, HARMS))
        sums = {(*law, delta, rule): np.zeros(len(FIGURES)) for law in laws for delta in DELTAS for rule in RULES}
        for z in self._latent(random, sets):
            for truth, harms in laws:
                means, limits = true_means(truth, harms), np.array([0.0] + [-LIMIT] * harms)
                counts = self.counts(z[:, :, : 1 + harms], means)
                observed = counts @ self.values / self.units
                for delta in DELTAS:
                    margin = np.sqrt(2 * np.log((1 + harms) * K / delta) / self.units)
                    passed = self.certified(counts, limits, delta / K), observed - margin > limits
                    for rule, tests in zip(RULES, passed, strict=True):
                        sums[truth, harms, delta, rule] += outcome(tests, observed, means, limits)
        return [
            {
                "truth": truth, "harms": harms, "correlation": self.correlation, "units": self.units,
                "clustered": self.clustered, "delta": delta, "sets": sets,
                **{rule: dict(zip(FIGURES, sums[truth, harms, delta, rule].tolist(), strict=True)) for rule in RULES},
            }
            for (truth, harms), delta in itertools.product(laws, DELTAS)
        ]  # fmt: skip

    def _latent(self, random: np.random.Generator, sets: int) -> Iterator[NDArray]:
        """Yield normal numbers ``[S, K, 1 + most harms, rows]``."""
        measures, each = 1 + max(HARMS), EACH if self.clustered else 1
        for batch in np.array_split(np.arange(sets), -(-sets * K * measures * self.units * each // MOST_AT_A_TIME)):
            yield latent(random, (len(batch), K, measures), self.units, np.float32(self.correlation), each)

    @property
    def values(self) -> NDArray:
        """Return the values ``[V]`` that the change of a unit can have."""
        return np.arange(-EACH, EACH + 1) / EACH if self.clustered else np.array([-1.0, 0.0, 1.0])

    def counts(self, z: NDArray, means: NDArray) -> NDArray:
        """Return ``[S, K, M, V]`` how many units have each of ``values``, of latent ``z`` and true ``means [K, M]``."""
        share = (CHURN + np.abs(means)) / 2
        rises, falls = (normal.ppf(np.clip(share + sign * means / 2, 1e-9, 1)) for sign in (1, -1))
        rises, falls = (ends.astype(np.float32)[..., None] for ends in (rises, falls))
        changes = (z < rises).astype(np.int8) - (z > -falls)
        if self.clustered:
            changes = sum(changes[..., i::EACH] for i in range(EACH))
        top = len(self.values) // 2
        return np.stack([np.count_nonzero(changes == v, -1) for v in range(-top, top + 1)], -1)

    def certified(self, counts: NDArray, limits: NDArray, risk: float) -> NDArray:
        """Return ``[S, K, M]`` whether each promise is certified, as in ``statistics.promises``."""
        if not self.clustered:
            tests = [ExactPaired().refutes(counts[:, :, j, 2], counts[:, :, j, 0], self.units, limit, risk)
                     for j, limit in enumerate(limits)]  # fmt: skip
            return np.stack(tests, 2)
        bets = Betting().grid(self.units, risk)
        with np.errstate(divide="ignore"):
            growth = np.log1p(bets * (self.values[:, None] - limits[:, None, None]) / (1 + limits[:, None, None]))
        capital = np.einsum("skmv,mvb->skmb", counts, np.maximum(growth, -1e9))
        return np.logaddexp.reduce(capital, -1) >= np.log(len(bets) / risk)


def true_means(truth: str, harms: int) -> NDArray:
    """Return ``[K, 1 + harms]`` true mean changes, the benefit first; of a harm a fall.

    ``at the limits``: every candidate breaks one promise by the smallest margin, and does well otherwise. ``growing``:
    benefit and harms grow with the strength; the weaker half keeps all promises, the stronger half none of the harms'.
    """
    if truth == "growing":
        strength = np.arange(1, K + 1)[:, None]
        return np.hstack([0.08 * strength, np.repeat(-0.198 * LIMIT * strength, harms, 1)])
    means = np.hstack([np.full((K, 1), 0.3), np.zeros((K, harms))])
    for k in range(K):
        broken = k % (1 + harms)
        means[k, broken] = -LIMIT if broken else 0.0
    return means


def outcome(passed: NDArray, observed: NDArray, means: NDArray, limits: NDArray) -> NDArray:
    """Return sums of ``FIGURES`` over tables: false choices, good ones, their true benefit, the excess of what is seen.

    Args:
        passed: ``[S, K, M]`` whether each promise is certified.
        observed: ``[S, K, M]`` mean changes of the tables.
        means: ``[K, M]`` true mean changes.
        limits: ``[M]`` values that the true mean changes must exceed.
    """
    keeps = np.all(means > limits + 1e-12, axis=1)
    allowed = np.all(passed, axis=2)
    chosen, is_any = np.where(allowed, observed[..., 0], -np.inf).argmax(1), np.any(allowed, axis=1)
    good = is_any & keeps[chosen]
    excess = observed[np.arange(len(chosen)), chosen, 0] - means[chosen, 0]
    return np.array([(is_any & ~good).sum(), good.sum(), means[chosen, 0][good].sum(), excess[is_any].sum()])


def choice_cells() -> list[ChoiceCell]:
    """Return all designs, the slowest first."""
    designs = itertools.product((1000, 250, 100), (True, False), (0.0, 0.5, 0.9))
    return [ChoiceCell(correlation, units, clustered) for units, clustered, correlation in designs]


def timed(cell: ChoiceCell, sets: int) -> dict[str, Any]:
    """Return the rows of a cell, and the seconds of processor time that it took."""
    start = time.process_time()
    return {"rows": cell.run(sets), "seconds": time.process_time() - start}
