"""Old place of :mod:`lightning_steer.statistics.certificates`, until all consumers have moved."""

import numpy as np
from numpy.typing import NDArray

from lightning_steer.statistics import certificates
from lightning_steer.statistics.bounds import Bound, check
from lightning_steer.statistics.certificates import BONFERRONI, EXACT, Certificate, needed
from lightning_steer.statistics.multiplicity import Bonferroni, FixedSequence, Multiplicity

__all__ = ["BONFERRONI", "EXACT", "Bonferroni", "Certificate", "FixedSequence", "Multiplicity", "certify", "needed"]


def certify(
    base: NDArray,
    steered: NDArray,
    delta: float = 0.01,
    epsilon: float = 0.0,
    bound: Bound = EXACT,
    multiplicity: Multiplicity = BONFERRONI,
) -> Certificate:
    """Certify from booleans ``base [N]`` and ``steered [K, N]`` of independent rows; raises ValueError."""
    base, steered = np.asarray(base), np.asarray(steered)
    for name, right in (("base", base), ("steered", steered)):
        if right.dtype != bool:
            raise ValueError(f"{name} says of each row whether it is right, as booleans, not as {right.dtype}")
    if base.ndim != 1 or steered.ndim != 2 or steered.shape[1] != len(base):
        raise ValueError(f"base is [N] and steered [K, N], not {list(base.shape)} and {list(steered.shape)}")
    check(delta, epsilon, steered.shape[1], steered.shape[0])
    changes = steered.astype(np.int8) - base.astype(np.int8)
    return certificates.certify(changes, -1, 1, None, delta, epsilon, bound, multiplicity)
