"""Cells of gates: how often more rows are steered that should not be than a calibration promised."""

import itertools
import zlib
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy.stats import cauchy, norm

from lightning_steer.statistics import gates

SEED, APART, DIMENSIONS = 20_261, 2.0, 32
"""Rows to be steered score higher by ``APART`` standard deviations."""


@dataclass(frozen=True)
class GateCell:
    """One law of scores, number of calibration rows, and promise."""

    law: str
    n: int
    eta: float
    delta: float
    table = "gates"

    @property
    def design(self) -> str:
        """Return the design in words."""
        return f"{self.law}, n {self.n}, eta {self.eta:g}, delta {self.delta:g}"

    def run(self, sets: int) -> list[dict]:
        """Return one row: how often the true share of wrong gates exceeds eta, and the mean true power."""
        random = np.random.default_rng([SEED, zlib.crc32(self.design.encode())])
        wrong, power = LAWS[self.law](random, sets, self.n, self.eta, self.delta)
        return [
            {
                "table": self.table,
                "design": self.design,
                "sets": sets,
                "broken": int((wrong > self.eta * (1 + 1e-12)).sum()),
                "wrong": float(wrong.mean()),
                "power": float(power.mean()),
                "delta": self.delta,
                "eta": self.eta,
            }
        ]


Shares = tuple[NDArray, NDArray]
"""True shares of wrong gates and of rows that should be steered and are, ``[sets]`` each."""


def _normal(random: Generator, sets: int, n: int, eta: float, delta: float) -> Shares:
    t = gates.thresholds(random.standard_normal((n, sets)), eta, delta)
    return norm.sf(t), norm.sf(t - APART)


def _heavy(random: Generator, sets: int, n: int, eta: float, delta: float) -> Shares:
    t = gates.thresholds(random.standard_cauchy((n, sets)), eta, delta)
    return cauchy.sf(t), cauchy.sf(t - APART)


def _rounded(random: Generator, sets: int, n: int, eta: float, delta: float) -> Shares:
    t = gates.thresholds(random.standard_normal((n, sets)).round(1), eta, delta)
    return norm.sf(t + 0.05), norm.sf(t + 0.05 - APART)  # the next rounded score is above t


def _clustered(random: Generator, sets: int, n: int, eta: float, delta: float, icc: float) -> Shares:
    """Return shares for clusters of 10 rows whose scores correlate by ``icc``."""
    cluster = np.repeat(np.arange(n // 10), 10)
    shared = random.standard_normal((n // 10, sets))[cluster]
    rows = np.sqrt(icc) * shared + np.sqrt(1 - icc) * random.standard_normal((n, sets))
    t = gates.thresholds(rows, eta, delta, cluster)
    return norm.sf(t), norm.sf(t - APART)


def _alike(random: Generator, sets: int, n: int, eta: float, delta: float) -> Shares:
    return _clustered(random, sets, n, eta, delta, 1.0)


def _related(random: Generator, sets: int, n: int, eta: float, delta: float) -> Shares:
    return _clustered(random, sets, n, eta, delta, 0.3)


def _fitted(random: Generator, sets: int, n: int, eta: float, delta: float) -> Shares:
    """Return shares of a condition that was fitted to n other rows: the difference of their means."""
    apart = np.zeros(DIMENSIONS)
    apart[0] = APART
    fit = (random.standard_normal((2, sets, DIMENSIONS)) / np.sqrt(n / 2)).astype(np.float64)
    w = fit[0] + apart - fit[1]
    w /= np.linalg.norm(w, axis=1, keepdims=True)
    scores = np.stack([random.standard_normal((n, DIMENSIONS)) @ one for one in w], 1)
    t = gates.thresholds(scores, eta, delta)
    return norm.sf(t), norm.sf(t - w @ apart)


LAWS = {
    "normal": _normal,
    "heavy tails": _heavy,
    "rounded": _rounded,
    "a fitted condition": _fitted,
    "clusters of 10 alike": _alike,
    "clusters of 10, ICC 0.3": _related,
}


def gate_cells() -> list[GateCell]:
    """Return all designs: independent rows, and ten times as many rows in clusters of 10."""
    promises = list(itertools.product((0.01, 0.05, 0.1), (0.01, 0.05, 0.1)))
    return [
        GateCell(law, 10 * n if law.startswith("clusters") else n, eta, delta)
        for law, n, (eta, delta) in itertools.product(LAWS, (60, 250, 1000), promises)
        if n >= gates.fewest(eta, delta)  # else no row is steered
        and (n < 1000 or law in ("normal", "heavy tails", "rounded"))
    ]
