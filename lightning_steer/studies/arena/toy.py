"""One toy cell: every method on the same pairs of every network and target set, at equal damage.

The effect is the share of target attributes that are read as wanted, less the same unsteered; the damage is the KL of
the other attributes' answers, in nats per attribute, with the language models' budget.
"""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lightning_steer.methods.base import SteeringMethod
from lightning_steer.metrics.drift import next_token_kl
from lightning_steer.networks.gradients import weighted_gradients
from lightning_steer.records import Activations
from lightning_steer.selection.grid import Grid, within_budget
from lightning_steer.strength import UnreadableError
from lightning_steer.studies.arena.entrants import Entrant
from lightning_steer.studies.arena.language import BUDGET
from lightning_steer.studies.toy import adapters, pools
from lightning_steer.studies.toy.ensemble import Ensemble
from lightning_steer.studies.toy.networks import trained
from lightning_steer.studies.toy.settings import W32, W48, W64, NetworkKind, ToyCell, small

CELLS = (
    ToyCell("density", "2 values per dimension", W64, 1),
    ToyCell("density and values", "4 values per dimension, 8 values", W32, 1),
    ToyCell("values", "2 values", small(2, 32, 1000), 1),
    ToyCell("attributes", "1 attribute", W48, 1),
    ToyCell("attributes", "8 attributes", W48, 8),
)
"""The ends of the three axes of the toy study."""


class ToyScale(NamedTuple):
    """How much is run."""

    pairs: int = 64
    sizes: tuple[int, ...] = (16, 256)
    """Other numbers of fitted pairs; those that choose stay the same."""
    select: int = 64
    test: int = 200
    sets: int = 2
    training_steps: int = 150
    train_share: float = 1.0


QUICK = ToyScale(pairs=16, sizes=(), select=8, test=8, sets=1, training_steps=2, train_share=0.01)


class Curve(NamedTuple):
    """What S strengths do, ``[N, T, S]`` each."""

    target: Tensor
    exact: Tensor
    damage: Tensor


def shorter(kind: NetworkKind, share: float) -> NetworkKind:
    """Return the network trained for a share of its steps."""
    return kind._replace(steps=max(1, round(share * kind.steps)))


class ArenaWorld:
    """The pairs and the networks of a cell.

    Args:
        cell: network and targets.
        seeds: which networks; each has a world and target sets of its own.
        scale: how much is run.
        folder: where trained networks are stored.
    """

    @torch.no_grad()
    def __init__(self, cell: ToyCell, seeds: Sequence[int], scale: ToyScale, folder: Path) -> None:
        networks, index, most = max(seeds) + 1, torch.tensor(list(seeds)), max(scale.pairs, *scale.sizes, 1)
        ensemble = trained(cell.network, networks, folder)
        self.scale = scale
        self.fit, self.select, self.test = (
            pools.Pool(*(tensor[index] for tensor in pools.draw(cell, ensemble, networks, scale.sets, split, rows)))
            for split, rows in ((pools.FIT, most), (pools.SELECT, scale.select), (pools.TEST, scale.test))
        )
        ensemble.weights = {name: weight[index] for name, weight in ensemble.weights.items()}
        self.ensemble: Ensemble = ensemble

    def activations(self, pairs: int, sensitivity: bool) -> Activations:
        """Return what methods are fitted to; with the output's gradients if asked."""
        pool = self.fit.first(pairs)
        seen = pool.activations()
        if not sensitivity:
            return seen
        n, t, rows, d = seen.h.shape
        shifted = seen.h.reshape(-1, d).clone().requires_grad_()
        x = torch.cat([pool.x, pool.x_positive], 2).flatten(1, 2)
        with torch.enable_grad():
            logits = self.ensemble.above(shifted.unflatten(0, (n, t * rows)), x)
            (g,) = weighted_gradients(logits.log_softmax(-1).flatten(0, 1).flatten(1), [shifted])
        return seen._replace(sensitivity=g.unflatten(0, (n, t, rows)))

    def train(self, method: SteeringMethod, pairs: int) -> None:
        """Train a method through the output, on all fitted pairs at every step."""
        pool = self.fit.first(pairs)
        optimizer = torch.optim.Adam(method.parameters(), lr=1e-2)
        for _ in range(self.scale.training_steps):
            with torch.enable_grad():
                scores = adapters.read(self.ensemble, method(pool.h, 1.0).unsqueeze(2), pool)[:, :, 0]
                loss = -scores.gather(-1, pool.y_positive.unsqueeze(-1)).mean() * scores.shape[0] * scores.shape[1]
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        method.requires_grad_(False)

    def fitted(self, entrant: Entrant, pairs: int) -> SteeringMethod:
        """Return the entrant fitted to every network and target set at once."""
        method = entrant.make(self.fit.h.shape[-1])
        method.fit(self.activations(pairs, method.needs_sensitivity))
        if method.trained:
            self.train(method, pairs)
        return method

    @torch.no_grad()
    def curve(self, method: SteeringMethod, pool: pools.Pool, strengths: Tensor) -> Curve:
        """Measure a method at ``strengths [N, T, S]``."""
        base = adapters.read(self.ensemble, pool.h.unsqueeze(2), pool)
        scores = adapters.read(self.ensemble, adapters.steer(method, pool.h, strengths), pool)
        exact, target, _, _ = adapters.judge(scores, pool)
        others = (pool.y == pool.y_positive).unsqueeze(2).double()
        kl = (next_token_kl(base, scores) * others).sum(-1) / others.sum(-1)
        before = adapters.judge(base, pool)[1]
        return Curve((target - before).mean(-1), exact.mean(-1), kl.mean(-1))


