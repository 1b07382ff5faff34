"""Splits of labelled rows: shuffled, stratified, disjoint, the same for the same seed.

A certificate holds for rows drawn like the calibration rows. Contiguous slices of a file are not drawn alike (MMLU is
sorted by subject), so every split is drawn from all rows. Within a split, rows are in random order.
"""

import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lightning_steer.errors import UserError


def split(
    labels: Sequence[int], sizes: Sequence[int], seed: int, groups: Sequence[str | None] | None = None
) -> list[list[int]]:
    """Return the row indices of each split; all rows of a group go into one split.

    Groups are drawn like rows, whatever their size, stratified by their majority class. A split gets as many groups as
    hold its number of rows on average, with all their rows.

    Args:
        labels: ``[n]`` the class of each row.
        sizes: rows of each split; approximate if there are groups.
        seed: draws them.
        groups: ``[n]`` the group of each row, None for an independent row; None if all rows are independent.

    Raises:
        ValueError: as :func:`stratified`; or a class would be missing from a split.
    """
    rows_of: dict[object, list[int]] = {}
    for row, group in enumerate(groups or []):
        rows_of.setdefault(row if group is None else group, []).append(row)
    if len(rows_of) in (0, len(labels)):
        return stratified(labels, sizes, seed)
    members, mean = list(rows_of.values()), len(labels) / len(rows_of)
    counts = [max(1, int(size / mean)) for size in sizes]
    if sum(counts) > len(members):
        total = " + ".join(map(str, sizes))
        raise UserError(
            f"the splits ask for {total} rows, which are some {sum(counts)} groups of {mean:.1f} rows, but there are "
            f"{len(members)} groups: give smaller splits, or bring more groups"
        )
    classes = np.asarray(labels)
    majority = [int(np.bincount(classes[rows]).argmax()) for rows in members]
    random = np.random.default_rng(np.random.SeedSequence((seed, 7)))
    parts = [np.concatenate([members[i] for i in part]) for part in _draw_units(np.asarray(majority), counts, random)]
    for rows in parts:
        missing = np.setdiff1d(classes, classes[rows])
        if len(missing):
            raise UserError(
                f"a split of {len(rows)} rows has none of class {int(missing[0])}: make the split larger, or bring "
                "more groups that hold it"
            )
    return [random.permutation(rows).tolist() for rows in parts]


def _draw_units(classes: NDArray, sizes: Sequence[int], random: np.random.Generator) -> list[NDArray]:
    """Draw the units of each split, with classes spread evenly over all splits."""
    position = np.empty(len(classes))
    for label in np.unique(classes):  # spread each class evenly over [0, 1), from a random start
        units = random.permutation(np.flatnonzero(classes == label))
        position[units] = (np.arange(len(units)) + random.random()) / len(units)
    order = np.lexsort((random.random(len(classes)), position))
    edges = np.cumsum([0, *sizes])
    return [random.permutation(order[a:b]) for a, b in itertools.pairwise(edges)]


def stratified(labels: Sequence[int], sizes: Sequence[int], seed: int) -> list[list[int]]:
    """Return the row indices of each split; every split has each class's overall share of rows, to within one row.

    Args:
        labels: ``[n]`` the class of each row.
        sizes: rows of each split.
        seed: draws them.

    Raises:
        ValueError: a size is not positive, there are too few rows, or a class would be missing from a split.
    """
    if not sizes or min(sizes) < 1:
        raise UserError(f"every split needs at least 1 row, not {', '.join(map(str, sizes))}")
    if sum(sizes) > len(labels):
        raise UserError(
            f"the splits ask for {' + '.join(map(str, sizes))} = {sum(sizes)} rows, but there are {len(labels)}: "
            "give smaller ones (train, calibration and test of a MERADataModule), or bring more rows"
        )
    random, classes = np.random.default_rng(np.random.SeedSequence((seed, 7))), np.asarray(labels)
    parts = _draw_units(classes, sizes, random)
    for size, rows in zip(sizes, parts, strict=True):
        missing = np.setdiff1d(classes, classes[rows])
        if len(missing):
            raise UserError(
                f"a split of {size} rows has none of class {int(missing[0])}, which has "
                f"{(classes == missing[0]).sum()} of {len(classes)} rows: make the split larger"
            )
    return [rows.tolist() for rows in parts]
