"""The certified choice: which items choose, which promises each setting keeps, and the estimate on other items."""

import hashlib
import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from lightning_steer.errors import UserError
from lightning_steer.outcomes.promise_text import PromiseText
from lightning_steer.outcomes.records import Candidate, Measured, PromiseOutcome, SettingChoice
from lightning_steer.outcomes.table import Measure
from lightning_steer.statistics import promises as certificates
from lightning_steer.statistics.columns import as_clusters
from lightning_steer.statistics.kinds import Change, Mean


class Parts(NamedTuple):
    """A measure's units that choose, and its other units."""

    choosing: Measure
    others: Measure


def split(measures: Mapping[str, Measure], share: float, seed: int) -> dict[str, Parts]:
    """Split each measure into two parts; an item or cluster is in the same part of every measure.

    Units that are drawn together (a cluster, or an item; and all that share items or clusters in any measure) are
    ranked by a hash of their name and the seed, among those in the same measures. So the parts depend neither on the
    order of rows nor on values.
    """
    units = _linked(measures)
    measures_of_unit: dict[str, list[str]] = {}
    for name, unit_names in units.items():
        for unit in set(unit_names):
            measures_of_unit.setdefault(unit, []).append(name)
    ranked: dict[tuple[str, ...], list[str]] = {}
    for unit in sorted(measures_of_unit, key=lambda unit: hashlib.sha256(f"{seed}/{unit}".encode()).digest()):
        ranked.setdefault(tuple(measures_of_unit[unit]), []).append(unit)
    choosing = {unit for unit_names in ranked.values() for unit in unit_names[: round(share * len(unit_names))]}
    parts = {}
    for name, measure in measures.items():
        is_choosing = np.array([unit in choosing for unit in units[name]])
        if not is_choosing.any():
            raise UserError(
                f"a split of {share:g} leaves none of the {len(set(units[name]))} items or clusters of {name!r} to "
                "choose by: set a larger --split"
            )
        parts[name] = Parts(measure.part(np.flatnonzero(is_choosing)), measure.part(np.flatnonzero(~is_choosing)))
    return parts


def _linked(measures: Mapping[str, Measure]) -> dict[str, list[str]]:
    """Return for each measure ``[n]`` the name of the group that each unit is drawn with, over all measures.

    An item links its clusters in different measures; linked units have the name of their first cluster or,
    without any, of their item.
    """
    places: dict[tuple[bool, str], int] = {}

    def number_of(key: tuple[bool, str]) -> int:
        return places.setdefault(key, len(places))

    ends = {
        name: [
            (number_of((True, item)), number_of((measure.cluster is None, unit)))
            for item, unit in zip(measure.items, measure.units(), strict=True)
        ]
        for name, measure in measures.items()
    }
    first, second = np.array([pair for pairs in ends.values() for pair in pairs], dtype=np.int64).reshape(-1, 2).T
    links = coo_array((np.ones(len(first), dtype=np.int8), (first, second)), shape=(len(places), len(places)))
    component = connected_components(links, directed=False)[1]
    names: dict[int, str] = {}
    # clusters come first
    for _, name, number in sorted((is_item, name, number) for (is_item, name), number in places.items()):
        names.setdefault(int(component[number]), name)
    return {name: [names[int(component[item])] for item, _ in pairs] for name, pairs in ends.items()}


def choose(
    measures: Mapping[str, Measure], promises: tuple[PromiseText, ...], delta: float, share: float, seed: int
) -> SettingChoice:
    """Return the choice under all promises; raise ValueError for a promise that cannot be judged."""
    _check_ranges(measures, promises)
    targets = {promise.target: _target(measures, promise) for promise in promises}
    parts = split(targets, share, seed)
    names = _candidates(targets)
    certified: list[certificates.Promise] = []
    owners: list[PromiseText] = []
    for promise in promises:
        for sign in (promise.sign,) if promise.sign else (-1, 1):
            limit = promise.limit if promise.benefit else -promise.limit
            direction = sign if promise.benefit else -sign
            certified.append(_certificate(parts[promise.target].choosing, names, promise, direction, limit))
            owners.append(promise)
    choice = certificates.choose(certified, delta)
    scale = {name: _scale(groups) for name, groups in parts.items()}
    outcomes = [_outcomes(owners, certified, choice, k, scale) for k in range(len(names))]
    candidates = tuple(Candidate(name, bool(choice.certified[k]), outcomes[k]) for k, name in enumerate(names))
    chosen = None if choice.chosen is None else names[choice.chosen]
    remade: list[Measured] = []
    over_rows: list[Measured] = []
    for promise in promises if chosen is not None else ():
        groups = parts[promise.target]
        has_others = groups.others.values.shape[1] > 0
        measured = _measured(groups.others if has_others else groups.choosing, promise, str(chosen))
        remade += [measured] if has_others else []
        over_rows += [measured] if measured.over_clusters else []
    return SettingChoice(
        promises, delta, choice.risk, chosen, candidates, tuple(remade), tuple(over_rows),
        {name: (groups.choosing.values.shape[1], groups.others.values.shape[1]) for name, groups in parts.items()},
        {name: "items" if groups.choosing.cluster is None else "clusters" for name, groups in parts.items()},
        {owner: result.least for owner, result in zip(owners, choice.kept, strict=True) if result.least is not None},
        tuple(dict.fromkeys(result.how for result in choice.kept)),
    )  # fmt: skip


