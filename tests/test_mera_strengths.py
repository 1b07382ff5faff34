"""Strengths chosen without a certificate: what repairs is found, what does not stays 0, and kinds count once."""

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_steer.studies.mera.crossed import networks, planted, priors, strengths, worlds

torch.set_num_threads(1)


def test_the_planted_filter_is_found_without_a_certificate() -> None:
    """The least-squares w reads what has no effect; Sigma w and a strong penalty repair."""
    parts, answer = planted.world("filter", 5)
    result = strengths.cell(parts, parts.choice, answer)
    w, ridge, sigma = (str(strengths.WAYS[i]) for i in (0, 2, 4))
    assert (w, ridge, sigma) == ("w, adaptive, probe by R2", "w, adaptive, ridge 100", "Sigma w, adaptive, probe by R2")
    assert abs(result["spi"][w]) < 0.1
    assert min(result["spi"][ridge], result["spi"][sigma]) > 0.6
    assert result["changed"][w] < 0.1 < result["changed"][sigma]


def test_where_no_strength_gains_nothing_is_changed() -> None:
    parts, answer = planted.world("filter", 5)
    label = parts.choice.label  # every changed answer is wrong
    more = parts.choice._replace(y=label)
    result = strengths.cell(parts, more, answer)
    assert [result["spi"][str(way)] for way in strengths.WAYS] == [0.0] * len(strengths.WAYS)
    assert max(result["changed"].values()) > 0.1


def test_a_kind_counts_once_and_the_shares_stand_apart() -> None:
    def one(value: float) -> dict[str, Any]:
        ways = [*map(str, strengths.WAYS), strengths.BIAS]
        return {"probe": "lasso 0", "accuracy": 0.5, "spi": dict.fromkeys(ways, value),
                "changed": dict.fromkeys(ways[:-1], value)}  # fmt: skip

    first, second = priors.KINDS[:2]
    values = {(first, 0): 0.0, (first, 1): 0.5, (second, 0): 1.0}
    low, high = strengths.SHARES
    cells = {
        strengths.StrengthCell(kind, fitted, steered, network): one(value if (fitted, steered) == (low, high) else 0.0)
        for (kind, network), value in values.items() for fitted in strengths.SHARES for steered in strengths.SHARES
    }  # fmt: skip
    lines = strengths.text(cells).splitlines()
    zero = "0.00 (0.00 to 0.00)"
    assert f"| {zero} | 0.62 (0.25 to 1.00) | {zero} | {zero} | 1.000 |" in lines[2]
    assert "| 0.25 1.00 | 0.00 0.00 | 0.00 0.00 |" in next(
        x for x in lines[3:] if x.startswith(f"| {strengths.WAYS[0]}")
    )


def test_probes_are_fitted_to_rows_of_one_share_and_rows_of_another_are_steered(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """All rows but those of the fit are those of the cell whose two shares are the steered one."""
    calls: dict[tuple[float, float], list[Any]] = {}
    trained = networks.load(tmp_path, next(w for w in worlds.WORLDS if w.name == priors.KINDS[0]), 30, 1)
    monkeypatch.setattr(networks, "load", lambda *_: trained)
    for shares in itertools.product(strengths.SHARES, repeat=2):
        monkeypatch.setattr(
            strengths, "cell", lambda *arguments, shares=shares: calls.update({shares: list(arguments)})
        )
        strengths.run_cell(strengths.StrengthCell(priors.KINDS[0], *shares, 30), tmp_path, 50)
    low, high = strengths.SHARES
    for fitted, steered in itertools.product((low, high), repeat=2):
        parts, more, _ = calls[fitted, steered]
        same = calls[steered, steered]
        assert torch.equal(parts.train.h, calls[fitted, fitted][0].train.h)
        assert torch.equal(parts.test.h, same[0].test.h)
        assert torch.equal(more.h, same[1].h)
    assert not torch.equal(calls[low, high][0].train.h, calls[high, high][0].train.h)
    assert not torch.equal(calls[low, high][0].test.h, calls[low, low][0].test.h)
