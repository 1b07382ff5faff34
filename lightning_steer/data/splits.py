"""Splits of labelled rows: shuffled, stratified, disjoint, the same for the same seed.

A certificate holds for rows drawn like those it was given. Contiguous slices of a file are not (MMLU is sorted by
subject), so every split is drawn from all rows. Within a split, rows come in random order.
"""

import itertools
from collections.abc import Sequence

import numpy as np


def stratified(labels: Sequence[int], sizes: Sequence[int], seed: int) -> list[list[int]]:
    """Indices of the rows of each split; classes have in every one the share that they have in all rows, to within one.

    Args:
        labels: ``[n]`` the class of each row.
        sizes: rows of each split.
        seed: draws them.

    Raises:
        ValueError: a size is not positive, there are too few rows, or a class would be missing from a split.
    """
    if not sizes or min(sizes) < 1:
        raise ValueError(f"every split needs at least 1 row, not {', '.join(map(str, sizes))}")
    if sum(sizes) > len(labels):
        raise ValueError(
            f"the splits ask for {' + '.join(map(str, sizes))} = {sum(sizes)} rows, but there are {len(labels)}: "
            "give smaller ones (train, calibration and test of a MERADataModule), or bring more rows"
        )
    random, classes = np.random.default_rng(np.random.SeedSequence((seed, 7))), np.asarray(labels)
    place = np.empty(len(classes))
    for label in np.unique(classes):  # spread each class evenly over [0, 1), from a random start
        rows = random.permutation(np.flatnonzero(classes == label))
        place[rows] = (np.arange(len(rows)) + random.random()) / len(rows)
    order = np.lexsort((random.random(len(classes)), place))
    edges = np.cumsum([0, *sizes])
    found = [random.permutation(order[a:b]) for a, b in itertools.pairwise(edges)]
    for size, rows in zip(sizes, found, strict=True):
        missing = np.setdiff1d(classes, classes[rows])
        if len(missing):
            raise ValueError(
                f"a split of {size} rows has none of class {int(missing[0])}, which has "
                f"{(classes == missing[0]).sum()} of {len(classes)} rows: make the split larger"
            )
    return [rows.tolist() for rows in found]
