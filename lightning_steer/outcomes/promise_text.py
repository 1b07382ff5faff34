"""Parse promises: ``refused>=0``, ``right falls<=.05``, ``refused[safe] rises<=.05``."""

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from lightning_steer.errors import UserError
from lightning_steer.outcomes.rows import number

FORM = re.compile(
    r"\s*(?P<measure>[^\[\]<>=]+?)\s*(?:\[(?P<group>[^\[\]<>=]+)\])?(?:\s+(?P<way>rises|falls))?"
    r"\s*(?P<sign>[<>]=)(?P<limit>[^<>=]*)"
)


class PromiseText(NamedTuple):
    """A promise about the change of a measure from the baseline."""

    measure: str
    group: str | None
    """Group of items that it is about; None: all items."""
    sign: int
    """1: about a rise; -1: about a fall; 0, for a harm: about a change in either direction."""
    limit: float
    """A benefit must exceed it; a harm must stay below it."""
    benefit: bool

    @property
    def target(self) -> str:
        """The measure with its group."""
        return self.measure if self.group is None else f"{self.measure}[{self.group}]"

    def holds(self, change: float) -> bool:
        """Return whether a mean change keeps the promise; NaN does not."""
        if self.benefit:
            return self.sign * change > self.limit
        return (self.sign * change if self.sign else abs(change)) < self.limit

    def __str__(self) -> str:
        verb = {1: "rises", -1: "falls", 0: "changes"}[self.sign]
        if self.benefit:
            return f"{self.target} {verb} by more than {self.limit:g}"
        return f"{self.target} {verb} by less than {self.limit:g}" + (" in either direction" if not self.sign else "")


def parse(text: str, benefit: bool) -> PromiseText:
    """Parse a promise; raise ValueError if it is malformed. Nothing is evaluated.

    Args:
        text: ``MEASURE>=NUMBER`` for a benefit, ``MEASURE<=NUMBER`` for a harm, each with ``[GROUP]`` and ``rises`` or
            ``falls`` after the measure if needed. A benefit rises by default; a harm that names neither may happen in
            either direction.
        benefit: whether it is a benefit of steering; else it is a harm.
    """
    sign = ">=" if benefit else "<="
    example = "'refused>=0' or 'toxic falls>=.1'" if benefit else "'right falls<=.05' or 'refused[safe] rises<=.05'"
    kind = "a benefit" if benefit else "a harm"
    match = FORM.fullmatch(text)
    limit = None if match is None else number(match["limit"].strip())
    if match is None or match["sign"] != sign or limit is None:
        raise UserError(f"{kind} is written as {example}, not {text[:60]!r}")
    if limit < 0 or (limit == 0 and not benefit):
        raise UserError(f"{kind} has a limit {'of at least' if benefit else 'above'} 0, not {limit:g} in {text[:60]!r}")
    direction = {"rises": 1, "falls": -1, None: 1 if benefit else 0}[match["way"]]
    return PromiseText(match["measure"], match["group"] and match["group"].strip(), direction, limit, benefit)


def promises(
    benefits: str | Sequence[str], harms: str | Sequence[str] | Mapping[str, float]
) -> tuple[PromiseText, ...]:
    """Return all promises, benefits first; raise ValueError for a repeated one."""
    gains = [benefits] if isinstance(benefits, str) else list(benefits)
    losses = [harms] if isinstance(harms, str) else list(harms)
    if isinstance(harms, Mapping):
        losses = [f"{name}<={limit!r}" for name, limit in harms.items()]
    parsed = [parse(text if ">=" in text or "<=" in text else f"{text}>=0", True) for text in gains]
    parsed += [parse(text, False) for text in losses]
    if losses and not gains:
        raise UserError("harms are limited, but there is no benefit to choose by: add one, such as 'refused>=0'")
    for i, promise in enumerate(parsed):
        if any(promise[:3] + promise[4:] == earlier[:3] + earlier[4:] for earlier in parsed[:i]):
            raise UserError(f"{str(promise)!r}: there are two promises of this kind about {promise.target!r}: make one")
    return tuple(parsed)
