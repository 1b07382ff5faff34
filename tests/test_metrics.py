"""Metrics against references written as plain loops; intervals against the truth they should cover."""

import math

import pytest
import torch
from reweighted import bootstrap_weights
from torch import Tensor

from lightning_steer.metrics.attributes import AttributeEffect, Labels, attribute_drift, attribute_effect
from lightning_steer.metrics.bypass import bypass
from lightning_steer.metrics.table import Table

C, B, A, K = 3, 20, 5, 4


def case(seed: int = 0, targets: tuple[int, ...] = (1, 3)) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    base = torch.randn(B, A, K, generator=g).log_softmax(-1)
    scores = torch.randn(C, B, A, K, generator=g).log_softmax(-1)
    y = torch.randint(K, (B, A), generator=g)
    y_positive = y.clone()
    for target in targets:
        y[:, target] = torch.randint(1, K, (B,), generator=g)
        y_positive[:, target] = 0
    return base, scores, y, y_positive


def reference(base: Tensor, scores: Tensor, y: Tensor, y_positive: Tensor) -> dict[str, list[list[float]]]:
    by_name: dict[str, list[list[float]]] = {}
    for c in range(C):
        for b in range(B):
            targets = [a for a in range(A) if y[b, a] != y_positive[b, a]]
            others = [a for a in range(A) if a not in targets]
            read = [max(range(K), key=lambda k, a=a: float(scores[c, b, a, k])) for a in range(A)]
            before = [max(range(K), key=lambda k, a=a: float(base[b, a, k])) for a in range(A)]
            right = [float(read[a] == int(y_positive[b, a])) for a in range(A)]
            p, q = base[b].exp().tolist(), scores[c, b].exp().tolist()
            kl = [sum(p[a][k] * math.log(p[a][k] / q[a][k]) for k in range(K)) for a in range(A)]
            distance = [sum(abs(p[a][k] - q[a][k]) for k in range(K)) / 2 for a in range(A)]
            gap = [float(scores[c, b, a, y_positive[b, a]] - scores[c, b, a, y[b, a]]) for a in targets]
            row = {
                "target_accuracy": mean([right[a] for a in targets]),
                "target_unchanged": mean([float(read[a] == int(y[b, a])) for a in targets]),
                "off_target_accuracy": mean([right[a] for a in others]),
                "mean_accuracy": mean(right),
                "exact_match": float(all(right)),
                "drift_kl": mean([kl[a] for a in others]),
                "drift_flip": mean([float(read[a] != before[a]) for a in others]),
                "gap": mean(gap),
                "output_difference": mean(distance),
            }
            for name, value in row.items():
                by_name.setdefault(name, [[] for _ in range(C)])[c].append(value)
    return by_name


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


@pytest.mark.parametrize("targets", [(0,), (1, 3)])
def test_attribute_effect_is_the_loops(targets: tuple[int, ...]) -> None:
    arguments = case(targets=targets)
    effects, expected = attribute_effect(*arguments), reference(*arguments)
    assert effects.keys() == expected.keys()
    for name, values in expected.items():
        torch.testing.assert_close(effects[name], torch.tensor(values), rtol=1e-4, atol=1e-5)


def test_an_unsteered_network_shows_in_mean60_only() -> None:
    """Why one accuracy misleads: doing nothing scores (A - 1) / A."""
    _, _, y, y_positive = case(targets=(2,))
    perfect = (20 * torch.nn.functional.one_hot(y, K).float()).log_softmax(-1)
    effect = attribute_effect(perfect, perfect.unsqueeze(0), y, y_positive)
    assert (effect["mean_accuracy"] == (A - 1) / A).all()
    assert (effect["target_accuracy"] == 0).all()
    assert (effect["target_unchanged"] == 1).all()
    assert (effect["drift_kl"] == 0).all()


def test_loss_is_cross_entropy_and_profile_leaves_targets_out() -> None:
    base, scores, y, y_positive = case(targets=(1,))
    evaluation, labels = AttributeEffect(), Labels(y, y_positive)
    expected = torch.nn.functional.cross_entropy(scores[1].flatten(0, 1), y_positive.flatten())
    torch.testing.assert_close(evaluation.loss(scores, labels)[1].mean(), expected)
    profile = evaluation.profile(base, scores[0], labels)
    assert profile["kl"][:, 1].isnan().all()
    torch.testing.assert_close(profile["kl"][:, [0, 2, 3, 4]], attribute_drift(base, scores[0])[:, [0, 2, 3, 4]])


def test_bypass_is_zero_through_the_site_and_one_round_it() -> None:
    before, positive = -torch.rand(10) - 1, torch.rand(10) + 1
    assert bypass(before, positive, positive) == 0
    assert bypass(before, before, positive) == 1
    torch.testing.assert_close(bypass(before, before + 0.25 * (positive - before), positive), torch.tensor(0.75))


def test_bootstrap_weights_draw_n_rows_and_whole_clusters() -> None:
    weights = bootstrap_weights(12, 500)
    assert (weights.sum(1) == 12).all()
    cluster = torch.tensor([0, 0, 0, 5, 5, 5, 7, 7, 7, 9, 9, 9])
    clustered = bootstrap_weights(12, 500, cluster=cluster)
    assert (clustered.sum(1) == 12).all()
    assert torch.equal(clustered[:, 0], clustered[:, 2])
    assert torch.equal(weights, bootstrap_weights(12, 500))


def test_table_gives_rows_back_in_order_however_they_came() -> None:
    columns = {"a": torch.randn(10), "b": torch.randn(10, 3)}
    order = torch.randperm(10, generator=torch.Generator().manual_seed(0))
    for sizes in ([10], [3, 4, 3], [1] * 10, [0, 10]):
        table = Table()
        for part in order.split(sizes):
            table.update(part, **{name: column[part] for name, column in columns.items()})
        for name, column in table.compute().items():
            assert torch.equal(column, columns[name])


def test_table_refuses_lost_and_doubled_rows() -> None:
    for rows in ([0, 1, 1], [0, 2]):
        table = Table()
        table.update(torch.tensor(rows), a=torch.zeros(len(rows)))
        with pytest.raises(ValueError, match="lost or counted twice"):
            table.compute()
