"""The condition of a gate: rows are steered whose score at the last token of their prompt passes the threshold."""

from torch import Tensor

from lightning_steer import row_tokens
from lightning_steer.probes.calibrated_probe import CalibratedProbe


class Condition(CalibratedProbe):
    """A calibrated probe that decides once for all tokens of a row; where no tokens are known, vector by vector."""

    def forward(self, h: Tensor) -> Tensor:
        """Return ``[*, n]``, whether ``h [*, n, d]`` is steered; raise ValueError if a prompt comes in pieces."""
        passes = self.score(h) > self.threshold.unsqueeze(-1)
        rows = row_tokens.current()
        return passes if rows is None else rows.hold(self, passes)
