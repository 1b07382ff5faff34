"""Fit, choose and test every method of a cell, for all networks and target sets at once.

Every tensor starts with N networks x T target sets; for trained methods all budgets follow side by side. Fits are
stacked problems of one call, strengths are rows of one batch. One file: closed forms, trained methods and controls
differ by a few lines each.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor
from tqdm.auto import tqdm

from lightning_steer.methods import (
    LEACE,
    GaussianTransport,
    LearnedVector,
    LoReFT,
    MeanDifference,
    RandomDirection,
    Ridge,
)
from lightning_steer.methods.base import SteeringMethod
from lightning_steer.records import Activations
from lightning_steer.selection.strength import choose
from lightning_steer.studies.toy.ensemble import Ensemble
from lightning_steer.studies.toy.pools import Pool

VECTOR_STRENGTHS = (0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 2.5, 3.0, 4.0, 6.0, 8.0, 12.0)
MAP_STRENGTHS = (1.0, 1.5, 2.0, 3.0)
FAMILY = (0.5, 1.0, 1.5, 2.0, 3.0, 4.0)
"""Fixed strengths at which the mean difference is shown beside the chosen one."""

Factory = Callable[[int], SteeringMethod]
CLOSED_FORMS: dict[str, tuple[list[Factory], Sequence[float]]] = {
    "random direction": ([RandomDirection], VECTOR_STRENGTHS),
    "mean difference": ([MeanDifference], VECTOR_STRENGTHS),
    "LEACE + shift": ([LEACE], MAP_STRENGTHS),
    "LEACE by value": ([partial(LEACE, by_value=True)], MAP_STRENGTHS),
    "Gaussian transport": ([partial(GaussianTransport, shrinkage=s) for s in (0.01, 0.1, 0.5)], MAP_STRENGTHS),
    "ridge": ([partial(Ridge, penalty=p) for p in (1e-3, 1e-2, 0.1, 1.0, 10.0, 1e3)], MAP_STRENGTHS),
}
"""Families of maps and the strengths to choose from; member and strength are chosen together."""
TRAINED: dict[str, Factory] = {
    "learned vector": LearnedVector,
    "LoReFT 4": partial(LoReFT, rank=4),
    "LoReFT 8": partial(LoReFT, rank=8),
}
ROWS_PER_STEP, STEPS_BETWEEN_LOOKS = 32, 50


class AdapterResult(NamedTuple):
    """One method at one budget: ``[N, T]`` each."""

    exact: Tensor
    target: Tensor
    others: Tensor
    strength: Tensor
    cosine_class: Tensor
    cosine_pair: Tensor


def budget(pairs: int) -> tuple[int, int]:
    """Return how many of ``pairs`` to fit with and how many to choose with.

    A quarter, at most 200, is for choosing; below 8 pairs, all serve for both.
    """
    select = min(pairs // 4, 200)
    return (pairs, pairs) if pairs < 8 else (pairs - select, select)


def read(ensemble: Ensemble, h: Tensor, pool: Pool) -> Tensor:
    """Return log-probabilities ``[N, T, S, R, A, K]`` for steered activations ``h [N, T, S, R, d]``."""
    _, t, s, r, _ = h.shape
    x = pool.x.unsqueeze(2).expand(-1, -1, s, -1, -1)
    return ensemble.above(h.flatten(1, 3), x.flatten(1, 3)).mT.log_softmax(-2).mT.unflatten(1, (t, s, r))


def judge(scores: Tensor, pool: Pool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return exact, target, others and cross-entropy of every row, ``[N, T, S, R]`` each."""
    positive = pool.y_positive.unsqueeze(2).expand(scores.shape[:-1])
    right = (scores.argmax(-1) == positive).float()
    is_target = (pool.y != pool.y_positive).unsqueeze(2)
    target = (right * is_target).sum(-1) / is_target.sum(-1)
    others = (right * ~is_target).sum(-1) / (~is_target).sum(-1)
    loss = -scores.gather(-1, positive.unsqueeze(-1)).squeeze(-1).mean(-1)
    return right.prod(-1), target, others, loss


