"""What every network that can be steered answers, be it the toy MLP or a language model."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from lightning_steer.hooks import Edit


class Backbone(nn.Module, ABC):
    """A frozen network with named sites. Constructing one loads nothing; :meth:`load` does.

    ``inputs`` are whatever the data module's batches hold for it; rows are the first dimension of all that comes out.
    """

    sites: list[str]
    """The sites that are steered, from the input to the output."""
    name: str
    """Which network this is, for a report."""

    @abstractmethod
    def load(self) -> None:
        """Build the network and read its weights; does nothing the second time."""

    @abstractmethod
    def check(self, data: Any) -> None:
        """Raise ValueError if the network cannot read what this data module holds, or not under its trainer's strategy.

        May be asked before :meth:`load`, so that nothing large is loaded in vain.
        """

    def check_precision(self, data: Any) -> None:
        """Raise ValueError under a trainer whose precision would change what the frozen network computes."""
        precision = getattr(getattr(data, "trainer", None), "precision", "32-true")
        if precision != "32-true":
            raise ValueError(
                f"trainer.precision {precision} would change the scores of the frozen network: leave it at 32-true, "
                "and name the precision of a language model by its dtype"
            )

    @abstractmethod
    def width(self, site: str) -> int:
        """Size d of the residual stream at a site."""

    @abstractmethod
    def activations(self, inputs: Any) -> dict[str, Tensor]:
        """``{site: [B, d]}``, the rows that a method is fitted to."""

    def observe(self, inputs: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """``[B, ..., options]`` unsteered log-probabilities of questions, and ``{site: [B, d]}`` of their prompts."""
        return self.scores(inputs)[0], self.activations(inputs)

    @abstractmethod
    def scores(self, inputs: Any, edits: Mapping[str, Edit] | None = None, copies: int = 1) -> Tensor:
        """``[copies, B, ..., options]`` log-probabilities with these edits.

        An edit is given ``h [copies, B, ..., d]`` and returns the same shape: each copy may be steered differently,
        and what lies below the first site is computed once.
        """
