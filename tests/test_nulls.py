"""A report says what it could have seen beside every change that it did not see, and beside no other."""

import math
from typing import Any

import numpy as np
import pytest

from lightning_steer.report import card
from lightning_steer.report.nulls import nulls
from lightning_steer.statistics.kinds import Change
from lightning_steer.statistics.power import PairedDesign


def figure(value: float, low: float | None, high: float | None, how: str = "t") -> dict[str, Any]:
    return {"value": value, "low": low, "high": high, "n": 1000, "clusters": None, "how": how}


def report(**metrics: dict[str, Any]) -> dict[str, Any]:
    unsteered = {"spi": figure(0, None, None, "by definition"), "accuracy": figure(0.5, 0.4, 0.6)}
    metrics = {"accuracy": figure(0.5, 0.4, 0.6), "spi": figure(0.2, 0.1, 0.3), **metrics}
    return {
        "experiment": "e", "method": "m", "verdict": "V.", "choice": "c", "warnings": [], "task": "t", "backbone": "b",
        "seed": 0, "metrics": metrics, "baselines": {"baseline": unsteered}, "fitted_rows": {}, "versions": {},
    }  # fmt: skip


def test_only_changes_that_hold_0_are_named() -> None:
    assert nulls(report()) == ""
    text = nulls(report(spi=figure(0.01, -0.09, 0.1), margin_change=figure(0.0, -0.2, 0.1), accuracy=figure(0, -1, 1)))
    assert text.endswith("a change of: spi (0.143 or more), margin_change (0.286 or more).")
    assert "in 80% of repeats" in text
    for unknown in (figure(0.0, None, None, "none: few"), figure(0.0, math.nan, math.nan), figure(0, 0, 0)):
        assert nulls(report(spi=unknown)) == ""


def test_a_change_that_cannot_be_is_not_named() -> None:
    """A share changes by 1 at most: an interval so wide could have seen no change at all."""
    wide = {**report(intended_preferred_change=figure(0.3, -0.5, 1.0)), "largest": {"intended_preferred_change": 1}}
    assert nulls(wide).endswith("intended_preferred_change (none, since there is none above 1.000).")
    assert "or more" in nulls(report(intended_preferred_change=figure(0.3, -0.5, 1.0)))


def test_it_stands_in_the_page_and_in_the_terminal() -> None:
    tested = report(spi=figure(0.01, -0.09, 0.1))
    assert "could have seen, in 80% of repeats, a change of: spi (0.143 or more)." in card.markdown(tested, [])
    assert "spi (0.143 or more)" in card.text(tested)
    assert "could have seen" not in card.text(report())


def test_a_run_sees_what_it_says_it_could_have_seen() -> None:
    changes = np.repeat([1.0, -1.0, 0.0], [10, 9, 231])
    estimate = Change().estimate(changes)[0]._asdict()
    smallest = float(nulls(report(accuracy_change=estimate)).split("accuracy_change (")[1].split(" ")[0])
    assert PairedDesign(250, 19 / 250).power(smallest) == pytest.approx(0.85, abs=0.1)