def steer(method: SteeringMethod, h: Tensor, strengths: Tensor) -> Tensor:
    """Steer ``h [N, T, R, d] -> [N, T, S, R, d]`` with strengths ``[S]``, or ``[N, T, S]``, problem by problem."""
    n, t, r, _ = h.shape
    strengths = strengths.expand(n, t, -1)
    rows = h.unsqueeze(2).expand(-1, -1, strengths.shape[-1], -1, -1).flatten(2, 3)
    return method(rows, strengths.repeat_interleave(r, -1)).unflatten(2, (-1, r))


@torch.no_grad()
def closed_form(
    family: list[Factory], strengths: Sequence[float], ensemble: Ensemble, fit: Pool, select: Pool, test: Pool
) -> AdapterResult:
    """Fit every member of a family, choose member and strength on ``select``, test once."""
    d = fit.h.shape[-1]
    maps = [make(d).fit(fit.activations()) for make in family]
    tried = torch.tensor(strengths)
    judgements = [judge(read(ensemble, steer(method, select.h, tried), select), select) for method in maps]
    exact, loss = (torch.cat([judgement[i] for judgement in judgements], 2) for i in (0, 3))
    best = choose_each(exact, loss)
    member, strength = best // len(strengths), tried[best % len(strengths)]
    moved = torch.stack([steer(method, test.h, strength.unsqueeze(-1)).squeeze(2) for method in maps])
    moved = moved[member, torch.arange(best.shape[0]).unsqueeze(1), torch.arange(best.shape[1])]
    return result(moved, strength, ensemble, test)


@torch.no_grad()
def told_old_value(ensemble: Ensemble, fit: Pool, test: Pool) -> AdapterResult:
    """Test an oracle that no single vector can match: one least-squares shift for each old value of each target."""
    z_fit, z_test = (
        torch.nn.functional.one_hot(
            pool.y.gather(-1, pool.targets.unsqueeze(2).expand(-1, -1, pool.y.shape[2], -1)), value_count(fit)
        ).flatten(-2)
        for pool in (fit, test)
    )
    shifts = torch.linalg.pinv(z_fit.double()) @ (fit.h_positive - fit.h).double()
    moved = test.h + (z_test.double() @ shifts).float()
    return result(moved, torch.ones(moved.shape[:2]), ensemble, test)


def value_count(pool: Pool) -> int:
    """Return how many values an attribute can take."""
    return int(pool.y.max()) + 1


def choose_each(exact: Tensor, loss: Tensor) -> Tensor:
    """Return the index ``[N, T]`` of the best of C candidates, from ``[N, T, C, R]``, problem by problem."""
    problems = zip(exact.flatten(0, 1).mT, loss.flatten(0, 1).mT, strict=True)
    return torch.stack([choose(success, cost) for success, cost in problems]).reshape(exact.shape[:2])


@torch.no_grad()
def result(moved: Tensor, strength: Tensor, ensemble: Ensemble, test: Pool) -> AdapterResult:
    """Test steered activations ``moved [N, T, R, d]``."""
    exact, target, others, _ = (
        score[:, :, 0].mean(-1) for score in judge(read(ensemble, moved.unsqueeze(2), test), test)
    )
    shift, true_shift = moved - test.h, test.h_positive - test.h
    class_cosine = torch.cosine_similarity(shift.mean(2), true_shift.mean(2), dim=-1)
    pair_cosine = torch.cosine_similarity(shift, true_shift, dim=-1).mean(2)
    return AdapterResult(exact, target, others, strength, class_cosine, pair_cosine)


@torch.no_grad()
def strength_family(ensemble: Ensemble, fit: Pool, test: Pool) -> Tensor:
    """Return the exact match ``[N, T, S]`` of the mean difference at fixed strengths."""
    method = MeanDifference(fit.h.shape[-1]).fit(fit.activations())
    return judge(read(ensemble, steer(method, test.h, torch.tensor(FAMILY)), test), test)[0].mean(-1)


