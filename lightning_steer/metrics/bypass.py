"""The share of the effect that by-passes the steered site, which limits any steering there."""

from torch import Tensor


def bypass(before: Tensor, patched: Tensor, positive: Tensor) -> Tensor:
    """Return the by-pass score ``rho = 1 - (gap closed by the oracle patch) / (total gap)``.

    The gap of a row is log p(intended value) - log p(old value). The oracle patch replaces the negative's activation at
    the site by the positive's.

    Args:
        before: ``[n]`` gap of the negatives.
        patched: ``[n]`` gap of the negatives with the positives' activation at the site.
        positive: ``[n]`` gap of the positives.

    Returns:
        A number: 0 if everything passes through the site, 1 if nothing does. Ratio of means over rows, or with
        leading dimensions ``[..., n]`` over the last one.
    """
    return 1 - (patched - before).mean(-1) / (positive - before).mean(-1)
