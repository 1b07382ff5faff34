"""Gated: any method, but only on rows that a condition picks; with a bound on the rows that it picks wrongly.

``h' = h + [w . h_c > t] shift(h)``, w a linear probe (or mean difference) of rows to be steered against rows to be left
alone, and h_c the activation at the last token of the row's prompt; what it decides holds for all tokens of the row. t
is the smallest threshold with P(steered | to be left alone) <= eta at confidence 1 - delta, whatever the law of the
scores (:mod:`lightning_steer.statistics.gates`). The idea is that of Lee et al. 2024 (CAST), arXiv 2409.05907, whose
threshold is searched for the best F1 and promises nothing; here the condition is read where the method acts.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from lightning_steer import row_tokens
from lightning_steer.errors import UserError
from lightning_steer.methods.base import SteeringMethod
from lightning_steer.probes import GateCalibration
from lightning_steer.records import Activations

LARGEST = torch.finfo(torch.float32).max
"""Stands for an infinite threshold, so that vector files, which hold finite numbers, can keep it."""


class Gated(SteeringMethod):
    """Steer only the rows that a condition picks. Strength: that of the method inside.

    Args:
        method: what steers the rows that are picked.
        eta: the largest share of rows that should be left alone and may be steered all the same.
        delta: accepted risk that it is larger.
        penalty: of the condition, a ridge probe on standardised features; null takes the difference of the means.
        calibration_share: part of the rows that the threshold is chosen on, the others fit the condition.
    """

    whole_rows = True

    def __init__(
        self,
        width: int,
        method: Callable[[int], SteeringMethod],
        eta: float = 0.05,
        delta: float = 0.05,
        penalty: float | None = 0.1,
        calibration_share: float = 0.5,
    ) -> None:
        super().__init__(width)
        self.calibration = GateCalibration(eta, delta, penalty, calibration_share)
        self.method = method(width)
        self.eta, self.delta, self.penalty, self.calibration_share = eta, delta, penalty, calibration_share
        for name in ("identity_strength", "strength_range", "default_strengths", "trained", "needs_sensitivity"):
            setattr(self, name, getattr(self.method, name))
        self.gates: list[Any] = []  # of the latest calibration: one, or one for each problem of a stack
        self.register_buffer("weight", torch.zeros(width))
        self.register_buffer("threshold", torch.tensor(LARGEST))
        self.register_buffer("promise", torch.zeros(6))  # of the latest calibration, 0 if set by hand; kept in files

    @classmethod
    def around(cls, method: SteeringMethod, **settings: Any) -> "Gated":
        """Return a gate around a fitted method; :meth:`fit_condition` and :meth:`calibrate` complete it."""
        return cls(method.width, lambda _width: method, **settings)

    def fit(self, seen: Activations) -> SteeringMethod:
        """Fit method and condition; raises ValueError as every method's, and if there are no rows at all."""
        if not len(seen.error):
            raise UserError(
                f"{type(self.method).__name__} is trained through the output, and a gate needs rows: fit it, then use "
                "Gated.around"
            )
        return super().fit(seen)

    def estimate(self, seen: Activations) -> None:
        """Fit method and condition: negative rows (error of one half or more) are to be steered, positive ones not."""
        self.method.fit(seen)
        parts = [self.calibration.split(rows) for rows in (seen.negative, seen.positive)]
        self.fit_condition(*(fitted for fitted, _ in parts))
        self.calibrate(*(held_out for _, held_out in parts))

    def fit_condition(self, steer: Tensor, leave: Tensor) -> "Gated":
        """Fit the direction that tells rows to be steered from rows to be left alone.

        Args:
            steer: ``[*, n, d]`` activations at the last tokens of prompts that are to be steered.
            leave: ``[*, m, d]`` the same of prompts that are to be left alone.
        """
        self.weight = self.calibration.direction(steer, leave)
        return self

    def calibrate(
        self,
        steer: Tensor,
        leave: Tensor,
        steer_cluster: ArrayLike | None = None,
        leave_cluster: ArrayLike | None = None,
    ) -> "Gated":
        """Choose the threshold on rows that nothing was fitted to; ``gates`` then holds its promise and power.

        Args:
            steer: ``[*, n, d]`` activations at the last tokens of prompts that are to be steered.
            leave: ``[*, m, d]`` the same of prompts that are to be left alone: independent draws of what is met later.
            steer_cluster: ``[n]`` the cluster of each row; None: rows are independent.
            leave_cluster: ``[m]`` the same.
        """
        self.fitted = self.method.fitted
        if min(steer.shape[-2], leave.shape[-2]) == 0:  # a learning curve begins with single rows
            self.gates = []
            return self.set_threshold(torch.full(leave.shape[:-2], math.inf))
        to_steer, to_leave = (self.score(rows.to(self.weight)) for rows in (steer, leave))
        threshold, promise, self.gates = self.calibration.threshold(to_steer, to_leave, steer_cluster, leave_cluster)
        self.set_threshold(threshold)
        self.promise = promise.to(self.weight.device)
        return self

    def set_threshold(self, threshold: Tensor | float) -> "Gated":
        """Set the threshold by hand: minus infinity steers every row, infinity none. Nothing is promised then."""
        limit = torch.as_tensor(threshold, dtype=torch.float64)
        if limit.isnan().any():
            raise UserError(f"a threshold is a number, not {math.nan}")
        self.threshold = limit.clamp(-LARGEST, LARGEST).float().to(self.weight.device)
        self.promise = torch.zeros(*limit.shape, 6, device=self.weight.device)
        return self

    @property
    def is_constant(self) -> bool:
        """Whether every row is steered, or none."""
        return bool((self.threshold.abs() >= LARGEST).all())

    def score(self, h: Tensor) -> Tensor:
        """Return the condition's scores ``[*, n]`` of ``h [*, n, d]``."""
        return (h.float() @ self.weight.unsqueeze(-1)).squeeze(-1)

    def shift(self, h: Tensor, strength: Tensor | float) -> Tensor:
        passes = self.score(h) > self.threshold.unsqueeze(-1)
        rows = row_tokens.current()
        steered = passes if rows is None else rows.hold(self, passes)
        return torch.where(steered.unsqueeze(-1), self.method.shift(h, strength), -0.0)  # h + -0.0 is h bit for bit
