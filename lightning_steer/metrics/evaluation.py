"""What a task asks of a steered network: a row at a time, as pure functions of log-probabilities."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import Tensor

from lightning_steer.metrics.columns import estimate_columns
from lightning_steer.statistics.estimate import Estimate
from lightning_steer.statistics.kinds import Kind, Mean, Share


class ChangeRange(NamedTuple):
    """By how much steering can change a row's success, as it was declared; never read off the rows."""

    low: float
    high: float
    whole: bool
    """Whether it is -1, 0 or 1 in every row: a harm, a tie, a gain."""


class Evaluation(ABC):
    """One task's measures. ``base [B, ...]`` and ``scores [C, B, ...]`` are log-probabilities of C candidates."""

    subject: str = ""
    """What its batches are of, as the data module that makes them names it; empty: it does not say."""
    headline: tuple[str, ...]
    """The columns of the result table, in order; each is estimated for every baseline and strength."""
    also: tuple[str, ...]
    """Columns that are reported of the steered network alone."""
    shown: tuple[str, ...]
    """Columns that the dose-response figure shows: of one unit."""
    unit: str = "share of held-out rows"
    """Theirs."""
    success: str
    """The column that says whether a row came out as wanted; the strength is chosen by it."""
    kinds: Mapping[str, Kind]
    """What each column estimates, from which its interval follows; a column without an entry is refused."""
    paired: tuple[str, ...] = ()
    """Columns whose paired change is a column too, ``<name>_change``, with a kind of its own: the difference of two
    means says nothing of the rows that both are over."""
    higher_is_better: Mapping[str, bool | None]
    """Which direction of each column of the table is wanted: the method is ranked by it among random directions. None:
    neither, or it depends on what was meant, and there is no rank; a column without an entry is refused."""
    by_definition: Mapping[str, float] = {}
    """Columns that compare with the unsteered network, and what they are for that network itself."""

    def check_subject(self, data: object) -> None:
        """Raise ValueError if a data module holds other rows than those that this judges."""
        subject = getattr(data, "subject", "")
        if self.subject and subject and self.subject != subject:
            raise ValueError(
                f"{type(self).__name__} judges {self.subject}, and a {type(data).__name__} has {subject}: give the "
                "evaluation that goes with the data"
            )

    @abstractmethod
    def loss(self, scores: Tensor, batch: Any) -> Tensor:
        """``[C, B]`` how far each row is from what is wanted; trained methods minimise it."""

    @abstractmethod
    def rows(self, base: Tensor, scores: Tensor, batch: Any) -> dict[str, Tensor]:
        """``{column: [C, B]}`` every measure of every row."""

    def error(self, scores: Tensor, batch: Any) -> Tensor:
        """``[B]`` in [0, 1]: how wrong each answer of ``scores [B, options]`` is, where rows are graded."""
        raise NotImplementedError(f"{type(self).__name__} does not grade single rows")

    def estimates(self, rows: Mapping[str, Tensor], cluster: Tensor | None) -> dict[str, list[Estimate]]:
        """Return the figures of C candidates from their columns ``[n, C]``, C of each: here one for each column.

        Args:
            rows: what :meth:`rows` has made.
            cluster: ``[n]`` within which rows are not independent; None if all are.

        Raises:
            ValueError: a column has no declared kind, or values that its kind cannot have.
        """
        return estimate_columns(rows, self.kinds, cluster)

    def with_changes(self, rows: dict[str, Tensor], plain: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the columns with ``<name>_change`` of those in ``paired``: a row steered less the same row unsteered.

        Args:
            rows: columns ``[C, B]``.
            plain: the same columns ``[1, B]`` of the unsteered network.
        """
        return rows | {f"{name}_change": rows[name] - plain[name] for name in self.paired}

    @property
    def change(self) -> ChangeRange | None:
        """By how much steering can change a row's success, from its kind; None: nothing can be certified."""
        kind, baseline = self.kinds.get(self.success), self.by_definition.get(self.success)
        if isinstance(kind, Share):
            return ChangeRange(-1.0, 1.0, whole=True)
        if not isinstance(kind, Mean):
            return None
        if baseline is not None:
            return ChangeRange(kind.low - baseline, kind.high - baseline, whole=False)
        return ChangeRange(kind.low - kind.high, kind.high - kind.low, whole=False)

    def profile(self, base: Tensor, scores: Tensor, batch: Any) -> dict[str, Tensor]:
        """``{column: [B, k]}`` of one candidate ``scores [B, ...]``: what moved besides; NaN where it was meant to."""
        return {}

    def controls(
        self, unsteered: Mapping[str, Tensor], learned: Mapping[str, Tensor]
    ) -> Mapping[str, Mapping[str, Tensor]]:
        """What could be had without steering: a name, and the columns that it would have given the held-out rows.

        Args:
            unsteered: columns ``[n, 1]`` of the unsteered network on the held-out rows.
            learned: the same on the rows that the method was fitted to.

        What a method's success has over a control's is the column ``<success>_over_<control>``, and needs a kind.
        """
        return {}

    @abstractmethod
    def verdict(self, metrics: Mapping[str, Any], baselines: Mapping[str, Any]) -> str:
        """What happened, in one or two sentences for somebody who has not read the paper."""

    @abstractmethod
    def warnings(self, metrics: Mapping[str, Any], baselines: Mapping[str, Any]) -> list[str]:
        """Why the figures should not be taken at face value; as a rule empty."""
