"""What a gate goes by: a direction that tells rows to be steered from others, and a threshold that is seldom wrong."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from lightning_steer.errors import UserError
from lightning_steer.probes.error_probe import fit_error_probe
from lightning_steer.statistics import gates


class Calibrated(NamedTuple):
    """Thresholds with their promises, for every leading problem ``*``."""

    threshold: Tensor
    """``[*]`` float64."""
    promise: Tensor
    """``[*, 6]`` float32: the fields of :class:`lightning_steer.statistics.gates.KeptGate`."""
    gates: list[gates.Gate]
    """The same with their reasons."""


@dataclass(frozen=True)
class GateCalibration:
    """How the condition of a gate is fitted, and its threshold chosen on other rows.

    Args:
        eta: the largest share of rows that should be left alone and may be steered all the same.
        delta: accepted risk that it is larger.
        penalty: of the condition, a ridge probe on standardised features; None takes the difference of the means.
        share: part of the rows that the threshold is chosen on.

    Raises:
        ValueError: a share is not between 0 and 1, or the penalty not above 0.
    """

    eta: float
    delta: float
    penalty: float | None
    share: float

    def __post_init__(self) -> None:
        gates.check(self.eta, self.delta)
        if not 0 < self.share < 1 or (self.penalty is not None and self.penalty <= 0):
            raise UserError(
                f"calibration_share lies between 0 and 1 and penalty above 0, not at {self.share} and {self.penalty}"
            )

    def split(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return rows ``[*, n, d]`` for the condition and for the threshold, evenly interleaved."""
        place = torch.arange(rows.shape[-2] + 1, dtype=torch.float64) * self.share
        held_out = (place[1:].floor() > place[:-1].floor()).to(rows.device)
        return rows[..., ~held_out, :], rows[..., held_out, :]

    def direction(self, steer: Tensor, leave: Tensor) -> Tensor:
        """Return ``[*, d]`` float32, on which rows to be steered ``[*, n, d]`` lie above others ``[*, m, d]``."""
        steer, leave = steer.double(), leave.double()
        if self.penalty is None:
            return (steer.mean(-2) - leave.mean(-2)).float()
        label = torch.cat([torch.ones(steer.shape[-2]), torch.zeros(leave.shape[-2])])
        return fit_error_probe(torch.cat([steer, leave], -2), label, self.penalty, False).weight.float()

    def threshold(
        self, steer: Tensor, leave: Tensor, steer_cluster: ArrayLike | None, leave_cluster: ArrayLike | None
    ) -> Calibrated:
        """Choose thresholds on scores ``[*, n]`` of rows to be steered and ``[*, m]`` of others; clusters or None."""
        by_problem = (scores.double().cpu().reshape(-1, scores.shape[-1]).numpy() for scores in (steer, leave))
        calibrated = [
            gates.calibrate(steered, left, self.eta, self.delta, steer_cluster, leave_cluster)
            for steered, left in zip(*by_problem, strict=True)
        ]
        limits = torch.tensor([gate.threshold for gate in calibrated], dtype=torch.float64)
        numbers = torch.tensor([gates.KeptGate.of(gate) for gate in calibrated], dtype=torch.float32).nan_to_num(0.0)
        shape = steer.shape[:-1]
        return Calibrated(limits.reshape(shape), numbers.reshape(*shape, len(gates.KeptGate._fields)), calibrated)
