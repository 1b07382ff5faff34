"""The base class of a task's metrics: row-wise, pure functions of log-probabilities."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import Tensor

from lightning_steer.errors import UserError
from lightning_steer.metrics.columns import estimate_columns
from lightning_steer.statistics.estimate import Estimate
from lightning_steer.statistics.kinds import Kind, Mean, Share


class ChangeRange(NamedTuple):
    """The declared range of a row's change in success; never estimated from the rows."""

    low: float
    high: float
    whole: bool
    """Whether every change is -1, 0 or 1: a harm, a tie, a gain."""


class Evaluation(ABC):
    """One task's metrics of log-probabilities, ``base [B, ...]`` unsteered, ``scores [C, B, ...]`` of C edits."""

    subject: str = ""
    """Subject of the batches, as the data module names it; empty if it does not matter."""
    headline: tuple[str, ...]
    """The columns of the result table, in order; each is estimated for every baseline and strength."""
    also: tuple[str, ...]
    """Columns that are reported only for the steered network."""
    shown: tuple[str, ...]
    """Columns of the dose-response figure, all of one unit."""
    unit: str = "share of held-out rows"
    """Unit of the columns in ``shown``."""
    success: str
    """The column that measures whether a row succeeded; it selects the strength."""
    kinds: Mapping[str, Kind]
    """Kind of each column, which determines its interval; every column needs an entry."""
    paired: tuple[str, ...] = ()
    """Columns whose paired change is a column too, ``<name>_change``, with its own kind: the difference of two means
    ignores that both are over the same rows."""
    higher_is_better: Mapping[str, bool | None]
    """The better direction of each table column, used to rank the method among random directions. None if neither is
    better or it depends on the intended direction: then there is no rank. Every column needs an entry."""
    by_definition: Mapping[str, float] = {}
    """Columns that compare with the unsteered network, and their values for that network itself."""

    def check_subject(self, data: Any) -> None:
        """Raise ValueError if this evaluation does not apply to a data module's rows."""
        subject = data.subject
        if self.subject and subject and self.subject != subject:
            raise UserError(
                f"{type(self).__name__} judges {self.subject}, and a {type(data).__name__} has {subject}: give the "
                "evaluation that goes with the data"
            )

    @abstractmethod
    def loss(self, scores: Tensor, batch: Any) -> Tensor:
        """Return ``[C, B]`` the loss of each row; trained methods minimise it."""

    @abstractmethod
    def rows(self, base: Tensor, scores: Tensor, batch: Any) -> dict[str, Tensor]:
        """Return ``{column: [C, B]}``, every measure of every row."""

    def error(self, scores: Tensor, batch: Any) -> Tensor:
        """Return ``[B]`` in [0, 1], the error of each answer of ``scores [B, options]``, for tasks that grade rows."""
        raise NotImplementedError(f"{type(self).__name__} does not grade single rows")

    def estimates(self, rows: Mapping[str, Tensor], cluster: Tensor | None) -> dict[str, list[Estimate]]:
        """Return C estimates of each figure from columns ``[n, C]`` of C interventions; here one figure per column.

        Args:
            rows: the columns of :meth:`rows`.
            cluster: ``[n]`` cluster of each row; None if rows are independent.

        Raises:
            ValueError: a column has no declared kind, or values that its kind cannot have.
        """
        return estimate_columns(rows, self.kinds, cluster)

    def with_changes(self, rows: dict[str, Tensor], plain: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the columns with ``<name>_change`` for those in ``paired``: each row steered minus unsteered.

        Args:
            rows: columns ``[C, B]``.
            plain: the same columns ``[1, B]`` of the unsteered network.
        """
        return rows | {f"{name}_change": rows[name] - plain[name] for name in self.paired}

    @property
    def change(self) -> ChangeRange | None:
        """Return the range of a row's change in success, from its kind; None if nothing can be certified."""
        kind, baseline = self.kinds.get(self.success), self.by_definition.get(self.success)
        if isinstance(kind, Share):
            return ChangeRange(-1.0, 1.0, whole=True)
        if not isinstance(kind, Mean):
            return None
        if baseline is not None:
            return ChangeRange(kind.low - baseline, kind.high - baseline, whole=False)
        return ChangeRange(kind.low - kind.high, kind.high - kind.low, whole=False)

    def profile(self, base: Tensor, scores: Tensor, batch: Any) -> dict[str, Tensor]:
        """Return ``{column: [B, k]}``, the side effects of one intervention ``scores [B, ...]``; NaN at its targets."""
        return {}

    def controls(
        self, unsteered: Mapping[str, Tensor], learned: Mapping[str, Tensor]
    ) -> Mapping[str, Mapping[str, Tensor]]:
        """Return baselines without steering: their names and the columns that they give the held-out rows.

        Args:
            unsteered: columns ``[n, 1]`` of the unsteered network on the held-out rows.
            learned: the same on the rows that the method was fitted to.

        The column ``<success>_over_<control>``, the difference of the method's and a control's success, needs a kind.
        """
        return {}

    @abstractmethod
    def verdict(self, metrics: Mapping[str, Any], baselines: Mapping[str, Any]) -> str:
        """Summarise the result in one or two sentences for a reader who has not seen the paper."""

    @abstractmethod
    def warnings(self, metrics: Mapping[str, Any], baselines: Mapping[str, Any]) -> list[str]:
        """Return reasons not to take the figures at face value; usually empty."""
