"""The certified choice: which items choose, which promises each setting keeps, and what the other items say."""

import hashlib
import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from lightning_steer.outcomes.promise_text import PromiseText
from lightning_steer.outcomes.records import Candidate, Choice, Measured, PromiseOutcome
from lightning_steer.outcomes.table import Measure
from lightning_steer.statistics import promises as certificates
from lightning_steer.statistics.columns import as_clusters
from lightning_steer.statistics.kinds import Change, Mean


class Parts(NamedTuple):
    """A measure's units that choose, and the others."""

    choosing: Measure
    others: Measure


def split(measures: Mapping[str, Measure], share: float, seed: int) -> dict[str, Parts]:
    """Return each measure in two parts; an item or cluster is in the same part of every measure.

    What is drawn as a whole (a cluster, or an item; and all that share items or clusters in any measure) is ranked by
    a hash of its name and the seed, among those that occur in the same measures. So the parts depend neither on the
    order of rows nor on values.
    """
    units = _linked(measures)
    within: dict[str, list[str]] = {}
    for name, own in units.items():
        for unit in set(own):
            within.setdefault(unit, []).append(name)
    ranked: dict[tuple[str, ...], list[str]] = {}
    for unit in sorted(within, key=lambda unit: hashlib.sha256(f"{seed}/{unit}".encode()).digest()):
        ranked.setdefault(tuple(within[unit]), []).append(unit)
    choosing = {unit for own in ranked.values() for unit in own[: round(share * len(own))]}
    parts = {}
    for name, measure in measures.items():
        inside = np.array([unit in choosing for unit in units[name]])
        if not inside.any():
            raise ValueError(
                f"a split of {share:g} leaves none of the {len(set(units[name]))} items or clusters of {name!r} to "
                "choose by: set a larger --split"
            )
        parts[name] = Parts(measure.part(np.flatnonzero(inside)), measure.part(np.flatnonzero(~inside)))
    return parts


def _linked(measures: Mapping[str, Measure]) -> dict[str, list[str]]:
    """Return for each measure ``[n]`` the name of what each unit is drawn with, over all measures.

    An item links the clusters that hold it in different measures; what is linked has the name of its first cluster or,
    without any, of its item.
    """
    places: dict[tuple[bool, str], int] = {}

    def place(key: tuple[bool, str]) -> int:
        return places.setdefault(key, len(places))

    ends = {
        name: [
            (place((True, item)), place((measure.cluster is None, unit)))
            for item, unit in zip(measure.items, measure.units(), strict=True)
        ]
        for name, measure in measures.items()
    }
    first, second = np.array([pair for own in ends.values() for pair in own], dtype=np.int64).reshape(-1, 2).T
    links = coo_array((np.ones(len(first), dtype=np.int8), (first, second)), shape=(len(places), len(places)))
    whole = connected_components(links, directed=False)[1]
    names: dict[int, str] = {}
    for _, name, at in sorted((is_item, name, at) for (is_item, name), at in places.items()):  # clusters first
        names.setdefault(int(whole[at]), name)
    return {name: [names[int(whole[item])] for item, _ in own] for name, own in ends.items()}


def choose(
    measures: Mapping[str, Measure], promises: tuple[PromiseText, ...], delta: float, share: float, seed: int
) -> Choice:
    """Return the choice under all promises; raises ValueError for a promise that cannot be judged."""
    _check_ranges(measures, promises)
    targets = {promise.target: _target(measures, promise) for promise in promises}
    parts = split(targets, share, seed)
    names = _candidates(targets)
    certified: list[certificates.Promise] = []
    owners: list[PromiseText] = []
    for promise in promises:
        for sign in (promise.sign,) if promise.sign else (-1, 1):
            limit = promise.limit if promise.benefit else -promise.limit
            turn = sign if promise.benefit else -sign
            certified.append(_certificate(parts[promise.target].choosing, names, promise, turn, limit))
            owners.append(promise)
    choice = certificates.choose(certified, delta)
    scale = {name: _scale(part) for name, part in parts.items()}
    outcomes = [_outcomes(owners, certified, choice, k, scale) for k in range(len(names))]
    candidates = tuple(Candidate(name, bool(choice.certified[k]), outcomes[k]) for k, name in enumerate(names))
    chosen = None if choice.chosen is None else names[choice.chosen]
    remade: list[Measured] = []
    over_rows: list[Measured] = []
    for promise in promises if chosen is not None else ():
        part = parts[promise.target]
        fresh = part.others.values.shape[1] > 0
        measured = _measured(part.others if fresh else part.choosing, promise, str(chosen))
        remade += [measured] if fresh else []
        over_rows += [measured] if measured.over_clusters else []
    return Choice(
        promises, delta, choice.risk, chosen, candidates, tuple(remade), tuple(over_rows),
        {name: (part.choosing.values.shape[1], part.others.values.shape[1]) for name, part in parts.items()},
        {name: "items" if part.choosing.cluster is None else "clusters" for name, part in parts.items()},
        {owner: kept.least for owner, kept in zip(owners, choice.kept, strict=True) if kept.least is not None},
        tuple(dict.fromkeys(kept.how for kept in choice.kept)),
    )  # fmt: skip


