"""Promises as people write them: ``refused>=0``, ``right falls<=.05``, ``refused[safe] rises<=.05``."""

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from lightning_steer.outcomes.rows import number

FORM = re.compile(
    r"\s*(?P<measure>[^\[\]<>=]+?)\s*(?:\[(?P<group>[^\[\]<>=]+)\])?(?:\s+(?P<way>rises|falls))?"
    r"\s*(?P<sign>[<>]=)(?P<limit>[^<>=]*)"
)


class PromiseText(NamedTuple):
    """A promise about the change of a measure from the baseline."""

    measure: str
    group: str | None
    """Only the items of this group; None: all."""
    sign: int
    """1: it speaks of a rise, -1: of a fall; 0, for a harm: of a change in either direction."""
    limit: float
    """A benefit exceeds it, a harm stays below it."""
    benefit: bool

    @property
    def target(self) -> str:
        """Return the measure, with its group."""
        return self.measure if self.group is None else f"{self.measure}[{self.group}]"

    def holds(self, change: float) -> bool:
        """Tell whether a mean change keeps the promise; NaN does not."""
        if self.benefit:
            return self.sign * change > self.limit
        return (self.sign * change if self.sign else abs(change)) < self.limit

    def __str__(self) -> str:
        way = {1: "rises", -1: "falls", 0: "changes"}[self.sign]
        if self.benefit:
            return f"{self.target} {way} by more than {self.limit:g}"
        return f"{self.target} {way} by less than {self.limit:g}" + (" in either direction" if not self.sign else "")


def parse(text: str, benefit: bool) -> PromiseText:
    """Return the promise that a text makes; raises ValueError. Nothing is evaluated.

    Args:
        text: ``MEASURE>=NUMBER`` for a benefit, ``MEASURE<=NUMBER`` for a harm, each with ``[GROUP]`` and ``rises`` or
            ``falls`` after the measure if wanted. A benefit rises unless said; a harm that names neither may happen in
            either direction.
        benefit: it is what steering is for; else what it may damage.
    """
    sign = ">=" if benefit else "<="
    example = "'refused>=0' or 'toxic falls>=.1'" if benefit else "'right falls<=.05' or 'refused[safe] rises<=.05'"
    kind = "a benefit" if benefit else "a harm"
    match = FORM.fullmatch(text)
    limit = None if match is None else number(match["limit"].strip())
    if match is None or match["sign"] != sign or limit is None:
        raise ValueError(f"{kind} is written as {example}, not {text[:60]!r}")
    if limit < 0 or (limit == 0 and not benefit):
        raise ValueError(
            f"{kind} has a limit {'of at least' if benefit else 'above'} 0, not {limit:g} in {text[:60]!r}"
        )
    way = {"rises": 1, "falls": -1, None: 1 if benefit else 0}[match["way"]]
    return PromiseText(match["measure"], match["group"] and match["group"].strip(), way, limit, benefit)


def promises(
    benefits: str | Sequence[str], harms: str | Sequence[str] | Mapping[str, float]
) -> tuple[PromiseText, ...]:
    """Return all promises, benefits first; raises ValueError for one that is made twice."""
    gains = [benefits] if isinstance(benefits, str) else list(benefits)
    losses = [harms] if isinstance(harms, str) else list(harms)
    if isinstance(harms, Mapping):
        losses = [f"{name}<={limit!r}" for name, limit in harms.items()]
    parsed = [parse(text if ">=" in text or "<=" in text else f"{text}>=0", True) for text in gains]
    parsed += [parse(text, False) for text in losses]
    if losses and not gains:
        raise ValueError("harms are limited, but there is no benefit to choose by: add one, such as 'refused>=0'")
    for i, one in enumerate(parsed):
        if any(one[:3] + one[4:] == other[:3] + other[4:] for other in parsed[:i]):
            raise ValueError(f"{str(one)!r}: there are two promises of this kind about {one.target!r}: make one")
    return tuple(parsed)
