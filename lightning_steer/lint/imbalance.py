"""Whether positives and negatives differ in surface features by more than chance.

Which side of a pair has a feature is a coin toss if the sides were exchanged at random: an exact sign test over the
pairs whose sides differ (McNemar's test for what a side has or has not). Pairs that share a prompt are a cluster and
count as one toss, for the side that has the majority in it; pairs with different prompts are taken to be independent.
Holm's correction is over all features that can be tested, so clean pairs raise any of them with a risk of at most .05.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

from lightning_steer.lint.features import LEAST, Feature
from lightning_steer.lint.records import Imbalance, ends
from lightning_steer.statistics.kinds import Share
from lightning_steer.statistics.multiplicity import holm


def imbalances(features: Sequence[Feature], cluster: NDArray) -> list[Imbalance]:
    """Return the size of every imbalance, with its interval and its p-value among all of them.

    Args:
        features: the features, the plainest first: of those that take the same sides everywhere it stands for all.
        cluster: ``[n]`` the prompt of each pair, as numbers from 0.
    """
    groups: list[tuple[Feature, list[Feature]]] = []
    for feature in features:
        for first, others in groups:
            if np.array_equal(feature.signs, first.signs) or np.array_equal(feature.signs, -first.signs):
                others.append(feature)
                break
        else:
            groups.append((feature, []))
    p = [sign_test(first.signs, cluster) for first, _ in groups]
    adjusted = iter(holm([value for value in p if value is not None]).tolist())
    return [
        _imbalance(first, others, cluster, None if value is None else next(adjusted))
        for (first, others), value in zip(groups, p, strict=True)
    ]


def sign_test(signs: NDArray, cluster: NDArray) -> float | None:
    """Return the exact two-sided p-value of a sign test over clusters; None if too few could ever be significant."""
    sums = np.bincount(cluster, signs)
    tosses = int((sums != 0).sum())
    return None if tosses < LEAST else float(binomtest(int((sums > 0).sum()), tosses).pvalue)


def _imbalance(feature: Feature, others: Sequence[Feature], cluster: NDArray, p: float | None) -> Imbalance:
    differ = feature.signs != 0
    (share,) = Share().estimate((feature.signs[differ] > 0).astype(float), cluster[differ])
    told = (1 + abs(float(feature.signs.mean()))) / 2
    of_kind = {other.name.split()[0]: other.name for other in reversed(others)}  # of letters A and B one will do
    of_kind.pop(feature.name.split()[0], None)
    names = list(of_kind.values())[::-1]
    sentence = (
        f"{feature.claim[0].upper()}{feature.claim[1:]} in {(feature.signs > 0).sum()} of {differ.sum()} "
        f"{feature.among}, {ends(share)}; 50 % would be even."
    )
    imbalance = Imbalance(feature.name, share, p, told, names, sentence)
    return imbalance._replace(sentence=sentence + _meaning(feature, imbalance)) if imbalance.raised else imbalance


def _meaning(feature: Feature, imbalance: Imbalance) -> str:
    """Return what follows from an imbalance that is more than chance, and what to do."""
    same = ""
    if imbalance.same_as:
        same = f" The same holds for {' and '.join(imbalance.same_as)}, in the very same pairs."
    if imbalance.tells:
        share = f"{100 * imbalance.told:.1f} %"
        return (
            f"{same} The {feature.name} alone tells positives from negatives in {share} of all pairs, so a vector that "
            f"is fitted to them may be one for this and nothing else: {feature.remedy}."
        )
    return f"{same} A vector that is fitted to these pairs may be one for this in part: {feature.remedy}."
