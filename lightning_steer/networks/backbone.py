"""The interface of every network that can be steered, the toy MLP or a language model."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from lightning_steer.errors import UserError
from lightning_steer.hooks import Edit


class Backbone(nn.Module, ABC):
    """A frozen network with named sites. Constructing one loads nothing; :meth:`load` does.

    ``inputs`` are those of the data module's batches; rows are the first dimension of every output.
    """

    sites: list[str]
    """The steered sites, from input to output."""
    name: str
    """The network's name in reports."""

    @property
    def place(self) -> str:
        """Describe where it is steered, for reports."""
        return ", ".join(self.sites)

    @abstractmethod
    def load(self) -> None:
        """Build the network and read its weights; does nothing the second time."""

    @abstractmethod
    def check(self, data: Any) -> None:
        """Raise ValueError if the network cannot read this data module's rows, or not under its trainer's strategy.

        May be called before :meth:`load`, so that nothing large is loaded in vain.
        """

    def check_precision(self, data: Any) -> None:
        """Raise ValueError if the trainer's precision would change the frozen network's results."""
        precision = getattr(getattr(data, "trainer", None), "precision", "32-true")
        if precision != "32-true":
            raise UserError(
                f"trainer.precision {precision} would change the scores of the frozen network: leave it at 32-true, "
                "and name the precision of a language model by its dtype"
            )

    @abstractmethod
    def width(self, site: str) -> int:
        """Return the size d of the residual stream at a site."""

    def heads(self, site: str) -> int:
        """Return the number of equal parts of a row at a site: of attention heads' outputs their number, else 1."""
        return 1

    @abstractmethod
    def activations(self, inputs: Any) -> dict[str, Tensor]:
        """Return ``{site: [B, d]}``, the rows that a method is fitted to."""

    def sensitivity(self, inputs: Any, prompts: bool = False) -> dict[str, Tensor]:
        """Return ``{site: [B, m, d]}``: root probability of each of m outcomes times the gradient of its log.

        The gradient is by a shift of the site. Summed over rows and outcomes, the outer products are the Fisher
        information of the output about that shift: half its quadratic form is the KL divergence of a small shift.
        With ``prompts`` the output is what follows the prompts, else what follows the texts of :meth:`activations`.
        """
        raise NotImplementedError(f"{type(self).__name__} does not say how its output depends on {self.sites}")

    def observe(self, inputs: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """Return unsteered log-probabilities ``[B, ..., options]``, and ``{site: [B, d]}`` of the prompts."""
        return self.scores(inputs)[0], self.activations(inputs)

    @abstractmethod
    def scores(self, inputs: Any, edits: Mapping[str, Edit] | None = None, copies: int = 1) -> Tensor:
        """Return ``[copies, B, ..., options]`` log-probabilities with these edits.

        An edit takes ``h [copies, B, ..., d]`` and returns the same shape: each copy may be steered differently, and
        layers below the first site are computed once.
        """