def _check_ranges(measures: Mapping[str, Measure], promises: tuple[PromiseText, ...]) -> None:
    """Raise ValueError for promised measures of which nobody says how far a value may lie off.

    A count that shows 0 and 1 alone is no share: a value of 50 that is too rare to be seen may turn its mean.
    """
    promised = dict.fromkeys(promise.measure for promise in promises)
    unsure = [measures[name] for name in promised if name in measures and not measures[name].declared]
    if unsure:
        ranges = " ".join(f"--range {one.name}=0..{1 if one.share else 10}" for one in unsure)
        also = " if no other value can occur, or write true and false" if all(one.share for one in unsure) else ""
        raise ValueError(
            f"nothing can be promised about {', '.join(repr(one.name) for one in unsure)} without the range of all "
            f"possible values, which those seen here do not tell: declare it, such as {ranges}{also}"
        )


def _target(measures: Mapping[str, Measure], promise: PromiseText) -> Measure:
    if promise.measure not in measures:
        raise ValueError(f"{promise.measure!r} is no measure; there are {', '.join(measures)}")
    measure = measures[promise.measure]
    return measure if promise.group is None else measure.only(promise.group)


def _candidates(targets: Mapping[str, Measure]) -> list[str]:
    """Return the steered settings that every promise's measure has, from the weakest to the strongest."""
    first, *others = ([setting.name for setting in measure.settings[1:]] for measure in targets.values())
    names = [name for name in first if all(name in other for other in others)]
    if not names:
        raise ValueError(f"no steered setting has rows of all of {', '.join(targets)}: there is nothing to choose from")
    return names


def _changes(measure: Measure, names: list[str]) -> NDArray:
    at = {setting.name: i for i, setting in enumerate(measure.settings[1:])}
    return measure.changes()[[at[name] for name in names]]


def _certificate(
    measure: Measure, names: list[str], promise: PromiseText, turn: int, limit: float
) -> certificates.Promise:
    changes, width = turn * _changes(measure, names), measure.high - measure.low
    low, high = (-1, 1) if measure.share else (-width, width)
    return certificates.Promise(str(promise), changes, low, high, limit, measure.cluster)


def _scale(part: Parts) -> float:
    """Return how many units there are in all for each that chooses."""
    drawn = [len(set(one.units())) for one in part]
    return sum(drawn) / drawn[0]


def _outcomes(
    owners: list[PromiseText],
    certified: list[certificates.Promise],
    choice: certificates.Choice,
    k: int,
    scale: Mapping[str, float],
) -> tuple[PromiseOutcome, ...]:
    """Return every promise at candidate k; of a harm in either direction the side that is less sure."""
    outcomes = {}
    for owner, promise, kept in zip(owners, certified, choice.kept, strict=True):
        needed = kept.needed[k]
        one = PromiseOutcome(
            owner, bool(kept.certified[k]), float(kept.p[k]), _upright(owner, promise, float(kept.estimate[k])),
            None if needed is None else math.ceil(needed * scale[owner.target] - 1e-9),
        )  # fmt: skip
        other = outcomes.get(owner)
        outcomes[owner] = one if other is None or one.p >= other.p else other
        if other is not None:
            both = (one.needed, other.needed)
            outcomes[owner] = outcomes[owner]._replace(
                kept=one.kept and other.kept,
                change=other.change,
                needed=None if None in both else max(n for n in both if n is not None),
            )
    return tuple(outcomes.values())


def _upright(owner: PromiseText, promise: certificates.Promise, estimate: float) -> float:
    """Return the mean change as it is in the table, from that turned so that more is better."""
    turned = owner.sign if owner.benefit else -(owner.sign or -1)
    return turned * estimate + 0.0


def _measured(measure: Measure, promise: PromiseText, chosen: str) -> Measured:
    change = _changes(measure, [chosen])[0]
    width = measure.high - measure.low
    kind = Change() if measure.share else Mean(-width, width)
    over_clusters, clusters = None, as_clusters(measure.cluster, len(change))
    if clusters is not None:
        means = clusters.sums(change[:, None].astype(np.float64)) / clusters.sizes[:, None]
        over_clusters = Mean(-width, width).estimate(means)[0]
    over_rows = kind.estimate(change, measure.cluster)[0]
    return Measured(promise, over_rows, over_clusters, int((change > 0).sum()), int((change < 0).sum()))
