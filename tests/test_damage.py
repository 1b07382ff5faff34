"""Effect and damage are said together: a report warns of text that broke, and of text that nobody looked at."""

import pytest

from lightning_steer.modules.cautions import BROKEN, damage
from lightning_steer.report.card import price


def test_text_that_nobody_looked_at_is_named() -> None:
    (sentence,) = damage({"margin": {"value": 4.0}})
    assert "was not measured" in sentence
    assert "reference_texts" in sentence


@pytest.mark.parametrize(("kl", "warned"), [(0.0, False), (BROKEN, False), (5.48, True)])
def test_text_that_broke_is_named(kl: float, warned: bool) -> None:
    assert [("5.48 nats per token" in sentence) for sentence in damage({"reference_kl": {"value": kl}})] == [
        True
    ] * warned


def test_the_price_stands_beside_the_verdict() -> None:
    of = {"value": 5.48, "low": 5.0, "high": 6.0, "n": 9, "clusters": None, "how": "jackknife-t over rows"}
    shown = price({"metrics": {"margin": of, "reference_kl": of, "drift_kl": of}})
    assert shown.count("5.480 [5.000, 6.000]") == 2
    assert price({"metrics": {"margin": of}}) == ""
