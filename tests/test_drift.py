"""Off-target drift against plain loops."""

import math

import pytest
import torch
from reweighted import bootstrap_weights
from torch import Tensor

from lightning_steer.metrics.drift import (
    by_task,
    entanglement,
    flips,
    kl_mean,
    kl_percentile,
    next_token_kl,
    perplexity_ratio,
)


def texts(seed: int = 0, n: int = 12, longest: int = 9) -> Tensor:
    """``[n, L]`` divergences of texts of unequal length, NaN behind their ends."""
    g = torch.Generator().manual_seed(seed)
    kl = torch.rand(n, longest, generator=g).square()
    length = torch.randint(1, longest + 1, (n, 1), generator=g)
    return kl.where(torch.arange(longest) < length, torch.nan)


def items(seed: int = 0, n: int = 40) -> tuple[Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    return (
        torch.randint(3, (n,), generator=g),
        torch.randint(3, (n, 2), generator=g),
        2 * torch.randint(4, (n,), generator=g) + 1,
    )


def test_kl_is_the_loop() -> None:
    g = torch.Generator().manual_seed(0)
    base, steered = (torch.randn(4, 5, 7, generator=g).log_softmax(-1) for _ in range(2))
    drift = next_token_kl(base, steered)
    for i in range(4):
        for j in range(5):
            p, q = base[i, j].exp().tolist(), steered[i, j].exp().tolist()
            expected = sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
            assert float(drift[i, j]) == pytest.approx(expected, abs=1e-6)
    assert (next_token_kl(base, base) == 0).all()


def test_kl_of_tokens_that_are_ruled_out() -> None:
    base = torch.tensor([0.5, 0.5, 0.0]).log()
    assert float(next_token_kl(base, torch.tensor([0.25, 0.25, 0.5]).log())) == pytest.approx(math.log(2))
    assert float(next_token_kl(base, base)) == 0
    assert float(next_token_kl(base, torch.tensor([1.0, 0.0, 0.0]).log())) == math.inf


def test_mean_and_percentile_are_over_positions_not_texts() -> None:
    kl = texts()
    values = sorted(x for row in kl.tolist() for x in row if x == x)
    assert float(kl_mean(kl)) == pytest.approx(sum(values) / len(values))
    assert float(kl_percentile(kl)) == pytest.approx(values[math.ceil(0.95 * len(values)) - 1])
    assert float(kl_percentile(kl, share=0.5)) == pytest.approx(values[math.ceil(0.5 * len(values)) - 1])
    hundred = torch.arange(100.0).reshape(4, 25)
    assert float(kl_percentile(hundred, share=0.07)) == 6  # the seventh, though .07 * 100 is above 7 in floating point
    broken = kl.clone()
    broken[0, 0] = torch.inf
    assert float(kl_mean(broken)) == math.inf


def test_weights_give_what_copies_give() -> None:
    kl, (answer, steered, task) = texts(1), items(1)
    for draw in bootstrap_weights(len(kl), 70):  # more than fit into one go
        rows = torch.arange(len(kl)).repeat_interleave(draw.long())
        for measure in (kl_mean, kl_percentile):
            torch.testing.assert_close(measure(kl, draw.unsqueeze(0))[0], measure(kl[rows]))
    weights = bootstrap_weights(len(kl), 70)
    torch.testing.assert_close(kl_percentile(kl, weights)[66:], kl_percentile(kl, weights[66:]))
    weights = bootstrap_weights(len(task), 6, cluster=task * 100 + torch.arange(len(task)))
    for draw, counts in enumerate(weights.long()):
        rows = torch.arange(len(task)).repeat_interleave(counts)
        for measure in (flips, entanglement):
            torch.testing.assert_close(
                measure(answer, steered, task, weights)[draw], measure(answer[rows], steered[rows], task[rows])
            )


def test_perplexity_ratio_is_the_loop() -> None:
    g = torch.Generator().manual_seed(0)
    tokens = torch.randint(1, 30, (9,), generator=g)
    base, steered = (-tokens[:, None] * (1 + torch.rand(9, 2, generator=g)) for _ in range(2))
    ratio = perplexity_ratio(base[:, 0], steered, tokens)
    for c in range(2):
        before, after = (math.exp(-sum(column.tolist()) / int(tokens.sum())) for column in (base[:, 0], steered[:, c]))
        assert float(ratio[c]) == pytest.approx(after / before, rel=1e-5)
    assert float(perplexity_ratio(base[:, 0], base[:, 0], tokens)) == 1
    weights = bootstrap_weights(9, 4)
    drawn = perplexity_ratio(base[:, 0], steered, tokens, weights)
    for draw, counts in enumerate(weights.long()):
        rows = torch.arange(9).repeat_interleave(counts)
        torch.testing.assert_close(drawn[draw], perplexity_ratio(base[rows, 0], steered[rows], tokens[rows]))


def test_flips_and_entanglement_are_the_loops() -> None:
    base, steered, task = items()
    for c in range(2):
        shares, squares = [], []
        for copy in (1, 3, 5, 7):
            rows = [i for i in range(len(task)) if int(task[i]) == copy]
            shares.append(sum(int(base[i]) != int(steered[i, c]) for i in rows) / len(rows))
            squares.append((sum(int(steered[i, c]) - int(base[i]) for i in rows) / len(rows)) ** 2)
        assert flips(base, steered, task)[:, c].tolist() == pytest.approx(shares)
        assert float(entanglement(base, steered, task)[c]) == pytest.approx(math.sqrt(sum(squares) / 4))
    assert by_task(steered, task).shape == (4, 2)


def test_nothing_changed_is_no_drift() -> None:
    base, _, task = items()
    assert (flips(base, base, task) == 0).all()
    assert float(entanglement(base, base, task)) == 0


def test_entanglement_does_not_cancel_between_tasks() -> None:
    """One task gains what another loses: the mean change is 0, and both have changed."""
    task, base = torch.tensor([0] * 4 + [1] * 4), torch.tensor([1.0, 1, 0, 0] * 2)
    steered = torch.tensor([1.0, 1, 1, 1, 0, 0, 0, 0])
    assert float((steered - base).mean()) == 0
    assert float(entanglement(base, steered, task)) == 0.5
    # within a task it does cancel, and the flips tell
    swapped = 1 - base
    assert float(entanglement(base, swapped, task)) == 0
    assert flips(base, swapped, task).tolist() == [1, 1]
