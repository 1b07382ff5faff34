"""The pairs of a cell, for every network and target set side by side, as activations at the site."""

from typing import NamedTuple

import torch
from torch import Tensor

from lightning_steer.data.toy.world import ToyPairSplit, generator
from lightning_steer.records import Activations
from lightning_steer.studies.toy.ensemble import Ensemble
from lightning_steer.studies.toy.networks import worlds
from lightning_steer.studies.toy.settings import ToyCell

FIT, SELECT, TEST = range(3)


class Pool(NamedTuple):
    """Pairs of N networks x T target sets; nested budgets use its first rows."""

    h: Tensor
    """``[N, T, R, d]`` negatives at the site."""
    h_positive: Tensor
    """``[N, T, R, d]`` their positives."""
    x: Tensor
    """``[N, T, R, inputs]`` the negatives, as a residual reads them."""
    x_positive: Tensor
    """``[N, T, R, inputs]`` the positives."""
    y: Tensor
    """``[N, T, R, A]`` values before."""
    y_positive: Tensor
    """``[N, T, R, A]`` values the steered network should read."""
    targets: Tensor
    """``[N, T, m]`` the attributes steered."""

    def first(self, rows: int) -> "Pool":
        """Return the first rows of every set."""
        return Pool(*(tensor if tensor is self.targets else tensor[:, :, :rows] for tensor in self))

    def activations(self) -> Activations:
        """Return the rows that closed forms are fitted to: ``h [N, T, 2R, d]``, negative rows first."""
        rows = self.h.shape[2]
        error = torch.cat([torch.ones(rows), torch.zeros(rows)])
        index = self.targets.unsqueeze(2).expand(-1, -1, rows, -1)
        value = torch.cat([self.y.gather(-1, index), self.y_positive.gather(-1, index)], 2)
        return Activations(torch.cat([self.h, self.h_positive], 2), error, value, True)


def target_sets(cell: ToyCell, network: int, sets: int) -> list[list[int]]:
    """Return the attributes that each set steers together, drawn once for each network."""
    order = torch.randperm(cell.network.attributes, generator=generator(network, 77)).tolist()
    starts = [round(i * cell.network.attributes / sets) for i in range(sets)]
    return [[(order * 2)[start + k] for k in range(cell.targets)] for start in starts]


@torch.no_grad()
def draw(cell: ToyCell, ensemble: Ensemble, networks: int, sets: int, split: int, rows: int) -> Pool:
    """Draw a split's pairs and run the networks up to the site."""
    batches, targets = [], []
    for i, world in enumerate(worlds(cell.network, networks)):
        for t, chosen in enumerate(target_sets(cell, i, sets)):
            seeds = (1000 + 100 * i + t, split)
            batches.append(ToyPairSplit(world, rows, rows, seeds, slice(None), chosen, 0, True)[0])
            targets.append(torch.tensor(chosen))
    x, y, x_positive, y_positive = (
        torch.stack([getattr(batch, name) for batch in batches]).unflatten(0, (networks, sets))
        for name in ("x", "y", "x_positive", "y_positive")
    )
    h, h_positive = (ensemble.below(inputs.flatten(1, 2)).unflatten(1, (sets, rows)) for inputs in (x, x_positive))
    return Pool(h, h_positive, x, x_positive, y, y_positive, torch.stack(targets).unflatten(0, (networks, sets)))
