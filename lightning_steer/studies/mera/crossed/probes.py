"""Probes of logit(error), each kind at all its penalties, and how well each predicts unseen rows."""

from typing import NamedTuple

import torch
from torch import Tensor

from lightning_steer.probes.error_probe import logit_error
from lightning_steer.probes.linear import ridge
from lightning_steer.probes.logistic_regression import logistic
from lightning_steer.probes.moments import Moments
from lightning_steer.probes.normal_equations import NormalEquations
from lightning_steer.probes.probe_selection import PENALTIES, fit_path

RIDGE = (0.01, 0.1, 1.0, 10.0, 100.0, 1000.0)
LOGISTIC = (0.001, 0.01, 0.1, 1.0, 10.0)
FOLDS = 5


class Probe(NamedTuple):
    """One kind of probe at one penalty."""

    kind: str
    """``lasso`` (least squares at penalty 0, as in the paper), ``ridge`` or ``logistic``."""
    penalty: float
    weight: Tensor
    """``[d]`` float64, in raw units."""
    intercept: Tensor
    """``[]``."""
    r2: float
    """R2 of logit(error), cross-validated; for logistic probes, of right against wrong in a held-out fifth."""


def fit(h: Tensor, error: Tensor) -> list[Probe]:
    """Fit every probe to rows ``h [n, d]`` with errors ``[n]``, in random order."""
    target, fold = logit_error(error), torch.arange(len(h)) % FOLDS
    moments = Moments.like(h, target, FOLDS).add(h, target, fold)
    training_rows, all_rows = NormalEquations.of(moments.training()), NormalEquations.of(moments.over([range(FOLDS)]))
    probes = []
    for kind, penalties in (("lasso", PENALTIES), ("ridge", RIDGE)):
        held_out, full = (
            fit_path(equations, penalties)[0] if kind == "lasso" else ridge(equations, penalties)
            for equations in (training_rows, all_rows)
        )
        r2 = moments.r2(*held_out).mean(0)
        probes += [
            Probe(kind, penalty, full.weight[0, i], full.intercept[0, i], float(r2[i]))
            for i, penalty in enumerate(penalties)
        ]
    return probes + _logistic(h, error)


def _logistic(h: Tensor, error: Tensor) -> list[Probe]:
    wrong, held_out = error >= 0.5, torch.arange(len(h)) % FOLDS == 0
    if not 0 < int(wrong[~held_out].sum()) < int((~held_out).sum()):
        return []
    full, trained = logistic(h, wrong, LOGISTIC), logistic(h[~held_out], wrong[~held_out], LOGISTIC)
    target = wrong[held_out].double()
    squared_error = (target - trained.predict(h[held_out]).sigmoid()).square().mean(-1)
    r2 = 1 - squared_error / (target - wrong[~held_out].double().mean()).square().mean()
    return [
        Probe("logistic", penalty, full.weight[i], full.intercept[i], float(r2[i]))
        for i, penalty in enumerate(LOGISTIC)
    ]


def best(probes: list[Probe], kind: str, penalty: float | None = None) -> Probe:
    """Return the probe of a kind at a penalty, or at the penalty that predicts best."""
    of_kind = [p for p in probes if p.kind == kind and penalty in (None, p.penalty)]
    return max(of_kind, key=lambda p: p.r2)
