"""Strengths chosen without a certificate: what repairs is found, what does not stays 0, and kinds count once."""

from typing import Any

import torch

from lightning_steer.studies.mera.crossed import planted, priors, strengths

torch.set_num_threads(1)


def test_the_planted_filter_is_found_without_a_certificate() -> None:
    """The least-squares w reads what has no effect; Sigma w and a strong penalty repair."""
    parts, answer = planted.world("filter", 5)
    found = strengths.cell(parts, parts.choice, answer)
    w, ridge, sigma = (str(strengths.WAYS[i]) for i in (0, 2, 4))
    assert (w, ridge, sigma) == ("w, adaptive, probe by R2", "w, adaptive, ridge 100", "Sigma w, adaptive, probe by R2")
    assert abs(found["spi"][w]) < 0.1
    assert min(found["spi"][ridge], found["spi"][sigma]) > 0.6
    assert found["changed"][w] < 0.1 < found["changed"][sigma]


def test_where_no_strength_gains_nothing_is_changed() -> None:
    parts, answer = planted.world("filter", 5)
    label = parts.choice.label  # every changed answer is wrong
    more = parts.choice._replace(y=label)
    found = strengths.cell(parts, more, answer)
    assert [found["spi"][str(way)] for way in strengths.WAYS] == [0.0] * len(strengths.WAYS)
    assert max(found["changed"].values()) > 0.1


def test_a_kind_counts_once_and_the_shares_stand_apart() -> None:
    def one(value: float) -> dict[str, Any]:
        ways = [*map(str, strengths.WAYS), strengths.BIAS]
        return {"probe": "lasso 0", "accuracy": 0.5, "spi": dict.fromkeys(ways, value),
                "changed": dict.fromkeys(ways[:-1], value)}  # fmt: skip

    first, second = priors.KINDS[:2]
    values = {(first, 0): 0.0, (first, 1): 0.5, (second, 0): 1.0}
    cells = {priors.Prior(kind, share, network, 40): one(value if share == priors.EQUAL else 0.0)
             for (kind, network), value in values.items() for share in strengths.SHARES}  # fmt: skip
    row = strengths.text(cells).splitlines()[2]
    assert "| 0.00 (0.00 to 0.00) | 0.62 (0.25 to 1.00) | 0.25 1.00 | 1.000 |" in row
