"""Check a certificate's error rate on a real model's outcomes, by resampling calibrations from the test rows.

Null: the paired change of every row gets a random sign, the same for all candidates. Then no candidate improves
anything, while churn and the candidates' dependence stay the same, so every certificate is false. Power: without
the signs.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightning_steer.statistics.bounds import Betting, Bound, EmpiricalBernstein, ExactPaired, Hoeffding
from lightning_steer.statistics.kinds import Share

BOUNDS: dict[str, Bound] = {
    "exact paired": ExactPaired(),
    "betting": Betting(),
    "empirical Bernstein": EmpiricalBernstein(),
    "Hoeffding": Hoeffding(),
}
RESAMPLES = 500


def check(base: NDArray, steered: NDArray, rows: int, delta: float, seed: int = 0) -> dict[str, Any]:
    """Return for each bound the share of resampled calibrations that certify, under the null and for the real changes.

    Args:
        base: ``[N]`` bool, whether unsteered answers are right.
        steered: ``[K, N]`` bool.
        rows: number of rows of a calibration.
        delta: accepted risk, split by Bonferroni's rule.
        seed: draws rows and signs.
    """
    random = np.random.default_rng(seed)
    changes = steered.astype(np.int8) - base.astype(np.int8)
    drawn = changes[:, random.integers(changes.shape[1], size=(RESAMPLES, rows))].transpose(1, 0, 2)
    signs = random.choice(np.array([-1, 1], dtype=np.int8), size=(RESAMPLES, 1, rows))
    shares: dict[str, Any] = {"churn": np.abs(changes).mean(1).tolist(), "resamples": RESAMPLES}
    for name, bound in BOUNDS.items():
        certificates = [(bound.lower(x, delta / len(changes)) > 0).any(-1) for x in (drawn * signs, drawn)]
        for kind, granted in zip(("false", "power"), certificates, strict=True):
            estimate = Share().estimate(granted)[0]
            shares[f"{name}, {kind}"] = list(estimate[:3])
    return shares