def nearer(strengths: Sequence[float], damages: Sequence[float]) -> list[float]:
    """Return two strengths between the strongest within the budget and the next; without one, the last twice."""
    pairs = list(zip(strengths, damages, strict=True))
    for (weak, low), (strong, high) in itertools.pairwise(pairs):
        if low <= BUDGET < high:
            return [weak + (strong - weak) / 3, weak + 2 * (strong - weak) / 3]
    return [strengths[-1]] * 2


def searched(world: ArenaWorld, method: SteeringMethod, tried: list[float]) -> tuple[Tensor, Curve]:
    """Return the strengths ``[N, T, S]`` that were tried, and what they do on the rows that choose."""
    problems = world.select.h.shape[:2]
    strengths = torch.tensor(tried).expand(*problems, -1)
    first = world.curve(method, world.select, strengths)
    between = [nearer(tried, row) for row in first.damage.flatten(0, 1).tolist()]
    more = torch.tensor(between).unflatten(0, problems)
    second = world.curve(method, world.select, more)
    return torch.cat([strengths, more], -1), Curve(*(torch.cat(pair, -1) for pair in zip(first, second, strict=True)))


def outcome(world: ArenaWorld, entrant: Entrant, pairs: int) -> dict[str, Any]:
    """Fit, search and judge one method; ``[N][T]`` each, ``curve [N][T][S]`` of strength, effect and damage."""
    try:
        method = world.fitted(entrant, pairs)
    except ValueError as error:
        nothing = torch.zeros(world.select.h.shape[:2]).tolist()
        return {"effect": nothing, "exact": nothing, "damage": nothing, "curve": [], "refused": str(error)}
    tried = [*entrant.strengths, *(strength for more in entrant.further for strength in more)]
    while True:
        try:
            strengths, seen = searched(world, method, tried)
            judged = world.curve(method, world.test, strengths)
            break
        except UnreadableError:  # too strong to be read
            tried = tried[:-1]
    away = (strengths - method.identity_strength).abs().argsort(dim=-1, stable=True)
    curve = torch.stack([strengths, judged.target, judged.damage], -1).take_along_dim(away.unsqueeze(-1), 2)
    results = {name: torch.zeros(strengths.shape[:2]) for name in ("effect", "exact", "damage")}
    for place in torch.cartesian_prod(*(torch.arange(size) for size in strengths.shape[:2])).tolist():
        index = tuple(place)
        grid = Grid(
            [0], strengths[index].tolist(), seen.target[index].double()[None], seen.damage[index].double()[None], 0
        )
        for setting in within_budget(grid, BUDGET)[:1]:
            where = (*index, setting.strength)
            for name, values in zip(("effect", "exact", "damage"), judged, strict=True):
                results[name][index] = values[where]
    return {**{name: values.tolist() for name, values in results.items()}, "curve": curve.tolist()}


def run(
    cell: ToyCell, seeds: Sequence[int], scale: ToyScale, listed: Sequence[Entrant], folder: Path
) -> dict[str, Any]:
    """Return what every entrant reaches in one cell, and closed forms at other numbers of pairs."""
    world = ArenaWorld(cell, seeds, scale, folder)
    sizes = {
        str(size): {e.name: outcome(world, e, size)["effect"] for e in listed if not e.trained} for size in scale.sizes
    }
    return {"methods": {e.name: outcome(world, e, scale.pairs) for e in listed}, "sizes": sizes}