def trained(
    make: Factory,
    name: str,
    ensemble: Ensemble,
    pool: Pool,
    select: Pool,
    test: Pool,
    sizes: Sequence[int],
    steps: int,
    learning_rate: float = 1e-2,
    strengths: Sequence[float] = (1.0,),
) -> list[AdapterResult]:
    """Train a method through the output at every budget side by side; step and strength are chosen on ``select``."""
    n, t, _, d = pool.h.shape
    jobs, rows = t * len(sizes), torch.tensor([budget(size) for size in sizes])
    method = make(d).fit(Activations(torch.zeros(n, jobs, 0, d), torch.zeros(0), torch.zeros(0, 1).long(), False))
    optimizer = torch.optim.Adam(method.parameters(), lr=learning_rate)
    best = {key: value.clone() for key, value in method.state_dict().items() if key != "_extra_state"}
    best_loss = torch.full((n, jobs), torch.inf)
    random = torch.Generator().manual_seed(0)
    selection_pools = [
        select.first(count) if size >= 8 else pool.first(count)
        for size, (_, count) in zip(sizes, rows.tolist(), strict=True)
    ]
    for step in tqdm(range(1, steps + 1), desc=f"train {name}", leave=False, mininterval=0.5):
        drawn = torch.rand(n, t, len(sizes), ROWS_PER_STEP, generator=random)
        index = (drawn * rows[:, :1]).long().flatten(2)
        h, x, positive = (
            take(tensor, index).unflatten(2, (len(sizes), -1)) for tensor in (pool.h, pool.x, pool.y_positive)
        )
        steered = method(h.flatten(1, 2), 1.0)
        logits = ensemble.above(steered.flatten(1, 2), x.flatten(1, 3)).unflatten(1, (jobs, ROWS_PER_STEP))
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 2).mT, positive.flatten(0, -2)) * (n * jobs)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % STEPS_BETWEEN_LOOKS == 0:
            keep_best(method, best, best_loss, ensemble, selection_pools)
    method.load_state_dict(best, strict=False)
    tried, results = torch.tensor(strengths), []

    def steered_by(s: int, h: Tensor, strength: Tensor | float) -> Tensor:
        return method(spread(h, len(sizes)), strength).unflatten(1, (t, len(sizes)))[:, :, s]

    with torch.no_grad():
        for s, selection_pool in enumerate(selection_pools):
            moved = torch.stack([steered_by(s, selection_pool.h, strength) for strength in strengths], 2)
            exact, _, _, cost = judge(read(ensemble, moved, selection_pool), selection_pool)
            strength = tried[choose_each(exact, cost)]
            job_strength = strength.unsqueeze(2).expand(-1, -1, len(sizes)).flatten(1)
            results.append(result(steered_by(s, test.h, job_strength), strength, ensemble, test))
    return results


@torch.no_grad()
def keep_best(
    method: SteeringMethod, best: dict[str, Tensor], best_loss: Tensor, ensemble: Ensemble, looked_at: list[Pool]
) -> None:
    """Store the parameters of every job whose loss on its own selection rows has improved."""
    t = looked_at[0].h.shape[1]
    losses = []
    for s, pool in enumerate(looked_at):
        moved = method(spread(pool.h, len(looked_at)), 1.0).unflatten(1, (t, len(looked_at)))[:, :, s]
        losses.append(judge(read(ensemble, moved.unsqueeze(2), pool), pool)[3].mean((2, 3)))
    loss = torch.stack(losses, 2).flatten(1)
    better = loss < best_loss
    best_loss[better] = loss[better]
    for key, value in method.state_dict().items():
        if key != "_extra_state":
            best[key][better] = value[better]


def spread(h: Tensor, sizes: int) -> Tensor:
    """Repeat ``[N, T, R, d] -> [N, T * sizes, R, d]``: every budget sees the same rows."""
    return h.unsqueeze(2).expand(-1, -1, sizes, -1, -1).flatten(1, 2)


def take(part: Tensor, index: Tensor) -> Tensor:
    """Return the rows ``[N, T, J, k]`` of ``[N, T, R, k]`` at ``index [N, T, J]``."""
    return part.gather(2, index.unsqueeze(-1).expand(-1, -1, -1, part.shape[-1]))
