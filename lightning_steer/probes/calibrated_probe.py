"""A linear probe with a threshold: rows of one kind lie above it, and few of the other kind do, by a bound."""

import math
import re
import warnings
from collections.abc import Mapping

import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from lightning_steer.errors import UserError
from lightning_steer.probes.error_probe import fit_error_probe
from lightning_steer.statistics import gates

LARGEST = torch.finfo(torch.float32).max
"""Stands for an infinite threshold, so that vector files, which hold finite numbers, can keep it."""


def renamed(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a method's saved state with today's names of buffers; warn if one was saved under its former name."""
    named = {re.sub(r"(^|\.)promise$", r"\1calibration", name): value for name, value in state.items()}
    if named.keys() != state.keys():
        warnings.warn("a gate's calibration is read under its former name, promise; save it again", stacklevel=2)
    return named


class CalibratedProbe(nn.Module):
    """A direction that tells rows to be steered from rows to be left alone, and a threshold chosen on other rows.

    ``weight [*, d]``, ``threshold [*]`` and ``calibration [*, 6]`` (a KeptGate; zeros for a threshold set by hand) are
    buffers.

    Args:
        width: of the rows.
        eta: the largest share of rows that should be left alone and may lie above the threshold all the same.
        delta: accepted risk that it is larger.
        penalty: of a ridge probe on standardised features; None takes the difference of the means.
        calibration_share: part of the rows that :meth:`learn` chooses the threshold on; the others fit the probe.

    Raises:
        ValueError: a share is not between 0 and 1, or the penalty not above 0.
    """

    def __init__(
        self,
        width: int,
        eta: float = 0.05,
        delta: float = 0.05,
        penalty: float | None = 0.1,
        calibration_share: float = 0.5,
    ) -> None:
        super().__init__()
        gates.check(eta, delta)
        if not 0 < calibration_share < 1 or (penalty is not None and penalty <= 0):
            raise UserError(
                f"calibration_share lies between 0 and 1 and penalty above 0, not at {calibration_share} and {penalty}"
            )
        self.eta, self.delta, self.penalty, self.calibration_share = eta, delta, penalty, calibration_share
        self.gates: list[gates.Gate] = []  # of the latest calibration: one, or one for each problem of a stack
        self.register_buffer("weight", torch.zeros(width))
        self.register_buffer("threshold", torch.tensor(math.nan))  # there is none yet
        self.register_buffer("calibration", torch.zeros(6))

    def learn(self, steer: Tensor, leave: Tensor) -> None:
        """Fit the probe to a part of the rows ``[*, n, d]`` and ``[*, m, d]``, and calibrate it on the rest."""
        parts = [self._split(rows) for rows in (steer, leave)]
        self.fit(*(fitted for fitted, _ in parts)).calibrate(*(held_out for _, held_out in parts))

    def fit(self, steer: Tensor, leave: Tensor) -> "CalibratedProbe":
        """Fit the direction, on which rows to be steered ``[*, n, d]`` lie above others ``[*, m, d]``."""
        steer, leave = steer.double(), leave.double()
        if self.penalty is None:
            self.weight = (steer.mean(-2) - leave.mean(-2)).float()
        else:
            label = torch.cat([torch.ones(steer.shape[-2]), torch.zeros(leave.shape[-2])])
            self.weight = fit_error_probe(torch.cat([steer, leave], -2), label, self.penalty, False).weight.float()
        return self

    def calibrate(
        self,
        steer: Tensor,
        leave: Tensor,
        steer_cluster: ArrayLike | None = None,
        leave_cluster: ArrayLike | None = None,
    ) -> "CalibratedProbe":
        """Choose the threshold on rows that nothing was fitted to; ``gates`` then holds its bound and power.

        Args:
            steer: ``[*, n, d]`` activations at the last tokens of prompts that are to be steered.
            leave: ``[*, m, d]`` the same of prompts that are to be left alone: independent draws of what is met later.
            steer_cluster: ``[n]`` the cluster of each row; None: rows are independent.
            leave_cluster: ``[m]`` the same.
        """
        self.gates, shape = [], leave.shape[:-2]
        if min(steer.shape[-2], leave.shape[-2]) == 0:  # a learning curve begins with single rows
            return self.set_threshold(torch.full(shape, math.inf))
        scores = [self.score(rows.to(self.weight)).double().cpu() for rows in (steer, leave)]
        for steered, left in zip(*(part.reshape(-1, part.shape[-1]).numpy() for part in scores), strict=True):
            self.gates.append(gates.calibrate(steered, left, self.eta, self.delta, steer_cluster, leave_cluster))
        self.set_threshold(torch.tensor([gate.threshold for gate in self.gates], dtype=torch.float64).reshape(shape))
        numbers = torch.tensor([gates.KeptGate.of(gate) for gate in self.gates], dtype=torch.float32).nan_to_num(0.0)
        self.calibration = numbers.reshape(*shape, -1).to(self.weight.device)
        return self

    def set_threshold(self, threshold: Tensor | float) -> "CalibratedProbe":
        """Set the threshold by hand: minus infinity steers every row, infinity none. Nothing is guaranteed then."""
        limit = torch.as_tensor(threshold, dtype=torch.float64)
        if limit.isnan().any():
            raise UserError(f"a threshold is a number, not {math.nan}")
        self.threshold = limit.clamp(-LARGEST, LARGEST).float().to(self.weight.device)
        self.calibration = torch.zeros(*limit.shape, 6, device=self.weight.device)
        return self

    @property
    def is_constant(self) -> bool:
        """Whether all rows lie above the threshold, or none."""
        return bool((self.threshold.abs() >= LARGEST).all())

    def score(self, h: Tensor) -> Tensor:
        """Return the scores ``[*, n]`` of ``h [*, n, d]``."""
        return (h.float() @ self.weight.unsqueeze(-1)).squeeze(-1)

    def _split(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return rows ``[*, n, d]`` for the direction and for the threshold, evenly interleaved."""
        place = torch.arange(rows.shape[-2] + 1, dtype=torch.float64) * self.calibration_share
        held_out = (place[1:].floor() > place[:-1].floor()).to(rows.device)
        return rows[..., ~held_out, :], rows[..., held_out, :]
