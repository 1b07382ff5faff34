"""Gated: any method, but only on rows that a condition picks; with a bound on the rows that it picks wrongly.

``h' = h + [w . h_c > t] shift(h)``, w a linear probe (or mean difference) of rows to be steered against rows to be left
alone, and h_c the activation at the last token of the row's prompt; what it decides holds for all tokens of the row. t
is the smallest threshold with P(steered | to be left alone) <= eta at confidence 1 - delta, whatever the law of the
scores (:mod:`lightning_steer.statistics.gates`). The idea is that of Lee et al. 2024 (CAST), arXiv 2409.05907, whose
threshold is searched for the best F1 and promises nothing; here the condition is read where the method acts.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from lightning_steer.errors import UserError
from lightning_steer.methods.base import SteeringMethod
from lightning_steer.probes import Condition
from lightning_steer.records import Activations


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
        self.method, self.condition = method(width), Condition(width, eta, delta, penalty, calibration_share)
        self.eta, self.delta, self.penalty, self.calibration_share = eta, delta, penalty, calibration_share
        for name in ("identity_strength", "strength_range", "default_strengths", "trained", "needs_sensitivity"):
            setattr(self, name, getattr(self.method, name))

    @classmethod
    def around(cls, method: SteeringMethod, condition: Condition) -> "Gated":
        """Return a fitted method behind a calibrated condition; raise ValueError if that has no threshold."""
        if condition.threshold.isnan().any():
            raise UserError("this condition has no threshold: use its calibrate or set_threshold first")
        shares = condition.eta, condition.delta, condition.penalty, condition.calibration_share
        gated = cls(method.width, lambda _width: method, *shares)
        gated.condition, gated.fitted = condition, method.fitted
        return gated

    def estimate(self, seen: Activations) -> None:
        """Fit method and condition: negative rows (error of one half or more) are to be steered, positive ones not."""
        self.method.fit(seen)
        self.condition.learn(seen.negative, seen.positive)

    def shift(self, h: Tensor, strength: Tensor | float) -> Tensor:
        shift = self.method.shift(h, strength)
        return torch.where(self.condition(h).unsqueeze(-1), shift, -0.0)  # h + -0.0 is h bit for bit
