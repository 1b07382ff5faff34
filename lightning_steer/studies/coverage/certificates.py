"""Cells of certificates and of rank p-values: false positive rate and power."""

import itertools
import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lightning_steer.statistics.bounds import Betting, ExactPaired, Hoeffding
from lightning_steer.statistics.random_control import RandomControl
from lightning_steer.studies.coverage import designs

SEED, K, DRAWS = 20_261, 10, 20


@dataclass(frozen=True)
class CertificateCell:
    """One design: false certificates without an effect, and power with one."""

    outcome: str
    n: int
    delta: float
    churn: float
    effect: float
    icc: float | None = None
    table = "certificates"

    @property
    def design(self) -> str:
        """Return the design in words."""
        rows = f"N {self.n}" if self.icc is None else f"{self.n // 10} clusters of 10, ICC {self.icc:g}"
        effect = f"true effect {100 * self.effect:+.1f} %"
        return f"{self.outcome}, {rows}, delta {self.delta:g}, churn {self.churn:.0%}, {effect}"

    def run(self, sets: int) -> list[dict]:
        """Return one row: certificates and certificates by Hoeffding's bound among the data sets."""
        random = np.random.default_rng([SEED, zlib.crc32(self.design.encode())])
        risk = self.delta / K
        if self.icc is not None:
            means = designs.clustered_candidates(random, self.churn, self.effect, self.icc, K, self.n // 10, sets)
            if self.outcome == "graded":  # sizes of changes are uniform on [0, 1], so the mean halves
                means = means * random.random(means.shape)
            passed = _betting(means, risk)
            hoeffding = means.mean(-1) - np.sqrt(2 * np.log(1 / risk) / means.shape[-1]) > 0
        else:
            changes = designs.candidates(random, self.churn, self.effect, K, self.n, sets)
            if self.outcome == "graded":
                sized = changes * random.random((sets, 1, self.n))
                passed = _betting(sized, risk)
                hoeffding = sized.mean(-1) - np.sqrt(2 * np.log(1 / risk) / self.n) > 0
            else:
                passed, hoeffding = ExactPaired().lower(changes, risk) > 0, Hoeffding().lower(changes, risk) > 0
        return [
            {
                "table": self.table,
                "design": self.design,
                "sets": sets,
                "certified": int(passed.any(-1).sum()),
                "hoeffding": int(hoeffding.any(-1).sum()),
                "delta": self.delta,
                "effect": self.effect,
            }
        ]


def _betting(values: NDArray, risk: float) -> NDArray:
    """Return ``[S, K]`` whether betting certifies a mean above 0 of ``values [S, K, n]``."""
    sets = len(values)
    return Betting().refutes(values.reshape(sets * K, -1), 0.0, risk).reshape(sets, K)


@dataclass(frozen=True)
class RankCell:
    """The rank p-value under the null: the fitted value is one more random draw."""

    law: str
    table = "rank p-values"

    @property
    def design(self) -> str:
        """Return the design in words."""
        return f"{DRAWS} draws, {self.law}"

    def run(self, sets: int) -> list[dict]:
        """Return one row: how often p is at most j / 21, for every j."""
        random = np.random.default_rng([SEED, zlib.crc32(self.design.encode())])
        drawn = random.standard_normal((DRAWS + 1, sets))
        if self.law == "rounded":
            drawn = drawn.round()
        if self.law == "heavy tails":
            drawn = random.standard_cauchy((DRAWS + 1, sets))
        higher = self.law != "normal, lower is better"
        p = np.array([control.p for control in RandomControl(higher).estimate(drawn[1:], drawn[0])])
        counts = [int((p <= j / (DRAWS + 1) + 1e-12).sum()) for j in range(1, DRAWS + 1)]
        return [{"table": self.table, "design": self.design, "sets": sets, "at_most": counts}]


def certificate_cells() -> list[CertificateCell]:
    """Return all designs: independent rows and clusters, binary and graded."""
    cells = []
    for outcome, n, delta, churn in itertools.product(("binary", "graded"), (60, 250), (0.01, 0.05), (0.05, 0.2, 0.6)):
        effects = (-0.005, 0.0, churn / 2)
        cells += [CertificateCell(outcome, n, delta, churn, effect) for effect in effects]
    for outcome, n, delta, churn, icc in itertools.product(
        ("binary", "graded"), (250, 500, 1000), (0.01, 0.05), (0.05, 0.2, 0.6), (0.3, 0.6)
    ):
        cells += [CertificateCell(outcome, n, delta, churn, effect, icc) for effect in (-0.005, 0.0, churn / 2)]
    return cells


def rank_cells() -> list[RankCell]:
    """Return the laws of draws."""
    return [RankCell(law) for law in ("normal", "normal, lower is better", "rounded", "heavy tails")]
