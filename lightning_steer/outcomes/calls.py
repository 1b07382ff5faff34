"""Record how outcomes were judged, so that a saved page informs later calls: the best of several is not a test."""

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
"""The same in every format of a saved judgement."""


def call(measures: Mapping[str, Measure], options: Mapping[str, Any], split: float, seed: int) -> Call:
    """Return the record of what was judged, independent of the order of rows, and how."""
    outcomes = hashlib.sha256()
    for name in sorted(measures):
        measure = measures[name]
        units = np.array(measure.units())
        order = np.lexsort((*measure.values, units, np.array(measure.items)))
        settings = [setting.name for setting in measure.settings]
        names = [[measure.items[i], str(units[i])] for i in order]
        outcomes.update(repr((name, settings, names)).encode() + measure.values[:, order].tobytes())
    return Call(_short(repr(sorted(options.items())).encode()), outcomes.hexdigest()[:12], split, seed)


def line(call: Call) -> str:
    """Format a call as in notes."""
    return f"Call {call.options} of outcomes {call.outcomes}, split {call.split:g}, seed {call.seed}"


def with_earlier(judgement: Judgement, path: Path) -> Judgement:
    """Return the judgement with the calls of the saved judgement at ``path``, if any."""
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
    """Return sentences on what earlier calls mean for the verdict."""
    call, delta = judgement.call, judgement.choice and judgement.choice.delta
    if delta is None:
        return []
    same_outcomes = [earlier for earlier in judgement.earlier if earlier.outcomes == call.outcomes]
    same_options = [
        earlier
        for earlier in judgement.earlier
        if earlier.outcomes != call.outcomes and earlier.options == call.options
    ]
    warnings = []
    if same_outcomes:
        differences = {
            "seed": any(earlier.seed != call.seed for earlier in same_outcomes),
            "split": any(earlier.split != call.split for earlier in same_outcomes),
            "promises or options": any(earlier.options != call.options for earlier in same_outcomes),
        }
        number = f"{len(same_outcomes)} earlier call{'s' * (len(same_outcomes) > 1)}"
        warnings.append(
            f"WARNING: the page saved here holds {number} on the same outcomes with another "
            f"{', '.join(name for name, differs in differences.items() if differs)}. The risk {delta:g} holds for a "
            "call that was fixed beforehand, not for the best of several."
        )
    if same_options:
        warnings.append(
            "The page saved here was of other outcomes under the same promises. If these are the same items and more, "
            f"the risk {delta:g} does not hold: fix the number of items beforehand."
        )
    return warnings


def _short(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:12]
