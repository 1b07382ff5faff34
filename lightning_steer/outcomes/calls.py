"""How outcomes were judged, so that a saved page tells the next call on it: the best of several calls is no test."""

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lightning_steer.files import is_regular
from lightning_steer.outcomes.records import Call, Judgement
from lightning_steer.outcomes.table import Measure

FORM = re.compile(
    r"Call (?P<options>[0-9a-f]{12}) of outcomes (?P<outcomes>[0-9a-f]{12}), split (?P<split>[0-9.e-]+), "
    r"seed (?P<seed>-?[0-9]+)"
)
"""In every format that a judgement is saved in."""


def call(measures: Mapping[str, Measure], options: Mapping[str, Any], split: float, seed: int) -> Call:
    """Return what was judged, whatever the order of its rows, and how."""
    outcomes = hashlib.sha256()
    for name in sorted(measures):
        measure = measures[name]
        units = np.array(measure.units())
        order = np.lexsort((*measure.values, units, np.array(measure.items)))
        settings = [setting.name for setting in measure.settings]
        names = [[measure.items[i], str(units[i])] for i in order]
        outcomes.update(repr((name, settings, names)).encode() + measure.values[:, order].tobytes())
    return Call(_short(repr(sorted(options.items())).encode()), outcomes.hexdigest()[:12], split, seed)


def line(one: Call) -> str:
    """Return a call as notes hold it."""
    return f"Call {one.options} of outcomes {one.outcomes}, split {one.split:g}, seed {one.seed}"


def with_earlier(judgement: Judgement, path: Path) -> Judgement:
    """Return the judgement with the calls of the one that lies at ``path``, if any."""
    if not is_regular(path):
        return judgement
    text = path.read_text(encoding="utf-8", errors="replace")
    saved = [
        Call(match["options"], match["outcomes"], float(match["split"]), int(match["seed"]))
        for match in FORM.finditer(text)
    ]
    earlier = dict.fromkeys([*judgement.earlier, *saved])
    earlier.pop(judgement.call, None)
    return judgement._replace(earlier=tuple(earlier))


def sentences(judgement: Judgement) -> list[str]:
    """Return what earlier calls mean for the verdict."""
    own, delta = judgement.call, judgement.choice and judgement.choice.delta
    if delta is None:
        return []
    same = [one for one in judgement.earlier if one.outcomes == own.outcomes]
    others = [one for one in judgement.earlier if one.outcomes != own.outcomes and one.options == own.options]
    found = []
    if same:
        ways = {
            "seed": any(one.seed != own.seed for one in same),
            "split": any(one.split != own.split for one in same),
            "promises or options": any(one.options != own.options for one in same),
        }
        number = f"{len(same)} earlier call{'s' * (len(same) > 1)}"
        found.append(
            f"WARNING: the page saved here holds {number} on the same outcomes with another "
            f"{', '.join(way for way, differs in ways.items() if differs)}. The risk {delta:g} holds for a call that "
            "was fixed beforehand, not for the best of several."
        )
    if others:
        found.append(
            "The page saved here was of other outcomes under the same promises. If these are the same items and more, "
            f"the risk {delta:g} does not hold: fix the number of items beforehand."
        )
    return found


def _short(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:12]
