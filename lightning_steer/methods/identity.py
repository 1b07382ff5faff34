"""No steering, the baseline of every table: ``h' = h``."""

from torch import Tensor

from lightning_steer.methods.base import SteeringMethod
from lightning_steer.records import Activations


class Identity(SteeringMethod):
    """Change nothing, at any strength."""

    def estimate(self, seen: Activations) -> None:
        """Do nothing: the identity has no parameters."""

    def shift(self, h: Tensor, strength: Tensor | float) -> Tensor:
        return h.new_zeros(())
