"""Solve logistic regressions by scikit-learn, whose ``C`` is 1 / (n times a penalty)."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

STEPS = 10_000
"""Maximum steps of a solver before it warns; a few to some hundreds are usual."""


def solve(x: NDArray, correct: NDArray, penalties: Sequence[float], sparse: bool) -> tuple[NDArray, NDArray]:
    """Return weights ``[*, P, d]`` and intercepts ``[*, P]``, which are not penalised.

    Args:
        x: ``[*, n, d]`` standardised rows.
        correct: ``[n]`` bool.
        penalties: P of them, on the weights, per row.
        sparse: penalise the L1 norm, else the squared L2 norm.
    """
    fits = [_solve(rows, correct, p, sparse) for rows in x.reshape(-1, *x.shape[-2:]) for p in penalties]
    path_shape = (*x.shape[:-2], len(penalties))
    weights, intercepts = np.stack([f.coef_[0] for f in fits]), np.array([f.intercept_ for f in fits])
    return weights.reshape(*path_shape, -1), intercepts.reshape(path_shape)


def _solve(x: NDArray, correct: NDArray, penalty: float, sparse: bool) -> LogisticRegression:
    # scikit-learn 1.8 renamed the choice of norm; older versions ignore the new name and use an L2 penalty.
    renamed = LogisticRegression().get_params()["penalty"] != "l2"
    norm: dict[str, Any] = {"l1_ratio": float(sparse)} if renamed else {"penalty": "l1" if sparse else "l2"}
    # liblinear penalises the intercept divided by its scaling: at 1,000 almost not at all.
    solver: dict[str, Any] = {"solver": "liblinear", "intercept_scaling": 1e3} if sparse else {"solver": "lbfgs"}
    options = {"C": 1 / (len(x) * penalty), "tol": 1e-6, "max_iter": STEPS, "random_state": 0}
    return LogisticRegression(**options, **norm, **solver).fit(x, correct)
