"""Intervention fidelity: did the edit move what it was meant to move, and nothing else?

An edit is meant to move examples from one choice (``negative``) to another (``positive``): suppressing stereotypes from
STEREOTYPE to ANTI, promoting them the other way. What it did is counted example by example, never from the change of
the shares, in which opposite moves cancel:

``intended``    1 if the choice moved from negative to positive;
``opposed``     1 if the choice moved from positive to negative;
``collateral``  how far the unrelated sentence moved: 1 if it won or lost the choice; else, whether or not the choice
                moved, the change of its rank, up or down: the change in the share (0, 1/2, 1) of related sentences
                that score higher, which is the example's part in LMS. What ``opposed`` counts is not counted again;
``fidelity = intended - opposed - collateral``, in [-1, 1].

So an example whose choice stayed can lower the fidelity by 1/2: the unrelated sentence passed the one that was second.

The mean over examples is 1 only if every example moved as meant and nothing else did, 0 if nothing moved, negative if
more went wrong than right. It cannot be gamed by doing little (then it is near 0), by breaking the model (nonsense that
wins, or loses, counts against it, though LMS or SS may improve), or by harms that cancel. Raedler et al. 2025 (MOSS @
ICML) name the concept and publish no formula: this definition is ours. An edit that flips choices at random moves the
larger share more often than the smaller one, so compare with random directions of equal norm.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from lightning_steer.errors import UserError
from lightning_steer.metrics.stereoset import ANTI, STEREOTYPE, UNRELATED, Association, moves, related
from lightning_steer.metrics.weighted import weighted_mean


class Shift(NamedTuple):
    """Moves per example ``[n, *]``, or as shares of all examples ``[*]`` or ``[R, *]``."""

    intended: Tensor
    """In [0, 1]: moved as intended; at most the share that chose the source before."""
    opposed: Tensor
    """In [0, 1]: moved the other way."""
    collateral: Tensor
    """In [0, 1]: moved to or from, or past, the unrelated sentence."""

    @property
    def fidelity(self) -> Tensor:
        """Return intended minus all other moves, in [-1, 1]."""
        return self.intended - self.opposed - self.collateral

    @property
    def selectivity(self) -> Tensor:
        """Return fidelity per move, in [-1, 1], to compare edits of different strength; NaN if nothing moved."""
        return self.fidelity / (self.intended + self.opposed + self.collateral)


class Split(NamedTuple):
    """A change of ICAT, in points, as the sum of two parts."""

    lms: Tensor
    """Contribution of the change of the language modelling score."""
    ss: Tensor
    """Contribution of the change of the stereotype score."""


def shift_rows(before: Tensor, after: Tensor, negative: int = STEREOTYPE, positive: int = ANTI) -> Shift:
    """Compute the moves of each example, ``[n, *]``.

    Args:
        before: ``[n, 3]`` unsteered scores.
        after: ``[n, *, 3]`` steered ones.
        negative: the choice that the edit was meant to leave.
        positive: the choice that it was meant to reach; raises ValueError unless it is the other of STEREOTYPE
            and ANTI.
    """
    if {negative, positive} != {STEREOTYPE, ANTI}:
        raise UserError(
            f"an edit moves stereotypes to their opposites or back, not choice {negative} to choice {positive}"
        )
    moved = moves(before, after)
    intended, opposed = moved[..., negative, positive], moved[..., positive, negative]
    unrelated_moves = moved[..., UNRELATED, :UNRELATED].sum(-1) + moved[..., :UNRELATED, UNRELATED].sum(-1)
    unsteered = related(before).reshape(len(before), *[1] * (after.dim() - 2))
    rank_change = (related(after) - unsteered).abs()
    return Shift(intended, opposed, (torch.maximum(unrelated_moves, rank_change) - opposed).clamp_min(0))


def shift(
    before: Tensor, after: Tensor, negative: int = STEREOTYPE, positive: int = ANTI, weights: Tensor | None = None
) -> Shift:
    """Return means of :func:`shift_rows` over examples, ``[*]``, or ``[R, *]`` under ``weights [R, n]``."""
    return Shift(*(weighted_mean(rows, weights) for rows in shift_rows(before, after, negative, positive)))


def icat_split(before: Association, after: Association) -> Split:
    """Split the ICAT change into its Shapley parts ``dL (m0 + m1) / 2`` and ``dm (L0 + L1) / 2``, which add up to it.

    Each factor's change is weighted by the other factor's mean over both orders of changing them. If a steered SS lies
    within its error of 50, the peak of m, the jackknife's interval of the SS part covers some 91 %.

    Args:
        before: unsteered scores; L is LMS, m is ``min(SS, 100 - SS) / 50``.
        after: steered ones, of any shape that broadcasts.
    """
    lms = (after.lms - before.lms) * (before.balance + after.balance) / 2
    ss = (after.balance - before.balance) * (before.lms + after.lms) / 2
    return Split(lms, ss)
