"""Lines that say how far long work is and how long the rest may take; they reach log files too, unlike a bar."""

import time
from collections.abc import Callable

from lightning_steer.escapes import say

EVERY = 10.0
"""Seconds between two lines, so that quick work says nothing."""


class Progress:
    """``step`` after each piece of work; prints to the standard error stream at most every few seconds.

    Args:
        what: what is done, such as ``search``.
        of: how much there is to be done, in any unit; None if it is not known before.
        clock: returns seconds.
    """

    def __init__(self, what: str, of: float | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self.what, self.of, self.clock = what, of, clock
        self.done, self.steps, self.start = 0.0, 0, clock()
        self.said = self.start

    def step(self, amount: float = 1.0, at: str = "") -> None:
        """Count work that was done, and say so if the last line is some time ago."""
        self.done += amount
        self.steps += 1
        now = self.clock()
        if now - self.said < EVERY:
            return
        self.said = now
        if self.of is None:
            far = f"{self.steps} done in {duration(now - self.start)}"
        else:
            share = min(self.done / self.of, 1.0)
            left = (now - self.start) * (1 - share) / share
            far = f"{100 * share:.0f} % done, about {duration(left)} left"
        say(f"{self.what}: {far}{at and f'; {at}'}", error=True)


def duration(seconds: float) -> str:
    """Format a duration: ``42 s``, ``3 min``, ``2.5 h``."""
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 99.5 * 60 else f"{seconds / 3600:.1f} h"
