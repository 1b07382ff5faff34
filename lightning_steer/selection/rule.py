"""How a run chooses its strength: the best on held-out rows, or only one that is certified to improve."""

import math
from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor

from lightning_steer import numbers
from lightning_steer.errors import UserError
from lightning_steer.metrics.evaluation import ChangeRange
from lightning_steer.numbers import ranged
from lightning_steer.selection.strength import choose
from lightning_steer.statistics.bounds import Bound, check
from lightning_steer.statistics.certificates import certify
from lightning_steer.statistics.columns import as_clusters
from lightning_steer.statistics.multiplicity import Multiplicity
from lightning_steer.statistics.resampling import bootstrap_weights, percentile


class Choice(NamedTuple):
    """What was chosen of S strengths."""

    index: int | None
    """Which; None: do not steer."""
    low: float
    """Lower end of the middle 95 % of choices over re-samplings of the rows; NaN without other rows or a range."""
    high: float
    """Upper end."""
    bound: float
    """Certified: the true improvement of the mean success is larger than this; 0 if nothing is steered; NaN
    without a certificate."""
    reason: str
    """Why this one, or why none."""
    clusters: int | None = None
    """Certified: the improvement is that of the mean over so many clusters; None: over rows."""


class Selection(ABC):
    """A rule that chooses a strength from the same rows, steered at every strength."""

    searched = False
    """Whether layer and strength were searched for the fitted vector: random directions there have had no search."""
    budget: float | None = None
    """Damage that the choice keeps within, in nats per token of reference texts; None without a budget."""

    @abstractmethod
    def choose(
        self,
        strengths: list[float],
        base: Tensor,
        success: Tensor,
        loss: Tensor,
        change: ChangeRange | None = None,
        cluster: Tensor | None = None,
    ) -> Choice:
        """Choose.

        Args:
            strengths: the S strengths, from the weakest effect to the strongest.
            base: ``[n]`` success of the unsteered network in each row.
            success: ``[n, S]`` the same at each strength.
            loss: ``[n, S]`` how far the row is from what is wanted.
            change: by how much the success of a row can change, as its evaluation declares.
            cluster: ``[n]`` the cluster of each row, the one that the report clusters by; null if rows are independent.
        """


class Best(Selection):
    """Most successes, ties by the smaller loss; by the loss alone below 32 rows.

    Args:
        resamples: bootstrap resamples behind the range of the chosen strength.
    """

    @ranged
    def __init__(self, resamples: int = 2000) -> None:
        self.resamples = resamples

    def choose(
        self,
        strengths: list[float],
        base: Tensor,
        success: Tensor,
        loss: Tensor,
        change: ChangeRange | None = None,
        cluster: Tensor | None = None,
    ) -> Choice:
        index = int(choose(success, loss))
        numbers.fits(f"{self.resamples} resamples of {len(loss)} rows", self.resamples * len(loss), 24)
        drawn = bootstrap_weights(len(loss), self.resamples, cluster=None if cluster is None else cluster.numpy())
        again = choose(success, loss, torch.from_numpy(drawn))
        low, high = percentile(torch.tensor(strengths, dtype=torch.float64)[again].numpy())
        rows, units = f"{len(loss)} rows", len(loss) if cluster is None else len(cluster.unique())
        if len(loss) == 1:  # re-sampled it is always itself, which says nothing about other rows
            low, high, rows = math.nan, math.nan, "a single row, which says nothing about others"
        elif units == 1:
            low, high = math.nan, math.nan
            rows += " of a single cluster, which says nothing about others"
        elif units < len(loss):
            rows += f" in {units} clusters"
        return Choice(index, low, high, float("nan"), f"best of {len(strengths)} strengths on {rows}")


class Certified(Selection):
    """The strength that certainly improves the mean success, and by the most; or none: then nothing is steered.

    Rows that the report clusters are judged by cluster, and graded successes on the range that their evaluation
    declares. The certificate then bounds the mean over clusters.

    Args:
        delta: accepted risk that the chosen strength's true improvement is epsilon or less.
        epsilon: improvement that is to be exceeded; negative to tolerate a loss.
        bound: lower confidence bound of the improvement; null for the one that fits the success.
        multiplicity: correction for the choice among the strengths; null for Bonferroni's.
    """

    @ranged
    def __init__(
        self,
        delta: float = 0.05,
        epsilon: float = 0.0,
        bound: Bound | None = None,
        multiplicity: Multiplicity | None = None,
    ) -> None:
        check(delta, epsilon)
        self.delta, self.epsilon = delta, epsilon
        self.bound, self.multiplicity = bound, multiplicity

    def choose(
        self,
        strengths: list[float],
        base: Tensor,
        success: Tensor,
        loss: Tensor,
        change: ChangeRange | None = None,
        cluster: Tensor | None = None,
    ) -> Choice:
        if change is None:
            raise UserError(
                "nothing can be certified: the evaluation does not declare by how much steering can change a row's "
                "success (its `change`)"
            )
        changes = (success.double() - base.double().unsqueeze(1)).T.numpy()
        if change.whole:
            odd = changes[(changes != 0) & (abs(changes) != 1)]
            if odd.size:
                raise UserError(f"success is declared to be 0 or 1 in every row, but changes by {odd[0]:g}")
            changes = changes.astype(int)  # counts of gains and harms have an exact bound
        clusters = None if cluster is None else cluster.numpy()
        certificate = certify(
            changes, change.low, change.high, clusters, self.delta, self.epsilon, self.bound, self.multiplicity
        )
        nothing = float("nan")
        bound = 0.0 if certificate.bound is None else certificate.bound
        units = as_clusters(clusters, len(success))
        count = None if units is None else len(units.sizes)
        return Choice(certificate.chosen, nothing, nothing, bound, certificate.reason, count)