def _check_ranges(measures: Mapping[str, Measure], promises: tuple[PromiseText, ...]) -> None:
    """Raise ValueError for promised measures without a declared range.

    A count with only zeros and ones need not be a share: a rare, unseen value of 50 may dominate its mean.
    """
    promised = dict.fromkeys(promise.measure for promise in promises)
    undeclared = [measures[name] for name in promised if name in measures and not measures[name].declared]
    if undeclared:
        ranges = " ".join(f"--range {measure.name}=0..{1 if measure.share else 10}" for measure in undeclared)
        also = (
            " if no other value can occur, or write true and false"
            if all(measure.share for measure in undeclared)
            else ""
        )
        raise UserError(
            f"nothing can be promised about {', '.join(repr(measure.name) for measure in undeclared)} without the "
            f"range of all possible values, which those seen here do not tell: declare it, such as {ranges}{also}"
        )


def _target(measures: Mapping[str, Measure], promise: PromiseText) -> Measure:
    if promise.measure not in measures:
        raise UserError(f"{promise.measure!r} is no measure; there are {', '.join(measures)}")
    measure = measures[promise.measure]
    return measure if promise.group is None else measure.only(promise.group)


def _candidates(targets: Mapping[str, Measure]) -> list[str]:
    """Return the steered settings that every promise's measure has, from the weakest to the strongest."""
    first, *other_names = ([setting.name for setting in measure.settings[1:]] for measure in targets.values())
    names = [name for name in first if all(name in measure_names for measure_names in other_names)]
    if not names:
        raise UserError(f"no steered setting has rows of all of {', '.join(targets)}: there is nothing to choose from")
    return names


def _changes(measure: Measure, names: list[str]) -> NDArray:
    index = {setting.name: i for i, setting in enumerate(measure.settings[1:])}
    return measure.changes()[[index[name] for name in names]]


def _certificate(
    measure: Measure, names: list[str], promise: PromiseText, turn: int, limit: float
) -> certificates.Promise:
    changes, width = turn * _changes(measure, names), measure.high - measure.low
    low, high = (-1, 1) if measure.share else (-width, width)
    return certificates.Promise(str(promise), changes, low, high, limit, measure.cluster)


def _scale(part: Parts) -> float:
    """Return the ratio of all units to those that choose."""
    counts = [len(set(measure.units())) for measure in part]
    return sum(counts) / counts[0]


def _outcomes(
    owners: list[PromiseText],
    certified: list[certificates.Promise],
    choice: certificates.CertifiedChoice,
    k: int,
    scale: Mapping[str, float],
) -> tuple[PromiseOutcome, ...]:
    """Return every promise at candidate k; for a harm in either direction, the less certain side."""
    outcomes = {}
    for owner, promise, result in zip(owners, certified, choice.kept, strict=True):
        needed = result.needed[k]
        outcome = PromiseOutcome(
            owner, bool(result.certified[k]), float(result.p[k]), _upright(owner, promise, float(result.estimate[k])),
            None if needed is None else math.ceil(needed * scale[owner.target] - 1e-9),
        )  # fmt: skip
        previous = outcomes.get(owner)
        outcomes[owner] = outcome if previous is None or outcome.p >= previous.p else previous
        if previous is not None:
            needs = (outcome.needed, previous.needed)
            outcomes[owner] = outcomes[owner]._replace(
                kept=outcome.kept and previous.kept,
                change=previous.change,
                needed=None if None in needs else max(n for n in needs if n is not None),
            )
    return tuple(outcomes.values())


def _upright(owner: PromiseText, promise: certificates.Promise, estimate: float) -> float:
    """Return the mean change in the table's own direction, from the one signed so that larger is better."""
    direction = owner.sign if owner.benefit else -(owner.sign or -1)
    return direction * estimate + 0.0


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
